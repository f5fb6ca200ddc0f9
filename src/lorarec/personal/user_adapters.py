"""One representation for each user, from which the user's own adapter is exported."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import torch

from lorarec.backbone import Backbone
from lorarec.ctr import CTRModel
from lorarec.data import USER, read_parquet
from lorarec.errors import LorarecError
from lorarec.io import read_json
from lorarec.personal.fallback import falls_back
from lorarec.personal.model import PersonalLora
from lorarec.personal.saved import SETTINGS
from lorarec.scoring import evaluation_mode

PERSONAL, USERS = "personal", "users.parquet"
REPRESENTATION = "representation"
LATEST = 10


def user_representations(recommender: CTRModel) -> pl.DataFrame:
    """user_id and representation: the mean over the targets of the user's latest ten events that do not fall back.

    A representation is of (user, target), an exported adapter serves one user and any target. It is null for a user
    whose events all fall back.
    """
    log = recommender.encoder.log
    numbers, means = latest_means(recommender)
    known = pl.DataFrame({USER: log.users.gather(numbers), REPRESENTATION: means})
    return pl.DataFrame({USER: log.users}).join(known, on=USER, how="left", maintain_order="left")


def latest_means(recommender: CTRModel) -> tuple[np.ndarray, np.ndarray]:
    """Of the users with an event that does not fall back their numbers in the log, and the means (users, d) float32.

    Raises:
        LorarecError: there is none.
    """
    log = recommender.encoder.log
    events = np.flatnonzero(~falls_back(recommender.encoder, np.arange(len(log))))
    last = np.flatnonzero(np.diff(log.user[events], append=-1))
    place = np.arange(len(events))
    events = events[last[np.searchsorted(last, place)] - place < LATEST]
    begins = np.flatnonzero(np.diff(log.user[events], prepend=-1))
    sums = np.add.reduceat(recommender.representation(events), begins)
    means = sums / np.diff(begins, append=len(events))[:, None]
    return log.user[events[begins]], means.astype(np.float32)


@torch.no_grad()
def user_weights(personal: PersonalLora, users: pl.DataFrame) -> np.ndarray:
    """The router's weights (users, layers, K) of some of `user_representations`; its mean ones where there is none.

    Args:
        personal: in evaluation mode.
    """
    weights = personal.router.mean.repeat(len(users), 1, 1)
    known = users[REPRESENTATION].is_not_null().to_numpy()
    if known.any():
        found = torch.from_numpy(users.filter(known)[REPRESENTATION].to_numpy().copy())
        with evaluation_mode(personal):
            weights[torch.from_numpy(known)] = personal(found).transpose(0, 1)
    return weights.cpu().numpy()


def user_mixtures(personal: PersonalLora, users: pl.DataFrame, ids: pl.Series) -> torch.Tensor:
    """The router's weights (layers, rows, K) of one user id per row, as `PersonalLora.set_weights` takes them.

    Args:
        personal: in evaluation mode.
        users: user_id and representation; users who are not there get the router's mean weights.
    """
    told = pl.DataFrame({USER: ids}).join(users, on=USER, how="left", maintain_order="left")
    return torch.from_numpy(user_weights(personal, told)).transpose(0, 1)


def trained_with(folder: str | Path) -> str:
    """The backbone, as it was named, of what `personalize` wrote.

    Raises:
        LorarecError: the folder is not one.
    """
    return str(read_json(Path(folder) / PERSONAL / SETTINGS)["backbone"]["id"])


def export_user(folder: str | Path, user: str, out: str | Path, backbone: Backbone, overwrite: bool = False) -> bool:
    """Write a user's own adapter as a plain PEFT folder.

    Returns:
        Whether the router chose its mixture; else the user has no history, and it is the router's mean one.

    Args:
        folder: what `personalize` wrote.
        user: one of its dataset.

    Raises:
        LorarecError: no such user, a folder that `personalize` did not write, another backbone, or `out` exists.
    """
    folder = Path(folder)
    users = read_parquet(folder / USERS, "run `lorarec personal train` again").filter(pl.col(USER) == user)
    if users.is_empty():
        raise LorarecError(f"{folder} knows no user {user!r}: its users are in {folder / USERS}")
    found = users[REPRESENTATION][0]
    with PersonalLora.load(folder / PERSONAL, backbone) as personal:
        record = personal.record
        personal.record = replace(record, user=user, details=record.details | {"routed": found is not None})
        personal.export(None if found is None else torch.tensor(found.to_list()), out, overwrite)
    return found is not None
