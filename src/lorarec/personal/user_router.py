"""A trained user router in memory, which gives the mixture of any user from the user's present history."""

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
from lorarec.io import FolderKind, JsonObject, file_fingerprint, read_json
from lorarec.lora import JSON_LIMIT, WEIGHTS_LIMIT, Adapter, AdapterBank, AdapterRecord, read_prompt, require_regular
from lorarec.personal.config import TITLES
from lorarec.personal.personal_source import PERSONAL, personal_folder
from lorarec.personal.router import Router
from lorarec.personal.saved import SETTINGS, TENSORS, read_saved
from lorarec.personal.user_features import Standardization, fit_on_training_part
from lorarec.personal.user_history import RatedHistories, TitledHistories, UserHistory
from lorarec.prompts import PromptConfig

#: Names in the folder of a user router: the click-through model, the record, and the embeddings of the titles.
CRM, RECORD, VECTORS = "crm", FolderKind.USER_ROUTER.marker, "titles.parquet"
AGAIN = "run `lorarec personal train-router` again"


@dataclass(frozen=True, eq=False)
class UserRouter:
    """A router that `train_user_router` wrote, without a model; it may be used from many threads.

    Attributes:
        adapters: The K finished adapters; their tensors are independent of the files they came from.
        names: Names of the adapters, (K,).
        layers: Names of the adapted layers, in the order of the weights.
        combine: Rule by which the adapters are combined.
        prompt: Prompt options that the adapters were trained with.
        fingerprint: Content hash of the files.
        router: Router from standardized features to weights.
        standardization: Standardization of the features of a user.
        represent: Function that returns the features (d,) of a history; None if there are none.
    """

    adapters: tuple[Adapter, ...]
    names: tuple[str, ...]
    layers: tuple[str, ...]
    combine: str
    prompt: PromptConfig
    fingerprint: str
    router: Router
    standardization: Standardization
    represent: Callable[[UserHistory], np.ndarray | None]

    @torch.no_grad()
    def weights(self, history: UserHistory | None) -> torch.Tensor:
        """Return the weights (layers, K) of a user, or the router's mean weights if there is no history."""
        if history is None:
            return self.router.mean
        representation = self.represent(history)
        features = np.empty((0, self.router.input_size - 1)) if representation is None else representation[None]
        known, events = np.array([representation is not None]), np.array([len(history)])
        inputs = self.standardization.transform(features, known, events)
        weights: torch.Tensor = self.router(torch.from_numpy(inputs))[:, 0]
        return weights

    @classmethod
    def load(cls, folder: str | Path, backbone: Backbone, dataset: Dataset) -> Self:
        """Read a folder that `train_user_router` wrote for the users of a dataset; nothing in it is executed.

        Args:
            folder: Path of the folder, or hub id.
            backbone: Backbone of the adapters.
            dataset: Dataset of the users.

        Raises:
            LorarecError: If a file is missing or corrupted, belongs to another backbone, dataset or split, or cannot be
                downloaded.
        """
        folder = personal_folder(folder)
        try:
            return cls._load(folder, backbone, dataset)
        except LorarecError:
            raise
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
            raise LorarecError(f"{folder} is not a user router, or is damaged: {AGAIN}") from error

    @classmethod
    def _load(cls, folder: Path, backbone: Backbone, dataset: Dataset) -> Self:
        marker = FolderKind.USER_ROUTER.marker_file(folder)
        for file in (marker, folder / PERSONAL / SETTINGS, folder / CRM / CRM_RECORD):
            if os.path.lexists(file):
                require_regular(file, JSON_LIMIT)
        for file in (folder / PERSONAL / TENSORS, folder / VECTORS, folder / CRM / CRM_WEIGHTS):
            if os.path.lexists(file):
                require_regular(file, WEIGHTS_LIMIT)
        contents = read_json(marker)
        (trained_for,) = contents["datasets"]
        record = AdapterRecord.from_json(marker, contents)
        if trained_for["fingerprint"] != dataset.fingerprint:
            raise LorarecError(
                f"{folder} is for the users of dataset {trained_for['name']} ({trained_for['fingerprint']}), "
                f"not of {dataset.name} ({dataset.fingerprint})"
            )
        saved = read_saved(folder / PERSONAL, backbone)
        files = [marker, folder / PERSONAL / SETTINGS, folder / PERSONAL / TENSORS]
        represent: RatedHistories | TitledHistories
        if _settings(contents)["ctr_model"] == TITLES:
            represent = TitledHistories(read_parquet(folder / VECTORS, AGAIN))
            files.append(folder / VECTORS)
        else:
            represent = RatedHistories(_load_ctr_model(folder, contents, dataset), dataset.interactions)
            files += [folder / CRM / name for name in (CRM_RECORD, CRM_WEIGHTS)]
        mean, deviation = (np.array(contents["standard"][name], np.float64) for name in ("mean", "deviation"))
        standardization = Standardization(mean, deviation)
        input_size = represent.size + 1
        if (input_size, {mean.shape, deviation.shape}) != (saved.router.input_size, {(input_size,)}):
            raise LorarecError(f"{folder}: its files do not belong together: {AGAIN}")
        tensors = [*saved.router.state_dict().values(), *_factors(saved.bank)]
        tensors += map(torch.from_numpy, (mean, deviation))
        if not all(tensor.isfinite().all() for tensor in tensors):
            raise LorarecError(f"{folder} holds NaN or infinite values: {AGAIN}")
        return cls(
            adapters=_adapters(saved.bank, folder),
            names=saved.bank.names,
            layers=tuple(saved.bank.layers),
            combine=saved.combine,
            prompt=read_prompt(record, folder),
            fingerprint=file_fingerprint(*files),
            router=saved.router,
            standardization=standardization,
            represent=represent,
        )


