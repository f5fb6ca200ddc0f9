"""Datasets that recipes name."""

from pathlib import Path

import pytest

from lorarec.data.sample import load_sample, load_whole_sample
from lorarec.errors import LorarecError
from lorarec.experiments.experiment_data import load_named_dataset


def test_names_of_the_sample_and_of_folders(tmp_path: Path) -> None:
    drama = load_sample("drama")
    assert load_named_dataset("sample:drama").fingerprint == drama.fingerprint
    assert load_named_dataset("sample").fingerprint == load_whole_sample().fingerprint
    folder = drama.save(tmp_path / "folder").folder
    assert load_named_dataset(str(folder)).fingerprint == drama.fingerprint
    with pytest.raises(LorarecError, match="opera"):
        load_named_dataset("sample:opera")
