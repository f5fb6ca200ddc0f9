"""Prompts of P5: ids as pairs of tokens, and the tasks that ask for an item (Geng et al., RecSys 2022, section 3)."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

#: Token of padding, and tokens of the tasks: the next item of a history, the next item of a named user's history, and
#: the item of a list that a user would choose.
PADDING_TOKEN, NEXT, NEXT_OF_USER, DIRECT = range(4)


@dataclass(frozen=True)
class IdTokens:
    """Pairs of tokens for numbers below `count`; neighbouring numbers share the first token.

    Attributes:
        count: Number of ids.
        first: Lowest token.
    """

    count: int
    first: int

    @property
    def base(self) -> int:
        """Number of tokens of each of the two positions."""
        return math.isqrt(max(self.count - 1, 0)) + 1

    @property
    def end(self) -> int:
        """The first token after the highest."""
        return self.first + 2 * self.base

    @cached_property
    def _pairs(self) -> np.ndarray:
        """Tokens (count, 2) of all numbers; a table, since arithmetic is slower for a few numbers at a time."""
        numbers = np.arange(self.count)
        return np.stack([self.first + numbers // self.base, self.first + self.base + numbers % self.base], -1)

    def tokens(self, numbers: np.ndarray) -> np.ndarray:
        """Return the tokens (..., 2) of numbers (...)."""
        return self._pairs[numbers]

    def numbers(self, tokens: np.ndarray) -> np.ndarray:
        """Return the numbers (...) of tokens (..., 2)."""
        return (tokens[..., 0] - self.first) * self.base + tokens[..., 1] - self.first - self.base


@dataclass(frozen=True)
class P5Prompt:
    """A prompt as tokens.

    Attributes:
        tokens: Tokens (length,).
        words: Number of the word of each token (length,); the tokens of an id are one word.
    """

    tokens: np.ndarray
    words: np.ndarray


class P5PromptBuilder:
    """Build prompts for items and users that are numbered from 0.

    Attributes:
        items: Tokens of items.
        users: Tokens of users.
        vocabulary_size: Number of all tokens.
    """

    def __init__(self, items: int, users: int) -> None:
        self.items = IdTokens(items, DIRECT + 1)
        self.users = IdTokens(users, self.items.end)
        self.vocabulary_size = self.users.end

    def next_item(self, history: np.ndarray, user: int | None) -> P5Prompt:
        """Ask for the next item of a history in time order, of a named user if `user` is not None."""
        return self._prompt(NEXT if user is None else NEXT_OF_USER, user, history)

    def direct(self, candidates: np.ndarray, user: int) -> P5Prompt:
        """Ask which of the candidates a user would choose."""
        return self._prompt(DIRECT, user, candidates)

    def _prompt(self, task: int, user: int | None, items: np.ndarray) -> P5Prompt:
        user_tokens = [] if user is None else self.users.tokens(np.array(user)).tolist()
        tokens = [task, *user_tokens, *self.items.tokens(items).ravel().tolist()]
        # Word 1 is reserved for the user even if none is named, so that items are always words 2, 3, ...
        words = [0, *[1 for _ in user_tokens], *np.repeat(np.arange(len(items)) + 2, 2).tolist()]
        return P5Prompt(np.array(tokens), np.array(words))


def collate(prompts: list[P5Prompt]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens and words (prompts, longest length), padded on the right."""
    parts = ([torch.from_numpy(getattr(each, name)) for each in prompts] for name in ("tokens", "words"))
    tokens, words = (pad_sequence(part, batch_first=True, padding_value=PADDING_TOKEN) for part in parts)
    return tokens, words
