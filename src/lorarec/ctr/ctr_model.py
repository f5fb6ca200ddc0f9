"""A trained click-through model and its folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lorarec.ctr.features import FeatureBatch, FeatureEncoder
from lorarec.ctr.network import CTRNetwork, NetworkConfig
from lorarec.ctr.registry import network_class, new_network
from lorarec.data import ClickLog
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, new_folder, read_json, track, write_json
from lorarec.scoring import evaluation_mode

WEIGHTS, RECORD = "model.safetensors", "conventional.json"
#: Key of the item vectors of the history retrieval, among the weights.

EMBEDDINGS = "retriever.embeddings"
#: Names that sizes of networks had in version 0.1.0.
_FORMER_NAMES = {
    "width": "embedding_dim",
    "layers": "hidden_units",
    "state": "hidden_size",
    "depth": "num_layers",
    "heads": "num_heads",
    "longest": "max_positions",
    "filters": "num_filters",
    "heights": "filter_heights",
    "vertical": "num_vertical_filters",
    "found": "num_retrieved",
    "latest": "num_recent",
}
_EVENTS_AT_ONCE = 1024


class CTRModel:
    """A trained click-through model with the encoder of its events. It computes on the CPU.

    Attributes:
        model: Network.
        encoder: Encoder of events as batches.
        record: Content of conventional.json: name and sizes of the network, fingerprint of the log, options of the
            training, whether it reads the `similar` or the `recent` items of a history, number of parameters, and
            validation AUC of every epoch.
    """

    def __init__(self, model: CTRNetwork[Any], encoder: FeatureEncoder, record: dict[str, Any]) -> None:
        self.model = model
        self.encoder = encoder
        self.record = record

    def score(self, events: np.ndarray, progress: bool = False) -> np.ndarray:
        """Return the probabilities of a click (events,).

        Args:
            events: Rows of the encoder's log, at least one.
            progress: Whether to show a progress bar.
        """
        return self._read(events, lambda batch: self.model(batch).sigmoid(), progress)

    def representation(self, events: np.ndarray) -> np.ndarray:
        """Return the last hidden layer (events, size) for rows of the encoder's log, at least one; routers read it."""
        return self._read(events, self.model.representation)

    def _read(
        self, events: np.ndarray, read: Callable[[FeatureBatch], torch.Tensor], progress: bool = False
    ) -> np.ndarray:
        with evaluation_mode(self.model):
            return read_events(read, self.encoder.batch, events, f"Scoring with {self.record['model']}", progress)

    def save(self, out: str | Path, overwrite: bool = False) -> None:
        """Write the model to a folder, completely or not at all: weights as safetensors and the record as JSON.

        The item vectors of the history retrieval are among the weights, so that a loaded model gives the same scores.

        Args:
            out: Path of the new folder.
            overwrite: Whether to replace a model at `out`.

        Raises:
            LorarecError: `out` exists already or cannot be written.
        """
        with new_folder(out, overwrite, FolderKind.CTR_MODEL) as folder:
            state = self.model.state_dict()
            if self.encoder.embeddings is not None:
                state[EMBEDDINGS] = torch.from_numpy(self.encoder.embeddings).contiguous()
            save_file(state, folder / WEIGHTS)
            write_json(folder / RECORD, self.record)

    @classmethod
    def load(cls, folder: str | Path, log: ClickLog) -> Self:
        """Load a model that `save` wrote.

        Args:
            folder: Path of the model.
            log: Click log that the model was trained on.

        Raises:
            LorarecError: The folder is missing or damaged, or the model was trained on another log.
        """
        folder = Path(folder)
        if not (folder / RECORD).is_file():
            raise LorarecError(f"{folder} is not a folder of a click-through model: train one first")
        record = read_json(folder / RECORD)
        if not isinstance(record, dict) or not {"model", "architecture", "log", "options"} <= record.keys():
            raise LorarecError(f"{folder / RECORD} does not describe a click-through model: train it again")
        if record["log"] != log.fingerprint:
            raise LorarecError(
                f"{folder} was trained on other data ({record['log']}, not {log.fingerprint}): other events, another "
                "division of them into parts, or another value of option positive_from or option stars; give the name "
                f"of a model to train one, such as {record['model']}"
            )
        try:
            state = load_file(folder / WEIGHTS)
            # A copy, since tensors of safetensors are mapped from the file, which may be truncated later.
            embeddings = state.pop(EMBEDDINGS).clone().numpy() if EMBEDDINGS in state else None
            encoder = FeatureEncoder(log, record["options"]["max_history"], embeddings)
            model = new_network(record["model"], encoder, _network_config(record["model"], record["architecture"]))
            model.load_state_dict(state)
        except (AttributeError, KeyError, OSError, RuntimeError, TypeError, SafetensorError) as error:
            raise LorarecError(f"{folder / WEIGHTS} does not hold the weights of a {record['model']}") from error
        return cls(model, encoder, record)


def _network_config(name: str, sizes: dict[str, Any]) -> NetworkConfig:
    """Return the sizes of a network that conventional.json holds, also with the names of version 0.1.0."""
    return network_class(name).config_class(**{_FORMER_NAMES.get(key, key): value for key, value in sizes.items()})


@torch.no_grad()
def read_events(
    read: Callable[[Any], torch.Tensor],
    batch_of: Callable[[np.ndarray], Any],
    events: np.ndarray,
    title: str,
    progress: bool = False,
) -> np.ndarray:
    """Return the outputs of a model in evaluation mode for events (events, ...).

    Args:
        read: Function from a batch of n events to outputs (n, ...).
        batch_of: Function from events to their batch.
        events: Events, at least one.
        title: Title of the progress bar.
        progress: Whether to show a progress bar.

    Raises:
        LorarecError: There are no events.
    """
    if len(events) == 0:
        raise LorarecError("no events to score: give at least one")
    parts = [events[start : start + _EVENTS_AT_ONCE] for start in range(0, len(events), _EVENTS_AT_ONCE)]
    return np.concatenate([read(batch_of(part)).numpy() for part in track(parts, title, progress)])
