"""The examples run: scripts and notebooks, with little work, on the embedded backbone."""

import json
import re
from pathlib import Path

import matplotlib
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
#: The demos have tests of their own.
SCRIPTS = ("own_data.py", "own_dataframe.py", "rank_titles.py", "whole_catalogue.py")
NOTEBOOKS = ("own_data.ipynb", "mixing.ipynb")


def _quick(code: str) -> str:
    """Return the code with small numbers in place of its constants."""
    code = re.sub(r"^(SAMPLES|USERS|STEPS) = \d+", r"\1 = 2", code, flags=re.MULTILINE)
    return code.replace("dataset=shop,", "dataset=shop, prompts=2,")


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(_quick((EXAMPLES / name).read_text(encoding="utf-8")), name, "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    matplotlib.use("Agg")
    cells = json.loads((EXAMPLES / name).read_text(encoding="utf-8"))["cells"]
    named: dict[str, object] = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile(_quick("".join(cell["source"])), name, "exec"), named)


@pytest.mark.parametrize("path", [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.ipynb")], ids=lambda path: path.name)
def test_the_page_of_examples_names_each(path: Path) -> None:
    assert f"`{path.name}`" in (EXAMPLES.parent / "docs" / "examples.md").read_text(encoding="utf-8")
