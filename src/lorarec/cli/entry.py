"""The command line: its verbs, the printing of errors, and the silencing of messages of other libraries."""

import codecs
import ctypes
import os
import platform
import re
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from lorarec import LorarecError, __version__
from lorarec.cli.messages import Verb
from lorarec.io import Terminated, disk_reason, end_by_sigterm, raising_on_sigterm

# verb -> (module in lorarec.cli, name in it, line of `lorarec --help`), by panel of the help page. The modules
# are imported when their verb is called: the libraries behind most of them take seconds to load.
_PANELS = {
    "Data": {
        "data": ("data", "data_app", "Import an interaction log, describe a dataset, split it."),
        "update": ("update", "update", "Append new events to a dataset; continue an index, an adapter, a fusion."),
    },
    "Adapters": {
        "train": ("train", "train", "Train an adapter: general on several datasets, specific on one."),
        "mix": ("mix", "mix", "Mix adapters into one: weights given, searched, or found without labels."),
        "export": ("export", "export", "Write a backbone with an adapter merged in, for programs without PEFT."),
        "personal": ("personal", "personal_app", "Train personal adapters or a user router; export a user's adapter."),
    },
    "Ranking": {
        "index": ("index", "index", "Index a catalogue, so that candidates are found in milliseconds."),
        "fuse": ("fuse", "fuse", "Learn how to fuse adapters and conventional recommenders into one ranking."),
        "recommend": ("recommend", "recommend", "Recommend items of the whole catalogue to one user, several or all."),
        "rank": ("rank", "rank", "Rank given items for a user or a history."),
        "explain": ("explain", "explain", "Show how each item of the history changes a score, and why in words."),
        "serve": ("serve", "serve", "Rank and recommend over HTTP, for many adapters and users at once."),
    },
    "Evaluation": {
        "evaluate": ("evaluate", "evaluate", "Compare adapters and baselines on a dataset's test cases."),
        "evaluate-clicks": (
            "evaluate_clicks",
            "evaluate_clicks",
            "Compare columns of click probabilities for the same events.",
        ),
        "experiment": ("experiment", "experiment", "Run a recipe: fit every compared system with several seeds."),
        "demo": ("demo", "demo_app", "Train, mix or personalize adapters on the bundled sample and compare."),
    },
    "Inspection": {
        "prompt": ("prompt", "prompt", "Print the prompt that an item is scored with, as the model reads it."),
        "doctor": ("doctor", "doctor", "Check that a backbone scores exactly, and show how it is scored."),
    },
}
_VERBS = {verb: (module, name) for verbs in _PANELS.values() for verb, (module, name, _) in verbs.items()}
#: Verbs of version 0.1 -> the commands that replace them.
_MOVED = {
    "import": "data import",
    "describe": "data describe",
    "split": "data split",
    "personalize": "personal",
}


class _LazyGroup(TyperGroup):
    """A group of placeholders; the one that is called is replaced by the real command."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in _MOVED and not ctx.resilient_parsing:  # not while a shell completes the line
            raise LorarecError(f"`lorarec {args[0]}` is called `lorarec {_MOVED[args[0]]}`")
        verb, _, rest = super().resolve_command(ctx, args)
        return verb, _load(verb) if verb else None, rest


app = typer.Typer(cls=_LazyGroup, no_args_is_help=True, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lorarec {__version__}")
        raise typer.Exit


@app.callback()
def _lorarec(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Recommendation with language models and mixed LoRA adapters."""


def _placeholder() -> None:
    """Stand for a verb on the help page."""


for _panel, _verbs in _PANELS.items():
    for _verb, (_, _, _line) in _verbs.items():
        app.command(_verb, help=_line, rich_help_panel=_panel)(_placeholder)


def _load(verb: str) -> Any:
    """Return the command of a verb, made from its function or from its group of verbs."""
    module, name = _VERBS[verb]
    found: typer.Typer | Callable[..., Any] = getattr(import_module(f"lorarec.cli.{module}"), name)
    if module != "data":  # only these verbs load a model
        _keep_freed_memory()
    holder = typer.Typer()
    if isinstance(found, typer.Typer):
        holder.add_typer(found, name=verb)
    else:
        holder.command(verb, cls=Verb)(found)
    return get_group(holder).commands[verb]


def _keep_freed_memory() -> None:
    """Make the C library reuse the memory that a forward pass frees for the next pass.

    By default glibc returns large blocks to the system, which clears them before every pass; on a CPU that takes a
    seventh of the time of ranking. Nothing is changed where one of glibc's MALLOC_ variables is set.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt, mmap_threshold, trim_threshold = ctypes.CDLL(None).mallopt, -3, -1
    mallopt(mmap_threshold, 32 * 2**20)  # the maximum of glibc
    mallopt(trim_threshold, 2**31 - 1)


def _print_error(message: str) -> int:
    """Print an error as one line and return the exit code."""
    from rich.console import Console

    line = " ".join(f"error: {message}".splitlines())
    # Text from files may contain escape sequences of the terminal, or lone surrogates, which cannot be printed.
    line = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line)
    Console(stderr=True).print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    return 2


def _escaped(error: UnicodeError) -> tuple[str, int]:
    r"""Return characters that the terminal's encoding lacks as \uXXXX, which is also what JSON calls them."""
    assert isinstance(error, UnicodeEncodeError)
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    return re.sub("....", r"\\u\g<0>", units), error.end


def main() -> None:
    """Run the command line: exit code 2 with one line on bad input, 130 when interrupted, 1 when a pipe breaks.

    SIGTERM ends it as Ctrl+C does, but by the signal (143 in a shell).
    """
    codecs.register_error("lorarec.escaped", _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="lorarec.escaped")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    try:
        with raising_on_sigterm():
            app()
    except Terminated:
        end_by_sigterm()
    except LorarecError as error:
        sys.exit(_print_error(str(error)))
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            sys.exit(_print_error(f"{error.filename}: {error.strerror}"))
        if (reason := disk_reason(error)) is None:
            raise
        sys.exit(_print_error(f"cannot write: {reason}"))
