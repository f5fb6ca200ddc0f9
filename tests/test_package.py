"""The package's metadata and the files around it agree with each other."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import lorarec
from lorarec.cli.entry import app

ROOT = Path(__file__).parents[1]
WORKFLOWS = ROOT / ".github" / "workflows"


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _workflow(name: str) -> dict[str, Any]:
    return yaml.safe_load((WORKFLOWS / name).read_text(encoding="utf-8"))


def _steps(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_versions_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    released = re.findall(r"^## (\S+) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert citation["version"] == lorarec.__version__
    assert (citation["version"], str(citation["date-released"])) == released[0]
    assert f"| {'.'.join(lorarec.__version__.split('.')[:2])} | yes |" in (ROOT / "SECURITY.md").read_text("utf-8")


def test_licences_are_shipped(project: dict[str, Any]) -> None:
    assert project["license"] == "Apache-2.0 AND LicenseRef-MovieLens"
    assert all((ROOT / path).is_file() for path in project["license-files"])
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    folders = re.findall(r"^\d\. .*: (lorarec/\S+)$", notice, re.MULTILINE)
    assert len(folders) == 2
    assert all((ROOT / "src" / folder).is_dir() for folder in folders)
    assert (Path(lorarec.__file__).parent / "py.typed").exists()


def test_every_supported_python_runs_what_must_pass(project: dict[str, Any]) -> None:
    jobs = _workflow("ci.yml")["jobs"]
    named = "Programming Language :: Python :: "
    pythons = [each.removeprefix(named) for each in project["classifiers"] if each.startswith(named)]
    assert jobs["test"]["strategy"]["matrix"]["python"] == pythons
    assert _steps(jobs["test"]) == [".ci/run"]


def test_only_what_passes_is_published() -> None:
    jobs = _workflow("publish.yml")["jobs"]
    assert (ROOT / jobs["ci"]["uses"]).samefile(WORKFLOWS / "ci.yml")
    assert jobs["publish"]["needs"] == ["ci", "build"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}


def test_named_commands_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first_use = [
        run.split()[1:] for run in _steps(_workflow("ci.yml")["jobs"]["platforms"]) if run.startswith("lorarec")
    ]
    named = [each.split() for each in re.findall(r"`lorarec ([^`]*)`", (ROOT / "NOTICE").read_text(encoding="utf-8"))]
    assert first_use
    assert named
    for arguments in [*first_use, *([*each, "--help"] for each in named)]:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
