"""Refusals come before anything heavy is loaded, whatever the verb."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lorarec
from lorarec.cli import main
from lorarec.data.sample import load_sample

#: Modules that take seconds to import.
HEAVY = ("torch", "transformers", "peft", "sklearn", "ray", "vllm", "fastapi")
REFUSED = [
    ["train", "--nope"],
    ["train", "nowhere", "--out", "new"],
    ["train", "films", "--out", "taken"],
    ["train", "films", "--out", "taken", "--overwrite"],
    ["train", "films", "--out", "new", "--learning-rate", "-1"],
    ["train", "films", "--out", "new", "--loss", "best"],
    ["train", "films", "--out", "new", "--from", "nowhere"],
    ["train", "films", "--out", "new", "--recipe", "none.yaml"],
    ["mix", "nowhere", "taken", "--out", "new"],
    ["mix", "taken", "taken", "--out", "taken"],
    ["mix", "taken", "taken", "--dataset", "nowhere", "--out", "new"],
    ["mix", "taken", "taken", "--method", "luck", "--out", "new"],
    ["export", "nowhere", "--merged", "new"],
    ["export", "taken", "--merged", "taken"],
    ["export", "taken", "--merged", "new", "--backbone", "nowhere.gguf"],
    ["evaluate", "nowhere"],
    ["evaluate", "films", "--out", "taken"],
    ["evaluate", "films", "--adapter", "nowhere"],
    ["evaluate", "films", "--limit", "0"],
    ["evaluate-clicks", "nowhere"],
    ["experiment", "none.yaml", "--out", "new"],
    ["experiment", "none.yaml", "--out", "new", "--workers", "0"],
    ["personal", "train", "nowhere", "--out", "new"],
    ["personal", "train", "films", "--out", "taken"],
    ["personal", "train", "films", "--out", "new", "--epochs", "0"],
    ["personal", "train", "films", "--out", "new", "--ctr-model", "oracle"],
    ["personal", "train-router", "films", "nowhere", "taken", "--out", "new"],
    ["personal", "train-router", "films", "taken", "taken", "--out", "taken"],
    ["personal", "export", "nowhere", "--user", "1", "--out", "new"],
    ["backbone", "build", "nowhere", "--out", "new"],
    ["backbone", "build", "films", "--out", "taken"],
    ["index", "nowhere", "--out", "new"],
    ["index", "films", "--out", "taken"],
    ["index", "films", "--out", "new", "--epochs", "-1"],
    ["fuse", "nowhere", "--out", "new"],
    ["fuse", "films", "--out", "taken"],
    ["fuse", "films", "--out", "new", "--adapter", "nowhere"],
    ["fuse", "films", "--out", "new", "--pool", "-1"],
    ["fuse", "films", "--out", "new", "--set", "sasrec"],
    ["mix", "taken", "taken", "--method", "fixed", "--out", "new"],
    ["evaluate", "films", "--fusion", "taken"],
    ["recommend", "films", "--user", "1", "--fusion", "taken"],
    ["recommend", "films", "--all", "--fusion", "taken", "--out", "new"],
    ["rank", "films", "--user", "1", "--item", "1", "--fusion", "nowhere"],
    ["explain", "films", "--user", "1", "--fusion", "nowhere"],
    ["recommend", "nowhere", "--user", "1"],
    ["recommend", "films", "--user", "nobody"],
    ["recommend", "films", "--user", "1", "--index", "taken"],
    ["prompt", "nowhere", "--user", "1"],
    ["prompt", "films", "--user", "1", "--backbone", "./nowhere"],
    ["doctor", "./nowhere"],
    ["doctor", "--nope"],
    ["explain", "films", "--user", "nobody"],
    ["explain", "films", "--user", "1", "--adapter", "nowhere"],
    ["recommend", "nowhere", "--all", "--out", "new"],
    ["recommend", "films", "--all", "--out", "taken"],
    ["recommend", "films", "--all", "--out", "taken", "--overwrite"],
    ["recommend", "films", "--all", "--out", "new", "--top", "0"],
    ["recommend", "films", "--all", "--out", "new", "--top", "101"],
    ["rank", "nowhere", "--user", "1", "--item", "1"],
    ["rank", "films", "--user", "nobody", "--item", "1"],
    ["rank", "films", "--user", "1"],
    ["rank", "films", "--user", "1", "--item", "nothing"],
    ["serve", "nowhere", "--adapters", "taken"],
    ["serve", "films", "--adapters", "nowhere"],
    ["serve", "films", "--adapters", "taken", "--port", "-1"],
    ["serve", "films", "--adapters", "taken", "--keys", "none.yaml"],
    ["serve", "--config", "none.yaml"],
    ["serve", "films", "--adapters", "taken", "--cors-origins", "https://shop.example"],
    ["serve", "films", "--adapters", "taken", "--ssl-certfile", "none.pem"],
    ["serve", "films", "--adapters", "taken", "--host", "0.0.0.0"],
    ["demo", "--out", "taken"],
    ["demo", "personal", "--out", "taken", "--overwrite"],
    ["data", "import", "table", "none.csv", "--out", "new"],
    ["data", "import", "sample", "comedy", "--out", "taken", "--overwrite"],
    ["data", "describe", "nowhere"],
    ["data", "split", "nowhere"],
]
#: One process runs all commands, one after the other, and prints the message and the loaded modules of each.
SCRIPT = f"""
import json, sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from lorarec.cli import main
output = []
for words in json.load(sys.stdin):
    sys.argv, said = ["lorarec", *words], StringIO()
    code = None
    with redirect_stderr(said), redirect_stdout(StringIO()):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    output.append([code, said.getvalue(), [name for name in {HEAVY!r} if name in sys.modules]])
