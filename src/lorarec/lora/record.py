"""`lorarec.json` beside an adapter: how it was trained and mixed. Records that cannot be used are refused when read."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lorarec.errors import LorarecError
from lorarec.lora.safe_files import quoted, read_bounded_json
from lorarec.prompts import READOUTS

ADAPTER_RECORD_FILE = "lorarec.json"
#: The largest length or number of items that a record may hold.
MOST = 10**6

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
    **dict.fromkeys(("backbone", "options", "start_from", "mix", "personal"), MAPPING),
    **dict.fromkeys(("datasets", "adapters"), ENTRIES),
}
OPTIONS: Checks = {
    "template": TEXT,
    "evidence": (_is_switch, "true or false"),
    **dict.fromkeys(("max_tokens", "max_title_tokens", "max_history"), LENGTH),
}
PARTS: Mapping[str, Checks] = {
    "backbone": {"id": TEXT, "fingerprint": TEXT},
    "options": OPTIONS,
    "start_from": {"datasets": ENTRIES},
    "mix": MIXED,
    "personal": MIXED,
}


def read_record(folder: Path) -> dict[str, Any] | None:
    """The `lorarec.json` of an adapter's folder, or None if there is none.

    Raises:
        LorarecError: it is not JSON, or `check_record` refuses it.
    """
    path = folder / ADAPTER_RECORD_FILE
    if not os.path.lexists(path):
        return None
    record = read_bounded_json(path)
    check_record(path, record)
    return record


def check_record(path: Path, record: Any) -> None:
    """Check the type and range of every field that is read somewhere; a field that is missing or null is unset.

    Raises:
        LorarecError: naming the file, the field and what it must be.
    """
    if not isinstance(record, dict):
        raise LorarecError(f"{path} does not describe an adapter")
    _check(path, "", record, RECORD)
    for name, checks in PARTS.items():
        _check(path, f"{name}.", record.get(name) or {}, checks)
    for number, part in enumerate(record.get("adapters") or ()):
        _check(path, f"adapters.{number}.", part, {"path": TEXT, "datasets": ENTRIES})


def _check(path: Path, prefix: str, values: dict[str, Any], checks: Checks) -> None:
    for name, (check, wanted) in checks.items():
        value = values.get(name)
        if value is not None and not check(value):
            raise LorarecError(f"{path}: {prefix}{name} must be {wanted}, got {quoted(value)}")
