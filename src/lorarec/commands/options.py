"""Options that several verbs share: of the backbone, and of the engine that it or the work runs in."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lorarec.errors import LorarecError

if TYPE_CHECKING:
    from lorarec.backbone import Backbone
    from lorarec.ranking import VllmEngine

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
Engine = Annotated[
    Literal["torch", "vllm"],
    typer.Option(help="What runs the backbone; vllm is installed in an environment of its own, see README.md."),
]
Address = Annotated[str | None, typer.Option(help="Ray cluster: auto or HOST:PORT; one is started here without it.")]


@contextmanager
def needing_ray() -> Iterator[None]:
    """For imports of what stands on Ray.

    Raises:
        LorarecError: it is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise LorarecError(f"--engine ray needs {error.name}: pip install 'lorarec[ray]'") from None


@contextmanager
def running(
    engine: str,
    backbone: str,
    dtype: str,
    device: str | None,
    quantization: str | None,
    trust_remote_code: bool,
    adapters: Sequence[Path],
) -> "Iterator[tuple[Backbone, VllmEngine | None]]":
    """A backbone, and vLLM with it where that is the engine.

    Raises:
        LorarecError: the backbone or an adapter is unusable, vLLM is missing, or an option that it does not take.
    """
    from lorarec.adapters import read_adapter
    from lorarec.backbone import Backbone
    from lorarec.ranking import VllmEngine
    from lorarec.ranking.vllm_start import require_vllm

    if engine == "torch":
        yield Backbone.load(backbone, dtype, device, quantization, trust_remote_code), None
        return
    for option, value in (("device", device), ("quantization", quantization)):
        if value is not None:
            raise LorarecError(f"--{option} is for --engine torch: vLLM takes the device it is installed for")
    require_vllm()
    model = Backbone.load(backbone, dtype, "cpu", None, trust_remote_code, check=False)
    read = [read_adapter(adapter, model) for adapter in adapters]
    # vLLM has weights of its own; the layers' shapes are enough to check adapters.
    model.model.to("meta")  # type: ignore[arg-type]
    with VllmEngine(model, read, dtype, trust_remote_code) as vllm:
        yield model, vllm
