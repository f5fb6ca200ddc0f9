"""Tables that fsspec reads, from its file system in memory."""

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import polars as pl
import pytest

from lorarec.data import Dataset, read_table
from lorarec.data.sources.remote import opened_table, shown_url
from lorarec.errors import LorarecError

LOG = pl.DataFrame({"user_id": ["a", "b"], "item_id": [1, 1], "timestamp": [1400000000, 1400000001]})


@pytest.fixture
def bucket() -> Iterator[str]:
    """The URL of a folder that has a log, as CSV and as partitions of Parquet, and items."""
    url = f"memory://bucket-{uuid.uuid4().hex}"
    store = fsspec.filesystem("memory")
    texts = {
        "log.csv": LOG.write_csv(),
        "items.csv": "item_id,title\n1,One\n",
        "bad.csv": "user_id,item_id,timestamp\na,1,1\na,1\n",
    }
    for name, text in texts.items():
        store.pipe_file(f"{url}/{name}", text.encode())
    for user, part in LOG.partition_by("user_id", as_dict=True).items():
        with store.open(f"{url}/parts/user_id={user[0]}/0.parquet", "wb") as stream:
            part.drop("user_id").write_parquet(stream)
    store.pipe_file(f"{url}/parts/_SUCCESS", b"")
    yield url
    store.rm(url, recursive=True)


def test_files_and_folders(bucket: str) -> None:
    of_csv, of_parts = (read_table(f"{bucket}/{name}", f"{bucket}/items.csv") for name in ("log.csv", "parts"))
    datasets = [Dataset.from_raw_log(each, name="shop") for each in (of_csv, of_parts)]
    assert datasets[0].interactions.rows() == [("a", "1", 1400000000, None), ("b", "1", 1400000001, None)]
    assert datasets[0].fingerprint == datasets[1].fingerprint
    assert [(each.name, each.origin) for each in (of_csv, of_parts)] == [
        ("log", "table log.csv"),
        ("parts", "table parts"),
    ]


def test_errors_name_the_url(bucket: str) -> None:
    with pytest.raises(LorarecError, match=f"^{bucket}/bad.csv.*line 3"):
        read_table(f"{bucket}/bad.csv")
    with pytest.raises(LorarecError, match=f"^{bucket}/no.csv does not exist"):
        read_table(f"{bucket}/no.csv")
    missing = bucket.replace("bucket", "missing")
    with pytest.raises(LorarecError, match=f"^{missing} does not exist"):
        read_table(missing)


def test_a_dataset_folder_is_not_imported_again(bucket: str) -> None:
    fsspec.filesystem("memory").pipe_file(f"{bucket}/parts/dataset.json", b"{}")
    with pytest.raises(LorarecError, match=f"^{bucket}/parts is already a dataset folder"):
        read_table(f"{bucket}/parts")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nothing://bucket/log.csv", r"nothing://bucket/log\.csv has the unknown protocol 'nothing'"),
        ("s3://key:s3cret@bucket/log.csv?token=s3cret", r"s3://bucket/log.csv needs a library .*'lorarec\[s3\]'"),
        ("gs://bucket/log.csv", r"gs://bucket/log.csv needs a library .*'lorarec\[gcs\]'"),
    ],
)
def test_urls_that_cannot_be_read(url: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(LorarecError, match=message) as caught:
        read_table(url)
    assert "s3cret" not in str(caught.value)


def test_refused_access_names_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(fsspec.AbstractFileSystem):  # type: ignore[misc]
        protocol = "refusing"

        def info(self, path: str, **options: Any) -> dict[str, Any]:
            raise PermissionError("Forbidden for key:s3cret with t0ken\nsecond line")

    fsspec.register_implementation("refusing", Refusing, clobber=True)
    with pytest.raises(LorarecError, match=r"PermissionError: Forbidden for .*: check the URL") as caught:
        read_table("refusing://key:s3cret@bucket/log.csv?signature=t0ken")
    assert "s3cret" not in str(caught.value)
    assert "t0ken" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_paths_are_no_urls(tmp_path: Path) -> None:
    (tmp_path / "log?@.csv").write_text(LOG.write_csv())
    with opened_table(tmp_path / "log?@.csv") as table:
        assert table.names == LOG.columns
    assert shown_url(str(tmp_path / "log?@.csv")) == str(tmp_path / "log?@.csv")
