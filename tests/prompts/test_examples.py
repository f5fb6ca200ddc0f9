"""Rows of a split as prompts."""

import polars as pl
from transformers import PreTrainedTokenizerFast

from lorarec.data import Cooccurrence
from lorarec.prompts import PromptBuilder, case_examples

TITLES = {"a": "red lamp", "b": "blue table", "c": "green novel", "d": "small chair"}
CASES = pl.DataFrame({"user_id": ["u1"], "history": [["a", "b", "c"]], "candidates": [["d", "a"]]})


def test_the_latest_items_are_in_the_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    builder = PromptBuilder(tokenizer)
    assert case_examples(CASES, TITLES, builder, 2) == [
        builder.example(["blue table", "green novel"], ["small chair", "red lamp"])
    ]


def test_evidence_counts_items_in_the_prompt_and_not_the_user(tokenizer: PreTrainedTokenizerFast) -> None:
    builder = PromptBuilder(tokenizer)
    train = pl.DataFrame({"user_id": ["u1", "u2"], "history": [["a", "b", "c", "d"], ["c", "a"]]})
    evidence = Cooccurrence(train, TITLES)
    hints = evidence.hints(["b", "c"], ["d", "a"], "u1")
    assert hints[0].startswith("new")
    assert hints[1] != evidence.hints(["b"], ["a"], "u1")[0]
    found = case_examples(CASES, TITLES, builder, 2, evidence)
    history, candidates = ["blue table", "green novel"], ["small chair", "red lamp"]
    assert found == [builder.example(history, candidates, hints=hints)]
