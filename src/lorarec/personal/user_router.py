"""A user chooser in memory: anyone's mixture of the finished adapters, from what is known of the user now."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
import torch

from lorarec.backbone import Backbone
from lorarec.ctr import RECORD as CRM_RECORD
from lorarec.ctr import WEIGHTS as CRM_WEIGHTS
from lorarec.ctr import CTRModel
from lorarec.data import Dataset, load_split, read_parquet
from lorarec.errors import LorarecError
from lorarec.io import JsonObject, file_fingerprint, read_json
from lorarec.lora import JSON_LIMIT, WEIGHTS_LIMIT, Adapter, AdapterBank, AdapterRecord, read_prompt, require_regular
from lorarec.personal.config import TITLES
from lorarec.personal.router import Router
from lorarec.personal.saved import SETTINGS, TENSORS, read_saved
from lorarec.personal.user_adapters import PERSONAL
from lorarec.personal.user_features import Standardization, fit_on_training_part
from lorarec.personal.user_history import RatedHistories, TitledHistories, UserHistory
from lorarec.personal.user_router_training import CRM, RECORD, VECTORS
from lorarec.prompts import PromptConfig

AGAIN = "run `lorarec personal choose` again"


@dataclass(frozen=True, eq=False)
class UserRouter:
    """What `choose_by_user` wrote, without a model. Safe for many threads.

    Attributes:
        adapters: the K finished adapters; their tensors are independent of the files they came from.
        names: what they are called, (K,).
        layers: names of the adapted layers, in the order of the weights.
        combine: the rule by which they are mixed.
        prompt: How the adapters must be prompted.
        fingerprint: content hash of the files read.
        router: reads what `standard` makes of what `read` tells of a history: (d,) numbers, None for nothing.
    """

    adapters: tuple[Adapter, ...]
    names: tuple[str, ...]
    layers: tuple[str, ...]
    combine: str
    prompt: PromptConfig
    fingerprint: str
    router: Router
    standard: Standardization
    read: Callable[[UserHistory], np.ndarray | None]

    @torch.no_grad()
    def weights(self, past: UserHistory | None) -> torch.Tensor:
        """The weights (layers, K) of a user with a history of one item or more, or the router's mean ones."""
        if past is None:
            return self.router.mean
        found = self.read(past)
        told = np.empty((0, self.router.width - 1)) if found is None else found[None]
        numbers = self.standard.numbers(told, np.array([found is not None]), np.array([len(past)]))
        weights: torch.Tensor = self.router(torch.from_numpy(numbers))[:, 0]
        return weights

    @classmethod
    def load(cls, folder: str | Path, backbone: Backbone, dataset: Dataset) -> Self:
        """Read what `choose_by_user` wrote for the users of a dataset; nothing in it is executed.

        Raises:
            LorarecError: a file is missing or corrupted, or it belongs to another backbone, dataset or split.
        """
        folder = Path(folder)
        try:
            return cls._load(folder, backbone, dataset)
        except LorarecError:
            raise
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
            raise LorarecError(f"{folder} is no user chooser, or damaged: {AGAIN}") from error

    @classmethod
    def _load(cls, folder: Path, backbone: Backbone, dataset: Dataset) -> Self:
        for file in (folder / RECORD, folder / PERSONAL / SETTINGS, folder / CRM / CRM_RECORD):
            if os.path.lexists(file):
                require_regular(file, JSON_LIMIT)
        for file in (folder / PERSONAL / TENSORS, folder / VECTORS, folder / CRM / CRM_WEIGHTS):
            if os.path.lexists(file):
                require_regular(file, WEIGHTS_LIMIT)
        contents = read_json(folder / RECORD)
        (of,) = contents["datasets"]
        record = AdapterRecord.from_json(folder / RECORD, contents)
        if of["fingerprint"] != dataset.fingerprint:
            raise LorarecError(
                f"{folder} is for the users of dataset {of['name']} ({of['fingerprint']}), "
                f"not of {dataset.name} ({dataset.fingerprint})"
            )
        saved = read_saved(folder / PERSONAL, backbone)
        files = [folder / RECORD, folder / PERSONAL / SETTINGS, folder / PERSONAL / TENSORS]
        read: RatedHistories | TitledHistories
        if contents["chooser"]["crm"] == TITLES:
            read = TitledHistories(read_parquet(folder / VECTORS, AGAIN))
            files.append(folder / VECTORS)
        else:
            read = RatedHistories(_recommender(folder, contents, dataset), dataset.interactions)
            files += [folder / CRM / name for name in (CRM_RECORD, CRM_WEIGHTS)]
        mean, deviation = (np.array(contents["standard"][name], np.float64) for name in ("mean", "deviation"))
        standard = Standardization(mean, deviation)
        width = read.width + 1
        if (width, {standard.mean.shape, standard.deviation.shape}) != (saved.router.width, {(width,)}):
            raise LorarecError(f"{folder}: its files do not belong together: {AGAIN}")
        numbers = [*saved.router.state_dict().values(), *_factors(saved.bank)]
        numbers += map(torch.from_numpy, (standard.mean, standard.deviation))
        if not all(tensor.isfinite().all() for tensor in numbers):
            raise LorarecError(f"{folder} holds NaN or infinite values: {AGAIN}")
        return cls(
            adapters=_adapters(saved.bank, folder),
            names=saved.bank.names,
            layers=tuple(saved.bank.layers),
            combine=saved.combine,
            prompt=read_prompt(record, folder),
            fingerprint=file_fingerprint(*files),
            router=saved.router,
            standard=standard,
            read=read,
        )


def _recommender(folder: Path, contents: JsonObject, dataset: Dataset) -> CTRModel:
    """Of the training part of the dataset's split, which its numbers of users and items are read from."""
    try:
        split = load_split(dataset)
    except LorarecError as error:
        raise LorarecError(f"{folder} needs the split of {dataset.name}, which cannot be read") from error
    if split.cases != contents["datasets"][0]["split"]:
        raise LorarecError(f"{folder} learned from another split of {dataset.name} than it has now: {AGAIN}")
    positive_from, stars, seed = (contents["chooser"][name] for name in ("positive_from", "stars", "seed"))
    return fit_on_training_part(folder / CRM, dataset, split, positive_from, stars, seed, progress=False)


def _factors(bank: AdapterBank) -> list[torch.Tensor]:
    return [factor for layer in bank.layers.values() for factor in (layer.a, layer.b, layer.scale)]


def _adapters(bank: AdapterBank, folder: Path) -> tuple[Adapter, ...]:
    """The adapters of a bank one by one, as copies, each with the layers and the ranks it had."""
    found = []
    for number, name in enumerate(bank.names):
        own = {layer: part for layer, part in bank.layers.items() if part.ranks[number]}
        ranks = {layer: part.ranks[number] for layer, part in own.items()}
        tensors = {
            layer: (part.a[number, : ranks[layer]].clone(), part.b[number, :, : ranks[layer]].clone())
            for layer, part in own.items()
        }
        scales = {layer: float(part.scale[number]) for layer, part in own.items()}
        found.append(Adapter(tensors, scales, bank.config, folder=folder / name))
    return tuple(found)
