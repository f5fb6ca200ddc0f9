"""GGUF files, the format of llama.cpp: dequantized once by transformers and cached as Transformers folders."""

import logging
import math
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedTokenizerFast

from lorarec.errors import LorarecError
from lorarec.io import disk_errors, file_fingerprint, locked, new_folder
from lorarec.scoring import cache_folder

#: Folder of dequantized models in the user's cache folder.
CACHE = "gguf"
#: Packages that decide what is written, and the number of this module's own way of writing it.
MADE_BY = ("transformers", "gguf", "tokenizers")
FORMAT = 1
#: Settings that describe the shapes of tensors, and those of hybrid and expert layers that transformers always reads.
SHAPES = (
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "vocab_size",
    "expert_count",
    "expert_feed_forward_length",
    "expert_shared_feed_forward_length",
    "expert_used_count",
    "full_attention_interval",
    "nextn_predict_layers",
    "rope.dimension_sections",
    "shortconv.l_cache",
    "ssm.conv_kernel",
    "ssm.group_count",
    "ssm.inner_size",
    "ssm.state_size",
    "ssm.time_step_rank",
)
#: Fields that name the model that a file was made from, and fields that name it or a model that it was trained from.
SOURCE_FIELDS = ("source.repo_url", "source.huggingface.repository", "source.url")
OTHER_FIELDS = ("repo_url", "url", "base_model.0.repo_url", "base_model.0.url")
#: Address of a model of the hub, or its id alone.
HUB_REPOSITORY = re.compile(r"(?:https?://(?:huggingface\.co|hf\.co)/)?([\w.-]+/[\w.-]+)/?")
#: Type of quantization at the end of a file's name, such as `.Q4_K_M`, `-IQ3_XXS`, `.f16` or `-UD-Q4_K_XL`.
QUANTIZATION = re.compile(r"[.-]((UD-)?I?T?Q\d\w*|[BF]F?(16|32)|MXFP4\w*)$", re.IGNORECASE)

logger = logging.getLogger(__name__)


def is_gguf(name: str) -> bool:
    """Return whether a backbone is named by a file, which can only be GGUF, and not by a folder or a hub id."""
    return name.lower().endswith(".gguf") or Path(name).is_file()


