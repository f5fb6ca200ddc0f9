"""The language-model rows: shared adapters, mixtures that see no label."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from lorarec.backbone import Backbone
from lorarec.data.columns import CANDIDATES, HISTORY, USER
from lorarec.errors import LorarecError
from lorarec.evaluation import adapter_scorers
from lorarec.experiments import SYSTEMS
from lorarec.io.artefacts import read_json
from lorarec.recommenders import TrainingData
from tests.factories import circles_data

OPTIONS: dict[str, Any] = {"samples": 8, "epochs": 1, "batch_size": 4, "negatives": 2, "eval_users": 0, "r": 2}


@pytest.fixture(scope="session")
def circles(shared_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    return circles_data(shared_backbone, tmp_path_factory)


@pytest.fixture(scope="session")
def noise(shared_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    return circles_data(shared_backbone, tmp_path_factory, shuffled=True)


@pytest.fixture
def material(circles: TrainingData, noise: TrainingData, tiny_backbone: Backbone, tmp_path: Path) -> TrainingData:
    """Two domains, a tiny backbone and a folder; no test cases."""
    split = replace(circles.split, test={})
    general = [(replace(noise.dataset, name="noise"), noise.split)]
    return TrainingData(circles.dataset, split, general, tiny_backbone, tmp_path / "adapters")


def _scores(circles: TrainingData, scorer: Callable[..., Any]) -> np.ndarray:
    return np.stack(scorer(circles.split.test["warm"].head(6).select(USER, HISTORY, CANDIDATES)))


def test_rows_share_adapters_and_mixtures_are_made_of_them(circles: TrainingData, material: TrainingData) -> None:
    assert material.folder is not None
    scores = {name: _scores(circles, SYSTEMS[name](material, **OPTIONS)) for name in ("general", "specific")}
    trained = {
        path.name: (path / "adapter_model.safetensors").stat().st_mtime_ns for path in material.folder.glob("[gs]*")
    }
    assert sorted(name.rpartition("-")[0] for name in trained) == ["general", "specific"]
    scores["second-round"] = _scores(circles, SYSTEMS["second-round"](material, **OPTIONS))
    scores["grid"] = _scores(circles, SYSTEMS["mixture-grid"](material, cases=5, **OPTIONS))
    entropy = SYSTEMS["mixture-entropy"](material, prompts=4, **OPTIONS)
    scores["entropy"] = _scores(circles, entropy)
    for name, written in trained.items():
        assert (material.folder / name / "adapter_model.safetensors").stat().st_mtime_ns == written
    assert all(np.isfinite(found).all() for found in scores.values())
    assert not np.array_equal(scores["general"], scores["specific"])
    assert not np.array_equal(scores["second-round"], scores["specific"])
    second = read_json(next(material.folder.glob("second-round-*")) / "lorarec.json")
    assert Path(second["start_from"]["path"]).name in trained
    mixed = read_json(next(material.folder.glob("entropy-*")) / "lorarec.json")
    assert [Path(each["path"]).name.rpartition("-")[0] for each in mixed["adapters"]] == ["general", "specific"]
    assert "adapter" in entropy.about
    SYSTEMS["specific"](replace(material, seed=7), **OPTIONS)
    assert len(list(material.folder.glob("specific-*"))) == 2


def test_tallrec_judges_every_candidate_by_itself(circles: TrainingData, material: TrainingData) -> None:
    assert material.folder is not None
    scorer = SYSTEMS["tallrec"](material, **OPTIONS)
    (folder,) = material.folder.glob("specific-*")
    options = read_json(folder / "lorarec.json")["options"]
    assert (options["loss"], options["readout"], options["evidence"]) == ("pointwise", "verdict", False)
    cases = circles.split.test["warm"].head(6).select(USER, HISTORY, CANDIDATES)
    together = np.stack(scorer(cases))
    assert together.std(axis=1).min() > 0
    fewer = scorer(cases.tail(2).with_columns(pl.col(CANDIDATES).list.head(3)))
    np.testing.assert_allclose(np.stack(fewer), together[-2:, :3], atol=1e-5)
    again = SYSTEMS["tallrec"](replace(material, folder=material.folder.with_name("again")), **OPTIONS)
    np.testing.assert_array_equal(np.stack(again(cases)), together)


def test_zero_shot_is_the_backbone_alone(circles: TrainingData, material: TrainingData) -> None:
    assert material.backbone is not None
    alone = adapter_scorers(material.backbone, material.dataset, material.split, {})["zero-shot"]
    for seed in (1, 2):
        scorer = SYSTEMS["zero-shot"](replace(material, seed=seed))
        np.testing.assert_array_equal(_scores(circles, scorer), _scores(circles, alone))


@pytest.mark.parametrize(
    ("system", "lacks"), [("specific", "backbone"), ("general", "general"), ("specific", "folder")]
)
def test_what_is_missing_is_named(material: TrainingData, system: str, lacks: str) -> None:
    with pytest.raises(LorarecError, match=f"this system needs {lacks}"):
        SYSTEMS[system](replace(material, **{lacks: None}), **OPTIONS)
