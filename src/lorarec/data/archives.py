"""Unpacking what users hand in: damage is told in one line, and how much comes out is limited."""

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

from lorarec.disk import disk_errors
from lorarec.errors import LorarecError

#: Whatever its size, a file may unpack to so many bytes;
FREE = 256 << 20
#: beyond that to so many times its own size. Logs of interactions reach 5 to 30, nested bombs a thousand and more.
MAX_RATIO = 200
_BLOCK_BYTES = 1 << 20


def gunzip(raw: BinaryIO, path: Path) -> BinaryIO:
    """The unpacked bytes of an open gzip file, read as they are asked for.

    Raises:
        LorarecError: while reading, more bytes than `FREE` and `MAX_RATIO` allow.
    """
    return io.BufferedReader(_Limited(gzip.GzipFile(fileobj=raw), path), _BLOCK_BYTES)


@contextmanager
def gzip_errors(path: Path) -> Iterator[None]:
    """Tell errors of reading a file that may be gzipped.

    Raises:
        LorarecError: the file cannot be read, or its gzip stream is truncated or damaged.
    """
    try:
        yield
    except EOFError as error:
        raise LorarecError(f"{path} is a truncated gzip file: fetch it again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise LorarecError(f"{path} is a damaged gzip file ({error}): fetch it again") from error
    except OSError as error:
        raise LorarecError(f"cannot read {path}: {error.strerror or error}") from error


def check_gzip(path: Path) -> None:
    """Unpack a gzip file to nowhere, before a reader without limits does; other files pass.

    Raises:
        LorarecError: it is truncated or damaged, or unpacks to more than `FREE` and `MAX_RATIO` allow.
    """
    with gzip_errors(path), path.open("rb") as raw:
        if raw.read(2) == b"\x1f\x8b":
            raw.seek(0)
            stream = gunzip(raw, path)
            while stream.read(_BLOCK_BYTES):
                pass


@contextmanager
def unzipped(path: Path, wanted: Collection[str]) -> Iterator[Path]:
    """A temporary folder with the members of a zip file that have one of these names, whatever folder they are in.

    Raises:
        LorarecError: a member is damaged, encrypted, packed by an unknown method or there twice, all of them are larger
            than `FREE` and `MAX_RATIO` allow, or the temporary folder cannot be written to.
    """
    with tempfile.TemporaryDirectory() as folder:
        with _zip_errors(path), zipfile.ZipFile(path) as archive:
            members = [each for each in archive.infolist() if _name(each) in wanted]
            for member in members:
                if member.flag_bits & 1:
                    raise LorarecError(
                        f"{path}: {member.filename} is encrypted: unpack it yourself, then give the folder"
                    )
            _extract(archive, members, path, Path(folder))
        yield Path(folder)


def _name(member: zipfile.ZipInfo) -> str:
    """The last part of its path; none of folders and of what macOS adds."""
    *parents, name = member.filename.split("/")
    return "" if "__MACOSX" in parents else name


def _extract(archive: zipfile.ZipFile, members: list[zipfile.ZipInfo], path: Path, folder: Path) -> None:
    left = max(FREE, MAX_RATIO * path.stat().st_size)
    for member in members:
        target = folder / _name(member)
        if target.exists():
            raise LorarecError(f"{path} holds {target.name} twice: unpack it, then give the right folder")
        with archive.open(member) as stream, disk_errors(target), target.open("wb") as out:
            for block in _blocks(stream, path):
                left -= len(block)
                if left < 0:
                    raise LorarecError(_bomb(path))
                out.write(block)


def _blocks(stream: IO[bytes], path: Path) -> Iterator[bytes]:
    """Its errors are told here, so that they are not taken for those of the disk that is written to."""
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
            f"{path} cannot be unpacked ({error}): unpack it by other means, then give the folder"
        ) from error
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, struct.error, OSError) as error:
        raise LorarecError(f"{path} is a damaged zip file ({error}): fetch it again") from error


def _bomb(path: Path) -> str:
    return f"{path} unpacks to more than {FREE >> 20} MiB and {MAX_RATIO} times its own size: is it an attack?"


class _Limited(io.RawIOBase):
    def __init__(self, stream: gzip.GzipFile, path: Path) -> None:
        self._stream, self._path = stream, path
        self._left = max(FREE, MAX_RATIO * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        found = self._stream.read(len(buffer))
        self._left -= len(found)
        if self._left < 0:
            raise LorarecError(_bomb(self._path))
        buffer[: len(found)] = found
        return len(found)
