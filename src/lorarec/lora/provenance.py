"""What an adapter was trained on and mixed from, itself or through those it was made from, from its `lorarec.json`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorarec.lora.peft_folder import Adapter


def trained_on(adapter: Adapter) -> list[dict[str, Any]]:
    """Every dataset (name, fingerprint, split) that shaped the adapter; empty for one made elsewhere.

    A second round adds the datasets of the adapter it started from, a mixture those of all its parts.
    """
    meta = adapter.meta or {}
    sources = [meta, meta.get("start_from") or {}, *(meta.get("adapters") or [])]
    found: list[dict[str, Any]] = []
    for source in sources:
        found += [dataset for dataset in source.get("datasets") or [] if dataset not in found]
    return found


def part_weights(adapter: Adapter, name: str) -> dict[str, dict[str, float]]:
    """Layer name -> part -> its weight, for each adapted layer.

    Parts are called by the last part of their paths, those of a personal adapter's bank by their names there.

    Args:
        name: of the adapter, which is its own only part if it was not mixed.
    """
    meta = adapter.meta or {}
    made = meta.get("mix") or meta.get("personal") or {}
    names = made.get("names") or [Path(part.get("path") or "").name for part in meta.get("adapters") or []]
    weights = made.get("weights")
    per_layer = weights if isinstance(weights, dict) else dict.fromkeys(adapter.tensors, weights)
    return {layer: _named(names, per_layer.get(layer) or []) or {name: 1.0} for layer in adapter.tensors}


def _named(names: Sequence[str], weights: Sequence[float]) -> dict[str, float]:
    if not len(set(names)) == len(names) == len(weights):
        names = [f"adapter {number}" for number in range(1, len(weights) + 1)]
    return dict(zip(names, weights, strict=True))


def made_for(adapter: Adapter) -> str | None:
    """The user for whom `personal export` wrote the adapter, if any."""
    return (adapter.meta or {}).get("user")
