"""Splits by name: drawn, stored beside their dataset, and cut for few-shot work."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lorarec.data.dataset import Dataset
from lorarec.data.hashing import content_hash
from lorarec.data.split import NEW_ITEM, WARM, Split
from lorarec.data.split_protocols import GLOBAL_TIME, LEAVE_ONE_OUT, global_time, leave_one_out
from lorarec.errors import LorarecError
from lorarec.io import read_json

__all__ = ["NEW_ITEM", "WARM", "Split", "draw_split", "few_shot", "global_time", "leave_one_out", "load_split"]

_PROTOCOLS: dict[str, Callable[..., Split]] = {LEAVE_ONE_OUT: leave_one_out, GLOBAL_TIME: global_time}


def draw_split(dataset: Dataset, *, protocol: str = LEAVE_ONE_OUT, **options: Any) -> Split:
    """Draw a split by the protocol's name."""
    if protocol not in _PROTOCOLS:
        raise LorarecError(f"no protocol {protocol!r}: use one of {', '.join(_PROTOCOLS)}")
    return _PROTOCOLS[protocol](dataset, **options)


def load_split(dataset: Dataset, **options: Any) -> Split:
    """The split stored beside the dataset, drawn and stored first if it is not there.

    Args:
        dataset: one without a folder, or in a folder that cannot be written to, has its split drawn every time;
            the seed makes it the same every time.
        options: as `draw_split` takes. Without any, DATASET/split holds the split, whatever its options. Options that
            differ from those of DATASET/split go to a folder of their own beside it.

    Raises:
        LorarecError: a stored split belongs to other data or is damaged.
    """
    if dataset.folder is None:
        return draw_split(dataset, **options)
    folder = dataset.folder / "split"
    if _stored(folder) and not _agrees(folder, options):
        folder = folder.with_name("-".join(["split", *(f"{key}={options[key]}" for key in sorted(options))]))
    if not _stored(folder):
        split = draw_split(dataset, **options)
        if os.access(dataset.folder, os.W_OK) and not _stored(folder):
            split.save(folder)
        return split
    split = Split.load(folder)
    if split.info["dataset"] != dataset.fingerprint:
        raise LorarecError(f"{folder} was drawn from other data: run `lorarec split {dataset.folder} --overwrite`")
    return split


def few_shot(split: Split, fraction: float, seed: int = 42) -> Split:
    """Keep `fraction` of the training users, at least one, drawn uniformly; validation and test stay as they are."""
    if not 0 < fraction <= 1:
        raise LorarecError(f"the few-shot fraction must be above 0 and at most 1, not {fraction}")
    keep = max(1, round(fraction * split.train.height))
    rows = np.random.default_rng(seed).permutation(split.train.height)[:keep]
    train = split.train[np.sort(rows)]
    info = {**split.info, "few_shot": {"fraction": fraction, "seed": seed, "of": split.fingerprint}}
    info["counts"] = {**info["counts"], "train": train.height}
    info["fingerprint"] = content_hash(train, split.valid, *split.test.values())
    return replace(split, train=train, info=info)


def _stored(folder: Path) -> bool:
    return (folder / "split.json").is_file()


def _agrees(folder: Path, options: dict[str, Any]) -> bool:
    stored = read_json(folder / "split.json").get("options", {})
    wanted = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    return all(stored.get(key) == value for key, value in wanted.items())
