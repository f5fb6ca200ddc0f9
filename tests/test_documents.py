"""The documents: the code of README and tutorial runs, commands of all pages parse, internal links lead somewhere."""

import ast
import builtins
import importlib
import os
import re
import shlex
import sys
import tomllib
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from typer.main import get_group

import lorarec
from lorarec import Dataset, load_sample
from lorarec.cli import main
from lorarec.cli.entry import app
from lorarec.serving.route_roles import ROUTE_ROLES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
DOCUMENTS = [*ROOT.glob("*.md"), ROOT / "recipes" / "README.md", *sorted(DOCS.rglob("*.md"))]
#: Documents of which every command is known to the command line.
PAGES = [path for path in DOCUMENTS if re.search("```(?:sh|bash)", path.read_text(encoding="utf-8"))]
#: Documents with code in Python, and the objects that their pages use without a definition, such as the tutorial's.
PAGES_OF_PYTHON = [path for path in DOCUMENTS if "```python" in path.read_text(encoding="utf-8")]
GIVEN = {
    *("backbone", "shop", "games", "office", "general", "specific", "mixed"),
    *("log", "items", "events", "adapter", "config", "cases", "ranker"),
}
#: Pages that a hook writes when the site is built, and pages that hold a file of the root.
GENERATED = {DOCS / "reference" / "cli.md"}
INCLUDED = {DOCS / "contributing.md": ROOT / "CONTRIBUTING.md", DOCS / "changelog.md": ROOT / "CHANGELOG.md"}
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<img[^>]* src=\"([^\"]+)\"")
#: Options that make each command small.
QUICK = {
    "train": "--samples 4 --epochs 1 --batch-size 4 --eval-users 4",
    "mix": "--prompts 2",
    "evaluate": "--limit 2",
    "recommend": "--pool 5 --top 5",
    "explain": "--pool 5",
}


def _blocks(path: Path, language: str) -> list[str]:
    """Return the code blocks of a document in one language."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [dedent(code) for _, code in found]


def _commands(path: Path) -> list[list[str]]:
    """Return the words of every command in the shell blocks of a document, without comments."""
    commands, line = [], ""
    for each in "\n".join(_blocks(path, "(?:sh|bash)")).replace("\\\n", " ").splitlines():
        line = f"{line}\n{each}"
        with suppress(ValueError):  # a quotation continues in the next line
            commands.append(shlex.split(line, comments=True))
            line = ""
    return [words for words in commands if words]


def _run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command of lorarec with little work."""
    monkeypatch.setattr(sys, "argv", [*map(os.path.expandvars, words), *QUICK.get(words[1], "").split()])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code, words


def _quick(code: str) -> str:
    """Return Python code with less training and evaluation."""
    code = re.sub(r"\b(samples|limit)=\d+", r"\1=4", code).replace("dataset=shop,", "dataset=shop, prompts=2,")
    return re.sub(
        r"TrainingConfig\((?!samples)", "TrainingConfig(samples=4, epochs=1, batch_size=4, eval_users=4, ", code
    )


def _few(domain: str, users: int) -> Dataset:
    whole = load_sample(domain)
    some = whole.interactions["user_id"].unique(maintain_order=True)[:users]
    rows = whole.interactions.filter(whole.interactions["user_id"].is_in(some.implode()))
    return whole.subset(rows, filter_note=f"{users} users")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with the repository's recipes."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_of_the_readme_runs(workplace: Path) -> None:
    for name, domain in (("games", "comedy"), ("office", "thriller")):
        _few(domain, 30).save(workplace / "data" / name)
    log, items = _few("action", 30).to_pandas()
    log = log.rename(columns={"user_id": "customer", "item_id": "sku", "timestamp": "at"})
    (code,) = _blocks(ROOT / "README.md", "python")
    exec(_quick(code), {"log": log, "items": items.rename(columns={"item_id": "sku", "title": "name"})})


