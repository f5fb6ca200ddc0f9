"""The verb `export`: an adapter in a form for programs that do not read PEFT folders."""

from pathlib import Path
from typing import Annotated

import typer

from lorarec.backbone import BackboneConfig
from lorarec.cli.config_options import Only, config_options
from lorarec.cli.options import Overwrite, load_backbone, require_adapters
from lorarec.io import FolderKind, refuse_existing


@config_options
def export(
    *,
    adapter: Annotated[Path, typer.Argument(help="PEFT folder or hub id.")],
    merged: Annotated[Path, typer.Option(help="Folder to write the merged model to.")],
    overwrite: Overwrite = False,
    backbone: Annotated[BackboneConfig, Only(("id", "dtype", "device", "trust_remote_code"))],
) -> None:
    """Write a backbone with an adapter merged into its weights, as a Transformers folder.

    The folder has safetensors, the tokenizer and the chat template. It is loaded without PEFT: by Transformers, by
    vLLM, by llama.cpp's converter to GGUF, and as --backbone of every command.

    Example: lorarec export adapters/shop --merged models/shop
    """
    require_adapters([adapter])
    refuse_existing(merged, overwrite, FolderKind.MERGED)
    model = load_backbone(backbone, check=False)
    from lorarec.lora import save_merged

    save_merged(model, adapter, merged, overwrite)
    typer.echo(f"Merged model written to {merged}")
