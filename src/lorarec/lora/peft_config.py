"""Checks of PEFT's `adapter_config.json`, and the rank and scale of each layer."""

import math
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import regex

from lorarec.errors import LorarecError
from lorarec.io import JsonObject
from lorarec.lora.safe_files import quoted

#: Settings that a plain LoRA may have with any value: its origin, the adapted layers, training and initialization, and
#: details of variants that are off. All others must be off.
PLAIN = {
    *("peft_type", "peft_version", "task_type", "auto_mapping", "base_model_name_or_path", "revision"),
    *("inference_mode", "r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern", "use_rslora"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out"),
    *("bias", "init_lora_weights", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    *("megatron_core", "qalora_group_size", "runtime_config", "ensure_weight_tying"),
}
#: Initializations that do not change the backbone's own weights.
INITIALIZATIONS = ("gaussian", "eva", "orthogonal", "mica")
DEFAULT_R, DEFAULT_LORA_ALPHA = 8, 8  # PEFT's defaults
MOST = 10**6  # largest rank or alpha
#: Maximum number of seconds for compiling and matching all patterns of a file; those that PEFT writes need far less.
PATTERN_SECONDS = 5.0
PATTERN_LENGTH = 500
#: Keys that rank_pattern and alpha_pattern may have: names and simple regular expressions. Counts, back references,
#: look-around and recursion are refused, since they may need any amount of memory.
PATTERN = re.compile(r"(?:[\w./*+?|)^$-]|\((?!\?)|\(\?:|\\[.dwDW-]|\[\^?[\w.-]+\])+")


def check_config(path: Path, config: Any) -> None:
    """Refuse a configuration that is not that of a plain LoRA.

    Raises:
        LorarecError: If a setting is refused; the message names the file and the setting.
    """
    if not isinstance(config, dict) or "peft_type" not in config:
        raise LorarecError(f"{path} is not the configuration of a PEFT adapter")
    folder = path.parent
    if config["peft_type"] != "LORA":
        kind = str(config["peft_type"])[:20]
        raise LorarecError(f"adapter {folder} is of type {kind}: only LORA adapters can be mixed")
    if config.get("bias", "none") not in ("none", None):
        raise LorarecError(f"adapter {folder} also trains biases, which cannot be mixed: train with bias='none'")
    for key in config:
        if key not in PLAIN and config[key]:
            raise LorarecError(f"adapter {folder} uses {key[:50]}, which cannot be mixed: train a plain LoRA")
    start = config.get("init_lora_weights")
    if not _is_switch(start) and start not in INITIALIZATIONS:
        raise LorarecError(
            f"adapter {folder} was initialized by {quoted(start)}, which changes the backbone or is unknown: "
            "convert it to a plain LoRA with PEFT first"
        )
    _check_types(path, config)


def _check_types(path: Path, config: JsonObject) -> None:
    checks = {
        "r": (_is_rank, "a whole number of 1 or more"),
        "lora_alpha": (_is_alpha, "a positive number"),
        "use_rslora": (_is_switch, "true or false"),
        "fan_in_fan_out": (_is_switch, "true or false"),
        "rank_pattern": (lambda value: _is_pattern(value, _is_rank), "names of layers with ranks"),
        "alpha_pattern": (lambda value: _is_pattern(value, _is_alpha), "names of layers with positive numbers"),
        "target_modules": (_is_names, "text or a list of texts"),
        "exclude_modules": (_is_names, "text or a list of texts"),
        "layers_pattern": (_is_names, "text or a list of texts"),
        "layers_to_transform": (_is_layers, "a number or a list of numbers"),
        "base_model_name_or_path": (_is_text, "text"),
        "revision": (_is_text, "text"),
    }
    for name, (check, wanted) in checks.items():
        if name in config and not check(config[name]):
            raise LorarecError(f"{path}: {name} must be {wanted}, got {quoted(config[name])}")


def _is_rank(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MOST


def _is_alpha(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= MOST


def _is_switch(value: Any) -> bool:
    return value is None or type(value) is bool


def _is_pattern(value: Any, check: Any) -> bool:
    return value is None or (isinstance(value, dict) and all(map(check, value.values())))


def _is_text(value: Any) -> bool:
    return isinstance(value, str | None)


def _is_names(value: Any) -> bool:
    return _is_text(value) or (isinstance(value, list) and all(isinstance(name, str) for name in value))


def _is_layers(value: Any) -> bool:
    return value is None or all(type(layer) is int for layer in (value if isinstance(value, list) else [value]))


def layer_ranks_and_scales(path: Path, config: JsonObject, layers: Iterable[str]) -> dict[str, tuple[int, float]]:
    """Return rank and scale by layer name; the scale is alpha / r, or alpha / sqrt(r) for rank-stabilized LoRA.

    As in PEFT, the first key of a pattern that matches the end of a layer's name decides.

    Args:
        path: Path of the configuration, for error messages.
        config: Configuration that `check_config` accepts.
        layers: Names of the adapted layers.

    Raises:
        LorarecError: If a pattern is not a simple regular expression, or matching takes too long.
    """
    deadline = time.monotonic() + PATTERN_SECONDS
    settings = {}
    try:
        ranks = _compiled(path, "rank_pattern", config, deadline)
        alphas = _compiled(path, "alpha_pattern", config, deadline)
        for name in layers:
            rank = _first(ranks, name, deadline, config.get("r", DEFAULT_R))
            alpha = _first(alphas, name, deadline, config.get("lora_alpha", DEFAULT_LORA_ALPHA))
            settings[name] = rank, float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))
    except TimeoutError:
        raise LorarecError(
            f"{path}: its rank_pattern and alpha_pattern take more than {PATTERN_SECONDS:g} s to match: "
            "write the layers' names in full"
        ) from None
    return settings


def _compiled(path: Path, field: str, config: JsonObject, deadline: float) -> list[tuple[Any, Any]]:
    """Return the compiled keys of a pattern with their values.

    Raises:
        LorarecError: If a key is not a simple regular expression.
        TimeoutError: If the deadline has passed.
    """
    patterns = []
    for key, value in (config.get(field) or {}).items():
        if time.monotonic() > deadline:
            raise TimeoutError
        if len(key) > PATTERN_LENGTH or not PATTERN.fullmatch(key):
            raise LorarecError(
                f"{path}: {field} has the key {quoted(key)}, which is no simple pattern: name the layers"
            )
        try:
            patterns.append((regex.compile(rf"(.*\.)?({key})$"), value))
        except (regex.error, RecursionError) as error:
            raise LorarecError(f"{path}: {field} has the key {quoted(key)}, which is no regular expression") from error
    return patterns


def _first(patterns: list[tuple[Any, Any]], name: str, deadline: float, default: Any) -> Any:
    """Return the value of the first pattern that matches.

    Raises:
        TimeoutError: If the deadline has passed.
    """
    for pattern, value in patterns:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if pattern.match(name, timeout=left):
            return value
    return default
