"""Items and histories as tokens of their texts, which RecFormer reads (Li et al., KDD 2023, section 2.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch.nn.functional import pad
from transformers import PreTrainedTokenizerBase

from lorarec.data import ITEM, TITLE, Dataset
from lorarec.prompts import TextEncoder
from lorarec.recommenders.sequential.next_item_model import PADDING

#: Kinds of tokens: padding, the start token, part of a key such as `title`, part of its value.
PAD, START, KEY, VALUE = KINDS = range(4)


class TokenizedText(NamedTuple):
    """A batch of token sequences.

    Attributes:
        tokens: Token ids (batch, length).
        kinds: Kinds of the tokens (batch, length), one of `KINDS`.
        items: Numbers of the tokens' items (batch, length): 0 for the start token, 1 for the first item and so on.
    """

    tokens: torch.Tensor
    kinds: torch.Tensor
    items: torch.Tensor


@dataclass(frozen=True)
class TokenizedItems:
    """Texts of items as tokens.

    Attributes:
        tokens: Token ids (items, longest text).
        kinds: Kinds of the tokens (items, longest text), one of `KINDS`.
        start: Id of the start token, which no item's text contains.
    """

    tokens: torch.Tensor
    kinds: torch.Tensor
    start: int

    def concatenate(self, items: torch.Tensor, length: int) -> TokenizedText:
        """Concatenate the texts of items without gaps, after a start token.

        Args:
            items: Item numbers (batch, positions), padded with `PADDING`.
            length: Maximum number of tokens of a sequence; later tokens are dropped.
        """
        present = (self.kinds[items] != PAD) & (items != PADDING)[..., None]
        flat = present.flatten(1)
        count = min(int(flat.sum(1).max()), length - 1)
        order = (~flat).int().argsort(dim=1, stable=True)[:, :count]

        def packed(values: torch.Tensor, first: int) -> torch.Tensor:
            return pad((values * present).flatten(1).gather(1, order), (1, 0), value=first)

        numbers = torch.arange(1, items.shape[1] + 1)[:, None]
        return TokenizedText(
            packed(self.tokens[items], self.start), packed(self.kinds[items], START), packed(numbers, 0)
        )


def tokenize_items(
    datasets: Sequence[Dataset],
    tokenizer: PreTrainedTokenizerBase,
    start: int,
    max_title_tokens: int,
    max_field_tokens: int,
) -> TokenizedItems:
    """Tokenize the texts of all items of some datasets, which are the names and values of their text columns.

    Args:
        datasets: Datasets, whose items are numbered in this order.
        tokenizer: Tokenizer of the backbone.
        start: Id of the start token.
        max_title_tokens: Maximum number of tokens of a title.
        max_field_tokens: Maximum number of tokens of every other value; if it is 0, texts are titles only.
    """
    limits = max_title_tokens, max_field_tokens
    rows = [row for dataset in datasets for row in _rows(dataset.items, tokenizer, *limits)]
    # PAD is zero, so rows of zeros are padding.
    table = np.zeros((2, len(rows), max(map(len, rows))), np.int64)
    for number, row in enumerate(rows):
        table[:, number, : len(row)] = np.array(row).T
    tokens, kinds = torch.from_numpy(table)
    return TokenizedItems(tokens, kinds, start)


def _rows(
    items: pl.DataFrame, tokenizer: PreTrainedTokenizerBase, max_title_tokens: int, max_field_tokens: int
) -> list[list[tuple[int, int]]]:
    """Return pairs (token, kind) of every item."""
    encoder = TextEncoder(tokenizer)
    others = [name for name, kind in items.schema.items() if kind == pl.String and name not in (ITEM, TITLE)]
    limits = {TITLE: max_title_tokens, **(dict.fromkeys(others, max_field_tokens) if max_field_tokens else {})}
    rows: list[list[tuple[int, int]]] = [[] for _ in range(len(items))]
    for column, limit in limits.items():
        name = f" {column.replace('_', ' ')}"
        values = [f" {value}" if value else "" for value in items[column].to_list()]
        key, *encoded = map(encoder.plain, [name, *values])
        for row, value in zip(rows, encoded, strict=True):
            if value:
                row += [(token, KEY) for token in key] + [(token, VALUE) for token in value[:limit]]
    return rows
