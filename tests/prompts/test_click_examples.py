"""Prompts of click events: the profile of the user, and the columns that are left out."""

import numpy as np
import polars as pl
import pytest
from transformers import PreTrainedTokenizerFast

from lorarec.data.click_logs import ClickLog, click_log
from lorarec.errors import LorarecError
from lorarec.prompts import CLICK, PromptBuilder, click_examples
from tests.factories import dataset_of

RATINGS = [1.0, 4.0, 4.5, 2.0, 5.0, 3.0]


def make_log(profiles: bool = True, genres: bool = False) -> ClickLog:
    rows = [(user, f"i{at}", at, rating) for user in ("u7", "u8") for at, rating in enumerate(RATINGS)]
    titles = {f"i{at}": f"lamp {'abcdef'[at]}" for at in range(6)}
    columns = {"genres": ["Drama, War", None, "", "Comedy", "War", "War"]} if genres else {}
    users = pl.DataFrame({"user_id": ["u7"], "gender": ["F"], "age": [25], "zip_code": ["90210"], "occupation": [None]})
    return click_log(dataset_of(rows, titles, "lamps", users=users if profiles else None, **columns))


def texts(tokenizer: PreTrainedTokenizerFast, log: ClickLog, event: int, limit: int = 10, **options: int) -> str:
    events = np.array([event])
    builder = PromptBuilder(tokenizer, template=CLICK, **options)
    (example,) = click_examples(log, events, log.histories(events, limit), builder)
    assert len(example.branches) == 1
    return tokenizer.decode(example.prompt + example.branches[0])


def test_prompt_has_profile_stars_and_target(tokenizer: PreTrainedTokenizerFast) -> None:
    assert texts(tokenizer, make_log(), 3) == (
        "About the user: gender F, age 25\n"
        "The user rated, in this order:\n"
        "- lamp a: 1 star\n- lamp b: 4 stars\n- lamp c: 4.5 stars\n"
        "Would the user like this? Answer yes or no.\n- lamp d\n"
    )


@pytest.mark.parametrize(("event", "target"), [(3, "lamp d: Comedy"), (0, "lamp a: Drama, War"), (1, "lamp b")])
def test_target_has_its_genres(tokenizer: PreTrainedTokenizerFast, event: int, target: str) -> None:
    text = texts(tokenizer, make_log(genres=True), event)
    assert text.endswith(f"yes or no.\n- {target}\n")
    assert text.count("Drama") == (event == 0)


@pytest.mark.parametrize(("profiles", "event"), [(True, 6), (False, 0)])
def test_user_without_profile_or_history(tokenizer: PreTrainedTokenizerFast, profiles: bool, event: int) -> None:
    assert texts(tokenizer, make_log(profiles), event) == (
        "The user rated, in this order:\nWould the user like this? Answer yes or no.\n- lamp a\n"
    )


def test_oldest_history_is_dropped_first_with_its_stars(tokenizer: PreTrainedTokenizerFast) -> None:
    whole = len(tokenizer(texts(tokenizer, make_log(), 5)).input_ids)
    text = texts(tokenizer, make_log(), 5, max_tokens=whole - 4)
    assert "lamp a" not in text
    assert "in this order:\n- lamp b: 4 stars\n" in text
    assert "- lamp e: 5 stars\n" in text


def test_prompt_that_cannot_fit(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(LorarecError, match="more than the limit of 9"):
        texts(tokenizer, make_log(), 0, max_tokens=9)


def test_without_stars_the_template_still_reads(tokenizer: PreTrainedTokenizerFast) -> None:
    example = PromptBuilder(tokenizer, template=CLICK).example(["lamp a"], ["lamp b"])
    assert "order:\n- lamp a\nWould" in tokenizer.decode(example.prompt)
