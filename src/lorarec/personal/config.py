"""Options of `personalize` and `train_user_router`, with the papers' values as defaults where they give some."""

from dataclasses import dataclass
from typing import Literal, get_args

from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.lora import Combine
from lorarec.options import convert_options, document_options, option

#: In place of a click-through model: users are represented by the titles of their histories.
TITLES = "titles"
Retrieval = Literal["similar", "recent"]
RETRIEVALS: tuple[Retrieval, ...] = get_args(Retrieval)

CTR, LORA, OPTIMIZATION, PROMPTS = "Click-through model", "LoRA", "Optimization", "Prompts"

_AT_LEAST_ONE = (
    *("samples", "test_events", "ctr_max_history", "max_history", "num_meta_loras", "r", "epochs", "batch_size"),
    *("token_budget", "max_tokens", "max_title_tokens", "save_steps"),
)


@document_options
@dataclass(frozen=True)
class PersonalizationConfig:
    """Options of `personalize`; sizes and layers are RecLoRA's (arXiv 2408.03533), optimizer and batch ReLLa's.

    The paper retrieves the events that the click-through model reads by similarity (`ctr_retrieval="similar"`).

    Raises:
        LorarecError: If a value is of the wrong type or out of range.

    Examples:
        >>> from lorarec import PersonalizationConfig
        >>> PersonalizationConfig(num_meta_loras=16, ctr_retrieval="similar").r
        8
    """

    samples: int = option(1024, "Training events of the language model; the click-through model reads all of them.")
    test_events: int | None = option(
        None, "Number of test events that are predicted, drawn once for all seeds; None for all."
    )
    epochs: int = option(5, "Number of passes over the samples.")
    learning_rate: float = option(1e-3, "Peak learning rate; cosine decay to zero after a linear warm-up.")
    batch_size: int = option(64, "Samples per optimizer step.")
    seed: int = option(42, "Seed of all random choices.")
    positive_from: float = option(4.0, "Lowest rating that counts as a click.", CTR)
    stars: float = option(5.0, "Highest rating of the scale.", CTR)
    ctr_max_history: int = option(60, "Events of the history that the click-through model reads.", CTR)
    ctr_retrieval: Retrieval = option(
        "recent", "Choice of these events: the most recent ones, or those most similar to the target.", CTR
    )
    max_history: int = option(10, "Number of events of the history in a prompt.", PROMPTS)
    retrieval: Retrieval = option(
        "similar", "Choice of these events: those most similar to the target, or the most recent ones.", PROMPTS
    )
    max_tokens: int = option(
        1024, "Maximum number of tokens of a prompt; the oldest events are dropped first.", PROMPTS
    )
    max_title_tokens: int = option(32, "Maximum number of tokens of a title.", PROMPTS)
    num_meta_loras: int = option(8, "Number of meta-LoRAs that are mixed.", LORA)
    r: int = option(8, "Rank of each meta-LoRA.", LORA)
    lora_alpha: float = option(16.0, "Scale of a meta-LoRA's output, multiplied by 1 / r.", LORA)
    target_modules: str = option("q_proj,v_proj", "Comma-separated names of the adapted layers.", LORA)
    combine: Combine = option("factors", "Sum of A and B (factors, rank r) or of the products B A (deltas).", LORA)
    temperature: float = option(1.0, "Temperature of the router's softmax; higher makes users more alike.", LORA)
    weight_decay: float = option(0.0, "Weight decay of AdamW.", OPTIMIZATION)
    warmup_ratio: float = option(0.05, "Fraction of the optimizer steps spent on the linear warm-up.", OPTIMIZATION)
    token_budget: int | None = option(
        None, "Tokens per forward pass, padding included; 2048 on a CPU and 8192 elsewhere if not given.", OPTIMIZATION
    )
    save_steps: int = option(50, "Optimizer steps between checkpoints.", OPTIMIZATION)

    def __post_init__(self) -> None:
        convert_options(self)
        positive = ("learning_rate", "lora_alpha", "temperature", "stars")
        refuse_out_of_range(self, _AT_LEAST_ONE, ("weight_decay", "seed"), positive, ("warmup_ratio",))


@document_options
@dataclass(frozen=True)
class UserRouterConfig:
    """Options of `train_user_router`.

    Raises:
        LorarecError: If a value is of the wrong type or out of range.

    Examples:
        >>> from lorarec import UserRouterConfig
        >>> UserRouterConfig(cases=600, epochs=6).held_out
        0.25
    """

    cases: int = option(1000, "Number of validation cases, drawn at random; all where there are fewer.")
    epochs: int = option(10, "Maximum number of passes over the cases that are not held out.")
    learning_rate: float = option(2e-3, "Learning rate of AdamW.")
    seed: int = option(42, "Seed of all random choices.")
    held_out: float = option(0.25, "Fraction of the cases that early stopping is decided on.", OPTIMIZATION)
    patience: int = option(
        3, "Epochs without a lower loss on the held-out cases after which training stops.", OPTIMIZATION
    )
    batch_size: int = option(32, "Cases per optimizer step.", OPTIMIZATION)
    weight_decay: float = option(0.01, "Weight decay of AdamW.", OPTIMIZATION)
    token_budget: int | None = option(
        None, "Tokens per forward pass, padding included; 2048 on a CPU and 8192 elsewhere if not given.", OPTIMIZATION
    )
    combine: Combine = option("factors", "Sum of A and B (factors, rank r) or of the products B A (deltas).", LORA)
    positive_from: float = option(4.0, "Lowest rating that counts as a click to the click-through model.", CTR)
    stars: float = option(5.0, "Highest rating of the scale.", CTR)

    def __post_init__(self) -> None:
        convert_options(self)
        at_least_one = ("epochs", "patience", "batch_size", "token_budget")
        refuse_out_of_range(self, at_least_one, ("weight_decay", "seed"), ("learning_rate", "stars"))
        if self.cases < 2:
            raise LorarecError(f"option cases must be at least 2, some to train on and some held out, got {self.cases}")
        if not 0 < self.held_out < 1:
            raise LorarecError(f"option held_out must be between 0 and 1, got {self.held_out}")
