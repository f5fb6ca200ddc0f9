"""A saved personal LoRA, read without a model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.io import read_json
from lorarec.lora import Adapter, AdapterBank, StackedLayer, check_record, prompt_settings, read_tensors
from lorarec.personal.router import Router
from lorarec.prompts import TemplateText

SETTINGS, TENSORS = "personal.json", "personal.safetensors"
OPTIONS = ("width", "combine", "temperature", "trainable", "record")


@dataclass(frozen=True)
class SavedPersonalLora:
    """What `PersonalLora.save` wrote.

    Attributes:
        options: what makes a `PersonalLora` of the bank.
        bank: the adapters; its tensors may be backed by the file.
        router: in evaluation mode.
        template: what its prompts are built with.
    """

    options: dict[str, Any]
    bank: AdapterBank
    router: Router
    template: str | TemplateText | None


def read_saved(folder: str | Path, backbone: Backbone) -> SavedPersonalLora:
    """Read a folder that `PersonalLora.save` wrote.

    Raises:
        LorarecError: a file is missing or corrupted, or belongs to another backbone.
    """
    folder = Path(folder)
    meta = read_json(folder / SETTINGS)
    if not isinstance(meta, dict) or not {"backbone", "personal"} <= meta.keys():
        raise LorarecError(f"{folder / SETTINGS} does not describe a personal LoRA")
    of, settings = meta["backbone"], meta["personal"]
    if not backbone.has_fingerprint(of["fingerprint"]):
        raise LorarecError(
            f"{folder} belongs to backbone {of['id']} ({of['fingerprint']}), "
            f"not to {backbone.id} ({backbone.fingerprint})"
        )
    state = read_tensors(folder / TENSORS)
    found = {name.removeprefix("router."): state[name] for name in state if name.startswith("router.")}
    try:
        bank = _bank(settings, state)
        options = {name: settings[name] for name in OPTIONS}
    except KeyError as error:
        raise LorarecError(f"{folder}: {error.args[0]} is missing from {SETTINGS} or {TENSORS}") from None
    for name, layer in bank.layers.items():
        if not _fits(layer, bank.size):
            raise LorarecError(f"{folder / TENSORS}: the tensors of {name} are not those of {SETTINGS}")
    router = Router(len(bank.layers), options["width"], bank.size, options["temperature"])
    try:
        router.load_state_dict(found)
    except RuntimeError:
        raise LorarecError(f"{folder / TENSORS} does not hold the router of {SETTINGS}") from None
    check_record(folder / SETTINGS, options["record"])
    template = prompt_settings(Adapter({}, {}, meta=options["record"], folder=folder))["template"]
    return SavedPersonalLora(options, bank, router.eval(), template)


def _bank(settings: dict[str, Any], state: dict[str, torch.Tensor]) -> AdapterBank:
    layers = {
        name: StackedLayer(
            state[f"bank.{name}.a"], state[f"bank.{name}.b"], torch.tensor(part["scale"]), tuple(part["ranks"])
        )
        for name, part in settings["layers"].items()
    }
    return AdapterBank(layers, len(settings["names"]), settings["config"], tuple(settings["names"]))


def _fits(layer: StackedLayer, size: int) -> bool:
    """Whether the tensors of a layer are of one bank of so many adapters."""
    a, b = layer.a, layer.b
    if not a.ndim == b.ndim == 3 or not a.shape[1] == b.shape[2] >= max(layer.ranks):
        return False
    return {len(a), len(b), len(layer.scale), len(layer.ranks)} == {size}
