"""What rows need is checked before any of them is fitted."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lorarec.errors import LorarecError
from lorarec.experiments import read_experiment, run_experiment
from lorarec.experiments.experiment_data import ExperimentData
from lorarec.experiments.row_checks import check_models, refuse_unusable_data, rows_with_models

CHEAP: dict[str, Any] = {"ease": {}}


class ThisProcess:
    """Workers that do one job after the other in this process, and count them."""

    count = threads = 1
    calls = 0

    def run(self, function: Callable[..., None], *arguments: Any) -> str | None:
        self.calls += 1
        try:
            function(*arguments)
        except LorarecError as error:
            return str(error)
        return None


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rows": {"zero-shot": {}}, "backbone": "./nowhere"}, r"key backbone: .*nowhere"),
        (
            {"rows": {"specific": {"options": {"target_modules": "q_proj,nothing"}}}, "backbone": "embedded"},
            "key rows.specific: cannot put an adapter on nothing: .*choose from",
        ),
        (
            {"rows": {"text-similarity": {"options": {"text_encoder": "./nowhere"}}}},
            "key rows.text-similarity: text_encoder ./nowhere is not a folder",
        ),
        (
            {"rows": {"fusion": {"options": {"systems": {"ease": {}, "text-similarity": {"text_encoder": "./no"}}}}}},
            "key rows.fusion: text_encoder ./no is not a folder",
        ),
        ({"rows": {"recency": {}}}, "its timestamps are positions .*, and row recency needs times"),
    ],
)
def test_rows_that_cannot_be_fitted_are_refused_before_others_are(
    write_recipe: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    keys: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setattr("lorarec.experiments.row_checks.require_sentence_transformers", lambda: None)
    recipe = read_experiment(write_recipe(**keys | {"rows": CHEAP | keys["rows"]}))
    with pytest.raises(LorarecError, match=message):
        run_experiment(recipe, tmp_path / "out", workers=ThisProcess())
    assert not (tmp_path / "out").exists()


def test_rows_need_validation_cases(write_recipe: Callable[..., Path]) -> None:
    tuned = {"system": "bpr-mf", "tune": {"epochs": [1, 2]}}
    rows = CHEAP | {"tuned": tuned, "fusion": {"options": {"systems": {"ease": {}}}}}
    recipe = read_experiment(write_recipe(rows=rows))
    data = ExperimentData.load(recipe)
    refuse_unusable_data(recipe, data)
    without = replace(data, split=replace(data.split, valid=data.split.valid.clear()))
    with pytest.raises(LorarecError, match=r"no validation cases, and rows fusion, tuned need them: use another split"):
        refuse_unusable_data(recipe, without)


def test_models_are_loaded_only_for_rows_that_read_them(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    rows = CHEAP | {"zero-shot": {}, "fusion": {"options": {"systems": {"ease": {}, "specific": {}}}}}
    recipe = read_experiment(write_recipe(rows=rows, backbone="embedded"))
    assert rows_with_models(recipe) == ["zero-shot", "fusion"]
    check_models(recipe, rows_with_models(recipe), 1)
    cheap, workers = read_experiment(write_recipe(rows=CHEAP, backbone="./nowhere")), ThisProcess()
    run_experiment(cheap, tmp_path / "out", workers=workers)
    assert workers.calls == 1
