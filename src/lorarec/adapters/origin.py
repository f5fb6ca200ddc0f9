"""What an adapter was trained on, itself or through those it was made from, from its `lorarec.json`."""

from typing import Any

from lorarec.adapters.peft_io import Adapter


def trained_on(adapter: Adapter) -> list[dict[str, Any]]:
    """Every dataset (name, fingerprint, split) that shaped the adapter; empty for one made elsewhere.

    A second round adds the datasets of the adapter it started from, a mixture those of all its parts.
    """
    meta = adapter.meta or {}
    sources = [meta, meta.get("start_from") or {}, *meta.get("adapters", [])]
    found: list[dict[str, Any]] = []
    for source in sources:
        found += [dataset for dataset in source.get("datasets", []) if dataset not in found]
    return found
