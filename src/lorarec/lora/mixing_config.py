"""Options of `mix`. The module imports no torch, so that the command line loads fast."""

from dataclasses import dataclass
from typing import Literal, get_args

from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.lora.combine import PRUNING_RULES, MixingRule
from lorarec.options import convert_options, document_options, option

Method = Literal["fixed", "grid", "entropy", "agreement"]
Scope = Literal["model", "layer"]
Objective = Literal["candidates", "tokens"]

MIXING_SCOPES: tuple[Scope, ...] = get_args(Scope)
#: Methods that choose the weights on prompts without labels.
UNLABELLED: tuple[Method, ...] = ("entropy", "agreement")
RULE = "Rule of combination"
SEARCH = "Search for weights (grid, entropy, agreement)"


@document_options
@dataclass(frozen=True)
class MixingConfig:
    """Options of `mix`; each can also be given to `mix` as a keyword argument.

    The temperature of an adapter divides its scores such that its posterior over the candidates has the lowest log-loss
    on validation cases (Guo et al., ICML 2017). With `calibrate`, the scores of a mixture are divided by the mean of
    the adapters' temperatures, weighted as the adapters are, while the weights are chosen. An adapter that is too
    confident in its answers then no longer attracts weight by that. The order of candidates does not depend on the
    temperature, so the mixture that is written does not have one.

    Raises:
        LorarecError: If a value is of the wrong type or out of range, or options contradict each other.

    Examples:
        >>> from lorarec import MixingConfig
        >>> config = MixingConfig(method="agreement", prompts=100)
        >>> config.combine, config.scope
        ('factors', 'model')
    """

    method: Method = option(
        "entropy",
        "Choice of the weights: given (fixed), with the best NDCG@10 on validation cases (grid), or found on "
        "unlabelled prompts, by the confidence of the mixture (entropy) or its divergence from the adapters "
        "(agreement).",
    )
    combine: MixingRule = option(
        "factors",
        "Sum of the factors A and B of the adapters (factors), or of the products B A (deltas); the other rules prune "
        "the products before they sum them.",
        RULE,
    )
    density: float = option(
        0.5, "Share of the values that magnitude_prune, ties and dare keep of each product B A.", RULE
    )
    scope: Scope = option("model", "One weight per adapter, or one per adapter and layer (entropy, agreement).")
    rank: int | None = option(
        None,
        "Rank to truncate the mixture to by singular value decomposition; None for no truncation (factors, deltas) or "
        "the largest rank of the adapters (other rules).",
        RULE,
    )
    task_arithmetic: bool = option(False, "Allow weights that are negative or do not sum to 1 (fixed).", RULE)
    setting: Literal["warm", "new-item"] = option(
        "warm", "Test cases that unlabelled prompts are drawn from; their targets are not read.", SEARCH
    )
    prompts: int = option(50, "Number of unlabelled prompts.", SEARCH)
    objective: Objective = option(
        "candidates",
        "Distribution whose entropy is minimised: the posterior over the candidates, or the first answer tokens.",
        SEARCH,
    )
    calibrate: bool = option(
        False, "Fit a temperature per adapter on validation cases first (entropy, agreement).", SEARCH
    )
    cases: int = option(500, "Number of validation cases (grid, calibrate).", SEARCH)
    seed: int = option(42, "Seed of the draw of prompts and cases, and of the values that dare keeps.")
    token_budget: int | None = option(
        None, "Tokens per forward pass, padding included; 2048 on a CPU and 8192 elsewhere if not given.", SEARCH
    )

    def __post_init__(self) -> None:
        convert_options(self)
        refuse_out_of_range(self, ("rank", "prompts", "cases", "token_budget"), ("seed",), ())
        if not 0 < self.density <= 1:
            raise LorarecError(f"option density must be above 0 and at most 1, got {self.density}")
        if self.method != "fixed" and self.combine in PRUNING_RULES:
            raise LorarecError(
                f"combine={self.combine} is defined for given weights only: use it with method=fixed, or use "
                f"combine=factors or combine=deltas with method={self.method}"
            )
        if self.task_arithmetic and self.method != "fixed":
            raise LorarecError(f"task_arithmetic=True needs method=fixed; method={self.method} searches the simplex")
        if self.task_arithmetic and self.combine == "factors":
            raise LorarecError(
                "task_arithmetic=True needs another rule than combine=factors, by which A and B both get the weight, "
                "so that a negative weight does not subtract: use combine=deltas"
            )
        needs = f"needs method={' or '.join(UNLABELLED)}; method={self.method}"
        if self.scope == "layer" and self.method not in UNLABELLED:
            raise LorarecError(f"scope=layer {needs} has one set of weights for the model")
        if self.calibrate and self.method not in UNLABELLED:
            raise LorarecError(f"calibrate=True {needs} does not depend on temperatures")
        if self.objective == "tokens" and (self.method != "entropy" or self.calibrate):
            raise LorarecError(
                "objective=tokens is the entropy of an answer's first tokens: use it with method=entropy and "
                "without calibrate=True, or use objective=candidates"
            )
