"""The verb `rank`."""

import json
from pathlib import Path
from typing import Any

import pytest

from lorarec.backbone import Backbone
from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.ranking import Ranker, rank_items
from tests.command_line import run


def _ranked(*words: object) -> list[dict[str, Any]]:
    return json.loads(run("rank", *words, "--json").stdout)


def test_items_are_ordered_for_a_user(shop: Path, backbone_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "shelf.txt").write_text("i40\n\ni41\ni30\n")
    words = (shop, "--user", "u03", "--item", "i30", "--candidates", tmp_path / "shelf.txt")
    found = _ranked(*words, "--backbone", backbone_folder)
    with Ranker(Backbone.from_pretrained(backbone_folder)) as ranker:
        expected = rank_items(ranker, Dataset.load(shop), ["i30", "i40", "i41"], user="u03")
    assert [row["title"] for row in found] == [row.title for row in expected]
    assert [row["score"] for row in found] == [row.score for row in expected]
    assert {row["item_id"]: row["title"] for row in found} == {"i30": "lamp 30", "i40": "lamp 40", "i41": "lamp 41"}
    assert sum(row["probability"] for row in found) == pytest.approx(1)
    printed = run("rank", *words, "--backbone", backbone_folder, "--top", "1").stdout
    assert found[0]["title"] in printed
    assert found[1]["title"] not in printed


def test_a_history_may_be_given_in_place_of_a_user(shop: Path, backbone_folder: Path) -> None:
    words = (shop, "--item", "i30", "--item", "i40", "--backbone", backbone_folder)
    history = Dataset.load(shop).interactions.filter(user_id="u03")["item_id"].to_list()
    given = [word for item in history for word in ("--history", item)]
    assert _ranked(*words, *given) == _ranked(*words, "--user", "u03")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--item", "i30"], "give either --user or --history"),
        (["--user", "u03", "--history", "i01", "--item", "i30"], "give either --user or --history"),
        (["--user", "u03"], "name items to rank with --item or --candidates"),
        (["--user", "nobody", "--item", "i30"], "user nobody is not in dataset shop"),
        (["--user", "u03", "--item", "nothing"], "item nothing is not in dataset shop"),
        (["--history", "nothing", "--item", "i30"], "item nothing is not in dataset shop"),
    ],
)
def test_bad_input_is_refused(shop: Path, words: list[str], message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        run("rank", shop, *words)
