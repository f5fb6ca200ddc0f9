"""Representations of users, and export of a user's own adapter."""

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
from lorarec.personal.personal_source import PERSONAL, personal_folder
from lorarec.personal.saved import SETTINGS
from lorarec.scoring import evaluation_mode

USERS = "users.parquet"
REPRESENTATION = "representation"
LATEST = 10


def user_representations(ctr_model: CTRModel) -> pl.DataFrame:
    """Return user_id and representation, the mean over the user's latest ten events that do not fall back.

    The click-through model represents a pair of user and target; the mean over targets represents the user alone, since
    an exported adapter is used for any target. It is null for a user whose events all fall back.
    """
    log = ctr_model.encoder.log
    numbers, means = latest_means(ctr_model)
    known = pl.DataFrame({USER: log.users.gather(numbers), REPRESENTATION: means})
    return pl.DataFrame({USER: log.users}).join(known, on=USER, how="left", maintain_order="left")


def latest_means(ctr_model: CTRModel) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the users with events that do not fall back, and their representations (users, d) float32.

    Raises:
        LorarecError: If there are none.
    """
    log = ctr_model.encoder.log
    events = np.flatnonzero(~falls_back(ctr_model.encoder, np.arange(len(log))))
    last = np.flatnonzero(np.diff(log.user[events], append=-1))
    place = np.arange(len(events))
    events = events[last[np.searchsorted(last, place)] - place < LATEST]
    begins = np.flatnonzero(np.diff(log.user[events], prepend=-1))
    sums = np.add.reduceat(ctr_model.representation(events), begins)
    means = sums / np.diff(begins, append=len(events))[:, None]
    return log.user[events[begins]], means.astype(np.float32)


@torch.no_grad()
def user_weights(personal: PersonalLora, users: pl.DataFrame) -> np.ndarray:
    """Return the router's weights (users, layers, K) of users; its mean weights for a user without a representation.

    Args:
        personal: Personal LoRA.
        users: user_id and representation.
    """
    weights = personal.router.mean.repeat(len(users), 1, 1)
    known = users[REPRESENTATION].is_not_null().to_numpy()
    if known.any():
        representations = torch.from_numpy(users.filter(known)[REPRESENTATION].to_numpy().copy())
        with evaluation_mode(personal):
            weights[torch.from_numpy(known)] = personal(representations).transpose(0, 1)
    return weights.cpu().numpy()


def user_mixtures(personal: PersonalLora, users: pl.DataFrame, ids: pl.Series) -> torch.Tensor:
    """Return the router's weights (layers, rows, K) of one user id per row, as `PersonalLora.set_weights` takes them.

    Args:
        personal: Personal LoRA.
        users: user_id and representation; users without a row get the router's mean weights.
        ids: User id of each row.
    """
    rows = pl.DataFrame({USER: ids}).join(users, on=USER, how="left", maintain_order="left")
    return torch.from_numpy(user_weights(personal, rows)).transpose(0, 1)


def recorded_backbone_id(folder: str | Path) -> str:
    """Return the hub id or path of the backbone of a folder that `personalize` or `train_user_router` wrote.

    Args:
        folder: Path of the folder, or hub id.

    Raises:
        LorarecError: If the folder is not one of these, or cannot be downloaded.
    """
    return str(read_json(personal_folder(folder) / PERSONAL / SETTINGS)["backbone"]["id"])


def export_user(folder: str | Path, user: str, out: str | Path, backbone: Backbone, overwrite: bool = False) -> bool:
    """Write a user's own adapter as a plain PEFT folder.

    Args:
        folder: Path of a folder that `personalize` or `train_user_router` wrote, or hub id.
        user: User id of its dataset.
        out: Path of the adapter folder to write.
        backbone: Backbone of the folder.
        overwrite: Replace an adapter at `out`.

    Returns:
        Whether the router chose the mixture; it is the router's mean mixture for a user without a history.

    Raises:
        LorarecError: If there is no such user, the folder is of another kind or backbone or cannot be downloaded, or
            `out` exists.
    """
    folder = personal_folder(folder)
    users = read_parquet(folder / USERS, "run `lorarec personal train` again").filter(pl.col(USER) == user)
    if users.is_empty():
        raise LorarecError(f"{folder} has no user {user!r}: its users are listed in {folder / USERS}")
    representation = users[REPRESENTATION][0]
    with PersonalLora.load(folder / PERSONAL, backbone) as personal:
        record = personal.record
        personal.record = replace(record, user=user, details=record.details | {"routed": representation is not None})
        tensor = None if representation is None else torch.tensor(representation.to_list())
        personal.export(tensor, out, overwrite)
    return representation is not None
