"""The verb `prompt`: the exact prompt that an item is scored with."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lorarec.backbone import BackboneConfig
from lorarec.cli.config_options import Only, config_options
from lorarec.cli.options import (
    DatasetFolder,
    IndexFolder,
    User,
    require_adapters,
    require_backbone,
    require_index,
)
from lorarec.data import Dataset
from lorarec.errors import LorarecError


@config_options
def prompt(
    *,
    dataset: DatasetFolder,
    user: User,
    item: Annotated[
        str | None, typer.Option("--item", help="Item id; the first proposal of the index if not given.")
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option(
            "--adapter", help="PEFT folder or hub id, for the prompt options; the default options if not given."
        ),
    ] = None,
    index: IndexFolder = None,
    pool: Annotated[
        int, typer.Option("--pool", min=1, help="Number of candidates; `likelihood` lists all of them in its prompt.")
    ] = 100,
    tokens: Annotated[
        bool,
        typer.Option("--tokens", help="List the tokens, one per line: number, id, token, and `control` if it is one."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON: the text, and every token with its id.")] = False,
    backbone: Annotated[BackboneConfig, Only(("id", "trust_remote_code"))],
) -> None:
    """Print the prompt that an item is scored with, exactly as the model reads it; no model is loaded.

    The prompt ends where the model answers: `verdict` compares yes with no there, `likelihood` reads the probability of
    the title's own tokens. Only the chat template writes control tokens, such as <|im_start|>; a title that spells one
    is encoded as plain tokens. Terminals show control tokens in reverse colours, and --tokens marks them.

    Example: lorarec prompt data/shop --user u42 --item i7 --backbone Qwen/Qwen3-0.6B --tokens
    """
    data = Dataset.load(dataset)
    require_adapters([adapter])
    require_index(index)
    require_backbone(backbone.id)
    from lorarec.backbone import load_tokenizer, source_of
    from lorarec.lora import read_adapter
    from lorarec.ranking import user_prompt
    from lorarec.retrieval import Index

    loaded = None if index is None else Index.load(index, data)
    chosen = None if adapter is None else read_adapter(adapter)
    try:
        tokenizer = load_tokenizer(source_of(backbone.id), backbone.trust_remote_code)
    except LorarecError:
        raise
    except (OSError, ValueError, ImportError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise LorarecError(f"the tokenizer of backbone {backbone.id} cannot be loaded: {reason}") from error
    view = user_prompt(tokenizer, chosen, data, user, item, pool, loaded)
    if as_json:
        text = "".join(part for part, _ in view.text)
        typer.echo(json.dumps(asdict(view) | {"text": text}, indent=2, ensure_ascii=False))
        return
    if tokens:
        for number, token in enumerate(view.tokens):
            typer.echo(
                f"{number}\t{token.id}\t{json.dumps(token.token, ensure_ascii=False)}\t{'control' * token.control}"
            )
    else:
        typer.echo("".join(typer.style(text, reverse=True) if control else _safe(text) for text, control in view.text))
    where = f"{view.template}, in the chat template of {backbone.id}" if view.chat else view.template
    ends = f"{view.branch_tokens} of them of the candidate {view.item_id}"
    read = " or ".join(json.dumps(answer.token, ensure_ascii=False) for answer in view.answers)
    answer = f"; the next one is read as {read}" if read else ""
    typer.echo(f"readout {view.readout}, template {where}: {len(view.tokens)} tokens, {ends}{answer}", err=True)


def _safe(text: str) -> str:
    """Escape the characters that control a terminal."""
    return "".join(sign if sign.isprintable() or sign == "\n" else repr(sign)[1:-1] for sign in text)
