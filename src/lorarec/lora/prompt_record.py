"""The prompt options that an adapter was trained with, from its `lorarec.json`; ranking must use the same ones."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

from lorarec.errors import LorarecError
from lorarec.io import HubId
from lorarec.lora.peft_folder import Adapter
from lorarec.lora.record import AdapterRecord
from lorarec.lora.safe_files import quoted, read_bounded
from lorarec.prompts import (
    BUNDLED,
    LATEST,
    SAME_WITHOUT_EVIDENCE,
    SOURCE_LIMIT,
    PromptConfig,
    TemplateText,
    read_template,
)

#: Options of prompts that adapters must share to be scored together.
SHARED = ("readout", "template", "evidence", "evidence_model")


def prompt_config(adapter: Adapter | None) -> PromptConfig:
    """Return the prompt options that an adapter was trained with.

    Without an adapter, or for an adapter made elsewhere, these are the defaults of `PromptConfig` with the latest
    template.

    Raises:
        LorarecError: If the adapter names a template that is not in its folder.
    """
    if adapter is None or adapter.record is None:
        default = PromptConfig()
        return replace(default, template=LATEST[default.readout])
    return read_prompt(adapter.record, adapter.folder)


def read_prompt(record: AdapterRecord, folder: Path | None) -> PromptConfig:
    """Return the prompt options of a record, with the text of a custom template.

    Args:
        record: A record.
        folder: Folder of the record; None for a record in memory.

    Raises:
        LorarecError: If the record names a template that is not in the folder.
    """
    template = record.prompt.template
    if template is None or isinstance(template, TemplateText) or template in BUNDLED:
        return record.prompt
    return replace(record.prompt, template=_custom_template(folder, template))


def _custom_template(folder: Path | None, recorded: str) -> TemplateText:
    """Read the file in the folder that has the recorded name; older versions recorded the path that training read."""
    name = Path(recorded).name
    inside = Path("" if folder is None else folder, name)
    # Unlike Path.is_file, os.path.isfile does not raise for a name that is not a valid path.
    if folder is None or not os.path.isfile(inside) or not _is_in_folder(inside, folder):
        raise LorarecError(
            f"adapter {folder} was trained with the template {quoted(recorded)}, which is not in its folder: "
            "copy it there"
        )
    try:
        return TemplateText(name, read_bounded(inside, 4 * SOURCE_LIMIT).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise LorarecError(f"template {inside} cannot be read: it is not UTF-8 text") from error


def _is_in_folder(file: Path, folder: Path) -> bool:
    """Return whether a file is in a folder itself; files of the hub's cache are links to files in folder `blobs`."""
    home, stored = folder.resolve(), file.resolve().parent
    return stored == home or (HubId.of_folder(home) is not None and stored == home.parents[1] / "blobs")


def shared_prompt_config(configs: Mapping[str, PromptConfig]) -> PromptConfig:
    """Return the options of prompts that several adapters are scored with together, and that a mixture of them records.

    Lengths in which the adapters differ have their defaults, whatever the order of the adapters.

    Args:
        configs: Name or path of each adapter -> its `prompt_config`; one or more.

    Raises:
        LorarecError: If the adapters were trained on different prompts.
    """
    (first_name, first), *others = configs.items()
    for name, other in others:
        for option in SHARED:
            if not same_option(first, other, option):
                values = (getattr(each, option) for each in (first, other))
                trained = ", ".join(value.name if isinstance(value, TemplateText) else str(value) for value in values)
                raise LorarecError(
                    f"adapters {first_name} and {name} were trained with different values of {option} ({trained}) and "
                    "cannot share prompts"
                )
    agreed = {
        each.name: getattr(first, each.name)
        for each in fields(PromptConfig)
        if each.name in SHARED or all(getattr(other, each.name) == getattr(first, each.name) for _, other in others)
    }
    return PromptConfig(**agreed)


def same_option(one: PromptConfig, other: PromptConfig, option: str) -> bool:
    """Return whether an option is the same; templates are, if they give the same prompts.

    Raises:
        LorarecError: A template is a file that cannot be read.
    """
    if option != "template":
        return bool(getattr(one, option) == getattr(other, option))
    values = [read_template(each.template or each.readout) for each in (one, other)]
    if not one.evidence and not other.evidence:
        values = [SAME_WITHOUT_EVIDENCE.get(value, value) if isinstance(value, str) else value for value in values]
    return values[0] == values[1]


def require_shared_prompt(adapters: Sequence[Adapter]) -> PromptConfig:
    """Return the options of prompts that adapters are scored with together; see `shared_prompt_config`.

    Raises:
        LorarecError: If the adapters were trained on different prompts.
    """
    return shared_prompt_config(
        {str(adapter.folder or number): prompt_config(adapter) for number, adapter in enumerate(adapters, start=1)}
    )
