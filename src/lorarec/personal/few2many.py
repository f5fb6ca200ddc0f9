"""Few2Many of RecLoRA: a click-through model is trained on all clicks, then a personal LoRA on a few of them."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from accelerate import PartialState

from lorarec.backbone import Backbone, title_embeddings
from lorarec.ctr import CTRConfig, CTRModel, fit_ctr_model
from lorarec.data import ITEM, LABEL, TEST, TIME, TITLE, USER, VALID, ClickLog, Dataset, click_log
from lorarec.errors import LorarecError
from lorarec.evaluation import METRICS, PREDICTIONS
from lorarec.io import FolderKind, JsonObject, new_folder, read_json, refuse_existing, versions, write_json
from lorarec.lora import AdapterRecord
from lorarec.personal.blend import EVENTS as BLEND_EVENTS
from lorarec.personal.blend import blended, choose_blend
from lorarec.personal.config import RETRIEVALS, PersonalizationConfig
from lorarec.personal.event_rows import EventReader, EventRows
from lorarec.personal.fallback import counts_of_test
from lorarec.personal.meta_bank import meta_loras
from lorarec.personal.model import PersonalLora
from lorarec.personal.personal_source import PERSONAL
from lorarec.personal.plots import plot_user_weights
from lorarec.personal.scoring import probabilities, set_mean_weights
from lorarec.personal.tuning import tune
from lorarec.personal.user_adapters import USERS, user_representations, user_weights
from lorarec.personal.user_features import load_given_ctr_model
from lorarec.prompts import CLICK, LATEST, PromptConfig
from lorarec.training import LOGS, Checkpoints, TrackedRun, TrackingConfig, shown_options, tracked_run

CRM, RECORD, WEIGHTS = "crm", "personalize.json", "weights.png"
DRAWN = 2000
RECLORA = "RecLoRA"


@dataclass(frozen=True)
class Personalized:
    """The result of `personalize`: a folder and its contents.

    Attributes:
        folder: Path of the folder. It has `crm/` (the click-through model), `personal/`, a `shared-similar/` or
            `shared-recent/` for each shared LoRA, `users.parquet`, `predictions.parquet`, `personalize.json`,
            `weights.png`, and `tensorboard/` if TensorBoard was reported to.
        predictions: user_id, item_id, timestamp and label of the test events in time order, and a column of
            probabilities for each row of the table: the click-through model, shared LoRAs, RecLoRA, and the blend of
            RecLoRA and the click-through model.
        record: Contents of `personalize.json`: data, backbone, options, versions, the weights of the blend, the mean
            weight of each meta-LoRA over the users that `weights.png` shows and all layers, and the numbers of test
            events: of users and items that do not occur in the training part, of users without a history, and of those
            that fell back.
    """

    folder: Path
    predictions: pl.DataFrame
    record: JsonObject

    @property
    def rows(self) -> dict[str, np.ndarray]:
        """Probabilities (events,) by name of the row."""
        return {each.name: each.to_numpy() for each in self.predictions.drop(USER, ITEM, TIME, LABEL)}


@dataclass(frozen=True)
class _Row:
    """A LoRA to be trained.

    Attributes:
        folder: Name of its folder.
        title: Name of its row in the table.
        size: Number of meta-LoRAs.
        retrieval: Kind of history in its prompts.
    """

    folder: str
    title: str
    size: int
    retrieval: str


class _Stages(Checkpoints):
    """The folder of finished stages and of the checkpoint of the present stage."""

    def latest(self) -> str | None:
        """Return the path of the first stage; a run can be resumed once it is finished."""
        return str(self.folder / CRM) if (self.folder / CRM).is_dir() else None


def personalize(
    backbone: Backbone,
    dataset: Dataset,
    out: str | Path,
    config: PersonalizationConfig | None = None,
    *,
    ctr_model: str | Path = "din",
    shared: Sequence[str] = (),
    tracking: TrackingConfig | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    report: Callable[[Personalized], object] | None = None,
) -> Personalized:
    """Train a click-through model on all training clicks, and on a few of them a personal LoRA that it routes.

    Stage 1 fits the click-through model, or uses a trained one. Stage 2 draws the few-shot sample, writes each event as
    a prompt with the past ratings most similar to its target, and trains router and meta-LoRAs by cross-entropy on the
    log-odds of yes; the click-through model and the backbone are frozen. Finally all models predict the test events;
    an event of a user without a history, or of a target of which the training part knows nothing, falls back to the
    router's mean weights over the sample (see `lorarec.personal.fallback`). Beyond the paper, a last row is the
    weighted mean of the log-odds of the click-through model and the personal LoRA; 2,000 validation events choose its
    weight (see `lorarec.personal.blend`). The LoRAs use no validation events, and nothing is chosen on test events.

    Args:
        backbone: Backbone that the LoRAs are trained on.
        dataset: Dataset in which every interaction has a rating and timestamps are comparable across users.
        out: Path of the folder to write; `OUT.checkpoints` holds finished stages and checkpoints until then.
        config: Options; the defaults of `PersonalizationConfig` if None.
        ctr_model: Name of a click-through model to fit (a key of `lorarec.ctr.MODELS`), or path of the folder of one
            that was trained on the same clicks.
        shared: Kinds of history for which a single LoRA for all users is trained on the same sample as well: `similar`
            (ReLLa), `recent` (TALLRec), or both.
        tracking: Trackers that get the loss of each LoRA, the mean weights, the picture of the weights, and the metrics
            of `metrics.json` if `report` writes one; the defaults of `TrackingConfig` if None.
        resume: Continue an interrupted run; the weights are those of an uninterrupted run.
        overwrite: Replace a folder of this kind at `out`.
        progress: Show progress bars on standard error.
        report: Function that is called with the result before the folder is renamed to `out`; files that it writes into
            `Personalized.folder` are there with all others or not at all.

    Raises:
        LorarecError: If ratings are missing or out of range, the training, sampled or test events all have one label,
            the click-through model was trained on other data, `out` exists, the checkpoints belong to another run, or a
            loss is not finite.

    Examples:
        >>> from lorarec import Backbone, Dataset, PersonalizationConfig, personalize
        >>> backbone = Backbone.from_pretrained("embedded")
        >>> config = PersonalizationConfig(samples=16, epochs=1, num_meta_loras=2, test_events=16)
        >>> personalized = personalize(backbone, Dataset.load("data/shop"), "personal", config)
        >>> personalized.predictions.height
        16
    """
    config = config or PersonalizationConfig()
    out = Path(out)
    refuse_existing(out, overwrite, FolderKind.PERSONALIZATION)
    for retrieval in shared:
        if retrieval not in RETRIEVALS:
            raise LorarecError(f"a shared LoRA has {' or '.join(RETRIEVALS)} history, got {retrieval!r}")
    log = click_log(dataset, positive_from=config.positive_from, stars=config.stars)
    sample, test = _draw_events(log, config)
    given = load_given_ctr_model(ctr_model, log)
    rows = [
        _Row(f"shared-{retrieval}", f"shared LoRA, {retrieval} history", 1, retrieval)
        for retrieval in dict.fromkeys(shared)
    ]
    rows.append(_Row(PERSONAL, RECLORA, config.num_meta_loras, config.retrieval))
    adapter_record = _adapter_record(backbone, log, config, ctr_model)
    stages = _Stages(out, adapter_record.to_json())
    stages.refuse(resume, overwrite)
    shown = shown_options(adapter_record) | {"ctr_model": str(ctr_model), "shared": list(shared)}
    with (
        stages.open(resume, PartialState()),
        tracked_run(tracking or TrackingConfig(), out.name, stages.folder, shown) as run,
    ):
        embeddings = title_embeddings(backbone, dataset.items[TITLE].to_list())
        if not (stages.folder / CRM).exists():
            fitted = given or _fit_ctr_model(str(ctr_model), log, config, embeddings, progress)
            fitted.save(stages.folder / CRM)
        fitted_model = CTRModel.load(stages.folder / CRM, log)
        reader = EventReader(backbone, fitted_model, config, embeddings)
        first = fitted_model.record["model"].upper()
        columns = {first: fitted_model.score(test, progress).astype(np.float64)}
        kinds = {row.retrieval for row in rows}
        inputs = {kind: (reader.read(sample, kind), reader.read(test, kind)) for kind in kinds}
        valid = log.few_shot(min(BLEND_EVENTS, len(log.rows(VALID))), part=VALID)
        for row in rows:
            few, tested = inputs[row.retrieval]
            predicted = [tested, reader.read(valid, row.retrieval)] if row.folder == PERSONAL else [tested]
            results = _predict(backbone, reader, row, few, predicted, stages.folder, adapter_record, progress, run)
            columns[row.title] = results[0]
        blend = choose_blend(fitted_model.score(valid, progress).astype(np.float64), results[1], log.label[valid])
        columns[f"{RECLORA} + {first}"] = blended(columns[first], columns[RECLORA], blend.weights)
        predictions = _events(log, test).with_columns(**columns)
        record = adapter_record.to_json() | {
            "versions": versions(),
            "sample": len(sample),
            "test": counts_of_test(fitted_model.encoder, test),
            "blend": {"weights": list(blend.weights), "events": len(valid), "losses": blend.losses},
        }
        with new_folder(out, overwrite, FolderKind.PERSONALIZATION) as folder:
            for name in (CRM, *(row.folder for row in rows)):
                shutil.copytree(stages.folder / name, folder / name)
            users = user_representations(fitted_model)
            users.write_parquet(folder / USERS)
            record["mean_weights"] = _draw(folder / WEIGHTS, backbone, stages.folder / PERSONAL, users, log)
            predictions.write_parquet(folder / PREDICTIONS)
            write_json(folder / RECORD, record)
            if report is not None:
                report(Personalized(folder, predictions, record))
            run.log(_figures(folder, record))
            run.log_pictures(sorted(folder.glob("*.png")))
            if (stages.folder / LOGS).is_dir():
                shutil.copytree(stages.folder / LOGS, folder / LOGS)
    stages.remove()
    return Personalized(out, predictions, record)


def _draw_events(log: ClickLog, config: PersonalizationConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return the few-shot sample and the test events.

    Raises:
        LorarecError: There are fewer than two events of a label.
    """
    sample = log.few_shot(config.samples, config.seed)
    test = log.rows(TEST) if config.test_events is None else log.few_shot(config.test_events, part=TEST)
    for part, events in (("sampled", sample), ("test", test)):
        if np.bincount(log.label[events], minlength=2).min() < 2:  # fewer have no AUC and no test of it
            raise LorarecError(
                f"{log.dataset.name}: the {len(events)} {part} events need two of either label: take more"
            )
    return sample, test


