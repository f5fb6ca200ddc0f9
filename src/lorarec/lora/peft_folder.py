"""Reading and writing of LoRA adapters as plain PEFT folders (`adapter_config.json`, `adapter_model.safetensors`)."""

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from huggingface_hub import CommitInfo
from peft import LoraConfig, PeftConfig
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lorarec.backbone import EMBEDDED, Backbone
from lorarec.errors import LorarecError
from lorarec.io import (
    FolderKind,
    HubId,
    JsonObject,
    file_fingerprint,
    files_to_push,
    full_repo_id,
    push_files,
    read_json,
    write_json,
    write_text,
)
from lorarec.lora.adapter_source import adapter_folder
from lorarec.lora.base_model import check_base_model, hub_base_model
from lorarec.lora.model_card import CARD_FILE, card_for_hub, model_card
from lorarec.lora.peft_config import check_config, layer_ranks_and_scales
from lorarec.lora.record import ADAPTER_RECORD_FILE, AdapterRecord, read_record, write_record
from lorarec.lora.safe_files import read_bounded_json, require_regular
from lorarec.lora.target_layers import DTYPES, dimensions, has_8_bit_floats, linear_layers

ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
KEY = re.compile(re.escape(PREFIX) + r"(?P<module>.+)\.lora_(?P<side>[AB])\.weight")

