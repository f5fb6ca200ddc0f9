"""Archives that are damaged, encrypted or zip bombs are refused in one line that names them."""

import bz2
import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from lorarec.data import archives, read_amazon, read_movielens
from lorarec.data.archives import check_gzip, unzipped
from lorarec.data.reading import line_blocks, parse_record
from lorarec.data.tables import open_table
from lorarec.errors import LorarecError

RATINGS = "userId,movieId,rating,timestamp\n" + "".join(f"{n % 7},{n % 11},4.0,{10**9 + n}\n" for n in range(2000))
MOVIES = "movieId,title,genres\n" + "".join(f"{n},Film {n},Drama\n" for n in range(11))
METHODS = {"stored": zipfile.ZIP_STORED, "deflate": zipfile.ZIP_DEFLATED, "bzip2": zipfile.ZIP_BZIP2}
METHODS |= {"lzma": zipfile.ZIP_LZMA}


@pytest.fixture(autouse=True)
def _small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 1 << 20)


def _zip(method: int = zipfile.ZIP_DEFLATED, names: tuple[str, ...] = ("ml/ratings.csv", "ml/movies.csv")) -> bytearray:
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", method) as archive:
        for name in names:
            archive.writestr(name, MOVIES if name.endswith("movies.csv") else RATINGS)
    return bytearray(found.getvalue())


def _patched(content: bytearray, local: int, central: int, value: int) -> bytearray:
    """Change a two-byte field of every header: at `local` of local headers, at `central` of the central ones."""
    for mark, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        start = content.find(mark)
        while start >= 0:
            struct.pack_into("<H", content, start + offset, value)
            start = content.find(mark, start + 4)
    return content


