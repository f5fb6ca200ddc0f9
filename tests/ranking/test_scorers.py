"""Scorers of a backbone and its adapters."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lorarec.backbone import Backbone
from lorarec.data import Cooccurrence, Dataset, Split, few_shot, leave_one_out, split_new_interactions
from lorarec.errors import LorarecError
from lorarec.evaluation import evaluate
from lorarec.lora import read_adapter
from lorarec.prompts import PromptConfig
from lorarec.ranking import AdapterScorer, GenerationScorer, Ranker, adapter_scorers, generate_titles, split_warning


@pytest.fixture
def make_adapter(tiny_backbone: Backbone, write_adapter: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Write a random PEFT folder, with a lorarec.json if one is given."""
    return lambda name, meta=None: write_adapter(tiny_backbone.model, tmp_path / name, len(name), meta)


def test_rows_share_a_backbone_and_do_not_change_it(
    tiny_backbone: Backbone, dataset: Dataset, split: Split, make_adapter: Callable[..., Path]
) -> None:
    folders = {"one": make_adapter("one"), "three": make_adapter("three")}
    rows = adapter_scorers(tiny_backbone, dataset, split, folders)
    assert list(rows) == ["zero-shot", "one", "three"]
    cases = split.test["warm"].head(4)
    first = {name: np.stack(row.score(cases)) for name, row in rows.items()}
    again = {name: np.stack(rows[name].score(cases)) for name in reversed(rows)}
    for name in rows:
        np.testing.assert_array_equal(first[name], again[name])
    with Ranker(tiny_backbone, folders["one"]) as ranker:
        np.testing.assert_array_equal(first["one"], np.stack(ranker.score_cases(cases, dataset.titles)))
    assert not np.allclose(first["one"], first["three"])
    assert not np.allclose(first["one"], first["zero-shot"])


def test_evaluation_describes_its_rows(
    tiny_backbone: Backbone, dataset: Dataset, split: Split, make_adapter: Callable[..., Path]
) -> None:
    rows = adapter_scorers(tiny_backbone, dataset, split, {"one": make_adapter("one")})
    found = evaluate(dataset, rows, split=split, settings=["warm"], limit=4).settings["warm"].rows
    assert found["zero-shot"].about == "backbone tiny-qwen2 (qwen2), no adapter, readout verdict"
    assert "/one (" in found["one"].about
    assert found["one"].seconds_per_user > 0


def test_zero_shot_is_prompted_as_the_first_adapter(
    tiny_backbone: Backbone, dataset: Dataset, split: Split, make_adapter: Callable[..., Path]
) -> None:
    folder = make_adapter("listed", {"readout": "likelihood", "options": {"max_history": 1}})
    rows = adapter_scorers(tiny_backbone, dataset, split, {"listed": folder})
    cases = split.test["warm"].head(2)
    found = rows["zero-shot"].score(cases)
    with Ranker(tiny_backbone, readout="likelihood", max_history=1) as ranker:
        np.testing.assert_array_equal(found, ranker.score_cases(cases, dataset.titles))
    forced = adapter_scorers(tiny_backbone, dataset, split, {"listed": folder}, readout="verdict")
    for row in forced.values():
        row.score(cases)
        assert "readout verdict" in row.about


def test_dropped_history_is_counted(tiny_backbone: Backbone, dataset: Dataset, split: Split) -> None:
    row = AdapterScorer(tiny_backbone, dataset.titles, prompt=PromptConfig(max_tokens=80))
    cases = split.test["warm"].head(3)
    row.score(cases)
    dropped = row.dropped
    assert dropped > 0
    assert f"; {dropped} history items dropped, oldest first" in row.about
    row.score(cases)
    assert row.dropped == 2 * dropped
    assert f"; {dropped} history items" in row.about


def test_bad_adapters_are_named_before_anything_is_scored(
    tiny_backbone: Backbone, dataset: Dataset, split: Split, make_adapter: Callable[..., Path]
) -> None:
    other = make_adapter("other", {"backbone": {"id": "big", "fingerprint": "0123"}})
    with pytest.raises(LorarecError, match=r"other belongs to backbone big \(0123\)"):
        adapter_scorers(tiny_backbone, dataset, split, {"other": other})
    with pytest.raises(LorarecError, match="zero-shot is taken by the backbone alone"):
        adapter_scorers(tiny_backbone, dataset, split, {"zero-shot": other})


def test_warning_about_another_split(dataset: Dataset, split: Split, make_adapter: Callable[..., Path]) -> None:
    def warning(name: str, meta: dict | None) -> str | None:
        return split_warning(read_adapter(make_adapter(name, meta)), dataset, split)

    trained = {"name": "nouns", "fingerprint": dataset.fingerprint, "split": split.fingerprint}
    assert warning("same", {"datasets": [trained]}) is None
    assert warning("elsewhere", {"datasets": [trained | {"fingerprint": "x", "split": "y"}]}) is None
    assert warning("plain", None) is None
    message = warning("leaky", {"datasets": [trained, trained | {"split": "y"}]})
    assert message is not None
    assert "leaky" in message
    assert f"another split of nouns (y, not {split.fingerprint})" in message
    leaky = trained | {"split": "y"}
    assert "another split" in str(warning("mixture", {"adapters": [{"datasets": [trained]}, {"datasets": [leaky]}]}))
    assert "another split" in str(warning("second round", {"datasets": [], "start_from": {"datasets": [leaky]}}))
    assert (
        split_warning(read_adapter(make_adapter("few", {"datasets": [trained]})), dataset, few_shot(split, 0.5)) is None
    )
    unsaved = replace(read_adapter(make_adapter("m", {"datasets": [trained | {"split": "y"}]})), folder=None)
    assert "in memory" in str(split_warning(unsaved, dataset, split))