def _adapter_record(
    backbone: Backbone, log: ClickLog, config: PersonalizationConfig, ctr_model: str | Path
) -> AdapterRecord:
    """Return the record of the LoRAs of a run: their prompts, backbone, data and options."""
    dataset = log.dataset
    prompt = PromptConfig(
        readout="verdict",
        template=LATEST[CLICK],
        max_tokens=config.max_tokens,
        max_title_tokens=config.max_title_tokens,
        max_history=config.max_history,
    )
    return AdapterRecord(
        prompt=prompt,
        backbone_id=backbone.id,
        backbone_fingerprint=backbone.fingerprint,
        datasets=({"name": dataset.name, "fingerprint": dataset.fingerprint, "split": log.fingerprint},),
        options={name: value for name, value in vars(config).items() if name not in vars(prompt)},
        details={"crm": str(ctr_model)},
    )


def _fit_ctr_model(
    name: str, log: ClickLog, config: PersonalizationConfig, embeddings: np.ndarray, progress: bool
) -> CTRModel:
    """Fit a click-through model to all training events; it reads similar or recent items of a history."""
    retrieved = embeddings if config.ctr_retrieval == "similar" else None
    fitting = CTRConfig(max_history=config.ctr_max_history, seed=config.seed)
    return fit_ctr_model(name, log, fitting, embeddings=retrieved, progress=progress)


