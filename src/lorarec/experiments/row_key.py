"""What decides the results of a row, besides the data: its system, the version of that, and all options."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from lorarec.experiments.former_names import current_names
from lorarec.experiments.fusion_row import FusionRow
from lorarec.experiments.registry import RECOMMENDERS
from lorarec.io import JsonObject
from lorarec.recommenders import Recommender

#: Version of the systems whose records do not name one.
_FIRST_VERSION = [1]


def row_key(system: str, options: Mapping[str, Any]) -> JsonObject:
    """Return the system, the versions of its code, and all of its options, those with default values too.

    Args:
        system: Name of the system.
        options: Options that differ from the defaults.

    Raises:
        LorarecError: An option is unknown or unusable.
    """
    recommender = RECOMMENDERS[system].from_options(options)
    key = {"system": system, "versions": _versions(recommender), "options": _all_options(recommender)}
    plain: JsonObject = json.loads(json.dumps(key))  # as a record holds it
    return plain


def recorded_key(recorded: Mapping[str, Any]) -> JsonObject:
    """Return what `row_key` returned when the values of a record were written.

    Records of version 0.1.0 hold former names of options, and no options with default values. Options that did not
    exist when a record was written have their defaults; an option whose default changes results needs a new version.

    Raises:
        LorarecError: An option of the record does not exist any more.
    """
    system = recorded["system"]
    options = current_names(RECOMMENDERS[system].config_class, recorded.get("options", {}))
    return row_key(system, options) | {"versions": recorded.get("versions", _FIRST_VERSION)}


def _versions(recommender: Recommender[Any]) -> list[int]:
    """Return the version of a system, and those of the systems that it fuses."""
    fused = recommender.config.recommenders().values() if isinstance(recommender, FusionRow) else ()
    return [recommender.version, *(version for each in fused for version in _versions(each))]


def _all_options(recommender: Recommender[Any]) -> JsonObject:
    config = recommender.config
    values = asdict(config)
    options = {each.name: values[each.name] for each in fields(config) if each.init}
    if isinstance(recommender, FusionRow):
        options["systems"] = {
            name: {"system": (config.systems[name] or {}).get("system", name), **_all_options(each)}
            for name, each in config.recommenders().items()
        }
    return options
