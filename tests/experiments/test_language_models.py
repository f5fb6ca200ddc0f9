"""The language-model rows: shared adapters, mixtures that read no label."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from lorarec.backbone import Backbone
from lorarec.data.columns import CANDIDATES, HISTORY, USER
from lorarec.errors import LorarecError
from lorarec.experiments import RECOMMENDERS, RowConfig
from lorarec.experiments.tune import tune
from lorarec.io.artefacts import read_json, write_json
from lorarec.ranking import adapter_scorers
from lorarec.recommenders import Scorer, TrainingData

OPTIONS: dict[str, Any] = {"samples": 8, "epochs": 1, "batch_size": 4, "negatives": 2, "eval_users": 0, "r": 2}


@pytest.fixture
def data(circles: TrainingData, noise: TrainingData, tiny_backbone: Backbone, tmp_path: Path) -> TrainingData:
    """Two domains, a tiny backbone and a folder; few validation cases and no test cases."""
    split = replace(circles.split, valid=circles.split.valid.head(12), test={})
    general = [(replace(noise.dataset, name="noise"), noise.split)]
    return TrainingData(circles.dataset, split, general, tiny_backbone, tmp_path / "adapters")


def _scores(circles: TrainingData, scorer: Scorer) -> np.ndarray:
    return np.stack(scorer.score(circles.split.test["warm"].head(6).select(USER, HISTORY, CANDIDATES)))


def test_an_adapter_with_words_of_a_next_item_model(circles: TrainingData, data: TrainingData) -> None:
    model = {"epochs": 1, "hidden_size": 8}
    plain, both = (
        RECOMMENDERS["specific"].from_options(OPTIONS | more).fit(replace(data, seed=5))
        for more in ({}, {"evidence_model": model})
    )
    assert data.cache_dir is not None
    records = [read_json(path / "lorarec.json")["options"] for path in data.cache_dir.glob("specific-*")]
    recorded = [each["evidence_model"] for each in records if "evidence_model" in each]
    assert [(each["epochs"], each["hidden_size"], each["seed"]) for each in recorded] == [(1, 8, 5)]
    assert len(records) == 2
    assert not np.array_equal(_scores(circles, plain), _scores(circles, both))
    for name in ("zero-shot", "tallrec"):
        with pytest.raises(LorarecError, match="unknown option 'evidence_model'"):
            RECOMMENDERS[name].from_options({"evidence_model": model})


def test_rows_share_adapters_and_mixtures_are_made_of_them(circles: TrainingData, data: TrainingData) -> None:
    assert data.cache_dir is not None
    scores = {
        name: _scores(circles, RECOMMENDERS[name].from_options(OPTIONS).fit(data)) for name in ("general", "specific")
    }
    trained = {
        path.name: (path / "adapter_model.safetensors").stat().st_mtime_ns for path in data.cache_dir.glob("[gs]*")
    }
    assert sorted(name.rpartition("-")[0] for name in trained) == ["general", "specific"]
    scores["second-round"] = _scores(circles, RECOMMENDERS["second-round"].from_options(OPTIONS).fit(data))
    scores["grid"] = _scores(circles, RECOMMENDERS["mixture-grid"].from_options({"cases": 5, **OPTIONS}).fit(data))
    entropy = RECOMMENDERS["mixture-entropy"].from_options({"prompts": 4, **OPTIONS}).fit(data)
    scores["entropy"] = _scores(circles, entropy)
    for name, written in trained.items():
        assert (data.cache_dir / name / "adapter_model.safetensors").stat().st_mtime_ns == written
    assert all(np.isfinite(found).all() for found in scores.values())
    assert not np.array_equal(scores["general"], scores["specific"])
    assert not np.array_equal(scores["second-round"], scores["specific"])
    second = read_json(next(data.cache_dir.glob("second-round-*")) / "lorarec.json")
    assert Path(second["start_from"]["path"]).name in trained
    mixed = read_json(next(data.cache_dir.glob("entropy-*")) / "lorarec.json")
    assert [Path(each["path"]).name.rpartition("-")[0] for each in mixed["adapters"]] == ["general", "specific"]
    assert "adapter" in entropy.about
    RECOMMENDERS["specific"].from_options(OPTIONS).fit(replace(data, seed=7))
    assert len(list(data.cache_dir.glob("specific-*"))) == 2


@pytest.mark.parametrize("name", ["specific", "mixture-equal", "mixture-agreement"])
def test_a_refit_keeps_the_adapters_and_counts_evidence_anew(
    circles: TrainingData, data: TrainingData, name: str
) -> None:
    assert data.cache_dir is not None
    less = replace(data, split=replace(data.split, train=data.split.train.head(3)))
    fitted = RECOMMENDERS[name].from_options({**OPTIONS, **({"prompts": 4} if "agreement" in name else {})}).fit(less)
    before = _scores(circles, fitted)
    refitted = fitted.refit(data)
    trained = [each for each in data.cache_dir.glob("specific-*") if each.is_dir()]
    assert len(trained) == 1
    after = _scores(circles, refitted)
    assert not np.array_equal(after, before)  # other words in the prompts
    np.testing.assert_array_equal(_scores(circles, fitted), before)
    if name == "specific":
        expected = adapter_scorers(data.backbone, data.dataset, data.split, {"row": trained[0]})["row"]
        np.testing.assert_array_equal(after, _scores(circles, expected))
    assert len([each for each in data.cache_dir.glob("specific-*") if each.is_dir()]) == 1


def test_a_hybrid_adapter_is_trained_on_all_domains(data: TrainingData) -> None:
    assert data.cache_dir is not None
    RECOMMENDERS["hybrid"].from_options({**OPTIONS, "balance": "equal"}).fit(data)
    record = read_json(next(data.cache_dir.glob("hybrid-*")) / "lorarec.json")
    assert [each["name"] for each in record["datasets"]] == ["noise", data.dataset.name]


@pytest.mark.parametrize("partner", ["general", "hybrid", "random"])
def test_partners_of_the_specific_adapter(circles: TrainingData, data: TrainingData, partner: str) -> None:
    assert data.cache_dir is not None
    options = {**OPTIONS, "partner": partner}
    specific = _scores(circles, RECOMMENDERS["specific"].from_options(OPTIONS).fit(data))
    mixture = RECOMMENDERS["mixture-equal"].from_options(options).fit(data)
    equal = _scores(circles, mixture)
    assert mixture.about.endswith("; weights 0.50, 0.50")
    grid = _scores(circles, RECOMMENDERS["mixture-grid"].from_options({**options, "cases": 5}).fit(data))
    assert np.isfinite(equal).all()
    assert np.isfinite(grid).all()
    assert not np.array_equal(equal, specific)
    mixed = read_json(next(data.cache_dir.glob("equal-*")) / "lorarec.json")
    assert mixed["mix"]["weights"] == [0.5, 0.5]
    assert [Path(each["path"]).name.rpartition("-")[0] for each in mixed["adapters"]] == [partner, "specific"]
    assert len(list(data.cache_dir.glob("general-*"))) == (partner == "general")
    assert len(list(data.cache_dir.glob("random-*"))) == (partner == "random")


@pytest.mark.parametrize("system", ["mixture-entropy", "mixture-agreement"])
def test_mixtures_without_labels(circles: TrainingData, data: TrainingData, system: str) -> None:
    assert data.cache_dir is not None
    for calibrate in (False, True):
        options = {"prompts": 4, "calibrate": calibrate, "cases": 5, **OPTIONS}
        mixture = RECOMMENDERS[system].from_options(options).fit(data)
        assert np.isfinite(_scores(circles, mixture)).all()
        assert "; weights " in mixture.about
        assert ("; temperatures " in mixture.about) == calibrate
    method = system.removeprefix("mixture-")
    found = [read_json(path / "lorarec.json")["mix"] for path in data.cache_dir.glob(f"{method}-*")]
    assert [each["method"] for each in found] == [method, method]
    assert sorted(each.get("cases", 0) for each in found) == [0, 5]


def test_the_general_adapter_learns_from_the_first_domains(circles: TrainingData, data: TrainingData) -> None:
    assert data.cache_dir is not None
    second = (replace(circles.dataset, name="second"), circles.split)
    both = replace(data, general=[*data.general, second])
    for given, options in ((data, {}), (both, {"domains": 1})):  # the same adapter
        RECOMMENDERS["general"].from_options({**OPTIONS, **options}).fit(given)
    (folder,) = data.cache_dir.glob("general-*")
    assert [each["name"] for each in read_json(folder / "lorarec.json")["datasets"]] == ["noise"]
    for options in ({}, {"domains": 2}):
        RECOMMENDERS["general"].from_options({**OPTIONS, **options}).fit(both)
    (more,) = set(data.cache_dir.glob("general-*")) - {folder}
    assert [each["name"] for each in read_json(more / "lorarec.json")["datasets"]] == ["noise", "second"]
    with pytest.raises(LorarecError, match="option domains is 3, but there are 2 general domains"):
        RECOMMENDERS["general"].from_options({**OPTIONS, "domains": 3}).fit(both)
    with pytest.raises(LorarecError, match="option domains must be at least 1, got 0"):
        RECOMMENDERS["general"].from_options({"domains": 0})


def test_adapters_are_tuned_with_the_adapters_of_earlier_trials(data: TrainingData, tmp_path: Path) -> None:
    assert data.cache_dir is not None
    trials_file, tried = tmp_path / "trials.json", {"learning_rate": [1e-3, 1e-2]}

    def adapters() -> dict[str, int]:
        assert data.cache_dir is not None
        return {
            path.parent.name: path.stat().st_mtime_ns for path in data.cache_dir.glob("*/adapter_model.safetensors")
        }

    row = RowConfig("mixture-grid", {**OPTIONS, "cases": 5}, tried)
    whole, best = tune(row, 2, data, trials_file)
    assert best is not None
    assert data.validation_ndcg(best.scorer) == whole[0]["ndcg@10"]
    trained = adapters()
    assert sorted(name.rpartition("-")[0] for name in trained) == sorted(["general", "specific", "grid"] * 2)
    write_json(trials_file, read_json(trials_file)[:1])  # as a run leaves it that stopped in the second trial
    assert tune(row, 2, data, trials_file)[0] == whole
    tune(RowConfig("specific", OPTIONS, tried), 2, data, tmp_path / "specific.json")
    assert adapters() == trained


def test_an_adapter_that_diverges_is_a_trial_that_failed(data: TrainingData, tmp_path: Path) -> None:
    row = RowConfig("specific", OPTIONS, {"learning_rate": [1e-3, 1e30]})
    good, bad = tune(row, 2, data, tmp_path / "trials.json")[0]
    assert (good["options"]["learning_rate"], bad["options"]["learning_rate"]) == (1e-3, 1e30)
    assert bad["ndcg@10"] is None
    assert "NaN" in bad["failed"]


def test_tallrec_judges_every_candidate_by_itself(circles: TrainingData, data: TrainingData) -> None:
    assert data.cache_dir is not None
    scorer = RECOMMENDERS["tallrec"].from_options(OPTIONS).fit(data)
    (folder,) = data.cache_dir.glob("specific-*")
    record = read_json(folder / "lorarec.json")
    assert (record["options"]["loss"], record["readout"], record["options"]["evidence"]) == (
        "pointwise",
        "verdict",
        False,
    )
    cases = circles.split.test["warm"].head(6).select(USER, HISTORY, CANDIDATES)
    together = np.stack(scorer.score(cases))
    assert together.std(axis=1).min() > 0
    fewer = scorer.score(cases.tail(2).with_columns(pl.col(CANDIDATES).list.head(3)))
    np.testing.assert_allclose(np.stack(fewer), together[-2:, :3], atol=1e-5)
    again = (
        RECOMMENDERS["tallrec"].from_options(OPTIONS).fit(replace(data, cache_dir=data.cache_dir.with_name("again")))
    )
    np.testing.assert_array_equal(np.stack(again.score(cases)), together)


def test_zero_shot_is_the_backbone_without_adapter(circles: TrainingData, data: TrainingData) -> None:
    assert data.backbone is not None
    zero_shot = adapter_scorers(data.backbone, data.dataset, data.split, {})["zero-shot"]
    for seed in (1, 2):
        scorer = RECOMMENDERS["zero-shot"]().fit(replace(data, seed=seed))
        np.testing.assert_array_equal(_scores(circles, scorer), _scores(circles, zero_shot))


@pytest.mark.parametrize(
    ("system", "lacks"), [("specific", "backbone"), ("general", "general"), ("specific", "cache_dir")]
)
def test_missing_values_are_named(data: TrainingData, system: str, lacks: str) -> None:
    with pytest.raises(LorarecError, match=f"this recommender needs {lacks}"):
        RECOMMENDERS[system].from_options(OPTIONS).fit(replace(data, **{lacks: None}))
