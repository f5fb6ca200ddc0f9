"""The trainer of all click-through models."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from lorarec.ctr.ctr_model import CTRModel, read_events
from lorarec.ctr.features import FeatureEncoder
from lorarec.ctr.network import NetworkConfig
from lorarec.ctr.registry import new_network
from lorarec.data import PARTS, TRAIN, VALID, ClickLog
from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.io import track, versions
from lorarec.metrics import auc
from lorarec.options import convert_options, document_options, option
from lorarec.recommenders import EarlyStopping, refuse_divergence
from lorarec.scoring import evaluation_mode


@document_options
@dataclass(frozen=True)
class CTRConfig:
    """Options of the training of a click-through model.

    Raises:
        LorarecError: A value is of the wrong type or out of range.
    """

    epochs: int = option(20, "Maximum number of passes over the training events.")
    patience: int = option(2, "Number of epochs without a better validation AUC after which training stops.")
    batch_size: int = option(256, "Number of events per step.")
    learning_rate: float = option(1e-3, "Learning rate of Adam.")
    weight_decay: float = option(1e-5, "L2 penalty of all parameters.")
    max_history: int = option(60, "Number of items of a history that are read.")
    seed: int = option(42, "Seed of the initial weights, the order of events and dropout.")

    def __post_init__(self) -> None:
        convert_options(self)
        at_least_one = ("epochs", "patience", "batch_size", "max_history")
        refuse_out_of_range(self, at_least_one, ("weight_decay", "seed"), ("learning_rate",))


def fit_ctr_model(
    name: str,
    log: ClickLog,
    config: CTRConfig | None = None,
    *,
    network: NetworkConfig | None = None,
    events: np.ndarray | None = None,
    embeddings: np.ndarray | None = None,
    progress: bool = False,
) -> CTRModel:
    """Train a click-through model and return it with the weights of the epoch with the best validation AUC.

    The same arguments give the same weights.

    Args:
        name: One of `MODELS`.
        log: Click log with training and validation events.
        config: Options of the training; defaults if None.
        network: Sizes of the network, an instance of the model's `config_class`; defaults if None.
        events: Training events, such as `log.few_shot(1000)`; the whole training part if None.
        embeddings: Item vectors (items, size), by which the items of a long history that are most similar to the target
            are read. If it is None the latest are read, for which the sequence models GRU4Rec, Caser and SASRec are
            designed.
        progress: Whether to show a progress bar for each epoch.

    Raises:
        LorarecError: The name is unknown or `network` is not its config, or the training or validation events cannot be
            used, see `train`.
    """
    config = config or CTRConfig()
    events = log.rows(TRAIN) if events is None else events
    torch.manual_seed(config.seed)
    encoder = FeatureEncoder(log, config.max_history, embeddings)
    model = new_network(name, encoder, network)
    sizes = asdict(model.config)
    record = {
        "model": name,
        "architecture": {key: list(size) if isinstance(size, tuple) else size for key, size in sizes.items()},
        "log": log.fingerprint,
        "options": asdict(config),
        "history": "recent" if embeddings is None else "similar",
        "events": len(events),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "validation_auc": train(model, encoder.batch, log, events, config, name, progress),
        "versions": versions(),
    }
    return CTRModel(model, encoder, record)


def train(
    model: nn.Module,
    batch_of: Callable[[np.ndarray], Any],
    log: ClickLog,
    events: np.ndarray,
    config: CTRConfig,
    title: str,
    progress: bool = False,
) -> list[float]:
    """Train a model by binary cross-entropy; the weights of the epoch with the best validation AUC are restored.

    Args:
        model: Module from a batch of n events to their log-odds (n,).
        batch_of: Function from events to their batch.
        log: Click log.
        events: Events of the training part.
        config: Options of the training.
        title: Title of the progress bars.
        progress: Whether to show a progress bar for each epoch.

    Returns:
        The validation AUC of every epoch.

    Raises:
        LorarecError: There are no training events, they are not of the training part, training or validation events
            all have the same label, or the training diverges.
    """
    if (log.part[events] != PARTS.index(TRAIN)).any():
        raise LorarecError(f"{log.dataset.name}: events outside the training part cannot be trained on")
    valid = log.rows(VALID)
    _check_labels(log, events, "training")
    _check_labels(log, valid, "validation")
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    stopping = EarlyStopping(model, config.patience)
    for epoch in range(config.epochs):
        order = np.random.default_rng([config.seed, epoch]).permutation(events)
        batches = [order[start : start + config.batch_size] for start in range(0, len(order), config.batch_size)]
        model.train()
        for batch in track(batches, f"{title}, epoch {epoch + 1}", progress):
            loss = binary_cross_entropy_with_logits(model(batch_of(batch)), torch.tensor(log.label[batch]).float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with evaluation_mode(model):
            probabilities = read_events(
                lambda batch: model(batch).sigmoid(), batch_of, valid, f"Scoring with {title}", progress
            )
        refuse_divergence(model, title, torch.from_numpy(probabilities))
        if stopping.step(auc(probabilities, log.label[valid])):
            break
    stopping.restore()
    model.eval()
    return stopping.curve


def _check_labels(log: ClickLog, events: np.ndarray, part: str) -> None:
    clicks, count = int(log.label[events].sum()), len(events)
    if 0 < clicks < count:
        return
    labels = "there are none" if count == 0 else f"all {count} are {'clicked' if clicks else 'not clicked'}"
    raise LorarecError(f"{log.dataset.name}: {part} events need both labels, but {labels}")
