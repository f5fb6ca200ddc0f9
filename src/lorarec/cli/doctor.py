"""The verb `doctor`: how a backbone is scored, and whether its scores are exact."""

import json
from dataclasses import asdict, replace
from typing import Annotated

import typer

from lorarec.backbone import EMBEDDED, BackboneConfig
from lorarec.cli.config_options import Only, config_options
from lorarec.cli.options import AsJson, load_backbone, require_backbone


@config_options
def doctor(
    *,
    backbone: Annotated[str, typer.Argument(help="`embedded`, a folder, GGUF file or hub id.")] = EMBEDDED,
    as_json: AsJson = False,
    loading: Annotated[BackboneConfig, Only(("dtype", "device", "quantization", "trust_remote_code"))],
) -> None:
    """Show how a backbone is scored, and measure whether its scores are exact.

    Four random candidates of unequal length are scored at once, in reverse order, and one by one, on a prompt that is
    longer than the model's smallest attention window. Every command does this once for each new backbone; this one
    always repeats it. The exit code is 2 if the model cannot be scored exactly.

    The plans, fastest first: `tree` reads a prompt and all its candidates in one pass; `prefix` reads the prompt once
    and continues from its state with a batch of candidates; `rows` reads the prompt again for each candidate.

    Example: lorarec doctor Qwen/Qwen2.5-0.5B-Instruct
    """
    require_backbone(backbone)
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
    }
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        windows = ", ".join(map(str, result.windows)) or "none"
        rows = {
            "backbone": f"{backbone}, fingerprint {model.fingerprint}",
            "model": f"{result.model}, {report['parameters']:,} parameters, {report['dtype']} on {report['device']}",
            "plan": result.plan + (f" ({result.reason})" if result.reason else ""),
            "attention windows": windows,
            "longest prompt": f"{result.max_positions} tokens" if result.max_positions else "no limit",
            "chat template": "yes" if report["chat_template"] else "no",
            **{f"readout {readout}": answer for readout, answer in readouts.items()},
            "largest difference": f"{result.difference:.2g} from one by one, on {result.prompt_tokens} tokens",
            "explained by rounding": f"up to {result.tolerance:.2g}",
        }
        for name, value in rows.items():
            typer.echo(f"{name:22} {value}")
    result.require()
