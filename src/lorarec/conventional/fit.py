"""One trainer for all conventional recommenders, and the folder a trained one is kept in."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch.nn.functional import binary_cross_entropy_with_logits

from lorarec.artefacts import new_folder, read_json, versions, write_json
from lorarec.conventional.base import Recommender
from lorarec.conventional.fields import Encoder
from lorarec.conventional.registry import MODELS
from lorarec.data.clicks import TRAIN, VALID, ClickLog
from lorarec.errors import LorarecError
from lorarec.metrics.clicks import auc

WEIGHTS, META = "model.safetensors", "conventional.json"


@dataclass(frozen=True)
class FitOptions:
    """How a conventional recommender is trained.

    Attributes:
        epochs: at most so many passes over the training events.
        patience: epochs without a better validation AUC before it stops; the best epoch's weights are kept.
        batch_size: events per step.
        lr: learning rate of Adam.
        weight_decay: of all parameters.
        max_history: the latest items of a history that are seen.
    """

    epochs: int = 20
    patience: int = 2
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 1e-5
    max_history: int = 60
    seed: int = 42


class Conventional:
    """A conventional recommender with the encoder it was trained with.

    Attributes:
        name: in `MODELS`.
        model: the torch module.
        encoder: turns events of its log into batches.
        record: options, validation AUC of every epoch, number of parameters.
    """

    def __init__(self, name: str, model: Recommender, encoder: Encoder, record: dict[str, Any]) -> None:
        self.name = name
        self.model = model.eval()
        self.encoder = encoder
        self.record = record

    @torch.no_grad()
    def score(self, events: np.ndarray, progress: bool = False) -> np.ndarray:
        """Probabilities (events,) of a click."""
        return self._in_batches(events, lambda batch: self.model(batch).sigmoid(), progress)

    @torch.no_grad()
    def representation(self, events: np.ndarray, progress: bool = False) -> np.ndarray:
        """Last hidden layer (events, d), which routers read."""
        return self._in_batches(events, self.model.representation, progress)

    def _in_batches(self, events: np.ndarray, read: Any, progress: bool) -> np.ndarray:
        parts = [events[start : start + 1024] for start in range(0, len(events), 1024)]
        shown = track(parts, f"Scoring with {self.name}", disable=not progress, transient=True)
        return np.concatenate([read(self.encoder.batch(part)).numpy() for part in shown])

    def save(self, out: str | Path, overwrite: bool = False) -> Path:
        """Write a folder with the weights as safetensors and what made them as JSON."""
        with new_folder(out, overwrite) as folder:
            state = {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}
            save_file(state, folder / WEIGHTS)
            write_json(folder / META, self.record)
        return Path(out)

    @classmethod
    def load(cls, folder: str | Path, log: ClickLog) -> "Conventional":
        """Read a folder that `save` wrote.

        Raises:
            LorarecError: it is damaged, or was trained on other data than `log`.
        """
        folder = Path(folder)
        record = read_json(folder / META)
        if record["log"] != log.fingerprint:
            raise LorarecError(f"{folder} was trained on other data ({record['log']}, not {log.fingerprint})")
        encoder = Encoder(log, record["options"]["max_history"])
        model = MODELS[record["model"]](encoder)
        try:
            model.load_state_dict(load_file(folder / WEIGHTS))
        except (OSError, ValueError, RuntimeError) as error:
            raise LorarecError(
                f"{folder / WEIGHTS} is not a {record['model']}: {str(error).splitlines()[0]}"
            ) from error
        return cls(record["model"], model, encoder, record)


def fit(
    name: str,
    log: ClickLog,
    events: np.ndarray | None = None,
    *,
    progress: bool = False,
    **options: Any,
) -> Conventional:
    """Train a conventional recommender on clicks; the epoch with the best validation AUC is kept.

    Args:
        name: one of `MODELS`.
        log: events and their division.
        events: training events; all of the training part when None.
        progress: show a bar for each epoch.
        options: fields of `FitOptions`.

    Raises:
        LorarecError: an unknown name, or validation labels that are all alike.
    """
    if name not in MODELS:
        raise LorarecError(f"no conventional recommender {name!r}: choose one of {', '.join(MODELS)}")
    chosen = FitOptions(**options)
    events = log.rows(TRAIN) if events is None else events
    torch.manual_seed(chosen.seed)
    encoder = Encoder(log, chosen.max_history)
    model = MODELS[name](encoder)
    optimizer = torch.optim.Adam(model.parameters(), lr=chosen.lr, weight_decay=chosen.weight_decay)
    valid = log.rows(VALID)
    record: dict[str, Any] = {
        **{"model": name, "log": log.fingerprint, "options": asdict(chosen), "events": len(events)},
        **{
            "parameters": sum(each.numel() for each in model.parameters()),
            "validation_auc": [],
            "versions": versions(),
        },
    }
    found = Conventional(name, model, encoder, record)
    best: dict[str, torch.Tensor] = {}
    history: list[float] = record["validation_auc"]
    for epoch in range(chosen.epochs):
        _epoch(model, optimizer, encoder, events, chosen, epoch, progress)
        model.eval()
        history.append(auc(found.score(valid), log.label[valid]))
        if history[-1] == max(history):
            best = {key: tensor.clone() for key, tensor in model.state_dict().items()}
        if len(history) - 1 - int(np.argmax(history)) >= chosen.patience:
            break
    model.load_state_dict(best)
    return found


def _epoch(
    model: Recommender,
    optimizer: torch.optim.Optimizer,
    encoder: Encoder,
    events: np.ndarray,
    options: FitOptions,
    epoch: int,
    progress: bool,
) -> None:
    model.train()
    batches = list(_batches(events, options, epoch))
    for chosen in track(batches, f"Epoch {epoch + 1}", disable=not progress, transient=True):
        labels = torch.from_numpy(encoder.log.label[chosen]).float()
        loss = binary_cross_entropy_with_logits(model(encoder.batch(chosen)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _batches(events: Sequence[int] | np.ndarray, options: FitOptions, epoch: int) -> Iterator[np.ndarray]:
    order = np.random.default_rng([options.seed, epoch]).permutation(np.asarray(events))
    for start in range(0, len(order), options.batch_size):
        yield order[start : start + options.batch_size]