def _refused(path: Path, content: bytes, message: str) -> None:
    path.write_bytes(content)
    with pytest.raises(LorarecError, match=message) as caught:
        read_movielens(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_whole_zips_are_read(tmp_path: Path, method: str) -> None:
    (tmp_path / "ml.zip").write_bytes(_zip(METHODS[method]))
    assert read_movielens(tmp_path / "ml.zip").interactions.height == 2000


@pytest.mark.parametrize("method", METHODS)
def test_changed_bytes_are_found(tmp_path: Path, method: str) -> None:
    content = _zip(METHODS[method])
    content[60] ^= 0x55  # in the packed ratings
    _refused(tmp_path / "ml.zip", content, "ml.zip is a damaged zip file .*: download it again")


def test_a_wrong_checksum_is_found(tmp_path: Path) -> None:
    _refused(tmp_path / "ml.zip", _patched(_zip(), 14, 16, 0xDEAD), "damaged zip file .*CRC")


@pytest.mark.parametrize("cut", [1, 30, 200, 2000])
def test_truncated_zips_are_found(tmp_path: Path, cut: int) -> None:
    _refused(tmp_path / "ml.zip", _zip()[:-cut], "no zip file, or a truncated one|damaged zip file")


@pytest.mark.parametrize("flags", [0x1, 0x9, 0x41, 0x801, 0x2041])
def test_encrypted_members_are_named(tmp_path: Path, flags: int) -> None:
    _refused(
        tmp_path / "ml.zip",
        _patched(_zip(), 6, 8, flags),
        "ml.zip: ml/ratings.csv is encrypted: unpack the file yourself",
    )


@pytest.mark.parametrize("method", [1, 6, 9, 95, 97, 99, 255])
def test_unknown_methods_are_named(tmp_path: Path, method: int) -> None:
    _refused(tmp_path / "ml.zip", _patched(_zip(), 8, 10, method), "cannot be unpacked .*compression")


@pytest.mark.parametrize("second", ["other/ratings.csv", "ratings.csv", "ml/backup/ratings.csv"])
def test_names_that_occur_twice_are_refused(tmp_path: Path, second: str) -> None:
    content = _zip(names=("ml/ratings.csv", "ml/movies.csv", second))
    _refused(tmp_path / "ml.zip", content, "contains ratings.csv twice")


def test_folders_and_metadata_of_macos_are_skipped(tmp_path: Path) -> None:
    names = ("ml/ratings.csv", "ml/movies.csv", "__MACOSX/ml/ratings.csv", "odd/movies.csv/")
    (tmp_path / "ml.zip").write_bytes(_zip(names=names))
    assert read_movielens(tmp_path / "ml.zip").interactions.height == 2000


@pytest.mark.parametrize("method", ["deflate", "bzip2", "lzma"])
@pytest.mark.parametrize("members", [1, 3])
def test_zip_bombs_are_refused(tmp_path: Path, method: str, members: int) -> None:
    path = tmp_path / "ml.zip"
    names = ("ratings.csv", "movies.csv", "README")[:members]
    with zipfile.ZipFile(path, "w", METHODS[method]) as archive:
        for name in names:
            archive.writestr(name, bytes((12 << 20) // members))
    with pytest.raises(LorarecError, match=r"ml\.zip unpacks to more than 1 MiB and 200 times"):
        read_movielens(path)


def test_members_that_lie_about_their_size_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ml.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ratings.csv", bytes(12 << 20))
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", content, content.find(mark) + offset, 1000)
    path.write_bytes(content)
    with pytest.raises(LorarecError, match="damaged zip file"), unzipped(path, {"ratings.csv"}):
        pytest.fail("it was unpacked")


def _readers() -> list[Callable[[Path], object]]:
    return [lambda path: list(line_blocks(path)), open_table, read_amazon, check_gzip]


@pytest.mark.parametrize("reader", _readers(), ids=["lines", "table", "amazon", "check"])
@pytest.mark.parametrize("make", [bytes, lambda n: b"\n" * n, lambda n: b"a,b,c,d\n" * (n // 8), lambda n: b"{" * n])
def test_gzip_bombs_are_refused(tmp_path: Path, reader: Callable[[Path], object], make: Callable[[int], bytes]) -> None:
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(make(12 << 20), 9))
    with pytest.raises(LorarecError, match=r"bomb\.csv\.gz unpacks to more than 1 MiB and 200 times"):
        reader(path)


def test_gzip_bombs_of_many_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(bytes(1 << 20)) * 12)
    with pytest.raises(LorarecError, match="200 times"):
        check_gzip(path)


def test_highly_compressible_files_are_no_bombs(tmp_path: Path) -> None:
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress("".join(f"u{n},i{n % 9},{n}\n" for n in range(200_000)).encode()))
    check_gzip(path)
    assert sum(len(block) for _, block in line_blocks(path)) > 2 << 20


@pytest.mark.parametrize("damage", ["header", "middle", "checksum", "length", "cut"])
def test_damaged_gzip_is_named(tmp_path: Path, damage: str) -> None:
    content = bytearray(gzip.compress(RATINGS.encode()))
    places = {"header": 2, "middle": len(content) // 2, "checksum": -6, "length": -2}
    if damage == "cut":
        del content[-9:]
    else:
        content[places[damage]] ^= 0xFF
    path = tmp_path / "log.csv.gz"
    path.write_bytes(content)
    for reader in (check_gzip, open_table, lambda path: list(line_blocks(path))):
        with pytest.raises(LorarecError, match=r"log\.csv\.gz is a (damaged|truncated) gzip file"):
            reader(path)


@pytest.mark.parametrize("content", [b"", b"\x1f", b"plain\n", bz2.compress(b"x"), zlib.compress(b"x")])
def test_other_files_are_not_gzip(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    check_gzip(tmp_path / "file")


@pytest.mark.parametrize("depth", [2_000, 50_000])
@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a":', "}"), ("[[],", "]")])
def test_deep_json_is_named(depth: int, start: str, end: str) -> None:
    line = f'{{"asin": "1", "also": {start * depth}1{end * depth}}}'.encode()
    with pytest.raises(LorarecError, match=r"meta\.json: line 3 is (nested too deep|neither)"):
        parse_record(line, "meta.json: line 3")


def test_deep_metadata_is_named_with_its_line(tmp_path: Path) -> None:
    reviews, meta = tmp_path / "reviews.json", tmp_path / "meta.json"
    row = {"reviewerID": "A1YJEY40YUW4SE", "asin": "B1", "overall": 5.0, "unixReviewTime": 1391040000}
    reviews.write_text(json.dumps(row) + "\n")
    meta.write_text('{"asin": "B1", "title": "Brush"}\n{"asin": "B2", "also": ' + "[" * 10**5 + "]" * 10**5 + "}\n")
    with pytest.raises(LorarecError, match=r"meta\.json: line 2 is nested too deep"):
        read_amazon(reviews, meta)


def test_endless_lines_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorarec.data.reading._LONGEST_LINE", 1000)
    monkeypatch.setattr("lorarec.data.reading._BLOCK_BYTES", 300)
    path = tmp_path / "log.json"
    path.write_bytes(b"first\n" + b"x" * 5000)
    with pytest.raises(LorarecError, match=r"log\.json: line 2 is longer than"):
        list(line_blocks(path))