print(json.dumps(output))
"""


def test_refusals_load_nothing_heavy(tmp_path: Path) -> None:
    load_sample("comedy").save(tmp_path / "films")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").touch()
    environment = {**os.environ, "PYTHONPATH": str(Path(lorarec.__file__).parents[1]), "COLUMNS": "200"}
    command = [sys.executable, "-c", SCRIPT]
    options = {"input": json.dumps(REFUSED), "capture_output": True, "text": True, "cwd": tmp_path, "env": environment}
    done = subprocess.run(command, check=False, **options)
    assert done.returncode == 0, done.stderr
    for words, (code, said, loaded) in zip(REFUSED, json.loads(done.stdout), strict=True):
        assert (code, loaded) == (2, []), (words, said)
        assert "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["films", "taken"]


UNUSED = [
    (["recommend", "films", "--user", "1", "--part-size", "10"], "--part-size", "without --out"),
    (["recommend", "films", "--user", "1", "--overwrite"], "--overwrite", "without --out"),
    (["evaluate", "films", "--overwrite"], "--overwrite", "without --out"),
    (["evaluate", "films", "--pool", "100"], "--pool", "without --candidates all"),
    (["evaluate", "films", "--window", "60"], "--window", "without --log"),
    (["evaluate", "--log", "log", "--db", "db", "--limit", "5"], "--limit", "with --log"),
    (["evaluate", "--log", "log", "--db", "db", "--backbone", "embedded"], "--backbone", "with --log"),
    (["evaluate", "--log", "log", "--db", "db", "--dtype", "auto"], "--dtype", "with --log"),
    (["evaluate-clicks", "films/items.parquet", "--overwrite"], "--overwrite", "without --out"),
    (["mix", "a", "b", "--method", "fixed", "--dataset", "films", "--out", "new"], "--dataset", "with --method fixed"),
    (["mix", "a", "b", "--method", "fixed", "--prompts", "5", "--out", "new"], "--prompts", "with --method fixed"),
    (["mix", "a", "b", "--method", "fixed", "--seed", "5", "--out", "new"], "--seed", "which draw nothing"),
    (
        ["mix", "a", "b", "--method", "grid", "--dataset", "films", "--prompts", "5", "--out", "new"],
        "--prompts",
        "cases",
    ),
    (["mix", "a", "b", "--dataset", "films", "--cases", "5", "--out", "new"], "--cases", "without --calibrate"),
    (["mix", "a", "b", "--dataset", "films", "--density", ".5", "--out", "new"], "--density", "with --combine factors"),
    (["update", "films", "--events", "e.csv", "--samples", "5", "--out", "new"], "--samples", "without --adapter"),
    (["update", "films", "--events", "e.csv", "--epochs", "5", "--out", "new"], "--epochs", "without --index"),
    (["update", "films", "--events", "e.csv", "--device", "cpu", "--out", "new"], "--device", "without --adapter"),
    (["index", "films", "--epochs", "0", "--hidden-size", "8", "--out", "new"], "--hidden-size", "with --epochs 0"),
]


@pytest.mark.parametrize(("words", "option", "reason"), UNUSED, ids=lambda value: str(value))
def test_options_without_effect_are_refused_by_name(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    option: str,
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    load_sample("comedy").save(tmp_path / "films")
    monkeypatch.setattr(sys, "argv", ["lorarec", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert f"option {option} would have no effect" in (said := capsys.readouterr().err)
    assert reason in said
    assert [path.name for path in tmp_path.iterdir()] == ["films"]


@pytest.mark.parametrize("command", ["table", "update"])
def test_unseen_items_are_kept_of_a_table_of_items_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    load_sample("comedy").save(tmp_path / "films")
    words = ["data", "import", "table", "log.csv"] if command == "table" else ["update", "films", "--events", "log.csv"]
    monkeypatch.setattr(sys, "argv", ["lorarec", *words, "--keep-unseen", "--out", "new"])
    with pytest.raises(SystemExit):
        main()
    assert "option --keep-unseen needs option --items" in capsys.readouterr().err
