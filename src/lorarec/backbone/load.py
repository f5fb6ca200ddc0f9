"""Any Hugging Face causal LM as a backbone, and the embedded one."""

import logging
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Self

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    FineGrainedFP8Config,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils.quantization_config import QuantizationMethod

from lorarec.backbone.config import EMBEDDED
from lorarec.backbone.fingerprint import fingerprint_of_files, fingerprint_of_first_rows, weights_fingerprint
from lorarec.errors import LorarecError
from lorarec.io import read_json
from lorarec.scoring import plan_for, require_exact

GENERIC_TOKENIZERS = ("TokenizersBackend", "PreTrainedTokenizerFast")

logger = logging.getLogger(__name__)


@dataclass
class Backbone:
    """A causal LM and its tokenizer, both Hugging Face's own.

    Attributes:
        id: the hub id or folder it was loaded from, or `embedded`.
        fingerprint: 16 hexadecimal digits of its weights (`weights_fingerprint`); adapters remember it.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    id: str
    fingerprint: str

    @classmethod
    def load(
        cls,
        id_or_path: str | Path = EMBEDDED,
        dtype: str = "auto",
        device: str | None = None,
        quantization: str | None = None,
        trust_remote_code: bool = False,
        check: bool = True,
    ) -> Self:
        """Load a backbone; only safetensors weights are read.

        The first time that its weights are met on this machine a few candidates are scored at once and one by one
        (`lorarec.scoring.require_exact`).

        Weights that are stored in 8-bit floats (DeepSeek's and Qwen's FP8 models) are dequantised, since an adapter's
        update would be lost in them.

        Args:
            id_or_path: `embedded`, a folder, or a hub id.
            dtype: `auto` (as stored; float32 on a CPU), `float32`, `bfloat16` or `float16`.
            device: a torch device or `auto` (accelerate spreads the model); a GPU when there is one by default.
            quantization: `4bit` or `8bit` through bitsandbytes (`pip install lorarec[quantized]`).
            trust_remote_code: run code that comes with the model. Off: such models are refused.
            check: refuse a model whose scores of many candidates at once would not be exact; off for a model that
                torch does not score.

        Raises:
            LorarecError: the model is missing, has no safetensors, needs remote code, cannot be scored exactly, or a
                library is missing.
        """
        name = str(id_or_path)
        source = source_of(name)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        kwargs: dict[str, Any] = {
            "dtype": weights_dtype(dtype, device, name),
            "use_safetensors": True,
            "trust_remote_code": trust_remote_code,
        }
        if quantization is not None:
            kwargs["quantization_config"] = _quantization(quantization)
            kwargs["device_map"] = "auto"
        elif device != "cpu":
            kwargs["device_map"] = device
        try:
            tokenizer = load_tokenizer(source, trust_remote_code)
            eight_bits = _is_stored_in_8_bit_floats(source, trust_remote_code)
            if eight_bits:
                kwargs["quantization_config"] = FineGrainedFP8Config(dequantize=True)
            model = AutoModelForCausalLM.from_pretrained(source, **kwargs)
            if eight_bits and kwargs["dtype"] != "auto":  # what was not quantised is loaded as it was stored
                model.to(kwargs["dtype"])
        except (OSError, ValueError, ImportError) as error:
            lines = [line for line in str(error).splitlines() if line.strip()] or [repr(error)]
            raise LorarecError(f"backbone {name} cannot be loaded: {lines[0]}") from error
        if hasattr(model.config, "rescale_every"):
            # RWKV divides weights in place for half precision, which an adapter added to them would not know of.
            model.config.rescale_every = 0
        model.eval()
        backbone = cls(model, tokenizer, name, weights_fingerprint(model, source))
        if check:
            require_exact(model, backbone.fingerprint)
        return backbone

    def token_limit(self, wanted: int) -> int:
        """`wanted` tokens of a prompt plus branch, or the number of the model's positions if that is smaller."""
        return min(wanted, plan_for(self.model).max_positions or wanted)

    def has_fingerprint(self, fingerprint: str) -> bool:
        """Whether a recorded fingerprint, maybe by an earlier version, is that of this backbone's weights."""
        if fingerprint == self.fingerprint or fingerprint == fingerprint_of_files(source_of(self.id)):
            return True
        if fingerprint != fingerprint_of_first_rows(self.model, source_of(self.id)):
            return False
        logger.warning(
            "the fingerprint %s was made by an earlier version from few weights: make sure that it is that of %s",
            fingerprint,
            self.id,
        )
        return True


def load_tokenizer(source: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """A tokenizer as its folder declares it.

    For a Qwen2 model `AutoTokenizer` takes Qwen2's own tokenizer even if tokenizer_config.json names the generic
    class, and so loses the lower-casing of tokenizer.json.
    """
    settings = Path(source) / "tokenizer_config.json"
    if settings.is_file() and read_json(settings).get("tokenizer_class") in GENERIC_TOKENIZERS:
        return PreTrainedTokenizerFast.from_pretrained(source)
    return AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)


def embedded_folder() -> Path:
    """The folder of the embedded backbone inside the package."""
    return Path(str(resources.files("lorarec.backbone"))) / EMBEDDED


def source_of(name: str) -> str:
    """The folder or hub id that Hugging Face's loaders and vLLM read a backbone from.

    Raises:
        LorarecError: the embedded backbone was removed from the package.
    """
    if name != EMBEDDED:
        return name
    if not embedded_folder().is_dir():
        raise LorarecError(
            "the embedded backbone was removed from this installation: give the folder or hub id of another"
        )
    return str(embedded_folder())


def weights_dtype(dtype: str, device: str, name: str) -> Any:
    """The torch dtype of a backbone's weights on a kind of device, or `auto` for that of its files.

    Raises:
        LorarecError: unknown dtype.
    """
    if dtype == "auto":
        # Half precision is stored for size; CPUs compute in float32.
        return torch.float32 if device == "cpu" or name == EMBEDDED else "auto"
    if dtype not in ("float32", "bfloat16", "float16"):
        raise LorarecError(f"unknown dtype {dtype!r}: choose auto, float32, bfloat16 or float16")
    return getattr(torch, dtype)


def _is_stored_in_8_bit_floats(source: str, trust_remote_code: bool) -> bool:
    config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    stored = getattr(config, "quantization_config", None) or {}
    method = stored.get("quant_method") if isinstance(stored, dict) else getattr(stored, "quant_method", None)
    return method == QuantizationMethod.FP8


def _quantization(bits: str) -> Any:
    if bits not in ("4bit", "8bit"):
        raise LorarecError(f"unknown quantization {bits!r}: choose 4bit or 8bit")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise LorarecError("quantization needs bitsandbytes: pip install 'lorarec[quantized]'") from None
    from transformers import BitsAndBytesConfig

    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
