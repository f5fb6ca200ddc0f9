"""Figures 4 and 5 from recipe to pictures: adapters trained or given, resuming, and errors."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lorarec.errors import LorarecError
from lorarec.experiments import read_weights, run_recipe, run_weights
from lorarec.io.artefacts import read_json
from lorarec.lora import unlabelled_search


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Descents end early, and the sums of small numbers are the same in every run."""
    monkeypatch.setattr(unlabelled_search, "MAX_STEPS", 2)
    torch.set_num_threads(1)


def test_a_small_recipe_runs_and_resumes(write_weights: Callable[..., Path], tmp_path: Path) -> None:
    path, out = write_weights(settings=["warm"]), tmp_path / "out"
    result = run_recipe(path, out)
    found = result.values
    assert list(found["settings"]["settings"]) == ["warm"]
    assert [run["prompts"] for run in found["prompts"]["warm"]["runs"]] == [2, 2, 4, 4]
    assert found["prompts"]["warm"]["cases"] == 3
    mixtures = [f"{scope}, {combine}" for scope in ("model", "layer") for combine in ("factors", "deltas")]
    assert [row["row"] for row in found["variants"]["warm"]] == ["general", "specific", *mixtures]
    assert found["variants"] == read_json(result.report)
    assert (out / "warm" / "effect_of_prompts.png").stat().st_size > 3000
    assert (out / "settings" / "weights_by_setting.png").stat().st_size > 3000
    assert [table.row_count for table in result.tables] == [6]
    assert read_weights(out / "recipe.yaml") == read_weights(path)

    adapters = sorted(each for each in (out / "artefacts").iterdir() if each.is_dir())
    written_at = adapters[0].stat().st_mtime_ns
    shutil.rmtree(out / "warm")
    assert run_recipe(path, out).values == found
    assert adapters[0].stat().st_mtime_ns == written_at

    folders = list(map(str, adapters))
    given = read_weights(write_weights(adapters=folders, general=None, options=None, settings=["new-item"]))
    other = run_weights(given, tmp_path / "other")
    assert other["settings"]["adapters"] == folders
    assert list(other["settings"]["settings"]) == list(other["variants"]) == ["new-item"]
    assert not (tmp_path / "other" / "artefacts").exists()
    with pytest.raises(LorarecError, match=r"other holds another experiment: users was 3 and is now 2"):
        run_weights(replace(given, users=2), tmp_path / "other")
