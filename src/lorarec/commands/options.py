"""The backbone's options, the same for every verb that loads one."""

from typing import Annotated, Literal

import typer

BackboneId = Annotated[str, typer.Option("--backbone", help="`embedded`, a folder or a hub id.")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(help="The backbone's weights; auto: as stored, float32 on a CPU."),
]
Device = Annotated[
    str | None, typer.Option(help="As in cuda:1, or auto to spread the backbone; a GPU if there is one.")
]
Quantization = Annotated[Literal["4bit", "8bit"] | None, typer.Option(help="Load the backbone through bitsandbytes.")]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the backbone.")]
