"""The model card of an adapter, `README.md` with the YAML header that the Hugging Face hub reads, from its record."""

import re
from collections.abc import Iterable
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from lorarec.errors import LorarecError
from lorarec.io import JsonObject, source_name
from lorarec.lora.base_model import hub_base_model
from lorarec.lora.record import AdapterRecord
from lorarec.prompts import TemplateText

CARD_FILE = "README.md"
#: The id in the examples of a card, until the adapter is pushed.
PLACEHOLDER = "owner/name"
TAGS = ["lorarec", "recommendation", "lora", "transformers"]
#: Training options that a card lists, if they are recorded.
OPTIONS = ("loss", "epochs", "learning_rate", "batch_size", "lora_dropout", "negatives", "samples", "seed")

_LOADING = re.compile(r'(?<=Backbone\.from_pretrained\()"[^"\n]*"')
_METRIC = re.compile(r"ndcg@(\d+)")


def model_card(config: JsonObject, record: AdapterRecord | None) -> str:
    """Return the model card of an adapter.

    The base model is in the header only if it has a hub id. Validation metrics are the card's results, with their
    protocol in words; there are none for adapters without validation.

    Args:
        config: PEFT's settings, the contents of `adapter_config.json`.
        record: Record of the adapter; None for an adapter made elsewhere.
    """
    record = record or AdapterRecord()
    base_model = hub_base_model(config)
    results = _results(record)
    data = ModelCardData(
        base_model=base_model,
        base_model_relation=base_model and "adapter",
        library_name="peft",
        pipeline_tag="text-ranking",
        tags=TAGS,
        datasets=sorted({dataset["hub_id"] for dataset in record.all_datasets if "hub_id" in dataset}) or None,
        eval_results=results or None,
        model_name=_title(record) if results else None,
    )
    sections = (_introduction(config, record), *_training(config, record), *_validation(record))
    return f"---\n{data.to_yaml()}\n---\n" + "\n".join(sections)


def card_for_hub(card: bytes, repo_id: str, base_model: str) -> bytes:
    """Return a card with the names of the repository and of the base model, as it is pushed.

    Raises:
        LorarecError: If the card is not UTF-8 text, or its header is not YAML.
    """
    try:
        made = ModelCard(card.decode(), ignore_metadata_errors=True)
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise LorarecError(
            f"{CARD_FILE} of the adapter is no model card: its header is not readable: {reason}"
        ) from error
    made.data["base_model"], made.data["base_model_relation"] = base_model, "adapter"
    if made.data.get("eval_results"):
        made.data["model_name"] = source_name(repo_id)
    made.text = _LOADING.sub(f'"{base_model}"', made.text.replace(f'"{PLACEHOLDER}"', f'"{repo_id}"'))
    return str(made).encode()


def _title(record: AdapterRecord) -> str:
    kind = "Mixture of LoRA adapters" if record.mix else "Personal LoRA adapter" if record.personal else "LoRA adapter"
    return f"{kind} for recommendation"


def _introduction(config: JsonObject, record: AdapterRecord) -> str:
    backbone = record.backbone_id or config.get("base_model_name_or_path") or ""
    return f"""
# {_title(record)}

It ranks items by their titles for a user's history, with a causal language model and
[lorarec](https://github.com/lorarec/lorarec):

```python
from lorarec import Backbone, Ranker

backbone = Backbone.from_pretrained("{backbone}")
with Ranker(backbone, "{PLACEHOLDER}") as ranker:
    ranked = ranker.rank(["Toy Story", "Antz"], ["A Bug's Life", "Heat"])
```

PEFT loads it, too; lorarec builds the prompts that it was trained on:

```python
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("{PLACEHOLDER}")
```
"""


def _training(config: JsonObject, record: AdapterRecord) -> Iterable[str]:
    template = record.prompt.template
    rows = {
        "r, lora_alpha": f"{config.get('r')}, {config.get('lora_alpha')}",
        "readout": record.prompt.readout,
        "template": template.name if isinstance(template, TemplateText) else template,
        "evidence of other users in prompts": "yes" if record.prompt.evidence else "no",
        **{name: record.options[name] for name in OPTIONS if record.options.get(name) is not None},
        "fingerprint of the backbone": record.backbone_fingerprint,
    }
    yield "## How it was made\n"
    if datasets := record.all_datasets:
        yield _table("dataset", "fingerprint", ((each.get("name"), each.get("fingerprint")) for each in datasets))
    if record.mix:
        yield f"Its parts were mixed with `method={record.mix.details.get('method')}` and one weight per adapter" + (
            " and layer.\n" if isinstance(record.mix.weights, dict) else ".\n"
        )
        weights = record.mix.weights if isinstance(record.mix.weights, list) else ["by layer"] * len(record.adapters)
        names = record.mix.names or [source_name(part.path or "") for part in record.adapters]
        yield _table("adapter", "weight", zip(names, weights, strict=False))
    yield _table("option", "value", ((name, value) for name, value in rows.items() if value is not None))


def _validation(record: AdapterRecord) -> Iterable[str]:
    if metrics := _metrics(record):
        yield "## Validation\n"
        yield f"{_protocol(record)}. The weights are those of the evaluation with the best NDCG@1 on these cases.\n"
        yield _table("metric", "value", ((f"NDCG@{k}", f"{value:.4f}") for k, value in metrics.items()))


def _results(record: AdapterRecord) -> list[EvalResult]:
    names = ", ".join(str(dataset.get("name")) for dataset in record.datasets)
    return [
        EvalResult(
            task_type="text-ranking",
            task_name=_protocol(record),
            dataset_type="unknown",
            dataset_name=names or "unknown",
            dataset_split="validation",
            metric_type="ndcg",
            metric_name=f"NDCG@{k}",
            metric_value=round(value, 4),
        )
        for k, value in _metrics(record).items()
    ]


def _metrics(record: AdapterRecord) -> dict[int, float]:
    """Return the validation NDCG by its cut-off."""
    found = _entry(_entry(record.details, "training"), "validation")
    matches = ((_METRIC.fullmatch(name), value) for name, value in found.items())
    metrics = {int(match[1]): float(value) for match, value in matches if match and isinstance(value, int | float)}
    return dict(sorted(metrics.items()))


def _protocol(record: AdapterRecord) -> str:
    """Describe in words what the validation metrics were measured on."""
    training = _entry(record.details, "training")
    protocols = [
        f"{each.get('negatives')} others drawn uniformly ({each.get('protocol') or 'unknown'} split)"
        for each in training.get("validation_protocols") or ()
    ]
    others = " or ".join(protocols) or "others drawn uniformly"
    return f"The true next item ranked among {others}; {training.get('validation_cases', 0):,} validation cases"


def _entry(contents: JsonObject, name: str) -> JsonObject:
    found = contents.get(name)
    return found if isinstance(found, dict) else {}


def _table(first: str, second: str, rows: Iterable[tuple[Any, Any]]) -> str:
    lines = [f"| {first} | {second} |", "|---|---|", *(f"| {_cell(one)} | {_cell(two)} |" for one, two in rows)]
    return "\n".join([*lines, ""])


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())
    return re.sub(r"([|*_`<\[\\])", r"\\\1", text)
