"""The verb `explain`."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer
from typer.testing import Result

from tests.command_line import run


@pytest.fixture
def words(shop: Path, backbone_folder: Path) -> list[str]:
    """A command line that explains a score of user u03."""
    return [str(shop), "--user", "u03", "--backbone", str(backbone_folder), "--pool", "5"]


def _run(words: list[str]) -> Result:
    return run("explain", *words)


def test_table_and_json(words: list[str]) -> None:
    printed, data = _run(words), _run([*words, "--json"])
    found = json.loads(data.stdout)
    assert len(found["influences"]) == 4
    assert found["candidates"] == 5
    for influence in found["influences"]:
        assert f"{influence['title']} " in printed.stdout
        assert f"{influence['score']:+.3f}" in printed.stdout
    assert "needs a chat model" in printed.stderr
    assert found["reason"] is None
    assert json.loads(_run([*words, "--item", "i49", "--json"]).stdout)["title"] == "lamp 49"


def test_a_chat_model_adds_its_reason(words: list[str], backbone_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(backbone_folder)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}\n"
    tokenizer.save_pretrained(backbone_folder)
    printed = _run(words)
    reason = json.loads(_run([*words, "--json"]).stdout)["reason"]
    assert reason
    assert reason in printed.stdout
    assert "needs a chat model" not in printed.stderr