def unpacked_gguf(path: str | Path) -> Path:
    """Return the cached Transformers folder of a GGUF file, which is written when the file is first used.

    The folder holds safetensors, the tokenizer and the chat template. It depends on the content of the file, not on its
    name, and on the versions of the libraries that read it. Weights are stored in bfloat16 or float16 if that is exact,
    else in float32.

    Args:
        path: Path of the file.

    Raises:
        LorarecError: If the file is missing, truncated or not GGUF, transformers cannot read it completely, the package
            `gguf` is not installed, or the cache folder cannot be written to.
    """
    path = Path(path)
    if not path.is_file():
        raise LorarecError(f"backbone {path} does not exist: give the path of a GGUF file")
    with path.open("rb") as stream:
        if stream.read(4) != b"GGUF":
            raise LorarecError(f"backbone {path} is not a GGUF file: give one, a Transformers folder or a hub id")
    try:
        import gguf  # noqa: F401
        from transformers import GgufConfig  # noqa: F401
    except ImportError:
        raise LorarecError(f"backbone {path} needs gguf to be read: pip install 'lorarec[gguf]'") from None
    made_by = "-".join([str(FORMAT), *map(version, MADE_BY)])
    folder = cache_folder() / CACHE / f"{file_fingerprint(path)}-{made_by}"
    if folder.is_dir():
        return folder
    with disk_errors(folder), locked(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():
            logger.warning("unpacking %s into %s, which is done once", path, folder)
            model, tokenizer = _read(path)
            with new_folder(folder) as temporary:
                model.save_pretrained(temporary)
                tokenizer.save_pretrained(temporary)
    return folder


def original_model(path: str | Path) -> str:
    """Return the hub id of the model that a GGUF file was made from, as far as the file tells, else a name.

    In this order: the hub id that the file gives as its source; a hub id among the file's other addresses with the name
    of the model; the file's organization and the name of the file without its type of quantization, if that name
    contains the model's base name; the model's name alone.

    Args:
        path: Path of the file.

    Raises:
        LorarecError: If the file is damaged.
    """
    path = Path(path)
    fields = _general(path)
    name, stem = fields.get("name", ""), QUANTIZATION.sub("", path.name.removesuffix(".gguf"))
    for field in SOURCE_FIELDS:
        if found := HUB_REPOSITORY.fullmatch(fields.get(field, "")):
            return found[1]
    for field in OTHER_FIELDS:
        found = HUB_REPOSITORY.fullmatch(fields.get(field, ""))
        # A parent model has another name, and a repository of GGUF files usually ends in -GGUF.
        if found and _plain(found[1].rpartition("/")[2]) in (_plain(name), _plain(stem)):
            return found[1]
    base = _plain(fields.get("basename", ""))
    if not name or (base and base in _plain(stem)):
        owner = fields.get("organization", "")
        return f"{owner}/{stem}" if base and HUB_REPOSITORY.fullmatch(f"{owner}/{stem}") else stem
    return "-".join(name.split())


def _general(path: Path) -> dict[str, str]:
    """Return the general fields of a GGUF file that are text, by their names without `general.`.

    Raises:
        LorarecError: If the file is damaged.
    """
    from gguf import GGUFReader

    try:
        fields = GGUFReader(path).fields
        texts = {name: field.contents() for name, field in fields.items() if name.startswith("general.")}
    except Exception as error:  # the reader takes lengths from the file and does not check them
        raise LorarecError(
            f"backbone {path} is truncated or damaged ({_first_line(error)}): download it again"
        ) from error
    return {name.removeprefix("general."): text for name, text in texts.items() if isinstance(text, str)}


def _plain(name: str) -> str:
    """Return the letters and digits of a name in lower case."""
    return "".join(filter(str.isalnum, name.casefold()))


def _read(path: Path) -> tuple[Any, PreTrainedTokenizerFast]:
    """Return the dequantized model and the tokenizer of a GGUF file.

    Raises:
        LorarecError: If the file is truncated, or transformers cannot read it or ignores a part of it.
    """
    settings, sizes = _contents(path)
    from transformers import GgufConfig

    source: dict[str, Any] = {"pretrained_model_name_or_path": str(path.resolve().parent), "gguf_file": path.name}
    options: dict[str, Any] = {
        "dtype": torch.float32,
        "quantization_config": GgufConfig(dequantize=True),
        "output_loading_info": True,
    }
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(**source, **options)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(**source)
    except Exception as error:  # whatever the readers of transformers and gguf meet in the file
        raise LorarecError(
            f"backbone {path} cannot be dequantized: {_first_line(error)}; give the model as a Transformers folder or "
            "hub id"
        ) from error
    model, loading = loaded
    ignored = _ignored(settings, sizes, model, loading)
    if ignored is not None:
        raise LorarecError(
            f"backbone {path} cannot be dequantized exactly: transformers does not read {ignored}; give the model as a "
            "Transformers folder or hub id"
        )
    for dtype in (torch.bfloat16, torch.float16):
        if all(torch.equal(parameter, parameter.to(dtype).float()) for parameter in model.parameters()):
            model.to(dtype)
            break
    return model, tokenizer


def _contents(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the settings of a file's architecture and the number of values of each tensor, by name.

    Raises:
        LorarecError: If the file is truncated or damaged.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        prefix = f"{reader.fields['general.architecture'].contents()}."
        fields = {name.removeprefix(prefix): field for name, field in reader.fields.items() if name.startswith(prefix)}
        settings = {name: field.contents() for name, field in fields.items()}
        return settings, {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}
    except Exception as error:  # the reader takes lengths from the file and does not check them
        raise LorarecError(
            f"backbone {path} is truncated or damaged ({_first_line(error)}): download it again"
        ) from error


def _ignored(settings: dict[str, Any], sizes: dict[str, int], model: Any, loading: dict[str, Any]) -> str | None:
    """Return what transformers did not read of a file, such as the factors of rotary positions of Llama 3; or None.

    Transformers skips tensors and settings that it does not know, and the model then computes something else.
    """
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if loading[kind]:
            return f"the weights of {sorted(map(str, loading[kind]))[0]}"
    config = model.config.get_text_config()
    # A block for predicting several tokens at once follows the layers of the model and is not part of it.
    extra = tuple(
        f"blk.{config.num_hidden_layers + number}." for number in range(settings.get("nextn_predict_layers", 0))
    )
    used = {name: size for name, size in sizes.items() if not name.startswith(extra or "\0")}
    known = {parameter.data_ptr(): parameter.numel() for parameter in model.parameters()}
    if sum(used.values()) != sum(known.values()):
        factors = [name for name in used if name.startswith("rope_")]
        return f"the tensor {factors[0]}" if factors else "all of its tensors"
    for name, value in settings.items():
        if name not in SHAPES and not _same(value, _setting(config, name)):
            return f"the setting {name} = {value}"
    # Gemma's large models divide by another number, which llama.cpp knows and the file does not tell.
    scale = getattr(config, "query_pre_attn_scalar", None)
    return None if scale is None or scale == config.head_dim else "the scale of attention"


def _setting(config: PretrainedConfig, name: str) -> Any:
    """Return the value in a model's configuration of a setting of a GGUF file; None if there is none."""
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)  # models with windows have parameters for each type of layers
    heads = getattr(config, "num_attention_heads", None)
    head_dim = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)
    epsilons = ("rms_norm_eps", "norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")
    epsilon = next((getattr(config, each) for each in epsilons if hasattr(config, each)), None)
    values = {
        "attention.head_count": heads,
        "attention.head_count_kv": getattr(config, "num_key_value_heads", heads),
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_epsilon": epsilon,
        "attention.layer_norm_rms_epsilon": epsilon,
        "attention.sliding_window": getattr(config, "sliding_window", None),
        "rope.freq_base": rope.get("rope_theta"),
        "rope.dimension_count": int(head_dim * rope.get("partial_rotary_factor", 1.0)),
        "rope.scaling.type": "none" if rope.get("rope_type", "default") == "default" else None,
    }
    return values[name] if name in values else getattr(config, name, None)


def _same(value: Any, found: Any) -> bool:
    if found is None:
        return bool(value == 0)  # zero heads or a window of zero tokens mean that there are none
    if isinstance(value, list):  # one value for each layer, zero where the layer has none
        return all(_same(each, found) for each in value if each)
    if isinstance(value, str) or isinstance(found, str):
        return bool(value == found)
    return math.isclose(value, found, rel_tol=1e-6)


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), repr(error))
