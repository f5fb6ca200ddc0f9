"""LoRA adapters in and out of plain PEFT folders (`adapter_config.json` and `adapter_model.safetensors`)."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lorarec.adapters.layers import dimensions, linear_layers
from lorarec.artefacts import file_fingerprint, read_json, write_json
from lorarec.backbone.load import Backbone
from lorarec.errors import LorarecError

CONFIG, WEIGHTS, META = "adapter_config.json", "adapter_model.safetensors", "lorarec.json"
PREFIX = "base_model.model."
KEY = re.compile(re.escape(PREFIX) + r"(?P<module>.+)\.lora_(?P<side>[AB])\.weight")

#: Settings that say which layers are adapted.
LAYER_CHOICE = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
#: Settings that change what the two matrices mean, so that such an adapter cannot be mixed.
UNSUPPORTED = (
    *("use_dora", "use_qalora", "use_bdlora", "lora_bias", "modules_to_save", "trainable_token_indices"),
    *("layer_replication", "target_parameters", "alora_invocation_tokens", "arrow_config", "kasa_config"),
    *("monteclora_config", "velora_config", "megatron_config"),
)
#: Initialisations that also change the backbone's own weights.
CHANGES_BACKBONE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: for each adapted layer `h = W x + scale * B (A x)`.

    Attributes:
        tensors: layer name -> (A of shape (rank, in), B of shape (out, rank)).
        scales: layer name -> alpha / rank (alpha / sqrt(rank) for rank-stabilised LoRA).
        config: PEFT's settings, as read; what `save_adapter` keeps of them is the choice of layers.
        meta: `lorarec.json`, or None for an adapter made elsewhere.
        folder: where it was read from.
    """

    tensors: dict[str, tuple[torch.Tensor, torch.Tensor]]
    scales: dict[str, float]
    config: dict[str, Any] = field(default_factory=dict)
    meta: dict[str, Any] | None = None
    folder: Path | None = None

    @property
    def ranks(self) -> dict[str, int]:
        """Layer name -> rank."""
        return {name: a.shape[0] for name, (a, _) in self.tensors.items()}

    @property
    def fingerprint(self) -> str:
        """Content hash of the two files of a PEFT folder.

        Raises:
            LorarecError: the adapter was never on disk.
        """
        if self.folder is None:
            raise LorarecError("an adapter in memory has no fingerprint: save it first")
        return file_fingerprint(self.folder / CONFIG, self.folder / WEIGHTS)


def read_adapter(folder: str | Path, backbone: Backbone | None = None) -> Adapter:
    """Read a PEFT LoRA folder; nothing in it is executed.

    Args:
        backbone: check that the adapter belongs to this backbone (see `check_backbone`).

    Raises:
        LorarecError: a file is missing or corrupted, the weights are pickled, the adapter is no plain LoRA, or it
            belongs to another backbone.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise LorarecError(f"adapter {folder} does not exist: give a PEFT folder")
    config = read_json(folder / CONFIG)
    _check_config(folder, config)
    pairs = _pairs(folder, _load(folder))
    tensors, scales = {}, {}
    for name, pair in pairs.items():
        rank = pair["A"].shape[0]
        if pair["A"].ndim != 2 or pair["B"].ndim != 2 or pair["B"].shape[1] != rank:
            raise LorarecError(f"{folder / WEIGHTS}: A and B of {name} do not fit together")
        tensors[name] = (pair["A"], pair["B"])
        scales[name] = _scale(config, name, rank)
    meta = read_json(folder / META) if (folder / META).exists() else None
    if not isinstance(meta, dict | None):
        raise LorarecError(f"{folder / META} does not describe an adapter")
    adapter = Adapter(tensors, scales, config, meta, folder)
    if backbone is not None:
        check_backbone(adapter, backbone)
    return adapter


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read safetensors.

    Raises:
        LorarecError: the file is missing or corrupted.
    """
    if not path.exists():
        raise LorarecError(f"{path} does not exist")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise LorarecError(f"{path} is corrupted: {error}") from error


def check_backbone(adapter: Adapter, backbone: Backbone) -> None:
    """Refuse an adapter of another backbone, by the fingerprint in its `lorarec.json` and by its layers' shapes.

    Raises:
        LorarecError: it belongs to another backbone, or adapts something that is no linear layer of this one.
    """
    trained_on = (adapter.meta or {}).get("backbone", {})
    if trained_on.get("fingerprint", backbone.fingerprint) != backbone.fingerprint:
        raise LorarecError(
            f"adapter {adapter.folder} belongs to backbone {trained_on.get('id')} ({trained_on['fingerprint']}), "
            f"not to {backbone.id} ({backbone.fingerprint})"
        )
    layers = linear_layers(backbone.model)
    for name, (a, b) in adapter.tensors.items():
        if name not in layers:
            raise LorarecError(f"adapter {adapter.folder} adapts {name}, which backbone {backbone.id} does not offer")
        if (a.shape[1], b.shape[0]) != dimensions(layers[name]):
            raise LorarecError(
                f"adapter {adapter.folder} belongs to another backbone: {name} is {b.shape[0]} x {a.shape[1]} in it, "
                f"{' x '.join(map(str, reversed(dimensions(layers[name]) or ())))} in {backbone.id}"
            )


