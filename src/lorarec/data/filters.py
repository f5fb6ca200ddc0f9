"""Filters of datasets: k-core, and the removal of the overlap of two datasets."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from lorarec.data.columns import ITEM, TITLE, USER
from lorarec.errors import LorarecError

if TYPE_CHECKING:
    from lorarec.data.dataset import Dataset

_OVERLAP_KEYS = {"users": [USER], "items": [ITEM], "interactions": [USER, ITEM], "titles": [TITLE]}


def k_core(dataset: "Dataset", k: int, item_k: int | None = None) -> "Dataset":
    """Keep the largest part in which every user has at least `k` interactions and every item `item_k` (default `k`).

    Users and items with fewer interactions are dropped in rounds until none is left. The numbers of users, items and
    interactions that each round dropped are appended to `info["core_rounds"]`.

    Raises:
        LorarecError: Nothing is left.

    Examples:
        >>> from lorarec.data import k_core, load_sample
        >>> k_core(load_sample("action"), 20).info["filters"]
        ['5-core', '20-core']
    """
    item_k = k if item_k is None else item_k
    keep, rounds = core_rows(dataset.interactions, k, item_k)
    if not keep.any():
        dropped = ", ".join(f"{count:,} {part}" for part, count in rounds[0].items())
        raise LorarecError(
            f"{dataset.name}: nothing is left of a {k}-core: choose a smaller k_core; round 1 of {len(rounds)} dropped "
            f"{dropped}"
        )
    note = f"{k}-core" if item_k == k else f"core: users {k}, items {item_k}"
    core = dataset.subset(dataset.interactions.filter(keep), filter_note=note)
    return replace(core, info={**core.info, "core_rounds": [*dataset.info.get("core_rounds", []), *rounds]})


def core_rows(interactions: pl.DataFrame, user_k: int, item_k: int) -> tuple[np.ndarray, list[dict[str, int]]]:
    """Return which interactions (rows,) are in the core, and the counts that each round dropped."""
    users = interactions[USER].rank("dense").to_numpy().astype(np.int64)
    items = interactions[ITEM].rank("dense").to_numpy().astype(np.int64)
    rows = np.arange(len(users))
    rounds = []
    while len(rows):
        user_degree = np.bincount(users[rows])
        item_degree = np.bincount(items[rows])
        stay = (user_degree[users[rows]] >= user_k) & (item_degree[items[rows]] >= item_k)
        if stay.all():
            break
        left = rows[stay]
        rounds.append(
            {
                "users": int((user_degree > 0).sum() - len(np.unique(users[left]))),
                "items": int((item_degree > 0).sum() - len(np.unique(items[left]))),
                "interactions": len(rows) - len(left),
            }
        )
        rows = left
    keep = np.zeros(len(users), dtype=bool)
    keep[rows] = True
    return keep, rounds


def remove_overlap(dataset: "Dataset", other: "Dataset", by: str = "items") -> "Dataset":
    """Remove from a dataset the users, items, interactions or titles that another dataset has as well.

    Items that had no interactions stay, unless the other dataset has them, or, by titles, their titles.

    Args:
        dataset: The dataset.
        other: The other dataset.
        by: Part that is compared: "users", "items", "interactions" (pairs of user and item) or "titles", which
            are compared without regard to case and find the same item under another id.

    Raises:
        LorarecError: `by` is unknown, or nothing is left.
    """
    if by not in _OVERLAP_KEYS:
        raise LorarecError(f"cannot remove overlap by {by!r}: use one of {', '.join(_OVERLAP_KEYS)}")
    items = _lower_titles(dataset.items)
    unseen = items.join(dataset.interactions, on=ITEM, how="anti")
    if by in ("items", "titles"):
        items = items.join(_lower_titles(other.items), on=_OVERLAP_KEYS[by], how="anti")
        unseen = unseen.join(items, on=ITEM, how="semi")
        rows = dataset.interactions.join(items, on=ITEM, how="semi", maintain_order="left")
    else:
        rows = dataset.interactions.join(other.interactions, on=_OVERLAP_KEYS[by], how="anti", maintain_order="left")
    if rows.is_empty():
        raise LorarecError(f"{dataset.name}: nothing is left without the {by} of {other.name}")
    left = dataset.subset(rows, filter_note=f"without the {by} of {other.name} ({other.fingerprint})")
    if unseen.is_empty():
        return left
    stay = pl.concat([left.items.select(ITEM), unseen.select(ITEM)])
    items = dataset.items.join(stay, on=ITEM, how="semi", maintain_order="left")
    return dataset.from_frames(left.name, left.interactions, items, left.users, left.info)


def _lower_titles(items: pl.DataFrame) -> pl.DataFrame:
    return items.select(ITEM, pl.col(TITLE).str.to_lowercase())
