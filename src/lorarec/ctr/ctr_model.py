"""A trained conventional recommender and the folder it is kept in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lorarec.ctr.features import FeatureBatch, FeatureEncoder
from lorarec.ctr.network import CTRNetwork
from lorarec.ctr.registry import build
from lorarec.data import ClickLog
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, new_folder, read_json, track, write_json
from lorarec.scoring import evaluation_mode

WEIGHTS, RECORD = "model.safetensors", "conventional.json"
#: Key of the vectors by which histories are retrieved, among the weights.
EMBEDDINGS = "retriever.embeddings"
_EVENTS_AT_ONCE = 1024


class CTRModel:
    """A conventional recommender with the encoder it was trained with. It computes on the CPU.

    Attributes:
        model: the torch module.
        encoder: turns events of its log into batches.
        record: the model's name and architecture, the log's fingerprint, options, whether it reads the `similar` or the
            `recent` part of a history, number of parameters, validation AUC of every epoch.
    """

    def __init__(self, model: CTRNetwork, encoder: FeatureEncoder, record: dict[str, Any]) -> None:
        self.model = model
        self.encoder = encoder
        self.record = record

    def score(self, events: np.ndarray, progress: bool = False) -> np.ndarray:
        """Probabilities (events,) of a click.

        Args:
            events: of the encoder's log, at least one.
            progress: show a bar.
        """
        return self._read(events, lambda batch: self.model(batch).sigmoid(), progress)

    def representation(self, events: np.ndarray, progress: bool = False) -> np.ndarray:
        """Last hidden layer (events, d), which routers read; arguments as for `score`."""
        return self._read(events, self.model.representation, progress)

    def _read(self, events: np.ndarray, read: Callable[[FeatureBatch], torch.Tensor], progress: bool) -> np.ndarray:
        with evaluation_mode(self.model):
            return read_events(read, self.encoder.batch, events, f"Scoring with {self.record['model']}", progress)

    def save(self, out: str | Path, overwrite: bool = False) -> None:
        """Write a folder with the weights as safetensors and the record as JSON, whole or not at all.

        The embeddings by which histories are retrieved are among the weights, so that it scores the same once loaded.

        Raises:
            LorarecError: `out` exists already or cannot be written to.
        """
        with new_folder(out, overwrite, FolderKind.CTR_MODEL) as folder:
            state = self.model.state_dict()
            if self.encoder.embeddings is not None:
                state[EMBEDDINGS] = torch.from_numpy(self.encoder.embeddings)
            save_file(state, folder / WEIGHTS)
            write_json(folder / RECORD, self.record)

    @classmethod
    def load(cls, folder: str | Path, log: ClickLog) -> Self:
        """Read a folder that `save` wrote.

        Raises:
            LorarecError: it is missing or damaged, or was trained on other data than `log`.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise LorarecError(f"{folder} is not a folder of a conventional recommender: train one first")
        record = read_json(folder / RECORD)
        if not isinstance(record, dict) or not {"model", "architecture", "log", "options"} <= record.keys():
            raise LorarecError(f"{folder / RECORD} does not describe a conventional recommender: train it again")
        if record["log"] != log.fingerprint:
            raise LorarecError(f"{folder} was trained on other data ({record['log']}, not {log.fingerprint})")
        try:
            state = load_file(folder / WEIGHTS)
            # A copy: what safetensors reads is backed by the file, which may be cut short later.
            embeddings = state.pop(EMBEDDINGS).clone().numpy() if EMBEDDINGS in state else None
            encoder = FeatureEncoder(log, record["options"]["max_history"], embeddings)
            model = build(record["model"], encoder, record["architecture"])
            model.load_state_dict(state)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise LorarecError(f"{folder / WEIGHTS} does not hold the weights of a {record['model']}") from error
        return cls(model, encoder, record)


@torch.no_grad()
def read_events(
    read: Callable[[Any], torch.Tensor],
    batch_of: Callable[[np.ndarray], Any],
    events: np.ndarray,
    title: str,
    progress: bool = False,
) -> np.ndarray:
    """What a model in evaluation mode makes of events, (events, ...).

    Args:
        read: from what `batch_of` makes of n events to (n, ...).
        events: at least one.
        title: of the progress bar.
    """
    if len(events) == 0:
        raise LorarecError("no events to score: give at least one")
    parts = [events[start : start + _EVENTS_AT_ONCE] for start in range(0, len(events), _EVENTS_AT_ONCE)]
    shown = track(parts, title, progress)
    return np.concatenate([read(batch_of(part)).numpy() for part in shown])
