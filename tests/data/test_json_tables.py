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
    rows = "line 1 .* in line 2" if lines else "row 1 .* in row 2"
    with pytest.raises(LorarecError, match=f"column 'user_id' has values of different types, .* in {rows}"):
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
    place = "line 2" if lines else "row 2"
    with pytest.raises(LorarecError, match=rf"{place} has .* in column 'user_id', which contains half of a character"):
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


_ROW = '{"user_id": "u", "item_id": "i%s", "timestamp": %s, "title": "%s"}'


@pytest.mark.parametrize(
    "second",
    [
        _ROW.replace('"user_id"', '"user_id": "v", "user_id"') % (2, 2, "B"),
        _ROW.replace('"user_id"', '"us\\u0065r_id": "v", "user_id"') % (2, 2, "B"),
        _ROW.replace('"title"', '"title": null, "title"') % (2, 2, "B"),
    ],
)
def test_an_object_with_a_name_twice_is_refused_with_its_place(tmp_path: Path, second: str) -> None:
    first, third = _ROW % (1, 1, "A"), _ROW % (3, 3, "C")
    (tmp_path / "log.jsonl").write_text(f"{first}\n\n{second}\n{third}\n")
    with pytest.raises(LorarecError, match=r"line 3 has the name '(user_id|title)' more than once.*: fix or remove it"):
        read_table(tmp_path / "log.jsonl")
    (tmp_path / "log.json").write_text(f"[{first}, {second}, {third}]")
    with pytest.raises(LorarecError, match=r"row 2 of the array has the name '(user_id|title)' more than once"):
        read_table(tmp_path / "log.json")


@pytest.mark.parametrize(
    "title", [r"A \"title\": B, \"title\": C", r"caf\u00e9", 'B", "also": {"title": "x", "title": "y"}, "z": "']
)
def test_names_in_text_and_in_objects_within_are_no_repetitions(tmp_path: Path, title: str) -> None:
    rows = [_ROW % (1, 1, title), _ROW % (2, 2, title)]
    (tmp_path / "log.jsonl").write_text("\n".join(rows))
    (tmp_path / "log.json").write_text(f"[{', '.join(rows)}]")
    lines, array = (Dataset.from_raw_log(read_table(tmp_path / name)) for name in ("log.jsonl", "log.json"))
    assert lines.titles == array.titles == {f"i{row}": json.loads(rows[0])["title"] for row in (1, 2)}
