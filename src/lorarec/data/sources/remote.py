"""Tables in object stores such as S3 and Google Cloud Storage, which fsspec copies to this machine."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lorarec.data.column_tables import Table
from lorarec.data.parquet_folder import parquet_parts
from lorarec.data.tables import TableFormat, open_table
from lorarec.errors import LorarecError
from lorarec.io import disk_errors

#: Extras of lorarec with the library that reads a protocol.
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_URL = re.compile(r"([a-z][a-z0-9+]+)://", re.IGNORECASE)


@contextmanager
def opened_table(source: str | Path, options: TableFormat | None = None) -> Iterator[Table]:
    """Yield a table: a file or a folder of Parquet files, on this machine or by its URL (`s3://bucket/log.parquet`).

    Raises:
        LorarecError: As for `open_table`, or the library for the URL is not installed, or access is refused.
    """
    url = str(source)
    if not _URL.match(url):
        yield open_table(source, options)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = _fetch(url, Path(folder))
        try:
            yield open_table(copy, options)
        except LorarecError as error:
            raise LorarecError(str(error).replace(str(copy), shown_url(url))) from None


def shown_url(url: str) -> str:
    """Return a URL without user, password and parameters, which may be secret; a path is returned unchanged."""
    protocol, mark, address = url.partition("://")
    return f"{protocol}://{address.partition('?')[0].rpartition('@')[2]}" if mark else url


def _fetch(url: str, folder: Path) -> Path:
    """Copy a file, or the Parquet files of a folder, and return the path of the copy."""
    shown = shown_url(url)
    copy = folder / shown.rstrip("/").rpartition("/")[2]
    try:
        filesystem, path = _filesystem(url)
        if filesystem.info(path)["type"] == "directory":
            names = {each: Path(each).relative_to(path) for each in filesystem.find(path)}
            wanted = parquet_parts(names.values(), shown)
            files = {each: copy / name for each, name in names.items() if name in wanted}
        else:
            files = {path: copy}
        with disk_errors(copy):
            for target in files.values():
                target.parent.mkdir(parents=True, exist_ok=True)
        for each, target in files.items():
            filesystem.get_file(each, str(target))
    except LorarecError:
        raise
    except FileNotFoundError:
        raise LorarecError(f"{shown} does not exist: give the URL of a file or of a folder of Parquet files") from None
    except Exception as error:  # each library has errors of its own
        reason = (str(error).strip().splitlines() or [""])[0]
        for secret in (url, *re.findall(r"://(.*)@", url), *re.findall(r"[?&][^=&]*=([^&]*)", url)):
            reason = reason.replace(secret, "***") if secret else reason
        raise LorarecError(
            f"{shown} cannot be read: {type(error).__name__}{reason and ': '}{reason}: check the URL, and that the "
            "environment has the credentials of its library"
        ) from None
    return copy


def _filesystem(url: str) -> tuple[Any, str]:
    protocol = url.partition("://")[0].lower()
    extra = _EXTRAS.get(protocol)
    install = f"pip install 'lorarec[{extra}]'" if extra else "install the library that fsspec needs for it"
    try:
        import fsspec

        return fsspec.core.url_to_fs(url)
    except ImportError:
        raise LorarecError(f"{shown_url(url)} needs a library to be read: {install}") from None
    except ValueError as error:
        if "Protocol not known" in str(error):
            raise LorarecError(
                f"{shown_url(url)} has the unknown protocol {protocol!r}: give s3://, gs:// or another of fsspec"
            ) from None
        raise
