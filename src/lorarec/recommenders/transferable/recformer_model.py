"""RecFormer's encoder, which reads text in both directions, and what it makes of items and histories."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn.functional import gelu, linear, normalize, pad
from torch.nn.utils.rnn import pad_sequence

from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.recommenders.sequential.model import PADDING
from lorarec.recommenders.transferable.item_text import KEY, KINDS, NOTHING, TokenizedItems, TokenizedText
from lorarec.recommenders.transferable.pretraining import PretrainConfig
from lorarec.scoring import evaluation_mode

HEADS = 2
#: Items whose vectors are computed at once when all are wanted.
_ITEMS_AT_ONCE = 1024


@dataclass(frozen=True)
class RecFormerConfig(PretrainConfig):
    """How RecFormer is made, besides `PretrainConfig`; `epochs` and `patience` hold for each stage of fine-tuning.

    Attributes:
        prefixes: next items of a history that an epoch of fine-tuning learns from, drawn anew for each; one of each
            history in pre-training.
        tokens: of a title that are read.
        others: tokens that are read of every other text column, such as a brand; 0 for titles alone.
        length: tokens of a history that are read, from the latest item on.
        hidden: share of the tokens that pre-training hides and asks for; at most 1.
        words: weight of that task beside the item-item one.

    Raises:
        LorarecError: a number is out of range.
    """

    pretrain_epochs: int = 5
    epochs: int = 8
    longest: int = 10
    dropout: float = 0.1
    temperature: float = 0.05
    prefixes: int = 1
    tokens: int = 8
    others: int = 2
    length: int = 128
    hidden: float = 0.15
    words: float = 0.1

    fine_tuning: ClassVar[tuple[str, ...]] = (*PretrainConfig.fine_tuning, "prefixes")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_out_of_range(self, ("prefixes", "tokens"), ("others", "hidden", "words"), ())
        if self.length < 2:
            raise LorarecError(f"option length must be at least 2, got {self.length}")
        if self.hidden > 1:
            raise LorarecError(f"option hidden must be at most 1, got {self.hidden}")
        if self.width % HEADS:
            raise LorarecError(f"option width must be a multiple of {HEADS}, the attention heads, got {self.width}")


class RecFormerEncoder(nn.Module):
    """Reads text in both directions (Section 2.2).

    Args:
        words: (vocabulary, width) vectors of the tokenizer's tokens to start from.

    Attributes:
        start: number of the token in front of every text.
        mask: number of the token that hides another.
    """

    def __init__(self, words: torch.Tensor, options: RecFormerConfig) -> None:
        super().__init__()
        vocabulary, width = words.shape
        self.start, self.mask = vocabulary, vocabulary + 1
        self.words, self.kinds, self.items, self.places = (
            nn.Embedding(rows, width) for rows in (vocabulary + 2, len(KINDS), options.longest + 1, options.length)
        )
        for table in (self.words, self.kinds, self.items, self.places):
            nn.init.normal_(table.weight, std=0.02)
        self.words.weight.data[:vocabulary] = words
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(options.dropout)
        layer = nn.TransformerEncoderLayer(
            width, HEADS, 4 * width, options.dropout, "gelu", batch_first=True, norm_first=True
        )
        self.attention = nn.TransformerEncoder(layer, options.depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.guess = nn.Linear(width, width)

    def forward(self, text: TokenizedText) -> torch.Tensor:
        """(batch, length, width) a state for every token."""
        told = self.words(text.tokens) + self.kinds(text.kinds) + self.items(text.items)
        told = self.dropout(self.norm(told + self.places.weight[: told.shape[1]]))
        return self.attention(told, src_key_padding_mask=text.kinds == NOTHING)

    def vectors(self, text: TokenizedText) -> torch.Tensor:
        """(batch, width) of length 1: the states of the token in front."""
        return normalize(self(text)[:, 0], dim=-1)

    def guesses(self, states: torch.Tensor) -> torch.Tensor:
        """(n, width) states of hidden tokens to (n, vocabulary) logits of what they are."""
        return linear(gelu(self.guess(states)), self.words.weight)

    def hide(self, text: TokenizedText, share: float) -> tuple[TokenizedText, torch.Tensor]:
        """A text in which tokens are hidden as BERT does, and (batch, length) which are to be guessed.

        Of these 80% are masked, 10% are any token and 10% stay as they are.
        """
        asked = (torch.rand(text.tokens.shape) < share) & (text.kinds >= KEY)
        how = torch.rand(text.tokens.shape)
        tokens = text.tokens.masked_fill(asked & (how < 0.8), self.mask)
        tokens = torch.where(asked & (how >= 0.9), torch.randint_like(tokens, self.start), tokens)
        return text._replace(tokens=tokens), asked


class RecFormerReader(nn.Module):
    """An encoder and the vectors that it gave all items when it was last asked.

    Args:
        words: of all items; those of the catalogue come first.
    """

    vectors: torch.Tensor

    def __init__(self, encoder: RecFormerEncoder, words: TokenizedItems, options: RecFormerConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.words = words
        self.options = options
        self.register_buffer("vectors", torch.zeros(len(words.tokens), options.width))

    def texts(self, items: torch.Tensor) -> TokenizedText:
        """(batch, places) item numbers, latest first, to what the encoder reads."""
        return self.words.texts(items, self.options.length)

    @torch.no_grad()
    def encode_items(self) -> None:
        """Give all items the vectors that the encoder has for them now."""
        items = torch.arange(len(self.vectors))[:, None].split(_ITEMS_AT_ONCE)
        with evaluation_mode(self):
            self.vectors = torch.cat([self.encoder.vectors(self.texts(part)) for part in items])

    @torch.no_grad()
    def queries(self, histories: list[np.ndarray]) -> torch.Tensor:
        """(histories, width) of histories in time order, one item or more."""
        with evaluation_mode(self):
            return self.encoder.vectors(self.texts(latest_first(histories, self.options.longest)))


def latest_first(histories: list[np.ndarray], longest: int) -> torch.Tensor:
    """(histories, places) the latest items of each, filled up behind."""
    rows = [torch.from_numpy(history[-longest:]).flip(0) for history in histories]
    return pad_sequence(rows, batch_first=True, padding_value=PADDING)


@torch.no_grad()
def narrowed(vectors: torch.Tensor, width: int) -> torch.Tensor:
    """(n, hidden) to (n, width) principal components with a mean square of 1 / width; zeros where there are fewer."""
    centred = vectors.float().cpu()
    centred = centred - centred.mean(0)
    _, axes = torch.linalg.eigh(centred.T @ centred)
    found = centred @ axes.flip(1)[:, :width]
    found = pad(found, (0, width - found.shape[1]))
    return found / found.square().mean().sqrt().clamp(min=1e-12) * width**-0.5
