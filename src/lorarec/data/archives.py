"""Unpacking of gzip and zip files from users, with one-line errors for damaged files and a limit on the output."""

import gzip
import io
import lzma
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from lorarec.errors import LorarecError
from lorarec.io import disk_errors

#: A file of any size may unpack to this many bytes.
FREE_BYTES = 256 << 20
#: A larger output may be this many times the file's size. Logs of interactions reach 5 to 30, zip bombs 1,000 and more.
MAX_RATIO = 200
_BLOCK_BYTES = 1 << 20


def gunzip(raw: BinaryIO, path: Path) -> BinaryIO:
    """Return a stream of the unpacked bytes of an open gzip file.

    Raises:
        LorarecError: While reading, if it unpacks to more than `FREE_BYTES` and `MAX_RATIO` allow.
    """
    return io.BufferedReader(_Limited(gzip.GzipFile(fileobj=raw), path), _BLOCK_BYTES)


@contextmanager
def gzip_errors(path: Path) -> Iterator[None]:
    """Turn errors of reading a file that may be gzipped into one line that names the file.

    Raises:
        LorarecError: The file cannot be read, or its gzip stream is truncated or damaged.
    """
    try:
        yield
    except EOFError as error:
        raise LorarecError(f"{path} is a truncated gzip file: download it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise LorarecError(f"{path} is a damaged gzip file ({error}): download it again") from error
    except OSError as error:
        raise LorarecError(f"cannot read {path}: {error.strerror or error}") from error


def check_gzip(path: Path) -> None:
    """Check a gzip file by reading all of it, for readers that have no limit of their own; other files are not read.

    Raises:
        LorarecError: The file is truncated or damaged, or unpacks to more than `FREE_BYTES` and `MAX_RATIO` allow.
    """
    with gzip_errors(path), path.open("rb") as raw:
        if raw.read(2) == b"\x1f\x8b":
            raw.seek(0)
            stream = gunzip(raw, path)
            while stream.read(_BLOCK_BYTES):
                pass


@contextmanager
def unzipped(path: Path, wanted: Collection[str]) -> Iterator[Path]:
    """Yield a temporary folder with those members of a zip file, in any of its folders, that have one of these names.

    Raises:
        LorarecError: A member is damaged, encrypted, compressed by an unknown method or occurs twice, the members
            unpack to more than `FREE_BYTES` and `MAX_RATIO` allow, or the temporary folder cannot be written to.
    """
    with tempfile.TemporaryDirectory() as folder:
        with _zip_errors(path), zipfile.ZipFile(path) as archive:
            members = [each for each in archive.infolist() if _name(each) in wanted]
            for member in members:
                if member.flag_bits & 1:
                    raise LorarecError(
                        f"{path}: {member.filename} is encrypted: unpack the file yourself and give the folder"
                    )
            _extract(archive, members, path, Path(folder))
        yield Path(folder)


def _name(member: zipfile.ZipInfo) -> str:
    """Return the file name of a member, or "" for folders and for the metadata that macOS adds."""
    *parents, name = member.filename.split("/")
    return "" if "__MACOSX" in parents else name


def _extract(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], path: Path, folder: Path) -> None:
    left = _allowed_bytes(path)
    for member in members:
        target = folder / _name(member)
        if target.exists():
            raise LorarecError(f"{path} contains {target.name} twice: unpack it and give the right folder")
        with archive.open(member) as stream, disk_errors(target), target.open("wb") as out:
            for block in _blocks(stream, path):
                left -= len(block)
                if left < 0:
                    raise _too_large(path)
                out.write(block)


def _blocks(stream: IO[bytes], path: Path) -> Iterator[bytes]:
    """Yield the bytes of a member. Its errors are handled here, so that they do not look like those of the output."""
    while True:
        with _zip_errors(path):
            block = stream.read(_BLOCK_BYTES)
        if not block:
            return
        yield block


@contextmanager
def _zip_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except LorarecError:
        raise
    except NotImplementedError as error:
        raise LorarecError(
            f"{path} cannot be unpacked ({error}): unpack it by other means and give the folder"
        ) from error
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, struct.error, OSError) as error:
        raise LorarecError(f"{path} is a damaged zip file ({error}): download it again") from error


def _allowed_bytes(path: Path) -> int:
    return max(FREE_BYTES, MAX_RATIO * path.stat().st_size)


def _too_large(path: Path) -> LorarecError:
    return LorarecError(
        f"{path} unpacks to more than {FREE_BYTES >> 20} MiB and {MAX_RATIO} times its own size, as a zip bomb does: "
        "unpack it yourself if you trust it"
    )


class _Limited(io.RawIOBase):
    def __init__(self, stream: gzip.GzipFile, path: Path) -> None:
        self._stream, self._path = stream, path
        self._left = _allowed_bytes(path)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        unpacked = self._stream.read(len(buffer))
        self._left -= len(unpacked)
        if self._left < 0:
            raise _too_large(self._path)
        buffer[: len(unpacked)] = unpacked
        return len(unpacked)
