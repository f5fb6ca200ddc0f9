"""Fitting of one row of RecLoRA's tables, its predictions and its metrics."""

import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from lorarec.backbone import Backbone, title_embeddings
from lorarec.ctr import MODELS, CTRConfig, CTRModel, fit_ctr_model, fit_two_towers
from lorarec.data import LABEL, TEST, TITLE, ClickLog, Dataset, click_log
from lorarec.evaluation import MetricResult, evaluate_clicks
from lorarec.experiments.click_tables.recipe import ClicksRecipe
from lorarec.experiments.click_tables.rows import CTR_BERT, ClickRow
from lorarec.experiments.experiment_data import load_named_dataset
from lorarec.experiments.workers import run_in_subprocess
from lorarec.io import JsonObject, locked, new_file, write_json
from lorarec.metrics import auc
from lorarec.personal import RECLORA, PersonalizationConfig, personalize

ROWS, PROBABILITY = "rows", "probability"
_LOCKS = "locks"
#: Recommenders that weight the events of a history by the target; the others read its latest part.
_SEARCHING = ("din", "sim")


def record_file(out: Path, row: str) -> Path:
    """Return the path of a row's record, which is written last."""
    return out / ROWS / f"{row}.json"


def predictions_file(out: Path, row: str) -> Path:
    """Return the path of a row's predictions: event, label, probability."""
    return out / ROWS / f"{row}.parquet"


def run_row_in_process(recipe: ClicksRecipe, out: Path, row: ClickRow, threads: int, progress: bool) -> None:
    """Run a row in a process of its own, unless another process runs it or has finished it.

    Raises:
        LorarecError: The row failed.
    """
    with run_in_subprocess(threads), locked(out / _LOCKS / row.name, wait=False) as acquired:
        if acquired and not record_file(out, row.name).exists():
            RowRunner(recipe, load_named_dataset(recipe.dataset), out, progress).run(row)


@dataclass(frozen=True)
class RowRunner:
    """Fits rows of the tables, which share their data.

    Attributes:
        recipe: Recipe of the experiment.
        dataset: Dataset that the recipe names.
        out: Folder of the experiment: finished rows in `rows/`, recommenders in `crm/`, unfinished runs in `runs/`.
        progress: Whether progress is shown.
    """

    recipe: ClicksRecipe
    dataset: Dataset
    out: Path
    progress: bool = False

    @cached_property
    def backbone(self) -> Backbone:
        return Backbone.from_pretrained(self.recipe.backbone, dtype=self.recipe.dtype)

    @cached_property
    def log(self) -> ClickLog:
        chosen = PersonalizationConfig(**self.recipe.shared_options)
        return click_log(self.dataset, positive_from=chosen.positive_from, stars=chosen.stars)

    @cached_property
    def test(self) -> np.ndarray:
        count = self.recipe.test_events
        return self.log.rows(TEST) if count is None else self.log.few_shot(count, part=TEST)

    def run(self, row: ClickRow) -> None:
        """Fit a row and write its files, the record last; a row that was stopped is resumed."""
        start = time.perf_counter()
        predicted = {name: each.astype(np.float64) for name, each in self._predicted(row).items()}
        seconds = round(time.perf_counter() - start, 1)
        recommender = predicted.get("recommender")
        if "blended" in predicted:
            self._write(replace(row, name=row.blended_name), predicted["blended"], recommender, seconds)
        self._write(row, predicted[PROBABILITY], recommender, seconds)

    def _predicted(self, row: ClickRow) -> dict[str, np.ndarray]:
        """Return probabilities of the test events: the row's, and for a LoRA those of its recommender and of both."""
        options = PersonalizationConfig(**self.recipe.shared_options | row.changed | {"seed": row.seed})
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
            options,
            ctr_model=self._recommender(self.recipe.ctr_model, options, row.few),
            resume=True,
            overwrite=True,
            progress=self.progress,
        )
        ctr_model = self.recipe.ctr_model.upper()
        names = {PROBABILITY: RECLORA, "recommender": ctr_model, "blended": f"{RECLORA} + {ctr_model}"}
        return {name: result.rows[row_name] for name, row_name in names.items()}

    def _recommender(self, name: str, options: PersonalizationConfig, few: bool = False) -> Path:
        """Return the folder of a click-through model, which is trained if it does not exist.

        Args:
            few: Train on the sample of events in place of all events.
        """
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
                fit_ctr_model(
                    name, self.log, chosen, events=events, embeddings=embeddings, progress=self.progress
                ).save(folder)
        return folder

    def _write(self, row: ClickRow, predicted: np.ndarray, recommender: np.ndarray | None, seconds: float) -> None:
        """Write a row's probabilities and metrics."""
        labels = self.log.label[self.test]
        with new_file(predictions_file(self.out, row.name)) as temporary:
            pl.DataFrame({"event": self.test, LABEL: labels, PROBABILITY: predicted}).write_parquet(temporary)
        results = metrics_of(predicted, labels)
        means = {name: result.mean for name, result in results.items()}
        if recommender is not None:
            means["recommender_auc"] = auc(recommender, labels)
        record: JsonObject = {"row": row.name, "kind": row.kind, "seed": row.seed, "changed": row.changed}
        record |= {"few": row.few, "figures": means, "intervals": intervals_of(results), "seconds": seconds}
        write_json(record_file(self.out, row.name), record)


def metrics_of(predicted: np.ndarray, labels: np.ndarray) -> dict[str, MetricResult]:
    """Return the metrics of (events,) probabilities with intervals over the events."""
    return evaluate_clicks(labels, {PROBABILITY: predicted}, PROBABILITY).rows[PROBABILITY]


def intervals_of(metrics: dict[str, MetricResult]) -> dict[str, list[float]]:
    """Return the ends of the interval of each metric."""
    return {name: [metric.low, metric.high] for name, metric in metrics.items()}
