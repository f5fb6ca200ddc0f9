"""The container image and the compose file follow the rules of hadolint, and name files and options that exist."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lorarec.errors import LorarecError
from tests.command_line import run

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


@pytest.fixture
def compose() -> dict:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def instructions(name: str) -> list[str]:
    """Return the arguments of every instruction of that name in the Dockerfile."""
    lines = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    return [line.removeprefix(name).strip() for line in lines if line.startswith(f"{name} ")]


def test_hadolint_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    result = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_files_of_the_image_exist_and_are_not_ignored() -> None:
    sources = [word for line in instructions("COPY") if "--from" not in line for word in shlex.split(line)[:-1]]
    assert {"src", "examples", "constraints.txt"} <= set(sources)
    kept = {line.removeprefix("!") for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()}
    assert set(sources) <= kept
    assert all((ROOT / source).exists() for source in sources)


def test_the_image_does_not_run_as_root() -> None:
    assert instructions("USER") == ["1000"]


def test_commands_have_options_that_exist(compose: dict, tmp_path: Path) -> None:
    """A missing dataset is the first error, so all options were understood."""
    command = yaml.safe_load(instructions("CMD")[-1])
    for arguments in (command, compose["services"]["lorarec"]["command"]):
        with pytest.raises(LorarecError, match=r"has no dataset\.json"):
            run(*(tmp_path if word.startswith("/data/") else word for word in arguments))


def test_variables_are_those_of_options(compose: dict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    variables = compose["services"]["lorarec"]["environment"]
    assert {"LORAREC_API_KEY", "LORAREC_SERVE_DB"} <= set(variables)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LorarecError, match=r"has no dataset\.json"):
        run("serve", tmp_path)


def test_mounted_files_and_secrets_exist(compose: dict) -> None:
    services = compose["services"]
    assert (DEPLOY / services["lorarec"]["build"]["context"] / services["lorarec"]["build"]["dockerfile"]).exists()
    mounted, inside, _ = services["prometheus"]["volumes"][0].split(":")
    assert (DEPLOY / mounted).exists()
    assert inside == "/etc/prometheus/prometheus.yml"
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{services['prometheus']['secrets'][0]}"
    assert job["static_configs"][0]["targets"] == ["lorarec:8000"]
    assert set(services["prometheus"]["secrets"]) == compose["secrets"].keys()
