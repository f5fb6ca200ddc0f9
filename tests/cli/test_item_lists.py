"""Files of item ids, as editors write them."""

from pathlib import Path

import pytest

from lorarec.cli.item_lists import known_items, read_ids
from tests.factories import dataset_of


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_ids_are_read_whatever_the_editor(tmp_path: Path, encoding: str, line_end: str) -> None:
    path = tmp_path / "deny.txt"
    path.write_bytes(line_end.join(["i1", " ü2 ", "", "other"]).encode(encoding))
    assert read_ids(path) == ["i1", "ü2", "other"]
    shop = dataset_of([("a", "i1", 0, None), ("a", "ü2", 1, None)], {"i1": "Lamp", "ü2": "Chair"}, "shop")
    assert known_items(path, shop) == ["i1", "ü2"]
