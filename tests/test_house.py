"""The rule of the house: imports go one way, down the list of folders."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import lorarec

# A folder imports from itself and from those before it; those of FREE are free to all.
ORDER = (
    "io",
    "metrics",
    "data",
    "prompts",
    "scoring",
    "backbone",
    "recommenders",
    "lora",
    "training",
    "retrieval",
    "ranking",
    "evaluation",
    "ctr",
    "personal",
    "experiments",
    "serving",
    "cli",
)
FREE = ("errors", "options")
ROOT = Path(lorarec.__file__).parent
FILES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def _part(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def _imported_parts(path: Path) -> set[str]:
    """Folders and root modules of lorarec that a file imports from; "" is lorarec itself."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            modules.add(node.module or "")
    own = [module.split(".") for module in modules if module.split(".")[0] == "lorarec"]
    return {(parts[1:] or [""])[0] for parts in own}


def test_every_folder_has_its_place() -> None:
    parts = {_part(path) for path in FILES}
    assert parts <= {*ORDER, *FREE, "__init__", "__main__"}


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_go_one_way(path: Path) -> None:
    part = _part(path)
    if part in ("__init__", "__main__"):
        return
    allowed = {*FREE} if part in FREE else {*FREE, *ORDER[: ORDER.index(part) + 1]}
    if part == "cli":
        allowed.add("")  # the version
    assert _imported_parts(path) <= allowed


def _modules_imported(path: Path) -> set[Path]:
    """Modules of the same folder that a module imports, at its top or inside a function, but not for types alone."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    for_types = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    ignored = {each for node in for_types for each in ast.walk(node)}
    found = (node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node not in ignored)
    files = (Path(*module.split(".")[1:]).with_suffix(".py") for module in found if module.startswith("lorarec."))
    return {file for file in files if (ROOT / file).is_file() and file.parts[0] == path.parts[0]}


def test_no_module_imports_itself_through_others() -> None:
    TopologicalSorter({path: _modules_imported(path) for path in FILES}).prepare()


def test_folders_are_few_and_files_are_short() -> None:
    assert len({path.parts[0] for path in FILES if len(path.parts) > 1}) < 18
    lengths = {path: len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {path: length for path, length in lengths.items() if length > 400} == {}
