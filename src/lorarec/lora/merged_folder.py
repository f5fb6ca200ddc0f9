"""Merged models: a backbone with an adapter in its weights, as a Transformers folder for other programs."""

import logging
from dataclasses import asdict, fields, replace
from pathlib import Path

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, new_folder, read_json, refuse_existing, versions, write_json
from lorarec.lora.injection import merge
from lorarec.lora.mixed_linear import MixedLinear
from lorarec.lora.peft_folder import AdapterLike, read_adapter
from lorarec.lora.prompt_record import prompt_config, same_option
from lorarec.prompts import PromptConfig, TemplateText

logger = logging.getLogger(__name__)

#: File that names the backbone and the adapter of a merged model.
MERGED_RECORD_FILE = "merged.json"


def save_merged(backbone: Backbone, adapter: AdapterLike, out: str | Path, overwrite: bool = False) -> None:
    """Write a backbone with an adapter merged into its weights as a Transformers folder with safetensors.

    The folder has the tokenizer and the chat template, too. Transformers, vLLM and llama.cpp's converter load it
    without PEFT. The data type is that of the loaded backbone. `merged.json` names the two parts, and has the options
    of the prompts that the adapter was trained with; only with these does the model score as the adapter does.

    Args:
        backbone: Backbone; its weights are the same afterwards.
        adapter: Adapter, path of a PEFT folder, or hub id.
        out: Path of the folder to write.
        overwrite: Whether to replace an existing folder of this function.

    Raises:
        LorarecError: If the adapter is unusable or of another backbone, `out` exists, or the weights of a layer are
            quantized or of a precision in which the adapter's update would be lost.

    Examples:
        >>> from lorarec import Backbone
        >>> from lorarec.lora import save_merged
        >>> save_merged(Backbone.from_pretrained("embedded"), "adapters/shop", "models/shop")
        >>> merged = Backbone.from_pretrained("models/shop")
    """
    refuse_existing(out, overwrite, FolderKind.MERGED)
    chosen = read_adapter(adapter, backbone)
    record = {
        "backbone": backbone.id,
        "backbone_fingerprint": backbone.fingerprint,
        "adapter": None if chosen.folder is None else chosen.source,
        "adapter_fingerprint": None if chosen.folder is None else chosen.fingerprint,
        "prompt": asdict(prompt_config(chosen)),
        "versions": versions(),
    }
    merged = merge(backbone.model, chosen)
    try:
        for name, layer in backbone.model.named_modules():
            if isinstance(layer, MixedLinear):
                raise LorarecError(
                    f"the adapter cannot be merged into {name} of {backbone.id}, whose weights are quantized or too "
                    'imprecise for its update: load the model that it was quantized from, with dtype="float32"'
                )
        with new_folder(out, overwrite, FolderKind.MERGED) as folder:
            backbone.model.save_pretrained(folder)
            backbone.tokenizer.save_pretrained(folder)
            write_json(folder / MERGED_RECORD_FILE, record)
    finally:
        merged.unmerge()


def warn_of_other_prompts(backbone: Backbone, prompt: PromptConfig) -> None:
    """Log a warning if a backbone is a merged model whose adapter was trained with other prompts than these.

    Raises:
        LorarecError: `merged.json` is not valid JSON or has a wrong value, or a template cannot be read.
    """
    file = Path(backbone.id, MERGED_RECORD_FILE)
    record = read_json(file) if file.is_file() else None
    recorded = record.get("prompt") if isinstance(record, dict) else None
    if not isinstance(recorded, dict):
        return
    known = {each.name: recorded[each.name] for each in fields(PromptConfig) if each.name in recorded}
    if isinstance(template := known.get("template"), dict):
        known["template"] = TemplateText(str(template.get("name")), str(template.get("text")))
    trained = replace(prompt, **known)
    others = [each.name for each in fields(PromptConfig) if not same_option(trained, prompt, each.name)]
    if others:
        logger.warning(
            "%s is merged with an adapter that was trained with other prompts (%s): its scores are not those of the "
            "adapter",
            backbone.id,
            ", ".join(others),
        )
