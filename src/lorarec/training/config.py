"""Everything that can be chosen about a training run, with the papers' values as defaults, and its YAML form."""

from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from lorarec.errors import LorarecError, refuse_out_of_range, refuse_unknown

Readout = Literal["verdict", "likelihood"]
Loss = Literal["listwise", "pointwise", "next-token"]
Balance = Literal["size", "equal"]
NegativeSampling = Literal["uniform", "popularity"]
Precision = Literal["auto", "bf16", "float32"]

AT_LEAST_ONE = ("rank", "alpha", "epochs", "batch_size", "negatives", "max_history", "max_tokens", "max_title_tokens")
AT_LEAST_ONE_IF_SET = ("prefixes", "samples", "eval_every", "patience", "token_budget")


@dataclass(frozen=True)
class TrainingConfig:
    """Options of `train`; the defaults of LoRA, optimiser and batch are MoLoRec's (arXiv 2502.08271, appendix).

    Attributes:
        readout: how a candidate is scored: `verdict` (yes against no) or `likelihood` (of its title).
        loss: `listwise`, the cross-entropy of the true item over the candidate set; `pointwise`, the binary
            cross-entropy of yes and no for each candidate by itself, as TALLRec's (readout `verdict` only); or
            `next-token`, the papers' loss on the tokens of the true title (readout `likelihood` only).
        template: a Jinja2 file in place of the bundled prompt template, kept beside the adapter as `template.j2`; what
            it may hold is limited (see `lorarec.prompts.sandbox`).
        rank: rank r of each adapter matrix.
        alpha: the adapter's output is scaled by alpha / rank.
        dropout: probability of dropping an input of an adapter.
        targets: `all-linear`, or comma-separated names of the linear layers that get an adapter. The fused experts of a
            mixture of experts are none: there `all-linear` is attention with the dense and shared layers.
        lr: peak learning rate; cosine decay to zero after a linear warm-up.
        warmup: share of the optimiser steps spent warming up, from a rate of zero; never all of them.
        weight_decay: of AdamW.
        epochs: passes over the sampled training cases.
        batch_size: training cases per optimiser step, over all processes and accumulated passes.
        token_budget: tokens, padding included, aimed at in one forward pass: memory against speed.
        negatives: other candidates of each training case.
        negative_sampling: draw them `uniform`ly, or by `popularity` (interactions plus one), so that an item's
            popularity tells little and its fit to the history does: what carries over to other domains.
        temperature: the listwise loss divides scores by it.
        prefixes: (history, next item) pairs per user and pass over a dataset; None for all.
        samples: training cases per epoch over all datasets; None for all there are.
        balance: share of each dataset: by `size`, or `equal`.
        evidence: tell after each candidate how often other users chose it together with the history (see
            `lorarec.data.Cooccurrence`); the papers tell titles alone.
        new_items: share of the candidates that evidence calls new in training, so that new items are met there.
        new_targets: the same of true items, `new_items` when None; the more, the more a new item is worth beside one
            with evidence, while known items keep their order.
        max_history: items of a history shown, the latest ones.
        max_tokens: length limit of a prompt; the oldest items are dropped first.
        max_title_tokens: length limit of one title.
        eval_users: validation cases scored at an evaluation, over all datasets; 0 to validate nothing.
        eval_every: optimiser steps between evaluations, each followed by a checkpoint; None for twice per epoch.
        patience: evaluations without a better NDCG@1 after which training stops; None to run to the end.
        precision: `auto` (bf16 where the device computes in it, otherwise float32), `bf16` or `float32`.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
        seed: of everything random.
    """

    readout: Readout = "verdict"
    loss: Loss = "listwise"
    template: str | None = None
    rank: int = 16
    alpha: float = 32
    dropout: float = 0.05
    targets: str = "all-linear"
    lr: float = 2e-4
    warmup: float = 0.05
    weight_decay: float = 0.0
    epochs: int = 2
    batch_size: int = 128
    token_budget: int = 8192
    negatives: int = 15
    negative_sampling: NegativeSampling = "uniform"
    temperature: float = 1.0
    prefixes: int | None = None
    samples: int | None = None
    balance: Balance = "size"
    evidence: bool = True
    new_items: float = 0.1
    new_targets: float | None = None
    max_history: int = 10
    max_tokens: int = 1024
    max_title_tokens: int = 32
    eval_users: int = 500
    eval_every: int | None = None
    patience: int | None = None
    precision: Precision = "auto"
    gradient_checkpointing: bool = False
    seed: int = 42

    def __post_init__(self) -> None:
        kinds = get_type_hints(type(self))
        for field in fields(self):
            object.__setattr__(self, field.name, _checked(field.name, getattr(self, field.name), kinds[field.name]))
        refuse_out_of_range(
            self, AT_LEAST_ONE + AT_LEAST_ONE_IF_SET, ("eval_users", "weight_decay", "seed"), ("lr", "temperature")
        )
        for name in ("dropout", "warmup", "new_items", "new_targets"):
            if not 0 <= (getattr(self, name) or 0) < 1:
                raise LorarecError(f"option {name} must be in [0, 1), got {getattr(self, name)}")
        if self.loss == "next-token" and self.readout != "likelihood":
            raise LorarecError("loss next-token is defined on titles: use it with readout likelihood")
        if self.loss == "pointwise" and self.readout != "verdict":
            raise LorarecError("loss pointwise is defined on yes and no: use it with readout verdict")
        if self.patience is not None and self.eval_users == 0:
            raise LorarecError("option patience needs validation: set eval_users above 0")

    @classmethod
    def build(cls, **options: Any) -> "TrainingConfig":
        """The options given by name, defaults for the rest.

        Raises:
            LorarecError: a name is unknown or a value is of the wrong kind or out of range.
        """
        refuse_unknown(cls, options, "training option")
        return cls(**options)

    def as_dict(self) -> dict[str, Any]:
        """Plain values by option name, as recorded beside an adapter."""
        return asdict(self)


def _checked(name: str, value: Any, kind: Any) -> Any:
    """`value` if it is of the annotated kind (whole floats pass as integers, integers as floats)."""
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    if choices:
        if value in choices:
            return value
        raise LorarecError(f"option {name} must be {' or '.join(map(str, choices))}, got {value}")
    types = get_args(kind) or (kind,)
    if type(value) in types:
        return value
    if float in types and type(value) is int:
        return float(value)
    if str in types and isinstance(value, Path):
        return str(value)
    if int in types and type(value) is float and value.is_integer():
        return int(value)
    if float in types and isinstance(value, str):  # YAML reads 2e-4, without a point, as text
        with suppress(ValueError):
            return float(value)
    wanted = " or ".join("null" if each is type(None) else each.__name__ for each in types)
    raise LorarecError(f"option {name} must be {wanted}, got {value!r}")


def read_recipe(path: str | Path, known: set[str] | None) -> dict[str, Any]:
    """The options of a YAML recipe, a mapping of option names (`-` and `_` are the same) to values.

    Args:
        known: names that it may have; any when None.

    Raises:
        LorarecError: the file is missing, is not a YAML mapping, or names an option that does not exist.
    """
    try:
        recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise LorarecError(f"cannot read recipe {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LorarecError(f"recipe {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(recipe, dict):
        raise LorarecError(f"recipe {path} must be a mapping of option names to values")
    options = {str(key).replace("-", "_"): value for key, value in recipe.items()}
    if known is not None and (unknown := sorted(set(options) - known)):
        raise LorarecError(f"recipe {path} has an unknown key {unknown[0]}: choose from {', '.join(sorted(known))}")
    return options
