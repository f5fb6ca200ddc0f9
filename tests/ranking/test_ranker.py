"""The Ranker: adapters merged and unmerged, and errors."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.lora import mix, read_adapter
from lorarec.prompts import PromptBuilder
from lorarec.ranking import Ranker
from lorarec.scoring import score

TITLES = ["red lamp", "small old chair", "big blue puzzle game", "novel"]


def test_ranker_scores_as_the_model_with_peft_layers(
    tiny_backbone: Backbone, write_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_adapter(tiny_backbone.model, tmp_path / "adapter", 1)
    with Ranker(tiny_backbone, folder) as ranker:
        found = ranker.score_titles([TITLES[:2]], [TITLES])[0]
    from peft import PeftModel

    builder = PromptBuilder(tiny_backbone.tokenizer)
    unmerged = PeftModel.from_pretrained(tiny_backbone.model, folder).get_base_model()
    expected = score(unmerged, [builder.example(TITLES[:2], TITLES)], builder)[0]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_closing_restores_the_backbone_bit_by_bit(
    tiny_backbone: Backbone, write_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_adapter(tiny_backbone.model, tmp_path / "adapter", 1)
    before = {name: weight.clone() for name, weight in tiny_backbone.model.state_dict().items()}
    with Ranker(tiny_backbone, folder):
        changed = any(not torch.equal(before[n], w) for n, w in tiny_backbone.model.state_dict().items())
    assert changed
    assert all(torch.equal(before[n], w) for n, w in tiny_backbone.model.state_dict().items())


def test_written_out_prompts_score_as_histories(tiny_backbone: Backbone) -> None:
    ranker = Ranker(tiny_backbone)
    text = "A user chose, in this order:\n- red lamp\nWould the user choose this next? Answer yes or no.\n- "
    written = ranker.score_prompts([text], [TITLES])[0]
    built = ranker.score_titles([["red lamp"]], [TITLES])[0]
    assert written.shape == built.shape == (4,)
    # The two differ at most in the tokens of the words between titles.
    assert np.corrcoef(written, built)[0, 1] > 0.9


def test_scores_that_are_no_numbers_are_refused(tiny_backbone: Backbone) -> None:
    with torch.no_grad():
        tiny_backbone.model.get_output_embeddings().weight.mul_(float("inf"))
    with pytest.raises(LorarecError, match="a score is NaN or infinite: load the model in float32"):
        Ranker(tiny_backbone).rank(TITLES[:2], TITLES)


def test_only_the_latest_history_is_in_the_prompt(tiny_backbone: Backbone) -> None:
    ranker = Ranker(tiny_backbone, max_history=2)
    long, short = ranker.score_titles([TITLES, TITLES[-2:]], [TITLES, TITLES])
    np.testing.assert_allclose(long, short, atol=1e-4)


def test_rank_orders_titles(tiny_backbone: Backbone) -> None:
    ranker = Ranker(tiny_backbone)
    scores = ranker.score_titles([TITLES[:1]], [TITLES])[0]
    ranked = ranker.rank(TITLES[:1], TITLES)
    assert [each.index for each in ranked] == sorted(range(4), key=lambda i: -scores[i])
    assert [each.title for each in ranked] == [TITLES[each.index] for each in ranked]
    np.testing.assert_allclose([each.score for each in ranked], sorted(scores, reverse=True), rtol=1e-6)
    assert sum(each.probability for each in ranked) == pytest.approx(1)
    assert ranker.rank(TITLES[:1], TITLES, top_k=2) == ranked[:2]


def test_ranked_ties_stay_in_the_order_given(tiny_backbone: Backbone) -> None:
    ranked = Ranker(tiny_backbone).rank([], ["novel", "novel", "novel"])
    assert [each.index for each in ranked] == [0, 1, 2]


def test_rank_takes_what_mix_returns(
    tiny_backbone: Backbone, write_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    pair = [write_adapter(tiny_backbone.model, tmp_path / str(seed), seed) for seed in (1, 2)]
    mixed = mix(tiny_backbone, [read_adapter(pair[0]), pair[1]], tmp_path / "mixed", method="fixed", weights=[0.3, 0.7])
    found = []
    for adapter in (mixed, mixed.folder, str(mixed.folder)):
        with Ranker(tiny_backbone, adapter) as ranker:
            found.append(ranker.rank(TITLES[:1], TITLES))
    assert found[0] == found[1] == found[2] != Ranker(tiny_backbone).rank(TITLES[:1], TITLES)


def test_bad_input(tiny_backbone: Backbone, tmp_path: Path) -> None:
    ranker = Ranker(tiny_backbone)
    with pytest.raises(LorarecError, match="2 prompts but 1 candidate sets"):
        ranker.score_prompts(["a", "b"], [TITLES])
    with pytest.raises(LorarecError, match="does not exist"):
        Ranker(tiny_backbone, tmp_path / "none")
    with pytest.raises(LorarecError, match="option readout must be verdict or likelihood, got 'guess'"):
        Ranker(tiny_backbone, readout="guess")
    with pytest.raises(LorarecError, match="option max_history must be at least 1, got 0"):
        Ranker(tiny_backbone, max_history=0)
    with pytest.raises(LorarecError, match="top_k must be at least 1, got 0"):
        ranker.rank(["red lamp"], TITLES, top_k=0)
    with pytest.raises(LorarecError, match="at least one candidate"):
        ranker.rank(["red lamp"], [])
