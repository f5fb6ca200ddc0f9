"""Options that several verbs share: of the backbone, and of the engine that it or the work runs in."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lorarec.errors import LorarecError

EMBEDDED = "embedded"

if TYPE_CHECKING:
    from lorarec.backbone import Backbone
    from lorarec.backbone import Dtype as BackboneDtype
    from lorarec.backbone import Quantization as BackboneQuantization
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


def require_adapters(folders: Iterable[str | Path]) -> None:
    """Check that adapter folders exist, before the libraries that read them are loaded.

    Raises:
        LorarecError: a folder does not exist.
    """
    for folder in folders:
        if not Path(folder).is_dir():
            raise LorarecError(f"adapter {folder} does not exist: give a PEFT folder")


def require_backbone(name: str) -> None:
    """Refuse a path that is not a folder, before the libraries that load models are.

    Raises:
        LorarecError: the name is of a path, not of a repository on the hub, and there is no such folder.
    """
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
    if is_path and not Path(name).is_dir():
        raise LorarecError(f"backbone {name} is not a folder: give `embedded`, a folder or a hub id")


def require_index(folder: Path | None) -> None:
    """Check that a folder is an index, before the libraries that read it are loaded.

    Raises:
        LorarecError: it is not an index.
    """
    if folder is not None and not (folder / "index.json").is_file():
        raise LorarecError(f"{folder} is not an index: make one with `lorarec index`")


def quieten_transformers() -> None:
    """Turn off transformers' progress bar for loading weights, but not those of downloads."""
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # turns off those of downloads as well
    enable_progress_bars()


def load_backbone(
    backbone: str,
    dtype: "BackboneDtype" = "auto",
    device: str | None = None,
    quantization: "BackboneQuantization | None" = None,
    trust_remote_code: bool = False,
    check: bool = True,
) -> "Backbone":
    """Call `Backbone.from_pretrained` without a progress bar for its weights."""
    require_backbone(backbone)
    quieten_transformers()
    from lorarec.backbone import Backbone

    return Backbone.from_pretrained(backbone, dtype, device, quantization, trust_remote_code, check)


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
    dtype: "BackboneDtype",
    device: str | None,
    quantization: "BackboneQuantization | None",
    trust_remote_code: bool,
    adapters: Sequence[Path],
) -> "Iterator[tuple[Backbone, VllmEngine | None]]":
    """A backbone, and vLLM with it where that is the engine.

    Raises:
        LorarecError: the backbone or an adapter is unusable, vLLM is missing, or an option that it does not take.
    """
    require_adapters(adapters)
    if engine == "torch":
        yield load_backbone(backbone, dtype, device, quantization, trust_remote_code), None
        return
    for option, value in (("device", device), ("quantization", quantization)):
        if value is not None:
            raise LorarecError(f"--{option} is for --engine torch: vLLM takes the device it is installed for")
    from lorarec.lora import read_adapter
    from lorarec.ranking import VllmEngine, require_vllm

    require_vllm()
    model = load_backbone(backbone, dtype, "cpu", None, trust_remote_code, check=False)
    read = [read_adapter(adapter, model) for adapter in adapters]
    # vLLM has weights of its own; the layers' shapes are enough to check adapters.
    model.model.to("meta")  # type: ignore[arg-type]
    with VllmEngine(model, read, dtype, trust_remote_code) as vllm:
        yield model, vllm
