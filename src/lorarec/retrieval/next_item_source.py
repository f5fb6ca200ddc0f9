"""Items that follow a history, by the vectors of a next-item model."""

from collections.abc import Mapping
from typing import Self

import numpy as np
import torch

from lorarec.recommenders import NextItemConfig, NextItemModel, fit_next_item, new_next_item
from lorarec.retrieval.nearest import NearestVectors, cells


class NextItemSource:
    """The largest inner products of item vectors with what a next-item model makes of a history.

    Args:
        model: over the items of `rows`.
        rows: the rows of the catalogue that were learned: those with interactions.
        centres: of the cells that are searched, see `lorarec.retrieval.nearest.cells`.
    """

    def __init__(self, model: NextItemModel, rows: np.ndarray, catalogue: int, centres: np.ndarray | None) -> None:
        self.model = model
        self.rows = rows
        self.centres = centres
        self.place = np.full(catalogue, -1)
        self.place[rows] = np.arange(len(rows))
        self.nearest = NearestVectors(model.items.all().detach().numpy(), centres)

    def find(self, history: np.ndarray, count: int, blocked: np.ndarray) -> np.ndarray:
        """See `Source`."""
        known = self.place[history]
        known = known[known >= 0]
        if not len(known):
            return known
        return self.rows[self.nearest.search(self.model.queries([known])[0].numpy(), count, blocked[self.rows])]

    def ties(self, history: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """See `Source`: the cosines of the item vectors, 0 where they are negative or an item has no vector."""
        cosines = self._directions(rows) @ self._directions(history).T
        return np.maximum(cosines, 0)

    def _directions(self, rows: np.ndarray) -> np.ndarray:
        """(rows, width) of length 1; zeros for items without a vector."""
        known = self.place[rows] >= 0
        vectors = self.nearest.vectors[self.place[rows]] * known[:, None]
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def arrays(self) -> dict[str, torch.Tensor]:
        """What `read` makes it from again."""
        found = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.centres is not None:
            found["centres"] = torch.from_numpy(self.centres)
        return {"rows": torch.from_numpy(self.rows), **found}

    @classmethod
    def read(cls, arrays: Mapping[str, torch.Tensor], catalogue: int, options: NextItemConfig) -> Self:
        """Made from `arrays` and the options the model was made with.

        Raises:
            KeyError, RuntimeError: the arrays do not fit the options.
        """
        model = new_next_item(len(arrays["rows"]), options)
        model.load_state_dict({name: arrays[f"model.{name}"] for name in model.state_dict()})
        centres = arrays["centres"].numpy() if "centres" in arrays else None
        return cls(model.eval(), arrays["rows"].numpy(), catalogue, centres)


def fit_next_item_source(
    histories: list[np.ndarray], catalogue: int, options: NextItemConfig, progress: bool = False
) -> NextItemSource:
    """Train a next-item model on histories of rows of the catalogue, of which at least one has an item."""
    rows, flat = np.unique(np.concatenate(histories), return_inverse=True)
    ends = np.cumsum([len(history) for history in histories])
    model = fit_next_item(np.split(flat, ends[:-1]), len(rows), options, progress=progress)
    return NextItemSource(model, rows, catalogue, cells(model.items.all().detach().numpy(), options.seed))
