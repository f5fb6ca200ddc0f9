"""The verbs `demo` and `demo personal`: the two demos of the folder `examples`."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Annotated

import typer

import lorarec
from lorarec.cli.messages import Verb, VerbGroup
from lorarec.cli.options import Overwrite, is_given, require_backbone
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, refuse_existing

Quick = Annotated[bool, typer.Option("--quick", help="Do a fraction of the work, to see that all parts run.")]

demo_app = typer.Typer()


@demo_app.callback(cls=VerbGroup, invoke_without_command=True)
def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", help="Folder for dataset, adapters and report.md.")] = Path(
        "demo-output"
    ),
    backbone: Annotated[
        str, typer.Option("--backbone", help="`embedded`, path of a folder or of a GGUF file, or hub id.")
    ] = "embedded",
    quick: Quick = False,
    reduced: Annotated[
        bool,
        typer.Option(
            "--reduced", help="Train one adapter and use fewer users, for 135 million parameters on two cores."
        ),
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of splits, training and samples.")] = 42,
    overwrite: Overwrite = False,
) -> None:
    """Train a general and a specific adapter on bundled film ratings, mix them without labels, and compare.

    It runs offline on two cores in about six minutes and ends with ten recommendations for a user. `demo personal`
    shows personal adapters.

    Example: lorarec demo --quick --out demo-output

    Example: lorarec demo --backbone HuggingFaceTB/SmolLM2-135M-Instruct --reduced
    """
    if context.invoked_subcommand is None:
        if quick and reduced:
            raise LorarecError("--quick and --reduced are two sizes of the demo: give one of them")
        refuse_existing(out, overwrite, FolderKind.DEMO)
        require_backbone(backbone)
        from lorarec.backbone import hide_weights_progress

        hide_weights_progress()
        example = load_example("molorec_demo")
        size = example.QUICK if quick else example.REDUCED if reduced else example.FULL
        example.run_demo(out, size, seed, overwrite, backbone)
    elif any(is_given(context, name) for name in context.params):
        raise LorarecError("options of `demo personal` come after it, as in: lorarec demo personal --quick")


@demo_app.command("personal", cls=Verb)
def personal(
    out: Annotated[Path, typer.Option("--out", help="Folder for models, metrics.json and report.md.")] = Path(
        "demo-personal-output"
    ),
    quick: Quick = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of samples and training.")] = 42,
    overwrite: Overwrite = False,
) -> None:
    """Train a click-through model on bundled film ratings, and personal adapters on a few percent of them.

    It runs offline on two cores in less than ten minutes and compares both with one adapter for all users.

    Example: lorarec demo personal --quick
    """
    refuse_existing(out, overwrite, FolderKind.PERSONALIZATION)
    from lorarec.backbone import hide_weights_progress

    hide_weights_progress()
    load_example("reclora_demo").run_personal_demo(out, quick, seed, overwrite)


def load_example(name: str) -> ModuleType:
    """Import a script of `examples`, which a wheel holds inside the package and a checkout beside `src`."""
    module_name = f"lorarec_examples.{name}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    package = Path(lorarec.__file__).parent
    script = next(
        file for folder in (package, package.parents[1]) if (file := folder / "examples" / f"{name}.py").exists()
    )
    spec = importlib.util.spec_from_file_location(module_name, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module
