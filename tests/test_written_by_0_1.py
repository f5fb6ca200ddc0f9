"""Files that version 0.1.0 wrote are read with the same results; `fixtures/written_by_0_1/README.md` lists it."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from lorarec.backbone import Backbone
from lorarec.cli.entry import main
from lorarec.ctr import CTRModel
from lorarec.data import Cooccurrence, Dataset, Split, load_split
from lorarec.data.click_logs import TEST, click_log
from lorarec.evaluation import evaluate_clicks, read_predictions
from lorarec.io import FolderKind
from lorarec.io.artefacts import refuse_existing
from lorarec.lora import read_adapter
from lorarec.lora.provenance import exported_user, part_weights, trained_on
from lorarec.personal import PersonalLora, UserHistory, UserRouter, export_user
from lorarec.ranking import Ranker
from lorarec.retrieval import Index
from lorarec.serving.adapter_sources import AdapterSources
from lorarec.serving.histories import Event, Histories

WRITTEN = Path(__file__).parent / "fixtures" / "written_by_0_1"
EXPECTED: dict[str, Any] = json.loads((WRITTEN / "expected.json").read_text())
ADAPTERS = sorted(path.name for path in (WRITTEN / "adapters").iterdir())
CHOOSERS = ("chosen", "chosen-titles")
KINDS = {
    "dataset": FolderKind.DATASET,
    "dataset/split": FolderKind.SPLIT,
    "index": FolderKind.INDEX,
    "clicks": FolderKind.CTR_MODEL,
    "personalized": FolderKind.PERSONALIZATION,
    "exported": FolderKind.ADAPTER,
    "ranking": FolderKind.RECOMMENDATIONS,
    **dict.fromkeys(CHOOSERS, FolderKind.USER_ROUTER),
    **{f"adapters/{name}": FolderKind.ADAPTER for name in ADAPTERS},
}
#: Prompts that adapters are compared on, and users and items that everything else is compared on.
CASES, USERS, ITEMS = 3, ("fuser03", "fuser23"), ("f01", "f12", "f30")


class Written:
    """Everything in a copy of the folder, read through the library, as plain values that JSON can hold."""

    def __init__(self, home: Path, backbone: Backbone) -> None:
        self.home, self.backbone = home, backbone
        self.dataset = Dataset.load(home / "dataset")
        self.split: Split = load_split(self.dataset)
        self.histories = dict(self.split.train.select("user_id", "history").iter_rows())
        self.log = click_log(self.dataset)

    def data(self) -> dict[str, Any]:
        """Fingerprints and counts, and the first case of every part of the split."""
        assert self.dataset.users is not None
        cases = {"valid": self.split.valid, **self.split.test}
        return {
            "backbone": self.backbone.fingerprint,
            "dataset": self.dataset.fingerprint,
            "split": self.split.fingerprint,
            "click_log": self.log.fingerprint,
            "sizes": [len(self.dataset.interactions), len(self.dataset.items), len(self.dataset.users)],
            "train": [self.split.train.height, self.split.train.row(0)],
            "cases": {name: [frame.height, frame.row(0)] for name, frame in cases.items()},
        }

    def adapter(self, folder: Path) -> dict[str, Any]:
        """Scores of a few test cases, and the provenance of the adapter."""
        adapter = read_adapter(folder, self.backbone)
        evidence = Cooccurrence(self.split.train, self.dataset.titles)
        with Ranker(self.backbone, adapter) as ranker:
            scores = ranker.score_cases(self.split.test["warm"].head(CASES), self.dataset.titles, evidence)
            prompt_settings = {
                "readout": ranker.readout,
                "evidence": ranker.evidence,
                "max_history": ranker.max_history,
            }
        return prompt_settings | {
            "scores": [each.tolist() for each in scores],
            "parts": part_weights(adapter, folder.name),
            "datasets": trained_on(adapter),
            "user": exported_user(adapter),
        }

    def clicks_adapter(self, folder: Path) -> list[list[float]]:
        """Scores of titles under an adapter that was trained on prompts about clicks."""
        with Ranker(self.backbone, folder) as ranker:
            titles = [self.dataset.titles[item] for item in ITEMS]
            return [each.tolist() for each in ranker.score_titles([titles[:1], titles[1:]], [titles, titles])]

    def index(self) -> dict[str, Any]:
        """Proposals for two histories."""
        index = Index.load(self.home / "index", self.dataset)
        return {
            user: [[each.item_id, each.source, each.because] for each in index.propose(self.histories[user], 12)]
            for user in USERS
        } | {"next": index.rank("next", list(ITEMS), 5)}

    def recommender(self, folder: str) -> list[float]:
        """Probabilities of a click for the test events."""
        found: list[float] = CTRModel.load(self.home / folder, self.log).score(self.log.rows(TEST)).tolist()
        return found

    def predictions(self) -> dict[str, dict[str, float]]:
        """Metrics of the stored probabilities."""
        labels, rows = read_predictions(self.home / "personalized" / "predictions.parquet")
        evaluation = evaluate_clicks(labels, rows, "RecLoRA")
        return {row: {name: each.mean for name, each in figures.items()} for row, figures in evaluation.rows.items()}

    def personal(self, folder: str) -> dict[str, Any]:
        """The router's mean weights and those of a representation, and the names of the adapters that it mixes."""
        with PersonalLora.load(self.home / folder, self.backbone) as personal:
            weights = personal(torch.linspace(-1, 1, personal.router.input_size)[None])[:, 0]
            mean = personal.router.mean
            return {"mean": mean.tolist(), "weights": weights.tolist(), "names": list(personal.bank.names)}

    def export(self, folder: str, user: str, out: Path) -> Path:
        """A user's own adapter."""
        export_user(self.home / folder, user, out, self.backbone)
        return out

    def user_router(self, folder: str) -> dict[str, Any]:
        """Weights of the layers for users with histories, for a new user and for one without."""
        user_router = UserRouter.load(self.home / folder, self.backbone, self.dataset)
        pasts = {
            user: UserHistory(user, items, range(len(items))) for user, items in self.histories.items() if user in USERS
        }
        pasts["nobody"] = UserHistory("nobody", ITEMS, range(len(ITEMS)))
        weights: dict[str, Any] = {user: user_router.weights(past).tolist() for user, past in pasts.items()}
        return weights | {
            "mean": user_router.weights(None).tolist(),
            "names": list(user_router.names),
            "combine": user_router.combine,
            "readout": user_router.prompt.readout,
            "evidence": user_router.prompt.evidence,
        }

    def database(self) -> dict[str, list[str]]:
        """Histories of users of the dataset and of one who came later, after the service has started again."""
        histories = Histories(f"sqlite:///{self.home / 'histories.db'}")
        try:
            histories.fill(self.dataset)
            return {user: histories.history(user, 20) for user in (*USERS, "later", "unknown")}
        finally:
            histories.close()

    def append(self) -> int:
        """Send an event that is stored already and a new one; how many were stored."""
        histories = Histories(f"sqlite:///{self.home / 'histories.db'}")
        try:
            return histories.append([Event("later", "f30", 950_000, "first"), Event("later", "f02", 960_000, "third")])
        finally:
            histories.close()

    def ranking(self) -> list[Any]:
        """Users, items and scores of the parts that there are."""
        columns = ["user_id", "item_ids", "scores", "probabilities"]
        return list(pl.read_parquet(self.home / "ranking" / "part-*.parquet").select(columns).sort("user_id").rows())

    def experiment(self) -> dict[str, dict[str, float]]:
        """Setting -> row -> NDCG@10 in the table."""
        settings = json.loads((self.home / "experiment" / "table.json").read_text())["settings"]
        return {
            setting: {row: found["ndcg@10"]["mean"] for row, found in result["rows"].items()}
            for setting, result in settings.items()
        }