def test_shell_of_the_readme_runs(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, domain in (("games", "comedy"), ("office", "thriller")):
        _few(domain, 30).save(workplace / "data" / name)
    shop = _few("action", 30)
    users = shop.interactions.select(customer="u" + shop.interactions["user_id"], sku="item_id", at="timestamp")
    users.with_columns(customer=users["customer"].replace(users["customer"][0], "u42")).write_csv("log.csv")
    shop.items.select(sku="item_id", name="title").write_csv("catalogue.csv")
    commands = _commands(ROOT / "README.md")
    ours = [words for words in commands if words[0] == "lorarec"]
    assert len(ours) == 5
    for words in ours:
        _run(words, monkeypatch)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    others = [words for words in commands if words[0] != "lorarec"]
    assert {words[0] for words in others} == {"pip", "make"}
    assert all(f"\n{words[1]}:" in makefile for words in others if words[0] == "make")


def test_the_tutorial_runs_in_python_and_in_the_shell(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tutorial = DOCS / "tutorial.md"
    made, *steps = _blocks(tutorial, "python")
    named: dict[str, object] = {}
    exec(made, named)
    for step in steps:
        exec(_quick(step), named)
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("MODEL", "embedded")  # SmolLM2 takes minutes; tests/test_real_model.py has it
    for folder in ("adapters", "reports"):
        (workplace / folder).rename(workplace / f"{folder}-of-python")
    for words in _commands(tutorial):
        _run(words, monkeypatch)
    assert (workplace / "reports" / "shop" / "report.md").is_file()
    assert (workplace / "adapters" / "smollm2" / "adapter_config.json").is_file()


@pytest.mark.parametrize("path", [path for path in PAGES_OF_PYTHON if path.parent != ROOT], ids=lambda path: path.name)
def test_python_of_pages_uses_names_that_there_are(path: Path) -> None:
    known = {*dir(builtins), *lorarec.__all__, *GIVEN}
    for code in _blocks(path, "python"):
        tree = ast.parse(code)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lorarec"):
                module = importlib.import_module(str(node.module))
                assert [name.name for name in node.names if not hasattr(module, name.name)] == [], path.name
            if isinstance(node, ast.ImportFrom | ast.Import):
                known |= {name.asname or name.name for name in node.names}
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.ExceptHandler) and node.name:
                known.add(node.name)
            if isinstance(node, ast.arg):
                known.add(node.arg)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                known.add(node.id)
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert used <= known, f"{path.name} uses {sorted(used - known)} without a definition"


def _command(words: list[str]) -> tuple[Any, list[str]]:
    """Return the command that a line calls, and its arguments."""
    group: Any = get_group(app)
    context = group.make_context("lorarec", [], resilient_parsing=True)
    _, command, rest = group.resolve_command(context, words[1:])
    while hasattr(command, "list_commands") and rest[0] in command.list_commands(context):
        command, rest = command.get_command(context, rest[0]), rest[1:]
    return command, rest


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_of_documents_parse(path: Path, workplace: Path) -> None:
    (workplace / "serve.yaml").write_text("dataset: data/shop\n")  # is read while the options are parsed
    for words in _commands(path):
        if "lorarec" not in words or words[0] == "pip":
            continue
        command, rest = _command(words[words.index("lorarec") :])
        try:
            command.make_context(command.name, rest)
        except Exception as error:
            pytest.fail(f"{path.name}: {' '.join(words)}: {error}")


def test_the_reference_has_every_public_name() -> None:
    page = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^::: lorarec\.(\w+)$", page, re.MULTILINE))
    assert documented == set(lorarec.__all__) - {"__version__"}


def test_the_guide_of_the_service_has_every_request() -> None:
    guide = (DOCS / "howto" / "serving.md").read_text(encoding="utf-8")
    for _, path in ROUTE_ROLES:
        pattern = re.sub(r"\\{.*?\\}", r"[\\w-]+", re.escape(path))
        assert re.search(rf"[ `]{pattern}[`?,]", guide), f"serving.md lacks {path}"


def test_the_first_page_has_every_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    page = (DOCS / "index.md").read_text(encoding="utf-8")
    assert [name for name in extras if f"`{name}`" not in page] == []


def _prose(path: Path) -> str:
    """Return the text of a document without its code."""
    text = INCLUDED.get(path, path).read_text(encoding="utf-8")
    return re.sub(r"^( *)```.*?^\1```$|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)


def _anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings."""
    headings = re.findall(r"^#+ (.*)$", INCLUDED.get(path, path).read_text(encoding="utf-8"), re.MULTILINE)
    words = [re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings]
    return {re.sub(r"[-\s]+", "-", heading) for heading in words}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_internal_links_lead_somewhere(path: Path) -> None:
    for target in ("".join(found) for found in LINK.findall(_prose(path))):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked in GENERATED or linked.exists(), f"{path.name} links to {target}"
        if anchor and linked.suffix == ".md" and linked not in GENERATED:
            assert anchor in _anchors(linked), f"{path.name} links to {target}"
