"""The record of an adapter, `lorarec.json`: its training, prompts and mixture.

A record is checked when it is read, since an adapter folder may come from anywhere. Records of version 0.1.0, which
have no `format_version`, are readable.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from lorarec.data import EvidenceModelConfig
from lorarec.errors import LorarecError
from lorarec.io import JsonObject, write_json, write_text
from lorarec.lora.safe_files import quoted, read_bounded_json
from lorarec.prompts import READOUTS, PromptConfig, TemplateText

ADAPTER_RECORD_FILE = "lorarec.json"
#: The file beside a record that holds a custom template.
TEMPLATE_FILE = "template.j2"
FORMAT_VERSION = 2
#: Largest length or number of items that a record may have.
MOST = 10**6
#: Bundled templates that adapters of version 0.1.0 could be trained with, by the names recorded then.
FORMER_TEMPLATES = {"verdict": "verdict-v1", "likelihood": "likelihood-v1", "click": "click-v1"}

Checks = Mapping[str, tuple[Callable[[Any], bool], str]]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_length(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MOST


def _is_switch(value: Any) -> bool:
    return type(value) is bool


def _is_weights(value: Any) -> bool:
    return isinstance(value, list) and all(type(each) in (int, float) and abs(each) <= MOST for each in value)


def _is_weights_or_by_layer(value: Any) -> bool:
    return _is_weights(value) or (isinstance(value, dict) and all(map(_is_weights, value.values())))


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _is_evidence_model(value: Any) -> bool:
    try:
        return isinstance(value, dict) and bool(EvidenceModelConfig(**value))
    except (LorarecError, TypeError):
        return False


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_mapping, value))


LENGTH = (_is_length, f"a whole number from 1 to {MOST}")
TEXT = (_is_text, "text")
MAPPING = (_is_mapping, "a mapping")
ENTRIES = (_is_list, "a list of mappings")
MIXED: Checks = {
    "names": (_is_names, "a list of texts"),
    "weights": (_is_weights_or_by_layer, "a list of numbers, or such a list for each layer"),
}
RECORD: Checks = {
    "readout": (lambda value: value in READOUTS, " or ".join(READOUTS)),
    "user": TEXT,
    "format_version": (lambda value: value == FORMAT_VERSION, str(FORMAT_VERSION)),
    **dict.fromkeys(("backbone", "options", "start_from", "mix", "personal"), MAPPING),
    **dict.fromkeys(("datasets", "adapters"), ENTRIES),
}
OPTIONS: Checks = {
    "template": TEXT,
    "evidence": (_is_switch, "true or false"),
    "evidence_model": (_is_evidence_model, "a mapping of options of a next-item model"),
    **dict.fromkeys(("max_tokens", "max_title_tokens", "max_history"), LENGTH),
}
PARTS: Mapping[str, Checks] = {
    "backbone": {"id": TEXT, "fingerprint": TEXT},
    "options": OPTIONS,
    "start_from": {"datasets": ENTRIES},
    "mix": MIXED,
    "personal": MIXED,
}


@dataclass(frozen=True)
class SourceRecord:
    """An adapter from which another adapter was made.

    Attributes:
        path: Path of its folder at that time.
        fingerprint: Content hash of its files.
        datasets: Name, fingerprint and split of each dataset that it was trained on.
    """

    path: str | None = None
    fingerprint: str | None = None
    datasets: tuple[JsonObject, ...] = ()

    @classmethod
    def from_json(cls, contents: JsonObject) -> Self:
        """Make a record of a JSON object that has been checked."""
        return cls(contents.get("path"), contents.get("fingerprint"), tuple(contents.get("datasets") or ()))

    def to_json(self) -> JsonObject:
        """Return the record as a JSON object."""
        return {"path": self.path, "fingerprint": self.fingerprint, "datasets": list(self.datasets)}


@dataclass(frozen=True)
class MixtureRecord:
    """The weights by which adapters were mixed.

    Attributes:
        weights: One weight per adapter, for all layers or by layer name; None if they are not recorded.
        names: Names of the adapters; None for those of their folders.
        details: Method and settings by which the weights were chosen.
    """

    weights: list[float] | dict[str, list[float]] | None = None
    names: list[str] | None = None
    details: JsonObject = field(default_factory=dict)

    @classmethod
    def from_json(cls, contents: JsonObject) -> Self:
        """Make a record of a JSON object that has been checked."""
        details = {key: value for key, value in contents.items() if key not in ("names", "weights")}
        return cls(contents.get("weights"), contents.get("names"), details)

    def to_json(self) -> JsonObject:
        """Return the record as a JSON object."""
        names = {} if self.names is None else {"names": self.names}
        return {**self.details, **names, "weights": self.weights}


@dataclass(frozen=True)
class AdapterRecord:
    """The contents of the file `lorarec.json` of an adapter.

    Attributes:
        prompt: Prompt options that the adapter was trained with. In a record that was read, the template is the name
            of a bundled one or of a file in the adapter's folder (see `lorarec.lora.prompt_config`).
        backbone_id: Hub id or path of its backbone.
        backbone_fingerprint: Fingerprint of the weights of its backbone.
        datasets: Name, fingerprint and split of each dataset that it was trained on.
        start_from: Adapter from which its training started.
        adapters: Adapters of which it is a mixture.
        mix: Weights of a mixture for all users.
        personal: Weights of the mixture of one user.
        user: User for whom it was exported.
        options: Options of its training other than those of `prompt`.
        details: All other entries, such as versions of packages and validation metrics.
    """

    prompt: PromptConfig = field(default_factory=PromptConfig)
    backbone_id: str | None = None
    backbone_fingerprint: str | None = None
    datasets: tuple[JsonObject, ...] = ()
    start_from: SourceRecord | None = None
    adapters: tuple[SourceRecord, ...] = ()
    mix: MixtureRecord | None = None
    personal: MixtureRecord | None = None
    user: str | None = None
    options: JsonObject = field(default_factory=dict)
    details: JsonObject = field(default_factory=dict)

    @property
    def all_datasets(self) -> list[JsonObject]:
        """Name, fingerprint and split of every dataset that it was trained on, in earlier rounds and as parts, too."""
        sources = (*([] if self.start_from is None else [self.start_from]), *self.adapters)
        datasets: list[JsonObject] = []
        for found in (self.datasets, *(source.datasets for source in sources)):
            datasets += [dataset for dataset in found if dataset not in datasets]
        return datasets

    @classmethod
    def from_json(cls, path: Path, contents: Any) -> Self:
        """Check the contents of a record file and convert them to a record.

        Args:
            path: Path of the file, for error messages.
            contents: Parsed contents of the file.

        Raises:
            LorarecError: If the contents are not a record, or a field has another type or is out of range.
        """
        check_record(path, contents)
        options, backbone = contents.get("options") or {}, contents.get("backbone") or {}
        names = _prompt_options()
        start, mix, personal = (contents.get(key) for key in ("start_from", "mix", "personal"))
        return cls(
            prompt=_read_prompt(contents, options),
            backbone_id=backbone.get("id"),
            backbone_fingerprint=backbone.get("fingerprint"),
            datasets=tuple(contents.get("datasets") or ()),
            start_from=None if start is None else SourceRecord.from_json(start),
            adapters=tuple(map(SourceRecord.from_json, contents.get("adapters") or ())),
            mix=None if mix is None else MixtureRecord.from_json(mix),
            personal=None if personal is None else MixtureRecord.from_json(personal),
            user=contents.get("user"),
            options={key: value for key, value in options.items() if key not in names},
            details={key: value for key, value in contents.items() if key not in _KEYS},
        )

    def to_json(self) -> JsonObject:
        """Return the record as a JSON object; a custom template is recorded by the name of its file."""
        template = self.prompt.template
        prompt = {name: getattr(self.prompt, name) for name in _prompt_options()}
        prompt["template"] = TEMPLATE_FILE if isinstance(template, TemplateText) else template
        model = prompt.pop("evidence_model")  # without one, a record is that of versions before the option existed
        prompt |= {"evidence_model": asdict(model)} if isinstance(model, EvidenceModelConfig) else {}
        optional = {
            "adapters": [adapter.to_json() for adapter in self.adapters],
            "mix": self.mix and self.mix.to_json(),
            "personal": self.personal and self.personal.to_json(),
            "user": self.user,
        }
        return {
            "format_version": FORMAT_VERSION,
            "backbone": {"id": self.backbone_id, "fingerprint": self.backbone_fingerprint},
            "datasets": list(self.datasets),
            "readout": self.prompt.readout,
            "template": prompt["template"],
            "options": prompt | self.options,
            "start_from": self.start_from and self.start_from.to_json(),
            **{key: value for key, value in optional.items() if value},
            **self.details,
        }


_KEYS = {
    *("format_version", "backbone", "datasets", "readout", "template", "options"),
    *("start_from", "adapters", "mix", "personal", "user"),
}


def _prompt_options() -> list[str]:
    """Return the names of the options of a prompt that records have under `options`."""
    return [each.name for each in fields(PromptConfig) if each.name != "readout"]


def _read_prompt(contents: JsonObject, options: JsonObject) -> PromptConfig:
    recorded = {name: options[name] for name in _prompt_options() if options.get(name) is not None}
    recorded["readout"] = contents.get("readout") or PromptConfig().readout
    if contents.get("format_version") is None:
        template = recorded.get("template", recorded["readout"])
        recorded["template"] = FORMER_TEMPLATES.get(template, template)
    return PromptConfig(**recorded)


def read_record(folder: Path) -> AdapterRecord | None:
    """Read the record of an adapter folder; return None if it has none.

    Raises:
        LorarecError: If the file is not JSON, or a field has another type or is out of range.
    """
    path = folder / ADAPTER_RECORD_FILE
    if not os.path.lexists(path):
        return None
    return AdapterRecord.from_json(path, read_bounded_json(path))


def write_record(folder: Path, record: AdapterRecord) -> None:
    """Write the record of an adapter into its folder, and a custom template beside it."""
    write_json(folder / ADAPTER_RECORD_FILE, record.to_json())
    write_template(folder, record)


def write_template(folder: Path, record: AdapterRecord) -> None:
    """Write the template of a record into a folder, if it is a custom one."""
    if isinstance(record.prompt.template, TemplateText):
        write_text(folder / TEMPLATE_FILE, record.prompt.template.text)


def check_record(path: Path, record: Any) -> None:
    """Check the type and range of every field that is used; a field that is missing or null is unset.

    Raises:
        LorarecError: If a field is unusable; the message names the file, the field and the values that it may have.
    """
    if not isinstance(record, dict):
        raise LorarecError(f"{path} does not describe an adapter")
    _check(path, "", record, RECORD)
    for name, checks in PARTS.items():
        _check(path, f"{name}.", record.get(name) or {}, checks)
    for number, part in enumerate(record.get("adapters") or ()):
        _check(path, f"adapters.{number}.", part, {"path": TEXT, "datasets": ENTRIES})


def _check(path: Path, prefix: str, values: JsonObject, checks: Checks) -> None:
    for name, (check, wanted) in checks.items():
        value = values.get(name)
        if value is not None and not check(value):
            raise LorarecError(f"{path}: {prefix}{name} must be {wanted}, got {quoted(value)}")
