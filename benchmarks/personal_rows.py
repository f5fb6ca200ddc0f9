"""One row of RecLoRA's tables: trained, predicted, and written with its figures (for personal_tables.py)."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lorarec.artefacts import write_json
from lorarec.backbone.load import Backbone
from lorarec.conventional import MODELS, Conventional, FitOptions, fit
from lorarec.data import Dataset
from lorarec.data.clicks import TEST, ClickLog, click_log
from lorarec.data.columns import TITLE
from lorarec.metrics.clicks import accuracy, auc, calibration_error, log_loss
from lorarec.personal import PersonalizeOptions, fit_two_towers, personalize, title_embeddings

CTR_BERT = "ctr-bert"
#: What is put before the seed in the name of a LoRA blended with its recommender; that row comes with the LoRA's.
BLENDED = "-blended"
#: Recommenders that weigh a history by the target, whatever is left out of it; the others read its latest part.
SEARCHING = ("din", "sim")


@dataclass(frozen=True)
class Row:
    """One model with one seed.

    Attributes:
        name: of its files.
        kind: a conventional recommender, `ctr-bert` or `lora`.
        changed: options of `personalize` that are not RecLoRA's defaults here.
        few: the conventional recommender sees the sample only.
    """

    name: str
    kind: str
    seed: int
    changed: dict[str, Any] = field(default_factory=dict)
    few: bool = False


@dataclass(frozen=True)
class Work:
    """Everything that rows share.

    Attributes:
        options: of `personalize`, for all rows.
    """

    dataset: Dataset
    out: Path
    backbone_id: str
    crm: str
    options: dict[str, Any]
    progress: bool

    @cached_property
    def backbone(self) -> Backbone:
        return Backbone.load(self.backbone_id)

    @cached_property
    def log(self) -> ClickLog:
        chosen = PersonalizeOptions(**self.options)
        return click_log(self.dataset, positive_from=chosen.positive_from, stars=chosen.stars)

    @cached_property
    def test(self) -> np.ndarray:
        count = self.options["test_events"]
        return self.log.rows(TEST) if count is None else self.log.few_shot(count, part=TEST)

    @cached_property
    def embeddings(self) -> np.ndarray:
        return title_embeddings(self.backbone, self.dataset.items[TITLE].to_list())

    def fitted(self, name: str, options: PersonalizeOptions, few: bool = False) -> Path:
        """The folder of a conventional recommender, trained if it is not there, on all events or on a `few`."""
        label = f"{name}-{options.id_history}-{options.id_retrieval}-seed{options.seed}"
        label += f"-few{options.samples}" if few else ""
        folder = self.out / "crm" / label
        with locked(self.out / "locks" / f"crm-{label}"):
            if not folder.exists():
                events = self.log.few_shot(options.samples, options.seed) if few else None
                embeddings = self.embeddings if options.id_retrieval == "similar" else None
                chosen = FitOptions(max_history=options.id_history, seed=options.seed)
                fit(name, self.log, chosen, events=events, embeddings=embeddings, progress=self.progress).save(folder)
        return folder

    def probabilities(self, row: Row) -> dict[str, np.ndarray]:
        """Of the test events: the row's own, and of a LoRA those of its recommender and of both together."""
        options = PersonalizeOptions(**self.options | row.changed | {"seed": row.seed})
        if row.kind == CTR_BERT:
            towers = fit_two_towers(self.backbone, self.log, FitOptions(seed=row.seed), self.progress)
            return {"probability": towers.score(self.test)}
        if row.kind in MODELS:
            options = options if row.kind in SEARCHING else replace(options, id_retrieval="recent")
            fitted = Conventional.load(self.fitted(row.kind, options), self.log)
            return {"probability": fitted.score(self.test)}
        crm = self.fitted(self.crm, options, row.few)
        out = self.out / "runs" / row.name
        how: dict[str, Any] = {"crm": crm, "resume": True, "overwrite": True, "progress": self.progress}
        result = personalize(self.backbone, self.dataset, out, **how, **options.as_dict())
        told = ("probability", "recommender", "blended")
        own = [result.rows[name] for name in ("RecLoRA", self.crm.upper(), f"RecLoRA + {self.crm.upper()}")]
        return dict(zip(told, own, strict=True))

    def finish(self, row: Row) -> None:
        """Do a row and write its files, the row's own JSON last."""
        start = time.perf_counter()
        predicted = {name: each.astype(np.float64) for name, each in self.probabilities(row).items()}
        seconds = round(time.perf_counter() - start, 1)
        if "blended" in predicted:
            kind, dash, seed = row.name.rpartition("-seed")
            name = f"{kind or seed}{BLENDED}{dash}{seed if kind else ''}"
            self.write(replace(row, name=name), predicted.pop("blended"), predicted["recommender"], seconds)
        self.write(row, predicted["probability"], predicted.get("recommender"), seconds)

    def write(self, row: Row, found: np.ndarray, recommender: np.ndarray | None, seconds: float) -> None:
        """A row's probabilities and figures."""
        labels = self.log.label[self.test]
        table = pl.DataFrame({"event": self.test, "label": labels, "probability": found})
        table.write_parquet(self.out / "rows" / f"{row.name}.parquet")
        figures = {
            "auc": auc(found, labels),
            "log_loss": float(log_loss(found, labels).mean()),
            "accuracy": float(accuracy(found, labels).mean()),
            "calibration_error": calibration_error(found, labels),
        }
        if recommender is not None:
            figures["recommender_auc"] = auc(recommender, labels)
        about = {"row": row.name, "kind": row.kind, "seed": row.seed, "changed": row.changed, "few": row.few}
        write_json(self.out / "rows" / f"{row.name}.json", about | {"figures": figures, "seconds": seconds})
        print(
            f"{row.name:24} AUC {figures['auc']:.4f}  log loss {figures['log_loss']:.4f}  {seconds:.0f} s", flush=True
        )


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Whether this process has the lock, which ends with the block or the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
