"""The verb `doctor`: what is installed, how a backbone is scored, and whether its scores are exact."""

import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from importlib import metadata
from typing import Annotated

import typer

from lorarec.backbone import EMBEDDED, BackboneConfig
from lorarec.cli.config_options import Only, config_options
from lorarec.cli.options import AsJson, load_backbone, require_backbone
from lorarec.io import versions


@config_options
def doctor(
    *,
    backbone: Annotated[str, typer.Argument(help="`embedded`, a folder, GGUF file or hub id.")] = EMBEDDED,
    as_json: AsJson = False,
    loading: Annotated[
        BackboneConfig, Only(("dtype", "device", "quantization", "attn_implementation", "trust_remote_code"))
    ],
) -> None:
    """Show what is installed and how a backbone is scored, and measure whether its scores are exact.

    Four random candidates of unequal length are scored at once, in reverse order, and one by one, on a prompt that is
    longer than the model's smallest attention window. Every command does this once for each new backbone; this one
    always repeats it. The exit code is 2 if the model cannot be scored exactly.

    The plans, fastest first: `tree` reads a prompt and all its candidates in one pass; `prefix` reads the prompt once
    and continues from its state with a batch of candidates; `rows` reads the prompt again for each candidate.

    Example: lorarec doctor Qwen/Qwen2.5-0.5B-Instruct
    """
    require_backbone(backbone)
    packages, devices, extras = versions(), _devices(), installed_extras("lorarec")
    if not as_json:  # also where the backbone cannot be loaded
        absent = [name for name, missing in extras.items() if missing]
        _print_rows(
            {
                "versions": ", ".join(f"{package} {version}" for package, version in packages.items()),
                "platform": platform.platform(),
                "devices": "; ".join(devices),
                "extras": ", ".join(name for name in extras if name not in absent) or "none",
                "extras not installed": ", ".join(absent) or "none",
            }
        )
    from lorarec.errors import LorarecError
    from lorarec.prompts import READOUTS, PromptBuilder
    from lorarec.scoring import check_scoring

    model = load_backbone(replace(loading, id=backbone), check=False)
    result = check_scoring(model.model)
    readouts = {}
    for readout in READOUTS:
        try:
            PromptBuilder(model.tokenizer, readout)
            readouts[readout] = "yes"
        except LorarecError as error:
            readouts[readout] = str(error)
    report = asdict(result) | {
        "exact": result.exact,
        "backbone": backbone,
        "fingerprint": model.fingerprint,
        "device": str(model.model.device),
        "dtype": str(model.model.dtype).removeprefix("torch."),
        "parameters": sum(parameter.numel() for parameter in model.model.parameters()),
        "chat_template": bool(model.tokenizer.chat_template),
        "readouts": readouts,
        "versions": packages,
        "platform": platform.platform(),
        "devices": devices,
        "extras": extras,
    }
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        described = f"{report['parameters']:,} parameters, {report['dtype']} on {report['device']}"
        rows = {
            "backbone": f"{backbone}, fingerprint {model.fingerprint}",
            "model": f"{result.model}, {described}",
            "plan": result.plan + (f" ({result.reason})" if result.reason else ""),
            "attention windows": ", ".join(map(str, result.windows)) or "none",
            "longest prompt": f"{result.max_positions} tokens" if result.max_positions else "no limit",
            "chat template": "yes" if report["chat_template"] else "no",
            **{f"readout {readout}": answer for readout, answer in readouts.items()},
            "largest difference": f"{result.difference:.2g} from one by one, on {result.prompt_tokens} tokens",
            "explained by rounding": f"up to {result.tolerance:.2g}",
        }
        _print_rows(rows)
    result.require()


def installed_extras(package: str) -> dict[str, list[str]]:
    """Return the requirements of each extra of a package that are missing or too old.

    The result is empty where the package is run from a source tree and was never installed.
    """
    from packaging.requirements import Requirement

    try:
        about = metadata.metadata(package)
    except metadata.PackageNotFoundError:
        return {}
    requirements = [Requirement(line) for line in about.get_all("Requires-Dist") or ()]
    return {
        extra: [
            f"{each.name}{each.specifier}"
            for each in requirements
            if each.marker
            and each.marker.evaluate({"extra": extra})
            and not each.marker.evaluate({"extra": ""})
            and not _is_installed(each.name, each.specifier.contains)
        ]
        for extra in about.get_all("Provides-Extra") or ()
    }


def _is_installed(package: str, accepts: Callable[..., bool]) -> bool:
    try:
        return accepts(metadata.version(package), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


def _devices() -> list[str]:
    """Describe the CPU and every accelerator that torch sees."""
    import torch

    from lorarec.backbone import describe_accelerators

    devices = [f"cpu ({os.cpu_count()} cores, {torch.get_num_threads()} threads of torch)"]
    return devices + describe_accelerators()


def _print_rows(rows: Mapping[str, str]) -> None:
    for name, value in rows.items():
        typer.echo(f"{name:22} {value}")