def _settings(contents: JsonObject) -> JsonObject:
    """Return the options in a record; version 0.1 had other names for two of its keys."""
    if "chooser" in contents:
        former: JsonObject = contents["chooser"]
        return former | {"ctr_model": former["crm"]}
    current: JsonObject = contents["user_router"]
    return current


def _load_ctr_model(folder: Path, contents: JsonObject, dataset: Dataset) -> CTRModel:
    """Load the click-through model, which numbers users and items as in the training part of the dataset's split."""
    try:
        split = load_split(dataset)
    except LorarecError as error:
        raise LorarecError(f"{folder} needs the split of {dataset.name}, which cannot be read") from error
    if split.cases != contents["datasets"][0]["split"]:
        raise LorarecError(f"{folder} learned from another split of {dataset.name} than it has now: {AGAIN}")
    positive_from, stars, seed = (_settings(contents)[name] for name in ("positive_from", "stars", "seed"))
    return fit_on_training_part(folder / CRM, dataset, split, positive_from, stars, seed, progress=False)


def _factors(bank: AdapterBank) -> list[torch.Tensor]:
    return [factor for layer in bank.layers.values() for factor in (layer.a, layer.b, layer.scale)]


def _adapters(bank: AdapterBank, folder: Path) -> tuple[Adapter, ...]:
    """Return copies of the adapters of a bank, each with its own layers and ranks."""
    adapters = []
    for number, name in enumerate(bank.names):
        own = {layer: part for layer, part in bank.layers.items() if part.ranks[number]}
        ranks = {layer: part.ranks[number] for layer, part in own.items()}
        tensors = {
            layer: (part.a[number, : ranks[layer]].clone(), part.b[number, :, : ranks[layer]].clone())
            for layer, part in own.items()
        }
        scales = {layer: float(part.scale[number]) for layer, part in own.items()}
        adapters.append(Adapter(tensors, scales, bank.config, folder=folder / name))
    return tuple(adapters)
