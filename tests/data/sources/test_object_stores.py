"""Tables in S3 and Google Cloud Storage, of stand-ins on this machine that speak their protocols."""

import uuid
from collections.abc import Iterator

import polars as pl
import pytest

from lorarec.data import Dataset, read_table
from lorarec.errors import LorarecError

LOG = pl.DataFrame(
    {"user_id": ["a", "b", "a"], "item_id": [1, 1, 2], "timestamp": [1400000000, 1400000001, 1400000002]}
)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an empty bucket of a stand-in for S3, to which the environment points."""
    pytest.importorskip("s3fs", reason="it is not installed: pip install 'lorarec[s3]'")
    moto = pytest.importorskip("moto.server", reason="it is not installed: pip install 'moto[server]'")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{uuid.uuid4().hex}"  # all servers of a process have the same buckets
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an empty bucket of a stand-in for Google Cloud Storage, to which the environment points."""
    gcsfs = pytest.importorskip("gcsfs", reason="it is not installed: pip install 'lorarec[gcs]'")
    emulator = pytest.importorskip(
        "gcp_storage_emulator.server", reason="it is not installed: pip install gcp-storage-emulator"
    )
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="bucket")
    server.start()
    address = f"http://127.0.0.1:{server._api._httpd.server_port}"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
    gcsfs.GCSFileSystem.clear_instance_cache()
    yield "gs://bucket"
    gcsfs.GCSFileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture(params=["s3", "gcs"])
def bucket(request: pytest.FixtureRequest) -> str:
    """URL of a bucket with a log, as CSV and as partitions of Parquet, and items."""
    import fsspec

    url: str = request.getfixturevalue(request.param)
    store, root = fsspec.core.url_to_fs(url)
    store.pipe_file(f"{root}/log.csv", LOG.write_csv().encode())
    store.pipe_file(f"{root}/items.csv", b"item_id,title\n1,One\n2,Two\n")
    for (user,), part in LOG.partition_by("user_id", as_dict=True).items():
        with store.open(f"{root}/log/user_id={user}/0.parquet", "wb") as stream:
            part.drop("user_id").write_parquet(stream)
    store.pipe_file(f"{root}/log/_SUCCESS", b"")
    return url


def test_a_file_and_a_folder_of_a_bucket_are_the_same_data(bucket: str) -> None:
    datasets = [
        Dataset.from_raw_log(read_table(f"{bucket}/{name}", f"{bucket}/items.csv"), name="shop")
        for name in ("log.csv", "log")
    ]
    assert datasets[0].interactions.height == 3
    assert datasets[0].titles == {"1": "One", "2": "Two"}
    assert datasets[0].fingerprint == datasets[1].fingerprint


def test_what_is_not_there_is_named(bucket: str) -> None:
    for url in (f"{bucket}/none.csv", f"{bucket}-none/log.csv"):
        with pytest.raises(LorarecError, match=f"^{url} does not exist"):
            read_table(url)
