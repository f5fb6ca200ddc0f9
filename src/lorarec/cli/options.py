"""Options that several verbs share, and the checks and loading that belong to them."""

import gc
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lorarec.backbone import BackboneConfig
from lorarec.errors import LorarecError
from lorarec.io import HUB_PREFIX, HubId, Terminated
from lorarec.lora import adapter_folder
from lorarec.ranking import ServerConfig

if TYPE_CHECKING:
    from lorarec.backbone import Backbone
    from lorarec.ranking import Engine as ScoringEngine

RUNTIME = "Where it runs"

DatasetFolder = Annotated[
    Path, typer.Argument(help="Dataset folder, as `lorarec data import` writes it, or hub:OWNER/NAME.")
]
User = Annotated[str, typer.Option("--user", help="User id of the dataset.")]
AdapterFolder = Annotated[
    Path | None, typer.Option("--adapter", help="PEFT folder or hub id; the backbone alone if not given.")
]
IndexFolder = Annotated[
    Path | None,
    typer.Option(
        "--index",
        help="Folder of `lorarec index`; if not given, one without a next-item model is built, or the fusion's own.",
    ),
]
Pool = Annotated[int, typer.Option("--pool", min=1, help="Number of candidates that the index proposes.")]
Engine = Annotated[
    Literal["torch", "vllm", "vllm-server", "sglang-server"],
    typer.Option(
        help="Library or running server that runs the model; vllm is installed in an environment of its own.",
        rich_help_panel=RUNTIME,
    ),
]
ExecutorName = Annotated[
    Literal["local", "ray"],
    typer.Option("--executor", help="Place where work runs: this machine or a Ray cluster.", rich_help_panel=RUNTIME),
]
Address = Annotated[
    str | None,
    typer.Option(help="Ray cluster, auto or HOST:PORT; one is started here if not given.", rich_help_panel=RUNTIME),
]
CorrectionOption = Annotated[
    Literal["holm", "benjamini-hochberg"],
    typer.Option("--correction", help="Correction of p-values for the number of comparisons of a table."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that exists.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint, if there is one.")]
#: Advice for `continued_by`.
WITH_RESUME = "the same command with --resume continues from the last checkpoint"
AGAIN = "the same command continues, and keeps what is finished"
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def continued_by(advice: str) -> Iterator[None]:
    """Say in one line on stderr how to go on if Ctrl+C or SIGTERM interrupts the block."""
    try:
        yield
    except (KeyboardInterrupt, Terminated):
        if os.environ.get("RANK", "0") == "0":  # one of a launcher's processes
            print(f"interrupted: {advice}", file=sys.stderr, flush=True)
        raise


def named_folders(texts: Sequence[str], kind: str) -> dict[str, Path]:
    """Return folders or hub ids by name; one without NAME= has its own name.

    Args:
        texts: FOLDER or NAME=FOLDER; a hub id may be in place of a folder.
        kind: Kind of the folders, which is the name of the option.

    Raises:
        LorarecError: If a text has no name or no folder, or two have the same name.
    """
    named: dict[str, Path] = {}
    for text in texts:
        name, mark, folder = text.partition("=")
        if not mark or Path(text).exists():
            hub_id = None if Path(text).exists() else HubId.parse(text)
            name, folder = hub_id.name if hub_id else Path(text).resolve().name, text
        if not name or not folder:
            raise LorarecError(f"--{kind} {text} must be a folder or NAME=FOLDER")
        if name in named:
            raise LorarecError(f"two {kind}s are called {name}: tell them apart with --{kind} NAME=FOLDER")
        named[name] = Path(folder)
    return named


def is_given(context: typer.Context, name: str) -> bool:
    """Return whether an option is given on the command line, by the name of its parameter."""
    # typer has no public name for the kinds of sources.
    return getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"


def refuse_given(context: typer.Context, names: Iterable[str], reason: str) -> None:
    """Refuse options that are given on the command line where they would have no effect.

    Args:
        context: The context of the command.
        names: Names of the parameters of the options.
        reason: End of the message, such as "without --out".

    Raises:
        LorarecError: If one is given.
    """
    for name in names:
        if is_given(context, name):
            raise LorarecError(f"option {name} would have no effect {reason}: leave it out")


def require_adapters(folders: Iterable[str | Path | None]) -> None:
    """Check that adapter folders exist, before the libraries that read them are loaded; hub ids are downloaded.

    Raises:
        LorarecError: If a folder does not exist, or an adapter cannot be downloaded.
    """
    for folder in folders:
        if folder is not None:
            adapter_folder(folder)


def shared_path(folder: Path) -> Path:
    """Return what names a folder in processes elsewhere: its absolute path, or hub id and commit of a cached one."""
    cached = HubId.of_folder(folder)
    return Path(f"{HUB_PREFIX}{cached}") if cached else folder.resolve()


def require_backbone(name: str) -> None:
    """Refuse a path that does not exist, before the libraries that load models are loaded.

    Raises:
        LorarecError: If the name is a path, not a repository of the hub, and nothing is there.
    """
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name or name.endswith(".gguf")
    if is_path and not Path(name).exists():
        raise LorarecError(
            f"backbone {name} is not a folder or a GGUF file: give `embedded`, a folder, a GGUF file or a hub id"
        )


def require_index(folder: Path | None) -> None:
    """Check that a folder is an index, before the libraries that read it are loaded.

    Raises:
        LorarecError: If it is not an index.
    """
    if folder is not None and not (folder / "index.json").is_file():
        raise LorarecError(f"{folder} is not an index: make one with `lorarec index`")


def require_fusion(folder: Path | None) -> None:
    """Check that a folder is a fusion, before the libraries that read it are loaded.

    Raises:
        LorarecError: If it is not a fusion.
    """
    if folder is not None and not (folder / "fusion.json").is_file():
        raise LorarecError(f"{folder} is not a fusion: make one with `lorarec fuse`")


@contextmanager
def imports_of_large_libraries() -> Iterator[None]:
    """Import libraries without garbage collections, which would take a fifth of the time.

    What is in memory afterwards is left out of later collections: modules stay until the process ends.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def load_backbone(config: BackboneConfig, check: bool = True) -> "Backbone":
    """Load a backbone without a progress bar for its weights.

    Args:
        check: Whether to check that the model scores exactly, if it was not checked before.
    """
    require_backbone(config.id)
    with imports_of_large_libraries():
        from lorarec.backbone import Backbone, hide_weights_progress

    hide_weights_progress()
    return Backbone.from_config(config, check)


@contextmanager
def ray_imports() -> Iterator[None]:
    """Turn a failed import of Ray into an error that says what to install.

    Raises:
        LorarecError: If Ray is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise LorarecError(f"--executor ray needs {error.name}: pip install 'lorarec[ray]'") from None


@contextmanager
def open_engine(
    engine: str, config: BackboneConfig, adapters: Mapping[str, Path], server: ServerConfig
) -> "Iterator[tuple[Backbone, ScoringEngine | None]]":
    """Load a backbone and, if PyTorch is not the engine, start vLLM or connect to a server.

    Args:
        adapters: Adapter folders by their names, which a server knows them by.

    Raises:
        LorarecError: If the backbone or an adapter is unusable, vLLM or the server is missing, or an option is not for
            the engine.
    """
    require_adapters(adapters.values())
    if not engine.endswith("-server") and server != ServerConfig():
        given = next(each.name for each in fields(server) if getattr(server, each.name) != each.default)
        raise LorarecError(f"option {given} is for --engine vllm-server and sglang-server: leave it out")
    if engine == "torch":
        yield load_backbone(config), None
        return
    for name, value in (
        ("device", config.device),
        ("quantization", config.quantization),
        ("attn-implementation", config.attn_implementation),
    ):
        if value is not None:
            raise LorarecError(f"--{name} is for --engine torch: {engine} uses what it is installed for")
    from lorarec.lora import read_adapter
    from lorarec.ranking import SglangClient, VllmClient, VllmEngine, require_vllm

    if engine == "vllm":
        require_vllm()

    on_cpu = BackboneConfig(config.id, config.dtype, "cpu", trust_remote_code=config.trust_remote_code)
    model = load_backbone(on_cpu, check=False)
    read = {name: read_adapter(adapter, model) for name, adapter in adapters.items()}
    started: ScoringEngine
    if engine == "vllm":
        # vLLM has weights of its own.
        started = VllmEngine(model, [*read.values()], config.dtype, config.trust_remote_code, free_weights=True)
    else:
        started = {"vllm-server": VllmClient, "sglang-server": SglangClient}[engine](model, read, server)
    with started:
        yield model, started
