"""Few2Many of RecLoRA: a conventional recommender on all clicks, then personal LoRA on a few of them."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from accelerate import PartialState

from lorarec.backbone import Backbone, title_embeddings
from lorarec.ctr import MODELS, CTRConfig, CTRModel, fit_ctr_model
from lorarec.data import ITEM, LABEL, TEST, TIME, TITLE, USER, VALID, ClickLog, Dataset, click_log
from lorarec.errors import LorarecError
from lorarec.evaluation import PREDICTIONS
from lorarec.io import PERSONALIZED, new_folder, refuse_existing, versions, write_json
from lorarec.options import build_options
from lorarec.personal.blend import EVENTS as BLEND_EVENTS
from lorarec.personal.blend import blended, choose_blend
from lorarec.personal.config import RETRIEVALS, PersonalizationConfig
from lorarec.personal.event_rows import EventReader, EventRows
from lorarec.personal.fallback import counts_of_test
from lorarec.personal.meta_bank import meta_loras
from lorarec.personal.model import PersonalLora
from lorarec.personal.plots import plot_user_weights
from lorarec.personal.scoring import keep_mean_weights, probabilities
from lorarec.personal.tuning import tune
from lorarec.personal.user_adapters import PERSONAL, USERS, user_representations, user_weights
from lorarec.prompts import CLICK
from lorarec.training import Checkpoints

CRM, RECORD, WEIGHTS = "crm", "personalize.json", "weights.png"
DRAWN = 2000
RECLORA = "RecLoRA"


@dataclass(frozen=True)
class Personalized:
    """What `personalize` wrote.

    Attributes:
        folder: `crm/`, `personal/`, a `shared-similar/` or `shared-recent/` for each shared LoRA, `users.parquet`,
            `predictions.parquet`, `personalize.json` and `weights.png`.
        predictions: user_id, item_id, timestamp and label of the tested events in time order, and a column of
            probabilities for each row of the table: the conventional recommender, shared LoRAs, RecLoRA, and RecLoRA
            with the recommender.
        record: `personalize.json`: data, backbone, options, versions, the weights of the last row, and how many of the
            test events are of users and items that the training part lacks, or of users without a history, and how many
            fell back.
    """

    folder: Path
    predictions: pl.DataFrame
    record: dict[str, Any]

    @property
    def rows(self) -> dict[str, np.ndarray]:
        """Name of the row -> (events,) probabilities."""
        return {each.name: each.to_numpy() for each in self.predictions.drop(USER, ITEM, TIME, LABEL)}


@dataclass(frozen=True)
class _Row:
    """One LoRA to be tuned: the folder's name, that of the table's row, number of meta-LoRAs, kind of history."""

    folder: str
    title: str
    size: int
    retrieval: str


class _Stages(Checkpoints):
    """The folder of finished stages, beside the state of the one that is under way."""

    def latest(self) -> str | None:
        """The first stage; once it is there, a run can go on."""
        return str(self.folder / CRM) if (self.folder / CRM).is_dir() else None


def personalize(
    backbone: Backbone,
    dataset: Dataset,
    out: str | Path,
    *,
    crm: str | Path = "din",
    shared: Sequence[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    report: Callable[[Personalized], object] | None = None,
    **options: Any,
) -> Personalized:
    """Train a conventional recommender on all training clicks, and a personal LoRA that it routes on a few of them.

    Stage 1 fits the conventional recommender, or takes a trained one. Stage 2 draws the few-shot sample, tells each
    event as a prompt with the past ratings most similar to its target, and trains router and meta-LoRAs by
    cross-entropy on the log-odds of yes; the recommender and the backbone stay as they are. In the end all of them
    predict the test events; those whose user or target the recommender knows nothing of fall back to the router's mean
    weights over the sample (see `lorarec.personal.fallback`). Beyond the paper, a last row is the weighted mean of the
    log-odds of recommender and personal LoRA; 2,000 validation events choose its weight (see `lorarec.personal.blend`).
    The LoRAs use no validation events, and nothing is chosen on test events.

    Args:
        dataset: every interaction rated, with timestamps that are comparable across users.
        out: the folder to make; OUT.checkpoints keeps finished stages and checkpoints meanwhile.
        crm: the name of a conventional recommender to fit (see `lorarec.ctr.MODELS`), or the folder of one
            that was trained on the same clicks.
        shared: train a single LoRA for all users on the same sample as well: prompts with `similar` history (ReLLa),
            with `recent` history (TALLRec), or one of each.
        resume: go on where an interrupted run stopped; the weights end up as those of an uninterrupted run.
        overwrite: replace what is at `out`.
        progress: show progress bars.
        report: is called with what was made before the folder is put in its place, so that the files that it writes
            into `Personalized.folder` are there with all others or not at all.
        options: fields of `PersonalizationConfig`.

    Raises:
        LorarecError: bad ratings or options, training, sample or test events labelled all alike, a recommender
            trained on other data, `out` exists, another run's checkpoints, or a loss that is not finite.
    """
    chosen = build_options(PersonalizationConfig, options)
    out = Path(out)
    refuse_existing(out, overwrite, PERSONALIZED)
    for how in shared:
        if how not in RETRIEVALS:
            raise LorarecError(f"a shared LoRA has {' or '.join(RETRIEVALS)} history, not {how}")
    log = click_log(dataset, positive_from=chosen.positive_from, stars=chosen.stars)
    sample = log.few_shot(chosen.samples, chosen.seed)
    test = log.rows(TEST) if chosen.test_events is None else log.few_shot(chosen.test_events, part=TEST)
    for what, events in (("sampled", sample), ("test", test)):
        if np.bincount(log.label[events], minlength=2).min() < 2:  # fewer have no AUC and no test of it
            raise LorarecError(f"{dataset.name}: the {len(events)} {what} events need two of either label: take more")
    given = given_recommender(crm, log)
    rows = [_Row(f"shared-{how}", f"shared LoRA, {how} history", 1, how) for how in dict.fromkeys(shared)]
    rows.append(_Row(PERSONAL, RECLORA, chosen.num_meta_loras, chosen.retrieval))
    record: dict[str, Any] = {
        "backbone": {"id": backbone.id, "fingerprint": backbone.fingerprint},
        "datasets": [{"name": dataset.name, "fingerprint": dataset.fingerprint, "split": log.fingerprint}],
        "readout": "verdict",
        "crm": str(crm),
        "options": asdict(chosen) | {"template": CLICK},
    }
    stages = _Stages(out, record)
    stages.refuse(resume, overwrite)
    with stages.open(resume, PartialState()):
        embeddings = title_embeddings(backbone, dataset.items[TITLE].to_list())
        if not (stages.folder / CRM).exists():
            retrieved = embeddings if chosen.ctr_retrieval == "similar" else None
            fitting = CTRConfig(max_history=chosen.ctr_max_history, seed=chosen.seed)
            fitted = given or fit_ctr_model(str(crm), log, fitting, embeddings=retrieved, progress=progress)
            fitted.save(stages.folder / CRM)
        recommender = CTRModel.load(stages.folder / CRM, log)
        reader = EventReader(backbone, recommender, chosen, embeddings)
        first = recommender.record["model"].upper()
        columns = {first: recommender.score(test, progress).astype(np.float64)}
        told = {how: (reader.read(sample, how), reader.read(test, how)) for how in {row.retrieval for row in rows}}
        judged = log.few_shot(min(BLEND_EVENTS, len(log.rows(VALID))), part=VALID)
        for row in rows:
            few, tested = told[row.retrieval]
            asked = [tested, reader.read(judged, row.retrieval)] if row.folder == PERSONAL else [tested]
            found = _predict(backbone, reader, row, few, asked, stages.folder, record, progress)
            columns[row.title] = found[0]
        blend = choose_blend(recommender.score(judged, progress).astype(np.float64), found[1], log.label[judged])
        columns[f"{RECLORA} + {first}"] = blended(columns[first], columns[RECLORA], blend.weights)
        predictions = _events(log, test).with_columns(**columns)
        record |= {"versions": versions(), "sample": len(sample), "test": counts_of_test(recommender.encoder, test)}
        record["blend"] = {"weights": list(blend.weights), "events": len(judged), "losses": blend.losses}
        with new_folder(out, overwrite, PERSONALIZED) as folder:
            for name in (CRM, *(row.folder for row in rows)):
                shutil.copytree(stages.folder / name, folder / name)
            users = user_representations(recommender)
            users.write_parquet(folder / USERS)
            _draw(folder / WEIGHTS, backbone, stages.folder / PERSONAL, users, log)
            predictions.write_parquet(folder / PREDICTIONS)
            write_json(folder / RECORD, record)
            if report is not None:
                report(Personalized(folder, predictions, record))
    stages.remove()
    return Personalized(out, predictions, record)


def given_recommender(crm: str | Path, log: ClickLog) -> CTRModel | None:
    """The recommender in a folder, or None where `crm` is the name of one to be fitted.

    Raises:
        LorarecError: neither, or the folder's was trained on other data.
    """
    if str(crm) in MODELS:
        return None
    if not Path(crm).is_dir():
        raise LorarecError(f"{crm} is neither a folder nor a conventional recommender: choose from {', '.join(MODELS)}")
    return CTRModel.load(crm, log)


def _predict(
    backbone: Backbone,
    reader: EventReader,
    row: _Row,
    few: EventRows,
    asked: Sequence[EventRows],
    stages: Path,
    record: dict[str, Any],
    progress: bool,
) -> list[np.ndarray]:
    """Probabilities of all that is asked of a LoRA that is tuned here, or read again if its stage is finished."""
    options, done = reader.options, stages / row.folder
    if done.exists():
        personal = PersonalLora.load(done, backbone)
    else:
        torch.manual_seed(options.seed)
        bank = meta_loras(
            backbone.model,
            row.size,
            options.r,
            options.lora_alpha,
            [name.strip() for name in options.target_modules.split(",")],
        )
        width = few.representation.shape[1]
        settings: dict[str, Any] = {"combine": options.combine, "temperature": options.temperature, "record": record}
        personal = PersonalLora(backbone, bank, width, **settings)
    with personal:
        if not done.exists():
            state = stages / f"{row.folder}.pt"
            tune(personal, few, reader.builder, options, state, f"Tuning {row.title}", progress)
            keep_mean_weights(personal, few)
            personal.save(done)
        return [probabilities(personal, rows, reader.builder, options.token_budget, progress) for rows in asked]


def _draw(path: Path, backbone: Backbone, saved: Path, users: pl.DataFrame, log: ClickLog) -> None:
    """A picture of the router's weights for the users, or for 2,000 of them."""
    drawn = np.sort(np.random.default_rng(0).permutation(len(users))[:DRAWN])
    clicked = np.bincount(log.user, log.label) / np.bincount(log.user)
    with PersonalLora.load(saved, backbone) as personal:
        weights = user_weights(personal, users[drawn])
        plot_user_weights(path, weights, clicked[drawn], list(personal.bank.layers))


def _events(log: ClickLog, events: np.ndarray) -> pl.DataFrame:
    """Who met what when, and whether it clicked."""
    items = log.dataset.items[ITEM]
    return pl.DataFrame(
        {
            USER: log.users[log.user[events]],
            ITEM: items[log.item[events]],
            TIME: log.time[events],
            LABEL: log.label[events],
        }
    )
