"""Fingerprints of the weights of a backbone, the same for a hub id and a folder, for one file and several."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.utils import cached_file

from lorarec.io import file_fingerprint, read_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
#: Fields of a configuration that are part of the fingerprints of earlier versions.
SHAPE = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers")
#: Maximum number of bytes of weights that are read completely.
WHOLE = 1 << 28
#: Number and length in bytes of the evenly spaced spans that are read of each tensor of a larger model.
SPANS, SPAN = 256, 256


def weights_fingerprint(model: PreTrainedModel, source: str) -> str:
    """Return a hash, 16 hexadecimal digits, of a model's stored weights: names, types, shapes and values.

    It does not depend on the precision, quantization and device that the model is loaded with, nor on the number of
    files and their metadata. In models of up to 256 MiB all values are hashed. In a larger model 64 KiB of each tensor
    are hashed, in 256 evenly spaced spans, which takes less than a second for 7B parameters. Training changes nearly
    all values of a tensor, so fine-tuned models differ; a change of a few rows between the spans is not noticed.

    Args:
        model: Model whose parameters are hashed if its source has no safetensors files.
        source: Path of the folder, or hub id, that the model was loaded from.
    """
    files = weight_files(source)
    digest = hashlib.sha256()
    for part in _stored(files) if files else _in_memory(model):
        digest.update(part)
    return digest.hexdigest()[:16]


def fingerprint_of_files(source: str) -> str | None:
    """Return the fingerprint of earlier versions for folders with less than 256 MiB; None for other sources."""
    files = _all_files(source)
    if not files or sum(file.stat().st_size for file in files) >= WHOLE:
        return None
    return file_fingerprint(*files)


def fingerprint_of_first_rows(model: PreTrainedModel, source: str) -> str:
    """Return the fingerprint of earlier versions for other sources; it is a hash of the first embeddings."""
    config = model.config.get_text_config()
    digest = hashlib.sha256(json.dumps([getattr(config, name, None) for name in SHAPE]).encode())
    for file in _all_files(source):
        with safe_open(file, "pt") as tensors:
            digest.update("".join(sorted(tensors.keys())).encode() + str(file.stat().st_size).encode())
    embedding: Any = model.get_input_embeddings().weight
    digest.update(embedding[:256].detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _all_files(source: str) -> list[Path]:
    return sorted(Path(source).glob("*.safetensors")) if Path(source).is_dir() else []


def weight_files(source: str) -> list[Path]:
    """Return the safetensors files, if any, that transformers loads from a folder, or from its cache for a hub id."""
    folder = Path(source)
    if not folder.is_dir():
        try:
            config_file = cached_file(source, "config.json", local_files_only=True)
        except OSError:
            return []
        folder = Path(str(config_file)).parent
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        return []
    return [folder / name for name in sorted(set(read_json(folder / INDEX)["weight_map"].values()))]


def _stored(files: Iterable[Path]) -> Iterable[bytes]:
    """Yield the bytes of stored tensors that are hashed, in the order of the tensors' names."""
    tensors: dict[str, tuple[Path, int, int, bytes]] = {}
    for file in files:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            kind = json.dumps([name, entry["dtype"], entry["shape"]]).encode()
            tensors[name] = (file, 8 + length + begin, end - begin, kind)
    whole = sum(size for _, _, size, _ in tensors.values()) <= WHOLE
    opened = {file: file.open("rb") for file in {file for file, *_ in tensors.values()}}
    try:
        for name in sorted(tensors):
            file, start, size, kind = tensors[name]
            yield kind
            for at, length in [(0, size)] if whole else _spans(size):
                opened[file].seek(start + at)
                yield opened[file].read(length)
    finally:
        for stream in opened.values():
            stream.close()


def _spans(size: int) -> list[tuple[int, int]]:
    """Return (start, length) of the spans of a tensor of `size` bytes; a small tensor is one span."""
    if size <= SPANS * SPAN:
        return [(0, size)]
    return [((size - SPAN) * number // (SPANS - 1), SPAN) for number in range(SPANS)]


def _in_memory(model: PreTrainedModel) -> Iterable[bytes]:
    """Yield the bytes of parameters that are hashed: at most SPANS * SPAN evenly spaced values of each, as float32."""
    for name, parameter in sorted(model.named_parameters()):
        yield json.dumps([name, list(parameter.shape)]).encode()
        flat = parameter.detach().flatten()
        indices = torch.arange(min(len(flat), SPANS * SPAN), device=flat.device) * len(flat) // (SPANS * SPAN)
        yield (flat[indices] if len(flat) > SPANS * SPAN else flat).float().cpu().numpy().tobytes()