#: Settings that choose the adapted layers.
LAYER_CHOICE = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
#: Maximum number of bytes of an adapter's weights; rank 64 on all layers of a 70B model has 3.3 GB in float32.
WEIGHTS_LIMIT = 4 << 30
#: Maximum number of bytes of a safetensors header; 16 MiB hold the names of a hundred thousand tensors.
HEADER_LIMIT = 16 << 20


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: for each adapted layer `h = W x + scale * B (A x)`.

    Attributes:
        tensors: Matrices by layer name: A of shape (r, in) and B of shape (out, r).
        scales: Scale by layer name: lora_alpha / r, or lora_alpha / sqrt(r) for rank-stabilized LoRA.
        config: Settings of PEFT; `save_adapter` uses those that choose the layers.
        record: Contents of `lorarec.json`; None for an adapter made elsewhere.
        folder: Path of the folder that the adapter was read from, which is in the hub's cache for a hub id; None for an
            adapter in memory.

    Examples:
        >>> from lorarec import Backbone, mix
        >>> backbone = Backbone.from_pretrained("embedded")
        >>> pair = ["adapters/general", "adapters/shop"]
        >>> adapter = mix(backbone, pair, "adapters/equal", method="fixed", weights=[0.5, 0.5])
        >>> adapter.folder.name, set(adapter.ranks.values())
        ('equal', {16})
    """

    tensors: dict[str, tuple[torch.Tensor, torch.Tensor]]
    scales: dict[str, float]
    config: JsonObject = field(default_factory=dict)
    record: AdapterRecord | None = None
    folder: Path | None = None

    @property
    def ranks(self) -> dict[str, int]:
        """Rank by layer name."""
        return {name: a.shape[0] for name, (a, _) in self.tensors.items()}

    @property
    def is_zero(self) -> bool:
        """Whether the adapter changes nothing, because A or B is zero in every layer."""
        return all(not a.any() or not b.any() for a, b in self.tensors.values())

    @property
    def source(self) -> str:
        """Hub id with the commit, or path of the folder that the adapter was read from; "None" in memory."""
        return str((self.folder and HubId.of_folder(self.folder)) or self.folder)

    @property
    def fingerprint(self) -> str:
        """Content hash of the two files of a PEFT folder.

        Raises:
            LorarecError: If the adapter is in memory only.
        """
        if self.folder is None:
            raise LorarecError("an adapter in memory has no fingerprint: save it first")
        return file_fingerprint(self.folder / ADAPTER_CONFIG_FILE, self.folder / ADAPTER_WEIGHTS_FILE)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        base_model: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        commit_message: str = "Upload LoRA adapter",
    ) -> CommitInfo:
        """Upload the adapter's folder in one commit to the hub, where PEFT loads it by its id, too.

        The model card is the `README.md` of the folder, with the base model and the name of the repository filled in.
        What an adapter in the repository had and this one does not have is deleted by the same commit.

        Args:
            repo_id: Hub id to write to, which is created if it does not exist.
            base_model: Hub id of the backbone. It may be left out if the adapter was trained on a backbone that was
                loaded by its hub id. The embedded backbone or a folder is uploaded by `Backbone.push_to_hub`.
            private: Visibility of a new repository; None for the owner's default.
            token: Access token; if None, that of HF_TOKEN or `hf auth login`.
            revision: Branch to commit to, which is created if it does not exist; None for the main branch.
            commit_message: First line of the commit's message.

        Returns:
            The commit, with its address and its hash.

        Raises:
            LorarecError: If the adapter is in memory only, no one else can load its base model, the user may not write
                to the repository, or the hub cannot be reached.
        """
        if self.folder is None:
            raise LorarecError("an adapter in memory cannot be pushed: save it first")
        base_model = base_model or hub_base_model(self.config)
        if base_model is None:
            raise LorarecError(
                f"adapter {self.source} names the base model {self.config.get('base_model_name_or_path')}, which is "
                "not on the hub: push it by Backbone.push_to_hub and give its hub id as base_model"
            )
        repo_id = full_repo_id(repo_id, token)
        files = files_to_push(self.folder, FolderKind.ADAPTER)
        settings = {**self.config, "base_model_name_or_path": base_model}
        if base_model != hub_base_model(self.config):
            settings |= {"revision": None}  # it is a revision of the model that was named before
        if settings != self.config:
            files[ADAPTER_CONFIG_FILE] = json.dumps(settings, indent=2, ensure_ascii=False).encode()
        if self.record is not None and self.record.backbone_id not in (None, EMBEDDED, base_model):
            contents = read_json(self.folder / ADAPTER_RECORD_FILE)
            contents["backbone"]["id"] = base_model
            files[ADAPTER_RECORD_FILE] = json.dumps(contents, indent=2, ensure_ascii=False).encode()
        card = self.folder / CARD_FILE
        text = card.read_bytes() if card.is_file() else model_card(settings, self.record).encode()
        files[CARD_FILE] = card_for_hub(text, repo_id, base_model)
        return push_files(
            files,
            FolderKind.ADAPTER,
            repo_id,
            private=private,
            token=token,
            revision=revision,
            commit_message=commit_message,
        )


#: An adapter in memory, or the path or hub id of a PEFT folder.
AdapterLike = str | Path | Adapter


def read_adapter(adapter: AdapterLike, backbone: Backbone | None = None, limit: int = WEIGHTS_LIMIT) -> Adapter:
    """Read a PEFT LoRA folder, which may come from anywhere: nothing in it is executed, only regular files are read.

    A path that does not exist and has the form `owner/name` or `owner/name@revision` is a hub id, and so is any with
    the prefix `hub:`. Its files are downloaded into the hub's cache; without a connection those in the cache are used.

    Args:
        adapter: Path or hub id of a PEFT folder; an `Adapter` is only checked and returned.
        backbone: Backbone that the adapter must belong to (see `check_backbone`); None for any.
        limit: Maximum number of bytes of the file of weights.

    Raises:
        LorarecError: If a file is missing, corrupted or too large, the weights are pickled or not finite, the adapter
            is not a plain LoRA, its files contradict each other, its `lorarec.json` is unusable, it belongs to
            another backbone, or it cannot be downloaded.
    """
    read = adapter if isinstance(adapter, Adapter) else _read_folder(adapter_folder(adapter), limit)
    if backbone is not None:
        check_backbone(read, backbone)
    return read


def _read_folder(folder: Path, limit: int) -> Adapter:
    if not os.path.lexists(folder / ADAPTER_CONFIG_FILE):
        raise LorarecError(f"{folder} is not a PEFT folder (it has no {ADAPTER_CONFIG_FILE}): give one, or a hub id")
    config = read_bounded_json(folder / ADAPTER_CONFIG_FILE)
    check_config(folder / ADAPTER_CONFIG_FILE, config)
    tensors = _pairs(folder / ADAPTER_WEIGHTS_FILE, _load(folder, limit))
    settings = layer_ranks_and_scales(folder / ADAPTER_CONFIG_FILE, config, tensors)
    for name, (rank, _) in settings.items():
        rank_of_a = tensors[name][0].shape[0]
        if rank_of_a != rank:
            raise LorarecError(
                f"adapter {folder}: {name:.200} has rank {rank_of_a} in {ADAPTER_WEIGHTS_FILE}, but r is {rank} in "
                f"{ADAPTER_CONFIG_FILE}: the two files do not belong together"
            )
    scales = {name: scale for name, (_, scale) in settings.items()}
    return Adapter(tensors, scales, config, read_record(folder), folder)


def same_tensors(first: Adapter, second: Adapter) -> bool:
    """Return whether two adapters have equal matrices on the same layers."""
    return first.tensors.keys() == second.tensors.keys() and all(
        torch.equal(x, y)
        for name in first.tensors
        for x, y in zip(first.tensors[name], second.tensors[name], strict=True)
    )


def read_tensors(path: Path, limit: int = WEIGHTS_LIMIT) -> dict[str, torch.Tensor]:
    """Read safetensors of at most `limit` bytes.

    Raises:
        LorarecError: If the file is missing, not a regular file, too large or corrupted.
    """
    require_regular(path, limit)
    try:
        with path.open("rb") as stream:
            header = int.from_bytes(stream.read(8), "little")
        if header <= HEADER_LIMIT:
            return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise LorarecError(f"{path} is corrupted ({str(error)[:200]}): copy it, or make its folder, again") from error
    raise LorarecError(f"{path} is corrupted: its header is longer than {HEADER_LIMIT:,} bytes")


def check_backbone(adapter: Adapter, backbone: Backbone) -> None:
    """Refuse an adapter of another backbone.

    The fingerprint in `lorarec.json` decides; without one, the base model that the adapter names (see
    `check_base_model`). The adapted layers must be linear layers of the backbone with the same shapes, and not be
    stored in 8-bit floats.

    Raises:
        LorarecError: If it belongs to another backbone, or adapts a layer that cannot be adapted in this one.
    """
    record = adapter.record or AdapterRecord()
    fingerprint = record.backbone_fingerprint
    if fingerprint is None:
        check_base_model(adapter.folder, adapter.config, backbone)
    elif not backbone.has_fingerprint(fingerprint):
        raise LorarecError(
            f"adapter {adapter.folder} belongs to backbone {record.backbone_id!s:.100} ({fingerprint:.16}), "
            f"not to {backbone.id} ({backbone.fingerprint})"
        )
    layers = linear_layers(backbone.model)
    for name, (a, b) in adapter.tensors.items():
        if name not in layers:
            raise LorarecError(
                f"adapter {adapter.folder} adapts {name:.200}, which backbone {backbone.id} does not have as a layer "
                "that can be adapted"
            )
        if has_8_bit_floats(layers[name]):
            raise LorarecError(
                f"backbone {backbone.id} keeps {name:.200} in 8-bit floats, which an adapter cannot be added to: "
                "load the model that it was quantized from"
            )
        if (a.shape[1], b.shape[0]) != dimensions(layers[name]):
            raise LorarecError(
                f"adapter {adapter.folder} belongs to another backbone: {name} is {b.shape[0]} x {a.shape[1]} in it, "
                f"{' x '.join(map(str, reversed(dimensions(layers[name]) or ())))} in {backbone.id}"
            )


def save_adapter(adapter: Adapter, folder: str | Path, base_model: str, record: AdapterRecord | None = None) -> None:
    """Write a plain PEFT folder into the existing `folder`, in float32.

    All layers get the largest rank, filled up with zero rows, and one scale, so that the folder needs no patterns by
    layer, which some servers do not read.

    Args:
        adapter: Adapter to write.
        folder: Path of an existing folder.
        base_model: Hub id or path of the backbone, for PEFT's own loaders.
        record: Contents of `lorarec.json`, which is not written if None.
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
        **_layer_choice(adapter),
    )
    save_file(state, folder / ADAPTER_WEIGHTS_FILE, metadata={"format": "pt"})
    save_config(config, folder)
    if record is not None:
        write_description(folder, record)


