"""One row of RecLoRA's tables: trained, predicted, and written with its figures."""

import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lorarec.backbone import Backbone, title_embeddings
from lorarec.ctr import MODELS, CTRConfig, CTRModel, fit, fit_two_towers
from lorarec.data import LABEL, TEST, TITLE, ClickLog, Dataset, click_log
from lorarec.evaluation import MetricResult, evaluate_clicks
from lorarec.experiments.click_tables.recipe import ClicksRecipe
from lorarec.experiments.click_tables.rows import CTR_BERT, ClickRow
from lorarec.experiments.experiment_data import load_named_dataset
from lorarec.experiments.subprocess_run import run_in_subprocess
from lorarec.io import locked, new_file, write_json
from lorarec.metrics import auc
from lorarec.personal import RECLORA, PersonalizationConfig, personalize

ROWS, PROBABILITY = "rows", "probability"
_LOCKS = "locks"
#: Recommenders that weigh a history by the target, whatever is left out of it; the others read its latest part.
_SEARCHING = ("din", "sim")


def record(out: Path, row: str) -> Path:
    """The file that is there when a row is done."""
    return out / ROWS / f"{row}.json"


def scores(out: Path, row: str) -> Path:
    """The file of a row's probabilities: event, label, probability."""
    return out / ROWS / f"{row}.parquet"


def do_row(recipe: ClicksRecipe, out: Path, row: ClickRow, threads: int, progress: bool) -> None:
    """Do a row in a process of its own, unless another process is at it or has done it.

    Raises:
        LorarecError: whatever went wrong, in one line.
    """
    with run_in_subprocess(threads), locked(out / _LOCKS / row.name, wait=False) as mine:
        if mine and not record(out, row.name).exists():
            Work(recipe, load_named_dataset(recipe.dataset), out, progress).finish(row)


@dataclass(frozen=True)
class Work:
    """Everything that rows share.

    Attributes:
        out: the folder of the experiment: finished rows in `rows/`, what they are made with in `crm/` and `runs/`.
    """

    recipe: ClicksRecipe
    dataset: Dataset
    out: Path
    progress: bool = False

    @cached_property
    def backbone(self) -> Backbone:
        return Backbone.load(self.recipe.backbone)

    @cached_property
    def log(self) -> ClickLog:
        chosen = PersonalizationConfig(**self.recipe.told)
        return click_log(self.dataset, positive_from=chosen.positive_from, stars=chosen.stars)

    @cached_property
    def test(self) -> np.ndarray:
        count = self.recipe.test_events
        return self.log.rows(TEST) if count is None else self.log.few_shot(count, part=TEST)

    def finish(self, row: ClickRow) -> None:
        """Do a row and write its files, the row's own JSON last; a row that was stopped goes on."""
        start = time.perf_counter()
        predicted = {name: each.astype(np.float64) for name, each in self._predicted(row).items()}
        seconds = round(time.perf_counter() - start, 1)
        recommender = predicted.get("recommender")
        if "blended" in predicted:
            self._write(replace(row, name=row.blended_name), predicted["blended"], recommender, seconds)
        self._write(row, predicted[PROBABILITY], recommender, seconds)

    def _predicted(self, row: ClickRow) -> dict[str, np.ndarray]:
        """Probabilities of the test events: the row's own, and of a LoRA those of its recommender and of both."""
        options = PersonalizationConfig(**self.recipe.told | row.changed | {"seed": row.seed})
        if row.kind == CTR_BERT:
            towers = fit_two_towers(self.backbone, self.log, CTRConfig(seed=row.seed), self.progress)
            return {PROBABILITY: towers.score(self.test)}
        if row.kind in MODELS:
            options = options if row.kind in _SEARCHING else replace(options, ctr_retrieval="recent")
            fitted = CTRModel.load(self._recommender(row.kind, options), self.log)
            return {PROBABILITY: fitted.score(self.test)}
        result = personalize(
            self.backbone,
            self.dataset,
            self.out / "runs" / row.name,
            crm=self._recommender(self.recipe.crm, options, row.few),
            resume=True,
            overwrite=True,
            progress=self.progress,
            **vars(options),
        )
        crm = self.recipe.crm.upper()
        names = {PROBABILITY: RECLORA, "recommender": crm, "blended": f"{RECLORA} + {crm}"}
        return {told: result.rows[name] for told, name in names.items()}

    def _recommender(self, name: str, options: PersonalizationConfig, few: bool = False) -> Path:
        """The folder of a conventional recommender, trained if it is not there, on all events or on a `few`."""
        label = f"{name}-{options.ctr_max_history}-{options.ctr_retrieval}-seed{options.seed}"
        label += f"-few{options.samples}" if few else ""
        folder = self.out / "crm" / label
        with locked(self.out / _LOCKS / f"crm-{label}"):
            if not folder.exists():
                events = self.log.few_shot(options.samples, options.seed) if few else None
                titles = self.dataset.items[TITLE].to_list()
                similar = options.ctr_retrieval == "similar"
                embeddings = title_embeddings(self.backbone, titles) if similar else None
                chosen = CTRConfig(max_history=options.ctr_max_history, seed=options.seed)
                fit(name, self.log, chosen, events=events, embeddings=embeddings, progress=self.progress).save(folder)
        return folder

    def _write(self, row: ClickRow, found: np.ndarray, recommender: np.ndarray | None, seconds: float) -> None:
        """A row's probabilities and figures."""
        labels = self.log.label[self.test]
        with new_file(scores(self.out, row.name)) as temporary:
            pl.DataFrame({"event": self.test, LABEL: labels, PROBABILITY: found}).write_parquet(temporary)
        measured = figures_of(found, labels)
        figures = {name: figure.mean for name, figure in measured.items()}
        if recommender is not None:
            figures["recommender_auc"] = auc(recommender, labels)
        about: dict[str, Any] = {"row": row.name, "kind": row.kind, "seed": row.seed, "changed": row.changed}
        about |= {"few": row.few, "figures": figures, "intervals": intervals_of(measured), "seconds": seconds}
        write_json(record(self.out, row.name), about)


def figures_of(found: np.ndarray, labels: np.ndarray) -> dict[str, MetricResult]:
    """Figures of (events,) probabilities with intervals over the events."""
    return evaluate_clicks(labels, {PROBABILITY: found}, PROBABILITY).rows[PROBABILITY]


def intervals_of(figures: dict[str, MetricResult]) -> dict[str, list[float]]:
    """Figure -> ends of its interval."""
    return {name: [figure.low, figure.high] for name, figure in figures.items()}
