"""Reading of a saved personal LoRA without a model."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.io import JsonObject, read_json
from lorarec.lora import AdapterBank, AdapterRecord, StackedLayer, read_prompt, read_tensors
from lorarec.personal.router import Router

SETTINGS, TENSORS = "personal.json", "personal.safetensors"


@dataclass(frozen=True)
class SavedPersonalLora:
    """A personal LoRA that `PersonalLora.save` wrote.

    Attributes:
        bank: Bank of adapters; its tensors may be backed by the file.
        router: Router, in evaluation mode.
        combine: Rule by which the adapters are combined.
        trainable: Whether the bank was trained with the router.
        record: Record of exported adapters, with the text of a custom template.
    """

    bank: AdapterBank
    router: Router
    combine: str
    trainable: bool
    record: AdapterRecord


def read_saved(folder: str | Path, backbone: Backbone) -> SavedPersonalLora:
    """Read a folder that `PersonalLora.save` wrote.

    Raises:
        LorarecError: If a file is missing or corrupted, or belongs to another backbone.
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
    router_state = {name.removeprefix("router."): state[name] for name in state if name.startswith("router.")}
    try:
        bank = _bank(settings, state)
        router = Router(len(bank.layers), settings["width"], bank.size, settings["temperature"])
        combine, trainable, recorded = settings["combine"], settings["trainable"], settings["record"]
    except KeyError as error:
        raise LorarecError(f"{folder}: {error.args[0]} is missing from {SETTINGS} or {TENSORS}") from None
    for name, layer in bank.layers.items():
        if not _fits(layer, bank.size):
            raise LorarecError(f"{folder / TENSORS}: the tensors of {name} are not those of {SETTINGS}")
    try:
        router.load_state_dict(router_state)
    except RuntimeError:
        raise LorarecError(f"{folder / TENSORS} does not hold the router of {SETTINGS}") from None
    record = AdapterRecord.from_json(folder / SETTINGS, recorded)
    record = replace(record, prompt=read_prompt(record, folder))
    return SavedPersonalLora(bank, router.eval(), combine, trainable, record)


def _bank(settings: JsonObject, state: dict[str, torch.Tensor]) -> AdapterBank:
    layers = {
        name: StackedLayer(
            state[f"bank.{name}.a"], state[f"bank.{name}.b"], torch.tensor(part["scale"]), tuple(part["ranks"])
        )
        for name, part in settings["layers"].items()
    }
    return AdapterBank(layers, len(settings["names"]), settings["config"], tuple(settings["names"]))


def _fits(layer: StackedLayer, size: int) -> bool:
    """Return whether the tensors of a layer belong to a bank of `size` adapters."""
    a, b = layer.a, layer.b
    if not a.ndim == b.ndim == 3 or not a.shape[1] == b.shape[2] >= max(layer.ranks):
        return False
    return {len(a), len(b), len(layer.scale), len(layer.ranks)} == {size}