def write_description(folder: Path, record: AdapterRecord) -> None:
    """Write the record of an adapter and its model card into its folder, and a custom template beside them."""
    write_record(folder, record)
    write_text(folder / CARD_FILE, model_card(read_json(folder / ADAPTER_CONFIG_FILE), record))


def _layer_choice(adapter: Adapter) -> JsonObject:
    """Return PEFT's settings that choose the layers; names replace patterns, which PEFT matches without a limit."""
    choice = {key: adapter.config[key] for key in LAYER_CHOICE if adapter.config.get(key) is not None}
    if isinstance(choice.get("target_modules"), list) and choice.keys() <= {"target_modules", "layers_to_transform"}:
        return choice
    return {"target_modules": sorted(adapter.tensors)}


def save_config(config: PeftConfig, folder: Path) -> None:
    """Write `adapter_config.json`, with sets in sorted order, so that equal adapters give equal files."""
    config.save_pretrained(str(folder))
    settings = read_json(folder / ADAPTER_CONFIG_FILE)
    for name in ("target_modules", "exclude_modules"):
        if isinstance(settings.get(name), list):
            settings[name].sort()
    write_json(folder / ADAPTER_CONFIG_FILE, settings)


def _load(folder: Path, limit: int) -> dict[str, torch.Tensor]:
    if not (folder / ADAPTER_WEIGHTS_FILE).exists() and (folder / "adapter_model.bin").exists():
        raise LorarecError(f"{folder}/adapter_model.bin is a pickle, which can run code: save it as safetensors")
    return read_tensors(folder / ADAPTER_WEIGHTS_FILE, limit)


def _pairs(path: Path, state: dict[str, torch.Tensor]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return A and B by layer name."""
    sides: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in state.items():
        match = KEY.fullmatch(key)
        if match is None:
            raise LorarecError(f"{path} holds {key:.200}, which is no LoRA matrix of a linear layer")
        if tensor.dtype not in DTYPES:
            raise LorarecError(f"{path}: {key:.200} is {tensor.dtype}: save it in float32, bfloat16 or float16")
        if tensor.ndim != 2 or not tensor.numel():
            raise LorarecError(f"{path}: {key:.200} is no matrix: its shape is {tuple(tensor.shape)[:8]}")
        if not tensor.isfinite().all():
            raise LorarecError(f"{path}: {key:.200} holds NaN or infinite values")
        sides.setdefault(match["module"], {})[match["side"]] = tensor
    for name, pair in sides.items():
        if len(pair) < 2:
            raise LorarecError(f"{path} holds only one of the two matrices of {name:.200}")
        if pair["B"].shape[1] != pair["A"].shape[0]:
            raise LorarecError(f"{path}: A and B of {name:.200} do not fit together")
    if not sides:
        raise LorarecError(f"{path} holds no LoRA matrices")
    return {name: (pair["A"], pair["B"]) for name, pair in sides.items()}
