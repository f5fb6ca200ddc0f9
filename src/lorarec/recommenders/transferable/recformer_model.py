"""RecFormer's bidirectional encoder of texts, and the vectors that it gives items and histories."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn.functional import gelu, linear, normalize, pad
from torch.nn.utils.rnn import pad_sequence

from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.options import document_options, option
from lorarec.recommenders.sequential.next_item_model import PADDING
from lorarec.recommenders.transferable.item_text import KEY, KINDS, PAD, TokenizedItems, TokenizedText
from lorarec.recommenders.transferable.pretraining import PretrainConfig
from lorarec.scoring import evaluation_mode

NUM_HEADS = 2
#: Number of items whose vectors are computed at once.
_ITEMS_AT_ONCE = 1024


@document_options
@dataclass(frozen=True)
class RecFormerConfig(PretrainConfig):
    """Options of `RecFormer`; `epochs` and `patience` apply to each of the two stages of fine-tuning."""

    pretrain_epochs: int = option(
        5, "Number of passes over the histories of the general domains; 0 for no pre-training, which needs none."
    )
    epochs: int = option(8, "Maximum number of passes over the target's histories in each stage; 0 for no fine-tuning.")
    max_history: int = option(10, "Number of items of a history that are read, the latest.")
    dropout: float = option(0.1, "Dropout probability in training.")
    temperature: float = option(0.05, "Temperature that cosines are divided by.")
    prefixes: int = option(1, "Number of next items learned per history and epoch of fine-tuning.")
    max_title_tokens: int = option(8, "Maximum number of tokens of a title.")
    max_field_tokens: int = option(2, "Maximum number of tokens of other text columns; 0 for titles only.")
    max_tokens: int = option(128, "Maximum number of tokens of a history; the oldest items are dropped.")
    mask_ratio: float = option(0.15, "Share of the tokens that masked language modelling selects.")
    masked_weight: float = option(0.1, "Weight of masked language modelling, relative to the item-item task.")

    fine_tuning: ClassVar[tuple[str, ...]] = (*PretrainConfig.fine_tuning, "prefixes")

    def __post_init__(self) -> None:
        super().__post_init__()
        not_negative = ("max_field_tokens", "mask_ratio", "masked_weight")
        refuse_out_of_range(self, ("prefixes", "max_title_tokens"), not_negative, ())
        if self.max_tokens < 2:
            raise LorarecError(f"option max_tokens must be at least 2, got {self.max_tokens}")
        if self.mask_ratio > 1:
            raise LorarecError(f"option mask_ratio must be at most 1, got {self.mask_ratio}")
        if self.hidden_size % NUM_HEADS:
            raise LorarecError(
                f"option hidden_size must be a multiple of {NUM_HEADS}, the number of heads, got {self.hidden_size}"
            )


class RecFormerEncoder(nn.Module):
    """A bidirectional Transformer that reads texts of items (section 2.2).

    Args:
        words: Initial embeddings of the tokenizer's tokens (vocabulary, hidden_size).
        config: Options of RecFormer.

    Attributes:
        start: Id of the start token.
        mask: Id of the mask token.
    """

    def __init__(self, words: torch.Tensor, config: RecFormerConfig) -> None:
        super().__init__()
        vocabulary, hidden_size = words.shape
        self.start, self.mask = vocabulary, vocabulary + 1
        sizes = vocabulary + 2, len(KINDS), config.max_history + 1, config.max_tokens
        self.words, self.kinds, self.items, self.places = (nn.Embedding(rows, hidden_size) for rows in sizes)
        for table in (self.words, self.kinds, self.items, self.places):
            nn.init.normal_(table.weight, std=0.02)
        self.words.weight.data[:vocabulary] = words
        self.norm = nn.LayerNorm(hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        layer = nn.TransformerEncoderLayer(
            hidden_size, NUM_HEADS, 4 * hidden_size, config.dropout, "gelu", batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(hidden_size)
        self.attention = nn.TransformerEncoder(layer, config.num_layers, norm, enable_nested_tensor=False)
        self.masked_head = nn.Linear(hidden_size, hidden_size)

    def forward(self, text: TokenizedText) -> torch.Tensor:
        """Return a state for every token (batch, length, hidden_size)."""
        embedded = self.words(text.tokens) + self.kinds(text.kinds) + self.items(text.items)
        embedded = self.dropout(self.norm(embedded + self.places.weight[: embedded.shape[1]]))
        return self.attention(embedded, src_key_padding_mask=text.kinds == PAD)

    def vectors(self, text: TokenizedText) -> torch.Tensor:
        """Return the states of the start tokens, scaled to length 1 (batch, hidden_size)."""
        return normalize(self(text)[:, 0], dim=-1)

    def token_logits(self, states: torch.Tensor) -> torch.Tensor:
        """Return the logits (n, vocabulary) of masked tokens, given their states (n, hidden_size)."""
        return linear(gelu(self.masked_head(states)), self.words.weight)

    def mask_tokens(self, text: TokenizedText, mask_ratio: float) -> tuple[TokenizedText, torch.Tensor]:
        """Return a text with masked tokens as in BERT, and which tokens were selected (batch, length).

        Of the selected tokens, 80% are masked, 10% are replaced by a random token and 10% are unchanged.
        """
        selected = (torch.rand(text.tokens.shape) < mask_ratio) & (text.kinds >= KEY)
        draw = torch.rand(text.tokens.shape)
        tokens = text.tokens.masked_fill(selected & (draw < 0.8), self.mask)
        tokens = torch.where(selected & (draw >= 0.9), torch.randint_like(tokens, self.start), tokens)
        return text._replace(tokens=tokens), selected


class RecFormerModel(nn.Module):
    """An encoder and the item vectors that `encode_items` computed last.

    Args:
        encoder: Encoder of texts.
        texts: Texts of all items; those with training interactions come first.
        config: Options of RecFormer.

    Attributes:
        vectors: Item vectors (items, hidden_size), zeros before `encode_items`.
    """

    vectors: torch.Tensor

    def __init__(self, encoder: RecFormerEncoder, texts: TokenizedItems, config: RecFormerConfig) -> None:
        super().__init__()
        self.encoder = encoder
        self.texts = texts
        self.config = config
        self.register_buffer("vectors", torch.zeros(len(texts.tokens), config.hidden_size))

    def text(self, items: torch.Tensor) -> TokenizedText:
        """Return the text of items (batch, positions), latest first."""
        return self.texts.concatenate(items, self.config.max_tokens)

    @torch.no_grad()
    def encode_items(self) -> None:
        """Compute the vectors of all items with the encoder as it is now."""
        items = torch.arange(len(self.vectors))[:, None].split(_ITEMS_AT_ONCE)
        with evaluation_mode(self):
            self.vectors = torch.cat([self.encoder.vectors(self.text(part)) for part in items])

    @torch.no_grad()
    def queries(self, histories: list[np.ndarray]) -> torch.Tensor:
        """Return vectors (histories, hidden_size) of histories in time order with at least one item each."""
        with evaluation_mode(self):
            return self.encoder.vectors(self.text(latest_first(histories, self.config.max_history)))


def latest_first(histories: list[np.ndarray], max_history: int) -> torch.Tensor:
    """Return the latest items of each history in reverse order (histories, positions), padded on the right."""
    rows = [torch.from_numpy(history[-max_history:]).flip(0) for history in histories]
    return pad_sequence(rows, batch_first=True, padding_value=PADDING)


@torch.no_grad()
def principal_components(vectors: torch.Tensor, hidden_size: int) -> torch.Tensor:
    """Return the principal components (n, hidden_size) of vectors (n, size); if there are fewer, the rest are zeros.

    They are scaled to a mean square of 1 / hidden_size.
    """
    centred = vectors.float().cpu()
    centred = centred - centred.mean(0)
    _, axes = torch.linalg.eigh(centred.T @ centred)
    components = centred @ axes.flip(1)[:, :hidden_size]
    components = pad(components, (0, hidden_size - components.shape[1]))
    return components / components.square().mean().sqrt().clamp(min=1e-12) * hidden_size**-0.5
