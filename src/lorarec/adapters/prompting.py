"""How an adapter was prompted in training, from its `lorarec.json`: it must be prompted so ever after."""

from collections.abc import Mapping
from typing import Any

from lorarec.adapters.peft_io import Adapter
from lorarec.errors import LorarecError

#: What `Ranker` and the choosers of weights prompt with when an adapter does not say.
DEFAULTS: dict[str, Any] = {
    "readout": "verdict",
    "template": None,
    "max_tokens": 1024,
    "max_title_tokens": 32,
    "max_history": 10,
    "evidence": False,
}


def prompt_settings(adapter: Adapter | None) -> dict[str, Any]:
    """Readout, template file (None for the bundled one), length limits and evidence; defaults for what is missing."""
    meta = (adapter.meta if adapter else None) or {}
    recorded = {**(meta.get("options") or {}), "readout": meta.get("readout")}
    return {name: default if recorded.get(name) is None else recorded[name] for name, default in DEFAULTS.items()}


def shared_settings(settings: Mapping[Any, dict[str, Any]]) -> dict[str, Any]:
    """Settings that prompts for several adapters are built with: the first one's.

    Args:
        settings: name or folder of an adapter -> its `prompt_settings`, one or more.

    Raises:
        LorarecError: the adapters were trained on different prompts.
    """
    (first_name, first), *others = settings.items()
    for name, other in others:
        for key in ("readout", "template", "evidence"):
            if other[key] != first[key]:
                raise LorarecError(
                    f"adapters {first_name} and {name} were trained with another {key} each "
                    f"({first[key]}, {other[key]}) and cannot share prompts"
                )
    return first
