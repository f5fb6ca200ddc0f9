"""The history of one user."""

import polars as pl

from lorarec.data.columns import ITEM, USER
from lorarec.data.dataset import Dataset
from lorarec.errors import LorarecError


def history_of(dataset: Dataset, user: str) -> list[str]:
    """Return the ids of all items that a user chose, in time order.

    Raises:
        LorarecError: the dataset has no such user.
    """
    history = dataset.interactions.filter(pl.col(USER) == user)[ITEM].to_list()
    if not history:
        known = ", ".join(dataset.interactions[USER].unique(maintain_order=True).head(3).to_list())
        raise LorarecError(f"user {user} is not in dataset {dataset.name}: its users are like {known}")
    return history
