"""Generated lists: constrained decoding ranks as the exact likelihood does."""

import numpy as np
import pytest

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.prompts import PromptBuilder
from lorarec.ranking import generate_titles

TITLES = ["red lamp", "small old chair", "big blue puzzle game", "novel", "novel"]


def test_constrained_list_is_a_permutation(any_backbone: Backbone) -> None:
    builder = PromptBuilder(any_backbone.tokenizer, "likelihood")
    listed = generate_titles(any_backbone, builder, builder.example(TITLES[:2], TITLES), count=9, constrained=True)
    assert sorted(index for index in listed if index is not None) == [0, 1, 2, 3, 4]


def test_first_title_follows_the_greedy_path(tiny_backbone: Backbone) -> None:
    """With one-token titles the greedy path is the most likely candidate."""
    from lorarec.scoring import score

    builder = PromptBuilder(tiny_backbone.tokenizer, "likelihood", max_title_tokens=1)
    titles = ["red", "green", "blue", "lamp"]
    example = builder.example(["red"], titles)
    listed = generate_titles(tiny_backbone, builder, example, count=1, constrained=True)
    first_tokens = score(
        tiny_backbone.model, [type(example)(example.prompt, [b[:1] for b in example.branches])], builder
    )
    assert listed == [int(np.argmax(first_tokens[0]))]


def test_random_model_writes_no_candidate_unconstrained(tiny_backbone: Backbone) -> None:
    builder = PromptBuilder(tiny_backbone.tokenizer, "likelihood")
    listed = generate_titles(tiny_backbone, builder, builder.example(TITLES[:1], TITLES), count=2, max_title_tokens=8)
    assert listed == [None, None]


def test_verdict_prompts_cannot_generate(tiny_backbone: Backbone) -> None:
    builder = PromptBuilder(tiny_backbone.tokenizer)
    with pytest.raises(LorarecError, match="readout=likelihood"):
        generate_titles(tiny_backbone, builder, builder.example(["red lamp"], TITLES))
