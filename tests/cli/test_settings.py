"""Options of `lorarec serve` from a file and from environment variables."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from lorarec.cli.entry import _load, app
from lorarec.cli.settings import PREFIX, named_options, variable
from lorarec.errors import LorarecError

HOOK = Path(__file__).parents[2] / "docs" / "hooks" / "options.py"
COMMAND = _load("serve")
NAMES = sorted(option.name for option in COMMAND.params if option.name not in ("help", "options_file"))
#: Values other than the default ones, of options that take neither any text nor 7.
VALUES = {
    "dataset": "data/shop",
    "cors_origins": "https://shop.example",
    "root_path": "/shop",
    "combine": "deltas",
    "log_requests": "true",
    "trust_remote_code": "true",
    "dtype": "float32",
    "quantization": "4bit",
    "attn_implementation": "eager",
}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "serve.yaml"


def parse(*words: str) -> dict[str, Any]:
    """Return the values that the command would be called with."""
    return COMMAND.make_context("serve", list(words)).params


def flags(name: str, value: str) -> list[str]:
    (option,) = [option for option in COMMAND.params if option.name == name]
    if name == "dataset":
        return [value]
    return [option.opts[0]] if getattr(option, "is_bool_flag", False) else [option.opts[0], value]


def value_of(name: str) -> str:
    """Return a value of an option that is not the default one."""
    if name in VALUES:
        return VALUES[name]
    try:
        parse("data/shop", *flags(name, "some-text"))
    except typer.BadParameter:
        return "7"
    return "some-text"


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_the_same_from_each_source(name: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = value_of(name)
    dataset = [] if name == "dataset" else ["data/shop"]
    on_line = parse(*dataset, *flags(name, value))[name]
    assert on_line != parse("other")[name]
    file.write_text(f"{name}: {value}\n")
    assert parse(*dataset, "--config", str(file))[name] == on_line
    file.write_text(f"{name.replace('_', '-')}: '{value}'\n")
    assert parse(*dataset, "--config", str(file))[name] == on_line
    monkeypatch.setenv(variable(name), value)
    assert parse(*dataset)[name] == on_line


def test_the_command_line_goes_before_the_environment_before_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("dataset: in-file\nport: 1\nqueue: 1\nload: [a, b]\npool: 1\nlog_requests: yes\nindex:\ndb: ~\n")
    monkeypatch.setenv("LORAREC_SERVE_CONFIG", str(file))
    monkeypatch.setenv("LORAREC_SERVE_PORT", "2")
    monkeypatch.setenv("LORAREC_SERVE_QUEUE", "2")
    monkeypatch.setenv("LORAREC_SERVE_ADAPTERS", "x,y=me/y@v2")
    monkeypatch.setenv("LORAREC_SERVE_GRACE", "")
    values = parse("--port", "3")
    assert (values["port"], values["queue"], values["pool"]) == (3, 2, 1)
    assert (str(values["dataset"]), values["load"], values["adapters"]) == ("in-file", ["a", "b"], ["x", "y=me/y@v2"])
    assert (values["index"], values["db"], values["grace"], values["log_requests"]) == (None, None, 20.0, True)
    file.with_name("other.yaml").write_text("pool: 7")
    assert parse("here", "--config", str(file.with_name("other.yaml")))["pool"] == 7


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("port: 80\nprot: 1\n", "line 2: unknown option 'prot': choose from adapters"),
        ("config: other.yaml", "line 1: unknown option 'config'"),
        ("# text\nport: many\n", "line 2: port: 'many' cannot be used: Input should be a valid integer"),
        ("port: 70000", "line 1: port: '70000' cannot be used"),
        ("port: true", "line 1: port: 'true' cannot be used"),
        ("port: [1, 2]", "line 1: port must be one value, not a list"),
        ("db: {url: postgresql://user:hunter2@db/shop}", "line 1: db must be a value or a list of values"),
        ("load: [a, [b]]", "line 1: load must be a value or a list of values"),
        ("wait_ms: soon", "line 1: wait_ms: 'soon' cannot be used"),
        ("log_requests: perhaps", "line 1: log_requests: 'perhaps' cannot be used"),
        ("combine: sums", "line 1: combine: 'sums' cannot be used"),
        ("port: 1\nport: 2", "line 2: the mapping has the same name twice"),
        ("- port: 1", "line 1: give a mapping"),
        ("port: [", "line 1: this is not YAML"),
    ],
)
def test_unusable_files_are_refused_by_line(file: Path, content: str, reason: str) -> None:
    file.write_text(content)
    with pytest.raises(LorarecError) as refused:
        parse("data/shop", "--config", str(file))
    assert str(refused.value).startswith(f"options file {file}, {reason}")
    assert "hunter2" not in str(refused.value)


def test_unusable_variables_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    # Kubernetes sets this one for a service that is called lorarec-serve.
    monkeypatch.setenv("LORAREC_SERVE_PORT", "tcp://10.0.0.1:8000")
    with pytest.raises(
        LorarecError, match=r"^environment variable LORAREC_SERVE_PORT: .tcp://10\.0\.0\.1:8000. cannot be"
    ):
        parse("data/shop")
    monkeypatch.setenv("LORAREC_SERVE_PORT", "80")
    monkeypatch.setenv("LORAREC_SERVE_PROT", "80")
    with pytest.raises(LorarecError, match=r"^unknown environment variable LORAREC_SERVE_PROT: choose from .*_PORT"):
        parse("data/shop")


def test_a_variable_turns_off_a_switch_of_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("log_requests: true")
    monkeypatch.setenv("LORAREC_SERVE_LOG_REQUESTS", "false")
    assert parse("data/shop", "--config", str(file))["log_requests"] is False


def test_help_needs_no_usable_settings_and_its_main_panel_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORAREC_SERVE_PROT", "80")
    page = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "100"}).output
    main = page.partition("─ Options ─")[2].partition("╰")[0]
    assert "--config" in main
    assert len(main.splitlines()) <= 40


def test_the_table_of_the_guide_has_every_option() -> None:
    spec = importlib.util.spec_from_file_location("options_hook", HOOK)
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    guide = (HOOK.parents[1] / "howto" / "operating.md").read_text(encoding="utf-8")
    page = hook.on_page_markdown(guide)
    options = named_options(COMMAND.make_context("serve", [], resilient_parsing=True))
    for name, option in options.items():
        flag = "DATASET" if name == "dataset" else option.opts[0]
        row = f"| `{flag}` | `{variable(name)}` | `{name}` |"
        assert page.count(row) == 1, row
    assert page.count(f"`{PREFIX}") >= len(options)


def test_the_file_of_the_guide_is_understood(file: Path) -> None:
    guide = (HOOK.parents[1] / "howto" / "operating.md").read_text(encoding="utf-8")
    (example,) = [part.partition("```")[0] for part in guide.split("```yaml\n") if part.startswith("dataset: ")]
    file.write_text(example)
    values = parse("--config", str(file))
    assert {name: values[name] for name in yaml.safe_load(example)}
