"""Splits stored beside their dataset, few-shot cuts, damaged split folders."""

from dataclasses import replace
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

from lorarec.data import Dataset, Split, draw_split, few_shot, leave_one_out, load_split
from lorarec.errors import LorarecError


@pytest.fixture
def saved(dataset: Dataset, tmp_path: Path) -> Dataset:
    """The toy dataset in a folder."""
    return dataset.save(tmp_path / "toy")


def test_round_trip(dataset: Dataset, tmp_path: Path) -> None:
    split = leave_one_out(dataset, negatives=9)
    split.save(tmp_path / "split")
    loaded = Split.load(tmp_path / "split")
    assert_frame_equal(loaded.train, split.train)
    assert_frame_equal(loaded.valid, split.valid)
    assert list(loaded.test) == ["warm", "new-item"]
    for setting, cases in split.test.items():
        assert_frame_equal(loaded.test[setting], cases)
    assert loaded.info == split.info


def test_the_first_draw_is_stored_and_used_again(saved: Dataset) -> None:
    assert saved.folder is not None
    first = load_split(saved, negatives=9)
    stored = (saved.folder / "split" / "split.json").stat().st_mtime_ns
    assert load_split(saved).fingerprint == load_split(saved, negatives=9, seed=42).fingerprint == first.fingerprint
    assert (saved.folder / "split" / "split.json").stat().st_mtime_ns == stored
    assert load_split(Dataset.load(saved.folder)).fingerprint == first.fingerprint


def test_other_options_get_a_folder_of_their_own(saved: Dataset) -> None:
    assert saved.folder is not None
    default = load_split(saved)
    timed = load_split(saved, protocol="global-time", ratios=(6, 2, 2))
    assert load_split(saved, protocol="global-time", ratios=(6, 2, 2)).fingerprint == timed.fingerprint
    assert load_split(saved).fingerprint == default.fingerprint != timed.fingerprint
    assert len(list(saved.folder.glob("split*"))) == 2


def test_a_dataset_without_a_folder_is_drawn_the_same_every_time(dataset: Dataset) -> None:
    assert load_split(dataset).fingerprint == load_split(dataset).fingerprint


def test_a_folder_that_cannot_be_written_to_is_drawn_the_same_every_time(
    saved: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert saved.folder is not None
    monkeypatch.setattr("lorarec.data.stored_splits.os.access", lambda *_: False)
    assert load_split(saved).fingerprint == load_split(saved).fingerprint
    assert not (saved.folder / "split").exists()


def test_a_split_of_other_data_is_refused(saved: Dataset) -> None:
    load_split(saved)
    changed = Dataset.from_frames("toy", saved.interactions[1:], saved.items)
    with pytest.raises(LorarecError, match=r"drawn from other data: run `lorarec split"):
        load_split(replace(changed, folder=saved.folder))


def test_a_damaged_split_is_refused(saved: Dataset) -> None:
    assert saved.folder is not None
    folder = saved.folder / "split"
    split = load_split(saved)
    split.valid[1:].write_parquet(folder / "valid.parquet")
    with pytest.raises(LorarecError, match=r"not those of split\.json"):
        load_split(saved)
    (folder / "valid.parquet").unlink()
    with pytest.raises(LorarecError, match=r"valid\.parquet is missing"):
        load_split(saved)
    (folder / "split.json").write_text("[]")
    with pytest.raises(LorarecError, match="does not describe a split"):
        Split.load(folder)


def test_unknown_protocol(dataset: Dataset) -> None:
    with pytest.raises(LorarecError, match="no protocol 'random': use one of leave-one-out, global-time"):
        draw_split(dataset, protocol="random")


def test_few_shot_keeps_a_share_of_the_training_users(dataset: Dataset) -> None:
    split = leave_one_out(dataset)
    few, same, other = few_shot(split, 0.2), few_shot(split, 0.2), few_shot(split, 0.2, seed=1)
    assert few.train.height == round(0.2 * split.train.height)
    assert few.train.join(split.train, on="user_id").height == few.train.height
    assert few.train["user_id"].is_sorted()
    assert_frame_equal(few.valid, split.valid)
    assert few.fingerprint == same.fingerprint != other.fingerprint != split.fingerprint
    assert few.info["few_shot"] == {"fraction": 0.2, "seed": 42, "of": split.fingerprint}
    assert few.cases == split.cases == split.fingerprint != few.fingerprint
    assert few_shot(split, 1.0).train.equals(split.train)
    assert few_shot(split, 0.001).train.height == 1
    for fraction in (0, 1.5):
        with pytest.raises(LorarecError, match="few-shot fraction"):
            few_shot(split, fraction)
