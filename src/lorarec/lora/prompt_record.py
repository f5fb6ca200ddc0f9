"""How an adapter was prompted in training, from its `lorarec.json`: it must be prompted so ever after."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorarec.errors import LorarecError
from lorarec.io import write_text
from lorarec.lora.peft_folder import Adapter
from lorarec.lora.safe_files import quoted, read_bounded
from lorarec.prompts import BUNDLED, SOURCE_LIMIT, TemplateText

#: The file beside an adapter that holds its custom template.
TEMPLATE = "template.j2"
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
    """Readout, template (None for the bundled one), length limits and evidence; defaults for what is missing.

    A template is the name of a bundled one, or the content of a file in the adapter's folder (`TemplateText`).

    Raises:
        LorarecError: the adapter names a template that is not in its folder.
    """
    meta = (adapter.meta if adapter else None) or {}
    recorded = {**(meta.get("options") or {}), "readout": meta.get("readout")}
    settings = {name: default if recorded.get(name) is None else recorded[name] for name, default in DEFAULTS.items()}
    if adapter is not None and settings["template"] not in (None, *BUNDLED):
        settings["template"] = _own_template(adapter.folder, settings["template"])
    return settings


def _own_template(folder: Path | None, recorded: str) -> TemplateText:
    """The file in the folder that has the recorded name; older versions recorded the path that training read."""
    name = Path(recorded).name
    inside = Path("" if folder is None else folder, name)
    # Unlike Path.is_file, os.path.isfile does not raise for a name that is not a valid path.
    if folder is None or not os.path.isfile(inside) or inside.resolve().parent != folder.resolve():
        raise LorarecError(
            f"adapter {folder} was trained with the template {quoted(recorded)}, which is not in its folder: "
            "copy it there"
        )
    try:
        return TemplateText(name, read_bounded(inside, 4 * SOURCE_LIMIT).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise LorarecError(f"template {inside} cannot be read: it is not UTF-8 text") from error


def recorded_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as `lorarec.json` stores them: a custom template is the file that `write_template` writes."""
    return {key: TEMPLATE if isinstance(value, TemplateText) else value for key, value in settings.items()}


def write_template(folder: Path, template: str | TemplateText | None) -> None:
    """Write a custom template into the folder of the adapter that is prompted with it."""
    if isinstance(template, TemplateText):
        write_text(folder / TEMPLATE, template.text)


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
                trained = ", ".join(str(getattr(each[key], "name", each[key])) for each in (first, other))
                raise LorarecError(
                    f"adapters {first_name} and {name} were trained with another {key} each ({trained}) and cannot "
                    "share prompts"
                )
    return first
