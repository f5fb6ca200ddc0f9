"""The source of items that follow a history according to a next-item model."""

from collections.abc import Mapping
from typing import ClassVar, Self

import numpy as np
import torch

from lorarec.recommenders import NextItemConfig, NextItemModel, fit_next_item, new_next_item
from lorarec.retrieval.nearest import NearestVectors, cells
from lorarec.retrieval.source import MAX_HISTORY


class NextItemSource:
    """Retrieve items by the inner product of their vector with the encoded history.

    Args:
        model: Next-item model over the items of `rows`.
        rows: Rows of the items with a vector: those with interactions.
        catalogue: Number of items.
        centres: Centres of the cells of an inverted file (see `lorarec.retrieval.nearest.cells`), or None.
    """

    max_history: ClassVar[int] = MAX_HISTORY

    def __init__(self, model: NextItemModel, rows: np.ndarray, catalogue: int, centres: np.ndarray | None) -> None:
        self.model = model
        self.rows = rows
        self.centres = centres
        self.place = np.full(catalogue, -1)
        self.place[rows] = np.arange(len(rows))
        self.nearest = NearestVectors(model.items.all().detach().numpy(), centres)

    def find(self, history: np.ndarray, count: int, blocked: np.ndarray) -> np.ndarray:
        """See `CandidateSource.find`."""
        places = self.place[history]
        places = places[places >= 0]
        if not len(places):
            return places
        return self.rows[self.nearest.search(self.model.queries([places])[0].numpy(), count, blocked[self.rows])]

    def similarities(self, history: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the cosines of item vectors, or 0 if the cosine is negative or an item has no vector."""
        cosines = self._unit_vectors(rows) @ self._unit_vectors(history).T
        return np.maximum(cosines, 0)

    def _unit_vectors(self, rows: np.ndarray) -> np.ndarray:
        """Return vectors of length 1 (rows, hidden_size), zeros for items without a vector."""
        has_vector = self.place[rows] >= 0
        vectors = self.nearest.vectors[self.place[rows]] * has_vector[:, None]
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def arrays(self) -> dict[str, torch.Tensor]:
        """Return the tensors from which `from_arrays` makes the source again."""
        arrays = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.centres is not None:
            arrays["centres"] = torch.from_numpy(self.centres)
        return {"rows": torch.from_numpy(self.rows), **arrays}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, torch.Tensor], catalogue: int, config: NextItemConfig) -> Self:
        """Return the source whose tensors `arrays` returned.

        Args:
            arrays: Tensors by name.
            catalogue: Number of items.
            config: Options that the model was trained with.

        Raises:
            KeyError, RuntimeError: The tensors do not fit the options.
        """
        model = new_next_item(len(arrays["rows"]), config)
        model.load_state_dict({name: arrays[f"model.{name}"] for name in model.state_dict()})
        centres = arrays["centres"].numpy() if "centres" in arrays else None
        return cls(model.eval(), arrays["rows"].numpy(), catalogue, centres)


def fit_next_item_source(
    histories: list[np.ndarray], catalogue: int, config: NextItemConfig, seed: int = 42, progress: bool = False
) -> NextItemSource:
    """Train a next-item model on histories of rows of the catalogue, at least one of which is not empty."""
    rows, flat = np.unique(np.concatenate(histories), return_inverse=True)
    ends = np.cumsum([len(history) for history in histories])
    model = fit_next_item(np.split(flat, ends[:-1]), len(rows), config, seed, progress=progress)
    return new_next_item_source(model, rows, catalogue, seed)


def new_next_item_source(model: NextItemModel, rows: np.ndarray, catalogue: int, seed: int = 42) -> NextItemSource:
    """Return the source of a trained model over the items of `rows`."""
    return NextItemSource(model, rows, catalogue, cells(model.items.all().detach().numpy(), seed))