# Commands, run where the copy is.
RANK = ["recommend", "dataset", "--all", "--adapter", "adapters/specific", "--index", "index"]
RANK += ["--out", "ranking", "--top", "3", "--pool", "8", "--part-size", "8"]
EXPERIMENT = ["experiment", "experiment.yaml", "--out", "experiment"]
TRAIN = ["train", "--recipe", "train.yaml", "--out", "trained"]


def run(home: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "argv", ["lorarec", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code


def check(found: Any, expected: Any, tolerance: float = 1e-5, place: str = "") -> None:
    """Compare values as JSON holds them, numbers up to a tolerance."""
    if isinstance(expected, dict):
        assert set(found) == set(expected), place
        for key, value in expected.items():
            check(found[key], value, tolerance, f"{place}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), place
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            check(one, other, tolerance, f"{place}.{number}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=tolerance, abs=tolerance), place
    else:
        assert found == expected, place


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone.from_pretrained()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, backbone: Backbone) -> Written:
    home = tmp_path_factory.mktemp("written") / "by_0_1"
    shutil.copytree(WRITTEN, home)
    return Written(home, backbone)


def test_dataset_and_split(written: Written) -> None:
    check(written.data(), EXPECTED["data"])


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapter(written: Written, name: str) -> None:
    check(written.adapter(written.home / "adapters" / name), EXPECTED["adapters"][name])


def test_index(written: Written) -> None:
    check(written.index(), EXPECTED["index"])


@pytest.mark.parametrize("folder", EXPECTED["recommender"])
def test_click_model(written: Written, folder: str) -> None:
    check(written.recommender(folder), EXPECTED["recommender"][folder], 1e-6)


def test_click_probabilities(written: Written) -> None:
    check(written.predictions(), EXPECTED["predictions"])


@pytest.mark.parametrize("folder", EXPECTED["personal"])
def test_router(written: Written, folder: str) -> None:
    check(written.personal(folder), EXPECTED["personal"][folder])


def test_exported_adapter(written: Written) -> None:
    assert written.adapter(written.home / "exported")["user"] == USERS[0]
    check(written.clicks_adapter(written.home / "exported"), EXPECTED["clicks_adapter"])


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("folder", EXPECTED["export"])
def test_export_of_a_user(written: Written, folder: str, user: str, tmp_path: Path) -> None:
    out = written.export(folder, user, tmp_path / user)
    found = written.adapter(out)["scores"] if folder in CHOOSERS else written.clicks_adapter(out)
    check(found, EXPECTED["export"][folder][user])


@pytest.mark.parametrize("folder", CHOOSERS)
def test_user_chooser(written: Written, folder: str) -> None:
    check(written.user_router(folder), EXPECTED["chooser"][folder])


def test_the_service_finds_user_routers(written: Written) -> None:
    kinds = AdapterSources(written.home, written.backbone, written.dataset, {}).available({})
    assert {name: kinds.get(name) for name in CHOOSERS} == dict.fromkeys(CHOOSERS, "personal")


def test_database(written: Written) -> None:
    check(written.database(), EXPECTED["database"])
    assert written.append() == 1
    check(written.database(), EXPECTED["database"] | {"later": ["f01", "f30", "f02"]})


def test_half_of_a_ranking_is_completed(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    (part,) = (written.home / "ranking").glob("part-*.parquet")
    before = part.read_bytes(), part.stat().st_mtime_ns
    run(written.home, monkeypatch, *RANK)
    assert (part.read_bytes(), part.stat().st_mtime_ns) == before
    check(written.ranking(), EXPECTED["ranking"])
    assert json.loads((written.home / "ranking" / "rank.json").read_text())["complete"]


def test_finished_rows_of_an_experiment_stay(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = written.home / "experiment" / "rows"
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(rows.iterdir())}
    (written.home / "experiment" / "table.json").unlink()
    run(written.home, monkeypatch, *EXPERIMENT)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(rows.iterdir())} == before
    check(written.experiment(), EXPECTED["experiment"])


def test_recipe_trains_the_same_adapter(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    run(written.home, monkeypatch, *TRAIN)
    # Another processor rounds differently, and training makes the difference larger.
    expected = EXPECTED["adapters"]["from-recipe"]["scores"]
    check(written.adapter(written.home / "trained")["scores"], expected, 1e-3)


@pytest.mark.parametrize("folder", KINDS)
def test_folder_may_be_overwritten(folder: str) -> None:
    refuse_existing(WRITTEN / folder, overwrite=True, kind=KINDS[folder])
