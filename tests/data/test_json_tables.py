"""Tables in JSON: lines of objects, and arrays of objects."""

import json
from pathlib import Path
from typing import Any

import pytest

from lorarec import Dataset
from lorarec.data import read_table
from lorarec.errors import LorarecError


def _import(path: Path, rows: list[dict[str, Any]], lines: bool) -> Dataset:
    full = [
        {"user_id": "u", "item_id": f"i{row}", "timestamp": row, "title": "t", **each} for row, each in enumerate(rows)
    ]
    path.write_text("\n".join(map(json.dumps, full)) if lines else json.dumps(full), encoding="utf-8")
    return Dataset.from_raw_log(read_table(path))


@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize("ids", [(7, "7"), (7, 7.0), (7, 7.5), ("7", 7.5), (True, "a")])
def test_ids_of_several_types_are_refused_as_in_data_frames(tmp_path: Path, ids: tuple[Any, Any], lines: bool) -> None:
    with pytest.raises(LorarecError, match="column 'user_id' has values of different types"):
        _import(tmp_path / "log.json", [{"user_id": each} for each in ids], lines)


@pytest.mark.parametrize("lines", [True, False])
def test_a_file_whose_name_looks_like_a_pattern(tmp_path: Path, lines: bool) -> None:
    assert _import(tmp_path / "log[1]*.json", [{}, {}], lines).interactions.height == 2


@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize("ids", [(7, 8), ("7", "8"), (7, "a8"), (2**70, 2**70 + 1), (7.5, 8.5), ("1e5", "007")])
def test_ids_are_kept_as_written(tmp_path: Path, ids: tuple[Any, Any], lines: bool) -> None:
    dataset = _import(tmp_path / "log.json", [{"user_id": each} for each in ids], lines)
    assert set(dataset.interactions["user_id"]) == {str(each) for each in ids}


@pytest.mark.parametrize("lines", [True, False])
def test_halves_of_characters_are_refused_in_ids_and_harmless_in_titles(tmp_path: Path, lines: bool) -> None:
    with pytest.raises(LorarecError, match=r"row 2 has .* in column 'user_id', which contains half of a character"):
        _import(tmp_path / "log.json", [{"user_id": "\U0001f600"}, {"user_id": "a\ud83d"}], lines)
    dataset = _import(tmp_path / "log.json", [{"title": "Lamp \U0001f600"}, {"title": "Chair \ud83d"}], lines)
    assert dataset.titles["i0"] == "Lamp \U0001f600"
    assert dataset.titles["i1"].startswith("Chair")


def test_an_infinite_rating_is_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    assert _import(tmp_path / "log.json", [{"rating": float("nan")}, {"rating": 4.0}], False).interactions.height == 2
    with pytest.raises(LorarecError, match="rating"):
        _import(tmp_path / "log.json", [{"rating": float("inf")}, {"rating": 4.0}], False)


@pytest.mark.parametrize("value", [{"data": [{"user_id": 1}]}, {"user_id": {"0": 1}, "item_id": {"0": 2}}])
def test_an_object_that_contains_the_table_is_refused_with_the_way_to_write_it(tmp_path: Path, value: Any) -> None:
    (tmp_path / "log.json").write_text(json.dumps(value))
    with pytest.raises(LorarecError, match=r"contains a table .*: write one object on each line, .*lines=True"):
        read_table(tmp_path / "log.json")


@pytest.mark.parametrize("text", ['{"user_id": 1, "title": "Caf\u00e9"}\n', '[{"user_id": 1, "title": "Caf\u00e9"}]'])
def test_another_encoding_is_named_with_its_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.json").write_text(text, encoding="latin-1")
    with pytest.raises(LorarecError, match=r"is not UTF-8 text: line 1 has the byte 0xe9 after .*Caf': convert it"):
        read_table(tmp_path / "log.json")
