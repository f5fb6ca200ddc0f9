"""Prompts of the embedded backbone: adapters were trained on these ids, so they must not change."""

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from lorarec.backbone.load import embedded_folder, load_tokenizer
from lorarec.prompts import CLICK, REASON, PromptBuilder

HISTORY = [
    "Toy Story (1995)",
    "L'Oréal Paris Voluminous Mascara, Carbon Black",
    "Nº 5 Eau de Parfum ½ oz",
    "What's Eating Gilbert Grape?",
]
CANDIDATES = [
    "Finding Nemo (2003)",
    "…And Justice for All (1979)",
    "トトロ 2",
    "LEGO 10696 -- Classic: Medium Creative Brick Box, 484 pcs.",
]
LONG = (
    "Extra Long Lasting Moisturising Lipstick Set of 24 Colours with Velvet Matte Finish, Gift Box, Brush, Mirror, "
    "Sharpener and a Guide to the Perfect Smile for Every Occasion"
)
STARS = ["5 stars", "1 star", "3.5 stars", "4 stars"]
#: Readout, template, tokens of a title, and the arguments of `PromptBuilder.example`, in the order of the stored ids.
PROMPTS = [
    ("verdict", None, 32, {"history": HISTORY, "candidates": CANDIDATES}),
    (
        "verdict",
        "verdict-v1",
        32,
        {"history": HISTORY, "candidates": CANDIDATES, "hints": ["often", "", "new, often", "new"]},
    ),
    ("verdict", None, 8, {"history": [LONG, *HISTORY], "candidates": [LONG, *CANDIDATES]}),
    ("verdict", None, 32, {"history": [], "candidates": CANDIDATES[:2]}),
    ("likelihood", None, 32, {"history": HISTORY, "candidates": CANDIDATES}),
    (
        "likelihood",
        "likelihood-v1",
        6,
        {"history": [LONG], "candidates": [LONG, CANDIDATES[0]], "hints": ["mostly", "new, often"]},
    ),
    (
        "verdict",
        CLICK,
        32,
        {
            "history": HISTORY,
            "candidates": CANDIDATES[:1],
            "stars": STARS,
            "profile": "gender F, age 25, occupation K-12 student",
            "hints": ["Animation, Children's"],
        },
    ),
    ("verdict", CLICK, 32, {"history": [], "candidates": CANDIDATES[:1]}),
    (
        "verdict",
        REASON,
        32,
        {
            "history": HISTORY,
            "candidates": CANDIDATES[:1],
            "stars": ["counts for it", "", "", ""],
            "hints": ["usually"],
        },
    ),
]
WRITTEN_OUT = "A user chose, in this order:\n- red lamp\nWould the user choose this next? Answer yes or no.\n- "


@pytest.fixture(scope="module")
def embedded() -> PreTrainedTokenizerBase:
    return load_tokenizer(str(embedded_folder()))


@pytest.fixture(scope="module")
def stored() -> list[dict[str, list]]:
    return json.loads((Path(__file__).parent / "embedded_prompts.json").read_text())


@pytest.mark.parametrize("number", range(len(PROMPTS)))
def test_ids_are_those_that_adapters_were_trained_on(
    embedded: PreTrainedTokenizerBase, stored: list[dict[str, list]], number: int
) -> None:
    readout, template, limit, given = PROMPTS[number]
    example = PromptBuilder(embedded, readout, template, max_title_tokens=limit).example(**given)
    assert {"prompt": example.prompt, "branches": example.branches} == stored[number]


def test_written_out(embedded: PreTrainedTokenizerBase, stored: list[dict[str, list]]) -> None:
    example = PromptBuilder(embedded).from_text(WRITTEN_OUT, CANDIDATES)
    assert {"prompt": example.prompt, "branches": example.branches} == stored[-1]


def test_answers(embedded: PreTrainedTokenizerBase) -> None:
    assert PromptBuilder(embedded).yes_no == (655, 602)
