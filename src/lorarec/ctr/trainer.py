"""One trainer for all conventional recommenders."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from lorarec.ctr.ctr_model import CTRModel, read_events
from lorarec.ctr.features import FeatureEncoder
from lorarec.ctr.registry import build
from lorarec.data import PARTS, TRAIN, VALID, ClickLog
from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.io import track, versions
from lorarec.metrics import auc
from lorarec.scoring import evaluation_mode
from lorarec.training import EarlyStopping


@dataclass(frozen=True)
class CTRConfig:
    """How a conventional recommender is trained.

    Attributes:
        epochs: at most so many passes over the training events.
        patience: epochs without a better validation AUC after which it stops.
        batch_size: events per step.
        lr: learning rate of Adam.
        weight_decay: L2 penalty of all parameters.
        max_history: items of a history that are seen.
        seed: of the first weights, the order of events and dropout.

    Raises:
        LorarecError: an option out of range.
    """

    epochs: int = 20
    patience: int = 2
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 1e-5
    max_history: int = 60
    seed: int = 42

    def __post_init__(self) -> None:
        at_least_one = ("epochs", "patience", "batch_size", "max_history")
        refuse_out_of_range(self, at_least_one, ("weight_decay", "seed"), ("lr",))


def fit(
    name: str,
    log: ClickLog,
    options: CTRConfig | None = None,
    *,
    architecture: Mapping[str, Any] | None = None,
    events: np.ndarray | None = None,
    embeddings: np.ndarray | None = None,
    progress: bool = False,
) -> CTRModel:
    """Train a conventional recommender on clicks; the weights of the epoch with the best validation AUC are kept.

    The same arguments give the same weights. Nothing is written: `CTRModel.save` does that.

    Args:
        name: one of `MODELS`.
        log: events and their division.
        options: defaults when None.
        architecture: arguments of the model's class, such as `width`; defaults for the rest.
        events: training events, such as `log.few_shot(1000)`; the whole training part when None.
        embeddings: (items, d) vectors; of a longer history the items most similar to the target are then seen. The
            latest when None, which is what the sequence models GRU4Rec, Caser and SASRec are made for.
        progress: show a bar for each epoch.

    Raises:
        LorarecError: an unknown name or architecture, training events that are none, not of the training part or
            labelled all alike, or validation events labelled all alike.
    """
    options = options or CTRConfig()
    events = log.rows(TRAIN) if events is None else events
    torch.manual_seed(options.seed)
    encoder = FeatureEncoder(log, options.max_history, embeddings)
    model = build(name, encoder, architecture or {})
    record = {
        "model": name,
        "architecture": dict(architecture or {}),
        "log": log.fingerprint,
        "options": asdict(options),
        "history": "recent" if embeddings is None else "similar",
        "events": len(events),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "validation_auc": train(model, encoder.batch, log, events, options, name, progress),
        "versions": versions(),
    }
    return CTRModel(model, encoder, record)


def train(
    model: nn.Module,
    batch_of: Callable[[np.ndarray], Any],
    log: ClickLog,
    events: np.ndarray,
    options: CTRConfig,
    title: str,
    progress: bool = False,
) -> list[float]:
    """Train a model by cross-entropy on clicks; it keeps the weights of the epoch with the best validation AUC.

    Args:
        model: from what `batch_of` makes of n events to their log-odds (n,).
        events: of the training part.
        title: of the progress bars.

    Returns:
        The validation AUC of every epoch.

    Raises:
        LorarecError: training events that are none, not of the training part or labelled all alike, or validation
            events labelled all alike.
    """
    if (log.part[events] != PARTS.index(TRAIN)).any():
        raise LorarecError(f"{log.dataset.name}: events outside the training part cannot be trained on")
    valid = log.rows(VALID)
    _check_labels(log, events, "training")
    _check_labels(log, valid, "validation")
    optimizer = torch.optim.Adam(model.parameters(), lr=options.lr, weight_decay=options.weight_decay)
    best = EarlyStopping(model, options.patience)
    for epoch in range(options.epochs):
        order = np.random.default_rng([options.seed, epoch]).permutation(events)
        batches = [order[start : start + options.batch_size] for start in range(0, len(order), options.batch_size)]
        model.train()
        for batch in track(batches, f"{title}, epoch {epoch + 1}", progress):
            loss = binary_cross_entropy_with_logits(model(batch_of(batch)), torch.tensor(log.label[batch]).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with evaluation_mode(model):
            found = read_events(
                lambda batch: model(batch).sigmoid(), batch_of, valid, f"Scoring with {title}", progress
            )
        if best.step(auc(found, log.label[valid])):
            break
    best.restore()
    model.eval()
    return best.curve


def _check_labels(log: ClickLog, events: np.ndarray, what: str) -> None:
    clicks, count = int(log.label[events].sum()), len(events)
    if 0 < clicks < count:
        return
    labels = "there are none" if count == 0 else f"all {count} are {'clicked' if clicks else 'not clicked'}"
    raise LorarecError(f"{log.dataset.name}: {what} events need both labels, but {labels}")
