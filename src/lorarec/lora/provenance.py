"""Provenance of an adapter: the datasets that it was trained on, and the adapters that it was mixed from."""

from collections.abc import Sequence

from lorarec.io import JsonObject, source_name
from lorarec.lora.peft_folder import Adapter
from lorarec.lora.prompt_record import require_shared_prompt
from lorarec.lora.record import AdapterRecord, SourceRecord


def trained_on(adapter: Adapter) -> list[JsonObject]:
    """Return name, fingerprint and split of every dataset that the adapter was trained on.

    An adapter of a second round was also trained on the datasets of the adapter that it started from, a mixture on
    those of all its parts. The list is empty for an adapter made elsewhere.
    """
    return (adapter.record or AdapterRecord()).all_datasets


def source_record(adapter: Adapter) -> SourceRecord:
    """Return the entry of an adapter in the record of another adapter that is made from it."""
    return SourceRecord(adapter.source, adapter.fingerprint, tuple(trained_on(adapter)))


def mixture_record(adapters: Sequence[Adapter]) -> AdapterRecord:
    """Return a record of a mixture: its parts, and the options of prompts that all parts have in common."""
    return AdapterRecord(prompt=require_shared_prompt(adapters), adapters=tuple(map(source_record, adapters)))


def part_weights(adapter: Adapter, name: str) -> dict[str, dict[str, float]]:
    """Return the weight of each part of a mixture, by layer name and name of the part.

    A part has the name of its folder or repository, or in a personal adapter its name in the bank.

    Args:
        adapter: An adapter.
        name: Name of the adapter, which is its own only part if it is not a mixture.
    """
    record = adapter.record or AdapterRecord()
    mixture = record.mix or record.personal
    if mixture is None:
        return {layer: {name: 1.0} for layer in adapter.tensors}
    names = mixture.names or [source_name(part.path or "") for part in record.adapters]
    weights = mixture.weights
    by_layer = weights if isinstance(weights, dict) else dict.fromkeys(adapter.tensors, weights)
    return {layer: _named(names, by_layer.get(layer) or []) or {name: 1.0} for layer in adapter.tensors}


def _named(names: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
    if not len(set(names)) == len(names) == len(weights):
        names = [f"adapter {number}" for number in range(1, len(weights) + 1)]
    return dict(zip(names, weights, strict=True))


def exported_user(adapter: Adapter) -> str | None:
    """Return the user for whom the adapter was exported, if any."""
    return adapter.record.user if adapter.record else None
