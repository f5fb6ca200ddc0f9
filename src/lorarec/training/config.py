"""Options of `train`, with the papers' values as defaults, and the YAML recipes that hold them."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.io import JsonObject, read_yaml
from lorarec.options import document_options, option
from lorarec.prompts import EVIDENCE_HELP, PROMPTS, PromptConfig

Loss = Literal["listwise", "pointwise", "next-token"]
Balance = Literal["size", "equal"]
NegativeSampling = Literal["uniform", "popularity"]
Precision = Literal["auto", "bf16", "float32"]

LORA, OPTIMIZATION, CASES, VALIDATION = "LoRA", "Optimization", "Training cases", "Validation"
ADAPTER = "Update of the adapter"

_AT_LEAST_ONE = ("r", "lora_alpha", "epochs", "batch_size", "negatives")
_AT_LEAST_ONE_IF_SET = ("prefixes", "samples", "eval_steps", "patience", "token_budget")
_SHARES = ("lora_dropout", "warmup_ratio", "new_items", "new_targets")
#: Names that options had in recipes of version 0.1.0.
_FORMER_NAMES = {
    "rank": "r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "targets": "target_modules",
    "lr": "learning_rate",
    "warmup": "warmup_ratio",
    "eval_every": "eval_steps",
}


@document_options
@dataclass(frozen=True)
class TrainingConfig(PromptConfig):
    """Options of `train`; the defaults of LoRA, optimizer and batch are MoLoRec's (arXiv 2502.08271, appendix).

    The loss `listwise` is the cross-entropy of the target item over the candidate set; `pointwise` is the binary
    cross-entropy of yes and no for each candidate by itself, as in TALLRec (readout `verdict` only); `next-token` is
    the papers' loss on the tokens of the true title (readout `likelihood` only).

    `target_modules="all-linear"` leaves out the fused experts of a mixture of experts, which are no linear layers: the
    adapter is on attention and on the dense and shared layers there. Negatives drawn by popularity are drawn in
    proportion to an item's number of interactions plus one, so that popularity alone does not separate the target item
    from the negatives; such an adapter transfers better to other domains. The larger `new_targets`, the higher new
    items are scored relative to items with evidence; the order among known items stays the same.

    Raises:
        LorarecError: If a value is of the wrong type or out of range, or options contradict each other.

    Examples:
        >>> from lorarec import TrainingConfig
        >>> config = TrainingConfig(r=8, learning_rate=1e-3)
        >>> config.r, config.target_modules
        (8, 'all-linear')
    """

    evidence: bool = option(True, EVIDENCE_HELP, PROMPTS)
    loss: Loss = option("listwise", "Loss: over the candidate set, on each candidate, or on the title's tokens.")
    epochs: int = option(2, "Number of passes over the sampled training cases.")
    learning_rate: float = option(2e-4, "Peak learning rate; cosine decay to zero after a linear warm-up.")
    batch_size: int = option(128, "Training cases per optimizer step, over all processes.")
    seed: int = option(42, "Seed of all random choices.")
    r: int = option(16, "Rank of the adapter matrices.", LORA)
    lora_alpha: float = option(32.0, "Scale of the adapter's output, multiplied by 1 / r.", LORA)
    lora_dropout: float = option(0.05, "Dropout probability of the adapter's inputs.", LORA)
    target_modules: str = option("all-linear", "Adapted layers: `all-linear`, or comma-separated names.", LORA)
    weight_decay: float = option(0.0, "Weight decay of AdamW.", OPTIMIZATION)
    warmup_ratio: float = option(0.05, "Fraction of the optimizer steps spent on the linear warm-up.", OPTIMIZATION)
    temperature: float = option(1.0, "Divisor of the scores in the listwise loss.", OPTIMIZATION)
    proximal: float = option(
        0.0, "Weight of half the squared distance to the adapter that training starts from, in the loss.", OPTIMIZATION
    )
    token_budget: int | None = option(
        None,
        "Tokens per forward pass, padding included; if None, 8192 or fewer that fit into memory, and in validation "
        "2048 on a CPU.",
        OPTIMIZATION,
    )
    precision: Precision = option("auto", "Precision of training; auto is bf16 where supported.", OPTIMIZATION)
    gradient_checkpointing: bool = option(False, "Recompute activations to save memory.", OPTIMIZATION)
    samples: int | None = option(None, "Training cases per epoch over all datasets; None for all.", CASES)
    prefixes: int | None = option(None, "Training cases per user and epoch; None for all.", CASES)
    balance: Balance = option("size", "Fraction of each dataset in an epoch: by its size, or equal.", CASES)
    negatives: int = option(15, "Number of sampled negatives per training case.", CASES)
    negative_sampling: NegativeSampling = option("uniform", "Distribution that negatives are drawn from.", CASES)
    hard_negatives: float = option(
        0.0, "Fraction of the negatives drawn from the 100 items that an index proposes for the history.", CASES
    )
    new_items: float = option(
        0.1, "Fraction of the candidates whose evidence is replaced by that of a new item.", CASES
    )
    new_targets: float | None = option(None, "The same fraction for target items alone; `new_items` if None.", CASES)
    eval_users: int = option(
        500, "Validation cases per evaluation, over all datasets; 0 for no validation.", VALIDATION
    )
    eval_steps: int | None = option(
        None, "Optimizer steps between evaluations and checkpoints; half an epoch if None.", VALIDATION
    )
    patience: int | None = option(
        None, "Evaluations without a better NDCG@1 after which training stops; None to run to the end.", VALIDATION
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one = _AT_LEAST_ONE + _AT_LEAST_ONE_IF_SET
        not_negative = ("eval_users", "weight_decay", "proximal", "seed")
        refuse_out_of_range(self, at_least_one, not_negative, ("learning_rate", "temperature"), _SHARES)
        if not 0 <= self.hard_negatives <= 1:
            raise LorarecError(f"option hard_negatives must be in [0, 1], got {self.hard_negatives}")
        if self.loss == "next-token" and self.readout != "likelihood":
            raise LorarecError("loss next-token is defined on titles: use it with readout likelihood")
        if self.loss == "pointwise" and self.readout != "verdict":
            raise LorarecError("loss pointwise is defined on yes and no: use it with readout verdict")
        if self.patience is not None and self.eval_users == 0:
            raise LorarecError("option patience needs validation: set eval_users above 0")

    @property
    def prompt(self) -> PromptConfig:
        """Options of the prompts."""
        return PromptConfig(**{each.name: getattr(self, each.name) for each in fields(PromptConfig)})


@document_options
@dataclass(frozen=True)
class AdapterUpdateConfig:
    """Options of `update_adapter`; all other options of the training are those that the adapter has recorded.

    Raises:
        LorarecError: If a value is out of range.

    Examples:
        >>> from lorarec import AdapterUpdateConfig
        >>> AdapterUpdateConfig(samples=1000).learning_rate is None
        True
    """

    proximal: float = option(
        1.0, "Weight of half the squared distance to the adapter's last weights, in the loss.", ADAPTER
    )
    samples: int | None = option(None, "New training cases per epoch of the adapter; None for all.", ADAPTER)
    learning_rate: float | None = option(
        None, "Peak learning rate of the adapter; that of its training if None.", ADAPTER
    )

    def __post_init__(self) -> None:
        positive = () if self.learning_rate is None else ("learning_rate",)
        refuse_out_of_range(self, ("samples",), ("proximal",), positive)


def read_recipe(path: str | Path, known: set[str] | None) -> JsonObject:
    """Read the options of a YAML recipe, a mapping of option names (`-` and `_` are the same) to values.

    Args:
        path: Path of the YAML file.
        known: Names that the recipe may have; any name if None. Names of version 0.1.0 are translated.

    Raises:
        LorarecError: If the file is missing, is not a YAML mapping, or has an unknown key.
    """
    recipe = read_yaml(path, "recipe")
    if not isinstance(recipe, dict):
        raise LorarecError(f"recipe {path} must be a mapping of option names to values")
    options = {str(key).replace("-", "_"): value for key, value in recipe.items()}
    if known is None:
        return options
    for former, name in _FORMER_NAMES.items():
        if former in options and former not in known:
            if name in options:
                raise LorarecError(f"recipe {path} has both {former} and {name}, which are one option: remove {former}")
            options[name] = options.pop(former)
    if unknown := sorted(set(options) - known):
        raise LorarecError(f"recipe {path} has an unknown key {unknown[0]!r}: choose from {', '.join(sorted(known))}")
    return options