def test_warning_about_an_earlier_state(dataset: Dataset, split: Split, make_adapter: Callable[..., Path]) -> None:
    again = dataset.interactions.filter(pl.col("user_id").is_in(["u00", "u01", "u02", "u03"]))
    grown = dataset.append(again.with_columns(pl.int_range(pl.len()).alias("timestamp") + 100))
    trained = {"name": "nouns", "fingerprint": dataset.fingerprint, "split": split.fingerprint}
    adapter = read_adapter(make_adapter("early", {"datasets": [trained]}))
    assert split_warning(adapter, grown, split_new_interactions(grown, negatives=3)) is None
    message = split_warning(adapter, grown, leave_one_out(grown, new_items=0, negatives=3))
    assert "was trained on nouns before an update and may have seen test items" in str(message)


def test_rows_of_adapters_that_read_evidence(
    tiny_backbone: Backbone, dataset: Dataset, split: Split, make_adapter: Callable[..., Path]
) -> None:
    folders = {"plain": make_adapter("one"), "hinted": make_adapter("two", {"options": {"evidence": True}})}
    cases = split.test["warm"].head(4)
    rows = adapter_scorers(tiny_backbone, dataset, split, folders)
    found = {name: np.stack(row.score(cases)) for name, row in rows.items()}
    with Ranker(tiny_backbone, folders["hinted"]) as ranker:
        with pytest.raises(LorarecError, match="reads evidence of other users: give it"):
            ranker.score_cases(cases, dataset.titles)
        expected = ranker.score_cases(cases, dataset.titles, Cooccurrence(split.train, dataset.titles))
        np.testing.assert_array_equal(found["hinted"], np.stack(expected))
        histories, candidates = (
            [[dataset.titles[item] for item in items] for items in cases[name].to_list()]
            for name in ("history", "candidates")
        )
        assert not np.allclose(found["hinted"], np.stack(ranker.score_titles(histories, candidates)))
    plain_scorers = adapter_scorers(tiny_backbone, dataset, split, {"plain": folders["plain"]})
    for name in ("zero-shot", "plain"):
        np.testing.assert_array_equal(found[name], np.stack(plain_scorers[name].score(cases)))
    assert "evidence of how often others" in rows["hinted"].about
    assert "evidence of how often others" not in rows["plain"].about


def test_places_are_those_of_the_list(tiny_backbone: Backbone, dataset: Dataset, split: Split) -> None:
    cases = split.test["warm"].head(2)
    row = GenerationScorer(tiny_backbone, dataset.titles, count=3, constrained=True)
    with Ranker(tiny_backbone, readout="likelihood") as ranker:
        for place, example in zip(row.score(cases), ranker.examples(cases, dataset.titles), strict=True):
            listed = generate_titles(tiny_backbone, ranker.builder, example, 3, constrained=True)
            assert [place[index] for index in listed if index is not None] == [1, 2, 3]
            assert np.isinf(place).sum() == len(example.branches) - 3
    assert "constrained to the candidates" in row.about
    assert "0.0% of the places wasted" in row.about


def test_candidates_that_are_not_generated_have_no_rank(
    tiny_backbone: Backbone, dataset: Dataset, split: Split
) -> None:
    """A random model writes no title exactly."""
    rows = adapter_scorers(tiny_backbone, dataset, split, {}, generation="free")
    found = evaluate(dataset, rows, split=split, settings=["warm"], limit=2).settings["warm"].rows["zero-shot"]
    assert np.isinf(found.ranks).all()
    assert found.metrics["ndcg@10"].mean == found.metrics["mrr"].mean == 0
    assert "100.0% of the places wasted" in found.about


def test_wasted_places_count(dataset: Dataset, split: Split) -> None:
    class Second:
        """A list with the target item after a title that is no candidate."""

        returns_ranks = True

        def score(self, cases):
            targets = split.test["warm"]["target"]
            pairs = zip(cases["candidates"].to_list(), targets, strict=True)
            return [np.where(np.array(items) == target, 2.0, np.inf) for items, target in pairs]

    found = evaluate(dataset, {"second": Second()}, split=split, settings=["warm"])
    metrics = found.settings["warm"].rows["second"].metrics
    assert metrics["ndcg@1"].mean == 0
    assert metrics["ndcg@3"].mean == pytest.approx(1 / np.log2(3))
    assert metrics["mrr"].mean == 0.5


def test_unknown_generation(tiny_backbone: Backbone, dataset: Dataset, split: Split) -> None:
    with pytest.raises(LorarecError, match="choose one of free, constrained"):
        adapter_scorers(tiny_backbone, dataset, split, {}, generation="sampled")
    with pytest.raises(LorarecError, match="leave out readout=verdict"):
        adapter_scorers(tiny_backbone, dataset, split, {}, readout="verdict", generation="free")


def test_evidence_is_refused_where_nothing_reads_it(tiny_backbone: Backbone, dataset: Dataset) -> None:
    with pytest.raises(LorarecError, match="the backbone alone was not trained to read evidence"):
        AdapterScorer(tiny_backbone, dataset.titles, prompt=PromptConfig(evidence=True))