def _predict(
    backbone: Backbone,
    reader: EventReader,
    row: _Row,
    few: EventRows,
    predicted: Sequence[EventRows],
    stages: Path,
    record: AdapterRecord,
    progress: bool,
    run: TrackedRun,
) -> list[np.ndarray]:
    """Return probabilities of sets of rows under a LoRA, which is trained or, if its stage is finished, loaded."""
    config, done = reader.config, stages / row.folder
    if done.exists():
        personal = PersonalLora.load(done, backbone)
    else:
        torch.manual_seed(config.seed)
        bank = meta_loras(
            backbone.model,
            row.size,
            config.r,
            config.lora_alpha,
            [name.strip() for name in config.target_modules.split(",")],
        )
        input_size = few.representation.shape[1]
        personal = PersonalLora(
            backbone, bank, input_size, combine=config.combine, temperature=config.temperature, record=record
        )
    with personal:
        if not done.exists():
            state = stages / f"{row.folder}.pt"
            tune(personal, few, reader.builder, config, state, f"Tuning {row.title}", progress, run)
            set_mean_weights(personal, few)
            personal.save(done)
        return [probabilities(personal, rows, reader.builder, config.token_budget, progress) for rows in predicted]


def _draw(path: Path, backbone: Backbone, saved: Path, users: pl.DataFrame, log: ClickLog) -> list[float]:
    """Plot the router's weights of the users, or of 2,000 of them; return the mean weight of each meta-LoRA."""
    drawn = np.sort(np.random.default_rng(0).permutation(len(users))[:DRAWN])
    clicked = np.bincount(log.user, log.label) / np.bincount(log.user)
    with PersonalLora.load(saved, backbone) as personal:
        weights = user_weights(personal, users[drawn])
        plot_user_weights(path, weights, clicked[drawn], list(personal.bank.layers))
    mean: list[float] = weights.mean((0, 1), dtype=np.float64).tolist()
    return mean


def _figures(folder: Path, record: Mapping[str, Any]) -> dict[str, float]:
    """Return what trackers get at the end: mean weights, and the metrics of every row if they were written."""
    rows = read_json(folder / METRICS)["rows"] if (folder / METRICS).is_file() else {}
    metrics = {
        f"test_{row}/{name}": result["mean"] for row, results in rows.items() for name, result in results.items()
    }
    return {f"mean_weights/{number}": weight for number, weight in enumerate(record["mean_weights"], 1)} | metrics


def _events(log: ClickLog, events: np.ndarray) -> pl.DataFrame:
    """Return user, item, timestamp and label of events."""
    items = log.dataset.items[ITEM]
    return pl.DataFrame(
        {
            USER: log.users[log.user[events]],
            ITEM: items[log.item[events]],
            TIME: log.time[events],
            LABEL: log.label[events],
        }
    )
