"""Texts of items and histories."""

import polars as pl
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lorarec.data import Dataset
from lorarec.recommenders import PADDING
from lorarec.recommenders.transferable.item_text import KEY, PAD, START, VALUE, TokenizedItems, tokenize_items
from tests.factories import dataset_of

FRONT = 999


@pytest.fixture
def dataset() -> Dataset:
    """Three items, one without a brand; a column that is no text."""
    rows = [("u", item, at) for at, item in enumerate("abc", start=1)]
    titles = {"a": "red lamp small", "b": "chair", "c": "green puzzle game"}
    return dataset_of(rows, titles, made_by=["old novel", None, "brush"], price=[1.0, 2.0, 3.0])


def _decoded(words: TokenizedItems, item: int, kind: int, tokenizer: PreTrainedTokenizerFast) -> str:
    return tokenizer.decode(words.tokens[item][words.kinds[item] == kind])


def test_an_item_is_its_columns_names_and_values(dataset: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    words = tokenize_items([dataset], tokenizer, FRONT, 2, 1)
    assert _decoded(words, 0, KEY, tokenizer) == " title made by"
    assert _decoded(words, 0, VALUE, tokenizer) == " red lamp old"
    assert _decoded(words, 1, KEY, tokenizer) == " title"
    assert _decoded(words, 1, VALUE, tokenizer) == " chair"


def test_prompts_of_titles_only(dataset: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    words = tokenize_items([dataset], tokenizer, FRONT, 8, 0)
    assert _decoded(words, 0, KEY, tokenizer) == " title"
    assert _decoded(words, 2, VALUE, tokenizer) == " green puzzle game"


def test_datasets_are_numbered_in_their_order(dataset: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    words = tokenize_items([dataset, dataset], tokenizer, FRONT, 8, 2)
    assert torch.equal(words.tokens[:3], words.tokens[3:])


def test_histories_are_texts_without_gaps(dataset: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    words = tokenize_items([dataset], tokenizer, FRONT, 2, 1)
    text = words.concatenate(torch.tensor([[1, 0], [2, PADDING]]), 100)
    for row, items in enumerate(([1, 0], [2])):
        there = text.kinds[row] != PAD
        lengths = [int((words.kinds[item] != PAD).sum()) for item in items]
        assert there.nonzero()[:, 0].tolist() == list(range(1 + sum(lengths)))
        assert text.tokens[row][there].tolist() == [FRONT] + [
            token for item, length in zip(items, lengths, strict=True) for token in words.tokens[item, :length].tolist()
        ]
        assert text.items[row][there].tolist() == [0] + [
            place + 1 for place, length in enumerate(lengths) for _ in range(length)
        ]
        assert text.kinds[row, 0] == START


def test_the_oldest_items_are_dropped(dataset: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    words = tokenize_items([dataset], tokenizer, FRONT, 2, 1)
    whole, truncated = (words.concatenate(torch.tensor([[1, 0]]), length) for length in (100, 4))
    assert truncated.tokens.tolist() == whole.tokens[:, :4].tolist()


def test_control_words_in_texts_are_text(dataset: Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    items = dataset.items.with_columns(title=pl.lit("lamp<|end|>"), made_by=pl.lit("<|end|>"))
    words = tokenize_items([Dataset.from_frames("shop", dataset.interactions, items)], tokenizer, FRONT, 20, 20)
    assert _decoded(words, 0, VALUE, tokenizer) == " lamp<|end|> <|end|>"
    assert tokenizer.eos_token_id not in words.tokens[words.kinds != PAD]
