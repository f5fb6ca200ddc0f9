"""Options of loading a language model."""

from dataclasses import dataclass
from typing import Literal

from lorarec.options import convert_options, document_options, option

EMBEDDED = "embedded"
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["4bit", "8bit"]
AttentionImplementation = Literal["sdpa", "eager"]
BACKBONE = "Backbone"


@document_options
@dataclass(frozen=True)
class BackboneConfig:
    """Options of `Backbone.from_pretrained`.

    Raises:
        LorarecError: If a value is of the wrong type or is not one of the choices.

    Examples:
        >>> from lorarec import BackboneConfig
        >>> BackboneConfig("Qwen/Qwen2.5-0.5B-Instruct", dtype="bfloat16").device is None
        True
    """

    id: str = option(EMBEDDED, "`embedded`, a folder, GGUF file or hub id.")
    dtype: Dtype = option(
        "auto", "Data type of the weights; auto is float32 on a CPU, elsewhere as stored or bfloat16.", BACKBONE
    )
    device: str | None = option(
        None,
        "Torch device, or auto to spread the model over all devices; an accelerator if there is one by default.",
        BACKBONE,
    )
    quantization: Quantization | None = option(
        None, "Precision to which bitsandbytes quantizes the weights; None for full precision.", BACKBONE
    )
    attn_implementation: AttentionImplementation | None = option(
        None, "Implementation of attention; None for sdpa where the model has it. Others take no tree mask.", BACKBONE
    )
    trust_remote_code: bool = option(False, "Run Python code that comes with the model.", BACKBONE)

    def __post_init__(self) -> None:
        convert_options(self)
