"""One representation for each user, from which the user's own adapter is exported."""

from pathlib import Path

import numpy as np
import polars as pl
import torch

from lorarec.artefacts import read_json
from lorarec.backbone.load import Backbone
from lorarec.conventional import Conventional
from lorarec.data.columns import USER
from lorarec.data.dataset import read_parquet
from lorarec.errors import LorarecError
from lorarec.personal.model import SETTINGS, PersonalLora

PERSONAL, USERS = "personal", "users.parquet"
REPRESENTATION = "representation"
LATEST = 10


def user_representations(recommender: Conventional) -> pl.DataFrame:
    """user_id and representation: the mean over the targets of the user's latest ten events.

    A representation is of (user, target), an exported adapter serves one user and any target.
    """
    log = recommender.encoder.log
    last = np.flatnonzero(np.diff(log.user, append=-1))
    until = last[np.searchsorted(last, np.arange(len(log)))]
    events = np.flatnonzero(until - np.arange(len(log)) < LATEST)
    begins = np.flatnonzero(np.diff(log.user[events], prepend=-1))
    sums = np.add.reduceat(recommender.representation(events), begins)
    means = sums / np.diff(begins, append=len(events))[:, None]
    return pl.DataFrame({USER: log.users, REPRESENTATION: means.astype(np.float32)})


def trained_with(folder: str | Path) -> str:
    """The backbone, as it was named, of what `personalize` wrote.

    Raises:
        LorarecError: the folder is not one.
    """
    return str(read_json(Path(folder) / PERSONAL / SETTINGS)["backbone"]["id"])


def export_user(folder: str | Path, user: str, out: str | Path, backbone: Backbone, overwrite: bool = False) -> None:
    """Write a user's own adapter as a plain PEFT folder.

    Args:
        folder: what `personalize` wrote.
        user: one of its dataset.

    Raises:
        LorarecError: no such user, a folder that `personalize` did not write, another backbone, or `out` exists.
    """
    folder = Path(folder)
    users = read_parquet(folder / USERS).filter(pl.col(USER) == user)
    if users.is_empty():
        raise LorarecError(f"{folder} knows no user {user!r}: its users are in {folder / USERS}")
    with PersonalLora.load(folder / PERSONAL, backbone) as personal:
        personal.record["user"] = user
        personal.export(torch.tensor(users[REPRESENTATION][0].to_list()), out, overwrite)
