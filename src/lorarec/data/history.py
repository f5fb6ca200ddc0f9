"""What one user chose."""

import polars as pl

from lorarec.data.columns import ITEM, USER
from lorarec.data.dataset import Dataset
from lorarec.errors import LorarecError


def history_of(dataset: Dataset, user: str) -> list[str]:
    """All that a user chose, item ids in time order.

    Raises:
        LorarecError: no such user.
    """
    history = dataset.interactions.filter(pl.col(USER) == user)[ITEM].to_list()
    if not history:
        known = ", ".join(dataset.interactions[USER].unique(maintain_order=True).head(3).to_list())
        raise LorarecError(f"user {user} is not in dataset {dataset.name}: its users are like {known}")
    return history
