"""Bad input through the command line: one line that names the cause, exit code 2, and no unfinished files."""

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lorarec.backbone import Backbone
from lorarec.data import load_split
from lorarec.lora import AdapterRecord, save_adapter
from lorarec.retrieval import Index
from tests.factories import dataset_of, numbered_titles, random_adapter

LOG = "user,item,time\n" + "".join(f"u{n // 4},i{n * 7 % 40},{n}\n" for n in range(80))
ITEMS = "item,title\n" + "".join(f"i{n},lamp {n}\n" for n in range(40))
COLUMNS = ["--user", "user", "--item", "item", "--time", "time", "--title", "title"]
#: A name under which no folder can be made, not even by root.
READ_ONLY = "/proc/nowhere"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs, a dataset and adapters of the embedded backbone, sound and broken."""
    folder = tmp_path_factory.mktemp("workshop")
    (folder / "log.csv").write_text(LOG)
    (folder / "items.csv").write_text(ITEMS)
    (folder / "no-time.csv").write_text(LOG.replace("time", "when"))
    (folder / "bad-time.csv").write_text(LOG.replace(",17\n", ",yesterday\n"))
    (folder / "untitled.csv").write_text("item,title\n" + "".join(f"i{n},\n" for n in range(40)))
    (folder / "twice.csv").write_text(LOG.replace("time", "item", 1))
    (folder / "cut.csv.gz").write_bytes(gzip.compress(LOG.encode())[:-20])
    (folder / "kind.yaml").write_text("table: clocks\ndataset: shop\n")
    (folder / "key.yaml").write_text("table: clicks\ndataset: shop\nrow: [din]\n")
    (folder / "analysis.yaml").write_text("table: clicks\ndataset: shop\nanalyses: [colour]\n")
    (folder / "weights.yaml").write_text("table: weights\ndataset: shop\nadapters: [one]\n")
    (folder / "clicks.yaml").write_text("table: clicks\ndataset: sample\n")
    (folder / "taken").mkdir()
    (folder / "taken" / "note").write_text("mine")
    rows = [(f"u{n // 4}", f"i{n * 7 % 40}", n) for n in range(80)]
    titles = numbered_titles(40, digits=1)
    load_split(dataset_of(rows, titles, "shop").save(folder / "shop"))
    dataset_of([row for row in rows if row[2] % 4 < 2], titles, "short").save(folder / "short")
    shutil.copytree(folder / "shop", folder / "truncated")
    items = (folder / "truncated" / "items.parquet").read_bytes()
    (folder / "truncated" / "items.parquet").write_bytes(items[: len(items) // 2])
    few = dataset_of([(user, f"i{n % 10}", n) for user, _, n in rows], numbered_titles(10, digits=1), "few")
    Index.build(few.save(folder / "few")).save(folder / "index-of-few")
    (folder / "seen.txt").write_text("i0\ni7\ni14\ni21\n")
    backbone = Backbone.from_pretrained()
    _adapter(backbone, folder / "one", 1)
    _adapter(backbone, folder / "two", 2)
    _adapter(backbone, folder / "wide", 3, r=4)
    _adapter(backbone, folder / "stranger", 4, fingerprint="of-another")
    for name in ("pickled", "corrupted"):
        shutil.copytree(folder / "one", folder / name)
    (folder / "pickled" / "adapter_model.safetensors").rename(folder / "pickled" / "adapter_model.bin")
    (folder / "corrupted" / "adapter_model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    return folder


def _adapter(backbone: Backbone, folder: Path, seed: int, r: int = 2, fingerprint: str | None = None) -> None:
    folder.mkdir()
    meta = {"backbone": {"id": "embedded", "fingerprint": fingerprint or backbone.fingerprint}, "readout": "verdict"}
    adapter = random_adapter(backbone, seed, r, std=0.01, scale=1.0)
    save_adapter(adapter, folder, "embedded", AdapterRecord.from_json(folder, meta))


@pytest.fixture
def refused(workshop: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]) -> Callable[[list[str]], str]:
    """Run a command line that must be refused; return its message and check that it left no files behind."""

    def run(words: list[str]) -> str:
        monkeypatch.chdir(workshop)
        before = {path: path.stat().st_size for path in workshop.rglob("*")}
        message = refusal(*words)
        assert {path: path.stat().st_size for path in workshop.rglob("*")} == before
        return message

    return run


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["log.csv", "--items", "untitled.csv", "--out", "new"], "title"),
        (["log.csv", "--items", "log.csv", "--out", "new"], "title"),
        (["no-time.csv", "--items", "items.csv", "--out", "new"], "time"),
        (["bad-time.csv", "--items", "items.csv", "--out", "new"], "line 19"),
        (["cut.csv.gz", "--items", "items.csv", "--out", "new"], "cut.csv.gz is a truncated gzip file"),
        (["none.csv", "--items", "items.csv", "--out", "new"], "none.csv does not exist"),
        (["log.csv", "--items", "items.csv", "--out", "taken"], "taken exists already"),
        (["log.csv", "--items", "items.csv", "--out", "log.csv/new"], "log.csv is a file: choose another folder"),
        (["twice.csv", "--items", "items.csv", "--out", "new"], "twice.csv has 2 columns called 'item'"),
        (["log.csv", "--items", "items.csv", "--out", f"{READ_ONLY}/new"], "cannot write to /proc/nowhere"),
    ],
)
def test_import(refused: Callable[[list[str]], str], words: list[str], cause: str) -> None:
    assert cause in refused(["data", "import", "table", *words, *COLUMNS])


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["data", "split", "short"], "no user has the three interactions"),
        (["data", "split", "few"], "set option --negatives of the split (`lorarec data split`) to at most 8"),
        (["data", "split", "taken"], "taken has no dataset.json"),
        (["train", "short", "--out", "new"], "no user has the three interactions"),
        (["train", "shop", "--out", "taken"], "taken exists already"),
        (["train", "truncated", "--out", "new"], "truncated/items.parquet is not readable Parquet"),
        (["train", "shop", "--out", "log.csv/new"], "cannot write to log.csv/new: log.csv is a file"),
        (["train", "shop", "--out", "new", "--backbone", "shop"], "shop is not a Transformers folder"),
        (["train", "shop", "--out", "new", "--lora-dropout", "nan"], "option --lora-dropout must be a finite number"),
        (["fuse", "shop", "--out", "log.csv/new"], "cannot write to log.csv/new: log.csv is a file"),
        (["fuse", "shop", "--out", "new", "--set", "sasrec.dropout=2"], "option dropout must be in [0, 1), got 2"),
        (["evaluate", "shop", "--adapter", "shop"], "shop is not a PEFT folder (it has no adapter_config.json)"),
        (["recommend", "shop", "--all", "--user", "u0", "--out", "new"], "--all takes all users"),
        (["train", "shop", "--out", "new", "--from", "stranger"], "adapter stranger belongs to backbone embedded"),
        (["train", "shop", "--out", "new", "--max-tokens", "16"], "tokens"),
        (["evaluate", "shop", "--adapter", "stranger"], "adapter stranger belongs to backbone embedded (of-another)"),
        (["evaluate", "shop", "--adapter", "pickled"], "adapter_model.bin is a pickle"),
        (["evaluate", "shop", "--adapter", "corrupted"], "corrupted/adapter_model.safetensors is corrupted"),
        (["evaluate", "shop", "--out", "taken"], "taken exists already"),
        (["recommend", "shop", "--user", "nobody"], "nobody"),
        (["explain", "shop", "--user", "nobody"], "user nobody is not in dataset shop"),
        (["explain", "shop", "--user", "u0", "--item", "nothing"], "item nothing is not in dataset shop"),
        (["recommend", "shop", "--user", "u0", "--index", "taken"], "taken is not an index"),
        (["recommend", "shop", "--user", "u0", "--index", "index-of-few"], "index-of-few was built of few"),
        (["recommend", "shop", "--user", "u0", "--deny", "none.txt"], "cannot read none.txt: No such file"),
        (["recommend", "shop", "--user", "u0", "--deny", "cut.csv.gz"], "cannot read cut.csv.gz: not UTF-8 text"),
        (["recommend", "shop", "--user", "u0", "--allow", "log.csv"], "log.csv names no item of shop"),
        (["recommend", "shop", "--user", "u0", "--allow", "seen.txt"], "is left to recommend to user u0"),
        (["index", "shop", "--out", "taken"], "taken exists already"),
        (["index", "taken", "--out", "new"], "taken has no dataset.json"),
        (
            ["index", "shop", "--out", "new", "--text-encoder", "./gone"],
            "--text-encoder ./gone is not a folder: give a sentence-transformers folder or a hub id",
        ),
        (
            ["index", "shop", "--out", "new", "--text-encoder", "taken"],
            "--text-encoder taken is not a sentence-transformers model (it has no modules.json)",
        ),
        (["experiment", "none.yaml", "--out", "new"], "cannot read recipe none.yaml"),
        (["experiment", "kind.yaml", "--out", "new"], "recipe kind.yaml, key table: must be one of ranking"),
        (["experiment", "key.yaml", "--out", "new"], "recipe key.yaml has an unknown key 'row'"),
        (["experiment", "analysis.yaml", "--out", "new"], "recipe analysis.yaml, key analyses: must be of size"),
        (["experiment", "weights.yaml", "--out", "new"], "recipe weights.yaml, key adapters: must be the folders of"),
        (["experiment", "clicks.yaml", "--out", "taken"], "taken exists already and is no experiment folder"),
    ],
)
def test_verbs_on_datasets(refused: Callable[[list[str]], str], words: list[str], cause: str) -> None:
    assert cause in refused(words)


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["one", "wide", "--method", "fixed", "--weights", "0.5,0.5"], "rank"),
        (["one", "two", "--method", "fixed", "--weights", "0.5,0.6"], "sum"),
        (["one", "two", "--method", "fixed", "--weights", "1.5,-0.5"], "negative"),
        (["one", "pickled", "--method", "fixed", "--weights", "0.5,0.5"], "is a pickle"),
        (["one", "corrupted", "--method", "fixed", "--weights", "0.5,0.5"], "is corrupted"),
        (["one", "stranger", "--method", "fixed", "--weights", "0.5,0.5"], "adapter stranger belongs to backbone"),
        (["one", "--method", "fixed", "--weights", "1"], "two or more adapters"),
        (["one", "two"], "--dataset"),
        (["one", "two", "--weights", "0.5,0.5"], "leave out --weights or use --method fixed"),
    ],
)
def test_mix(refused: Callable[[list[str]], str], words: list[str], cause: str) -> None:
    assert cause in refused(["mix", *words, "--out", "new"])


def test_mix_into_a_folder_that_exists(refused: Callable[[list[str]], str]) -> None:
    assert "taken exists" in refused(["mix", "one", "two", "--method", "fixed", "--weights", "1,0", "--out", "taken"])


def test_disk_that_takes_no_adapter(refused: Callable[[list[str]], str]) -> None:
    words = ["mix", "one", "two", "--method", "fixed", "--weights", "1,0", "--out", f"{READ_ONLY}/mixed"]
    assert "cannot write to /proc/nowhere" in refused(words)
