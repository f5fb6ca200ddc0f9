"""Items and histories as the words of their texts, which RecFormer reads (Li et al., KDD 2023, Section 2.2)."""

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
from lorarec.recommenders.sequential.model import PADDING

#: Kinds of tokens: none, the one in front, of a key such as `title`, of its value.
NOTHING, START, KEY, VALUE = KINDS = range(4)


class TokenizedText(NamedTuple):
    """A batch of sequences of tokens, each (batch, length).

    Attributes:
        tokens: numbers of the vocabulary.
        kinds: of `KINDS`; `NOTHING` fills up.
        items: 0 of the token in front, 1 of those of the first item, and so on.
    """

    tokens: torch.Tensor
    kinds: torch.Tensor
    items: torch.Tensor


@dataclass(frozen=True)
class TokenizedItems:
    """Texts of items.

    Attributes:
        tokens: (items, most tokens of an item).
        kinds: the same of `KINDS`.
        start: number of the token in front of every text, which no item has.
    """

    tokens: torch.Tensor
    kinds: torch.Tensor
    start: int

    def texts(self, items: torch.Tensor, length: int) -> TokenizedText:
        """The items' texts one behind the other, without gaps, behind a token in front.

        Args:
            items: (batch, places) item numbers, filled up with `PADDING`.
            length: later tokens are left out.
        """
        there = (self.kinds[items] != NOTHING) & (items != PADDING)[..., None]
        found = there.flatten(1)
        kept = min(int(found.sum(1).max()), length - 1)
        order = (~found).int().argsort(dim=1, stable=True)[:, :kept]

        def packed(values: torch.Tensor, first: int) -> torch.Tensor:
            return pad((values * there).flatten(1).gather(1, order), (1, 0), value=first)

        numbers = torch.arange(1, items.shape[1] + 1)[:, None]
        return TokenizedText(
            packed(self.tokens[items], self.start), packed(self.kinds[items], START), packed(numbers, 0)
        )


def tokenize_items(
    datasets: Sequence[Dataset], tokenizer: PreTrainedTokenizerBase, start: int, title: int, others: int
) -> TokenizedItems:
    """The texts of all items of some datasets, one dataset behind the other: each column's name and its value.

    Args:
        start: number of the token in front of every text.
        title: tokens of a title that are kept.
        others: tokens of the value of every other text column that are kept; 0 for titles alone.
    """
    rows = [row for dataset in datasets for row in _rows(dataset.items, tokenizer, title, others)]
    width = max(map(len, rows))
    # NOTHING is zero, so that the end of a row says nothing.
    table = np.zeros((2, len(rows), width), np.int64)
    for number, row in enumerate(rows):
        table[:, number, : len(row)] = np.array(row).T
    tokens, kinds = torch.from_numpy(table)
    return TokenizedItems(tokens, kinds, start)


def _rows(
    items: pl.DataFrame, tokenizer: PreTrainedTokenizerBase, title: int, others: int
) -> list[list[tuple[int, int]]]:
    """(token, kind) of every item."""
    encoder = TextEncoder(tokenizer)
    more = [name for name, kind in items.schema.items() if kind == pl.String and name not in (ITEM, TITLE)]
    rows: list[list[tuple[int, int]]] = [[] for _ in range(len(items))]
    for column, limit in {TITLE: title, **(dict.fromkeys(more, others) if others else {})}.items():
        name = f" {column.replace('_', ' ')}"
        values = [f" {value}" if value else "" for value in items[column].to_list()]
        key, *found = map(encoder.plain, [name, *values])
        for row, value in zip(rows, found, strict=True):
            if value:
                row += [(token, KEY) for token in key] + [(token, VALUE) for token in value[:limit]]
    return rows
