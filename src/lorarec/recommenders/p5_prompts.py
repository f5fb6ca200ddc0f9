"""P5's prompts: ids as pairs of tokens, and what asks for an item (Geng et al., RecSys 2022, Section 3)."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

#: Fills up; then what the words of a prompt come down to: the next item of a history, the same of a named user's, and
#: the item of a list that a user would choose.
NOTHING, NEXT, NEXT_OF_USER, DIRECT = range(4)


@dataclass(frozen=True)
class Ids:
    """Numbers below `count` as two tokens, of which neighbours share the first.

    Attributes:
        count: of the numbers.
        first: the lowest of their tokens.
    """

    count: int
    first: int

    @property
    def base(self) -> int:
        """Tokens of each of the two places."""
        return math.isqrt(max(self.count - 1, 0)) + 1

    @property
    def end(self) -> int:
        """The token behind the highest."""
        return self.first + 2 * self.base

    @cached_property
    def _pairs(self) -> np.ndarray:
        """(count, 2): tokens are asked for a few numbers at a time, for which a table is faster than arithmetic."""
        numbers = np.arange(self.count)
        return np.stack([self.first + numbers // self.base, self.first + self.base + numbers % self.base], -1)

    def tokens(self, numbers: np.ndarray) -> np.ndarray:
        """(...) numbers to (..., 2) tokens."""
        return self._pairs[numbers]

    def numbers(self, tokens: np.ndarray) -> np.ndarray:
        """(..., 2) tokens to (...) numbers."""
        return (tokens[..., 0] - self.first) * self.base + tokens[..., 1] - self.first - self.base


@dataclass(frozen=True)
class Prompt:
    """What is asked, as tokens.

    Attributes:
        tokens: (length,).
        words: (length,) which word each token is of; the tokens of an id are one word.
    """

    tokens: np.ndarray
    words: np.ndarray


class Prompts:
    """Makes prompts for items and users that are numbered from 0 on.

    Attributes:
        items: tokens of items.
        vocabulary: number of all tokens.
    """

    def __init__(self, items: int, users: int) -> None:
        self.items = Ids(items, DIRECT + 1)
        self.users = Ids(users, self.items.end)
        self.vocabulary = self.users.end

    def next_item(self, history: np.ndarray, user: int | None) -> Prompt:
        """Sequential recommendation: what follows a history in time order, of a user where one is known."""
        return self._prompt(NEXT if user is None else NEXT_OF_USER, user, history)

    def direct(self, candidates: np.ndarray, user: int) -> Prompt:
        """Direct recommendation: which of the candidates a user would choose."""
        return self._prompt(DIRECT, user, candidates)

    def _prompt(self, task: int, user: int | None, items: np.ndarray) -> Prompt:
        named = [] if user is None else self.users.tokens(np.array(user)).tolist()
        tokens = [task, *named, *self.items.tokens(items).ravel().tolist()]
        # A user is word 1 whether there is one or not, so that the items of a history are always words 2, 3, ...
        words = [0, *[1 for _ in named], *np.repeat(np.arange(len(items)) + 2, 2).tolist()]
        return Prompt(np.array(tokens), np.array(words))


def together(prompts: list[Prompt]) -> tuple[torch.Tensor, torch.Tensor]:
    """(prompts, longest) tokens and words, filled up with `NOTHING` behind."""
    parts = ([torch.from_numpy(getattr(each, name)) for each in prompts] for name in ("tokens", "words"))
    tokens, words = (pad_sequence(part, batch_first=True, padding_value=NOTHING) for part in parts)
    return tokens, words