def save_adapter(adapter: Adapter, folder: str | Path, base_model: str, meta: dict[str, Any] | None = None) -> None:
    """Write a plain PEFT folder into the existing `folder`, in float32.

    All layers get the largest rank (zero rows fill the others) and one scale, so that the folder needs no per-layer
    patterns, which some servers do not read.

    Args:
        base_model: the backbone's hub id or path, for PEFT's own loaders.
        meta: what goes into `lorarec.json`.
    """
    folder = Path(folder)
    rank = max(adapter.ranks.values())
    scale = max(adapter.scales.values())
    state = {}
    for name, (a, b) in adapter.tensors.items():
        missing = rank - a.shape[0]
        ratio = adapter.scales[name] / scale
        a = torch.nn.functional.pad(a.detach().float(), (0, 0, 0, missing))
        b = torch.nn.functional.pad(b.detach().float() * ratio, (0, missing))
        state[f"{PREFIX}{name}.lora_A.weight"] = a.cpu().contiguous()
        state[f"{PREFIX}{name}.lora_B.weight"] = b.cpu().contiguous()
    alpha = scale * rank
    config = LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_model,
        inference_mode=True,
        r=rank,
        lora_alpha=int(alpha) if alpha.is_integer() else alpha,  # type: ignore[arg-type]
        fan_in_fan_out=bool(adapter.config.get("fan_in_fan_out", False)),
        **({key: adapter.config[key] for key in LAYER_CHOICE if key in adapter.config} or _by_name(adapter)),
    )
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    save_config(config, folder)
    if meta is not None:
        write_json(folder / META, meta)


def save_config(config: PeftConfig, folder: Path) -> None:
    """Write `adapter_config.json`; what PEFT holds as a set is sorted, so that equal adapters are equal files."""
    config.save_pretrained(str(folder))
    settings = read_json(folder / CONFIG)
    for name in ("target_modules", "exclude_modules"):
        if isinstance(settings.get(name), list):
            settings[name].sort()
    write_json(folder / CONFIG, settings)


def _by_name(adapter: Adapter) -> dict[str, list[str]]:
    return {"target_modules": sorted(adapter.tensors)}


def _check_config(folder: Path, config: Any) -> None:
    if not isinstance(config, dict) or "peft_type" not in config:
        raise LorarecError(f"{folder / CONFIG} is not the configuration of a PEFT adapter")
    if config["peft_type"] != "LORA":
        raise LorarecError(f"adapter {folder} is of type {config['peft_type']}: only LORA adapters can be mixed")
    if config.get("bias", "none") != "none":
        raise LorarecError(f"adapter {folder} also trains biases, which cannot be mixed: train with bias='none'")
    for key in UNSUPPORTED:
        if config.get(key):
            raise LorarecError(f"adapter {folder} uses {key}, which cannot be mixed: train a plain LoRA")
    if str(config.get("init_lora_weights", "")).lower().startswith(CHANGES_BACKBONE):
        raise LorarecError(
            f"adapter {folder} was initialised by {config['init_lora_weights']}, which changes the backbone: "
            "convert it to a plain LoRA with PEFT first"
        )


def _load(folder: Path) -> dict[str, torch.Tensor]:
    if not (folder / WEIGHTS).exists() and (folder / "adapter_model.bin").exists():
        raise LorarecError(f"{folder}/adapter_model.bin is a pickle, which can run code: save it as safetensors")
    return read_tensors(folder / WEIGHTS)


def _pairs(folder: Path, state: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in state.items():
        match = KEY.fullmatch(key)
        if match is None:
            raise LorarecError(f"{folder / WEIGHTS} holds {key}, which is no LoRA matrix of a linear layer")
        if not torch.isfinite(tensor).all():
            raise LorarecError(f"{folder / WEIGHTS}: {key} holds NaN or infinite values")
        pairs.setdefault(match["module"], {})[match["side"]] = tensor
    for name, pair in pairs.items():
        if len(pair) < 2:
            raise LorarecError(f"{folder / WEIGHTS} holds only one of the two matrices of {name}")
    if not pairs:
        raise LorarecError(f"{folder / WEIGHTS} holds no LoRA matrices")
    return pairs


def _scale(config: dict[str, Any], name: str, rank: int) -> float:
    """PEFT's scaling of a layer; a pattern's key matches the end of a layer's name."""
    alpha = config.get("lora_alpha", 8)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            alpha = value
            break
    return float(alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))
