"""Datasets of the hub: pushed and loaded by their id, with their split."""

from pathlib import Path

import huggingface_hub
import polars as pl
import pytest
from huggingface_hub import DatasetCard

from lorarec.data import Dataset, leave_one_out, load_split
from lorarec.data.dataset_hub import dataset_card
from lorarec.errors import LorarecError
from tests import factories
from tests.hub_server import Hub, metadata_errors


def test_a_dataset_is_the_same_after_a_push(hub: Hub, taste: Dataset) -> None:
    info = taste.push_to_hub("taste", private=True, commit_message="Tastes")
    assert (info.repo_url.repo_id, info.repo_url.repo_type) == ("me/taste", "dataset")
    assert hub.dataset("me/taste").messages == ["initial commit", "Tastes"]
    loaded = Dataset.load("hub:me/taste")
    assert loaded.fingerprint == taste.fingerprint
    assert loaded.interactions.equals(taste.interactions)
    assert loaded.items.equals(taste.items)
    assert taste.users is not None
    assert loaded.users is not None
    assert loaded.users.equals(taste.users)


def test_its_stored_split_is_pushed_and_the_cache_is_never_written_to(hub: Hub, tmp_path: Path) -> None:
    dataset, _ = factories.hot_log()
    saved = dataset.save(tmp_path / "shop")
    saved.push_to_hub("me/shop")
    loaded = Dataset.load("hub:me/shop")
    assert loaded.folder is not None
    drawn = load_split(loaded)
    assert not (loaded.folder / "split").exists()
    split = leave_one_out(dataset, new_items=0.2, negatives=5, seed=7)
    split.save(tmp_path / "shop" / "split")
    saved.push_to_hub("me/shop")
    assert load_split(Dataset.load("hub:me/shop")).fingerprint == split.fingerprint != drawn.fingerprint


def test_the_split_of_other_data_is_not_pushed_and_an_old_one_is_removed(hub: Hub, tmp_path: Path) -> None:
    dataset, split = factories.hot_log()
    saved = dataset.save(tmp_path / "shop")
    split.save(tmp_path / "shop" / "split")
    saved.push_to_hub("me/shop")
    assert "split/split.json" in hub.dataset("me/shop").files
    other, _ = factories.hot_log("other")
    other.save(tmp_path / "other")
    split.save(tmp_path / "other" / "split")
    Dataset.load(tmp_path / "other").push_to_hub("me/shop")
    assert sorted(hub.dataset("me/shop").files) == [
        ".gitattributes",
        "README.md",
        "dataset.json",
        "interactions.parquet",
        "items.parquet",
    ]


def test_revisions_and_the_cache(hub: Hub, taste: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    taste.push_to_hub("me/taste", revision="small")
    assert Dataset.load("hub:me/taste@small").fingerprint == taste.fingerprint
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert Dataset.load("hub:me/taste@small").fingerprint == taste.fingerprint


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hub:me/none", "dataset hub:me/none: the hub has no dataset of this name that you may read"),
        ("hub:none", "dataset hub:none is no hub id"),
        ("me/none", "me/none is not a dataset folder"),
    ],
)
def test_what_is_no_dataset(hub: Hub, source: str, message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        Dataset.load(source)


def test_the_card_names_every_table(hub: Hub, taste: Dataset) -> None:
    taste.push_to_hub("me/taste")
    card = DatasetCard(hub.dataset("me/taste").files["README.md"].decode())
    card.validate()
    assert card.data.pretty_name == taste.name
    files = {each["config_name"]: each["data_files"] for each in card.data.configs}
    assert files == {name: f"{name}.parquet" for name in ("interactions", "items", "users")}
    assert set(files.values()) <= set(hub.dataset("me/taste").files)
    assert 'Dataset.load("hub:me/taste")' in card.text
    assert taste.fingerprint in card.text


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        (None, (None, None)),
        ("Apache-2.0", ("apache-2.0", None)),
        ("CC BY 4.0", ("cc-by-4.0", None)),
        ("MovieLens terms: no *commercial* use", ("other", "movielens-terms-no-commercial-use")),
    ],
)
def test_licences(licence: str | None, expected: tuple[str | None, str | None]) -> None:
    text = dataset_card({**_info(100), "licence": licence}, False, "me/shop")
    assert metadata_errors(text, "dataset") == []
    data = DatasetCard(text).data.to_dict()
    assert (data.get("license"), data.get("license_name")) == expected


@pytest.mark.parametrize(
    ("rows", "expected"), [(999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**8, "n>100M")]
)
def test_categories_of_size(rows: int, expected: str) -> None:
    assert DatasetCard(dataset_card(_info(rows), False, "me/shop")).data.size_categories == [expected]


def _info(rows: int) -> dict[str, object]:
    frame = pl.DataFrame({"user_id": ["u"], "item_id": ["i"], "timestamp": [1]})
    dataset = Dataset.from_frames("shop", frame, pl.DataFrame({"item_id": ["i"], "title": ["thing"]}))
    return {**dataset.info, "counts": {"users": 1, "items": 1, "interactions": rows}}
