"""Everything that can be chosen about Few2Many, with the papers' values as defaults where they give some."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from lorarec.errors import LorarecError, refuse_out_of_range, refuse_unknown

#: What RecLoRA adapts.
TARGETS = ("q_proj", "v_proj")
#: In place of a conventional recommender: users are represented by the titles of their histories.
TITLES = "titles"
Retrieval = Literal["similar", "recent"]
RETRIEVALS = get_args(Retrieval)

_AT_LEAST_ONE = ("samples", "size", "rank", "id_history", "max_history", "max_tokens", "max_title_tokens")
_STEPS = ("test_events", "epochs", "batch_size", "token_budget", "checkpoint_every")


@dataclass(frozen=True)
class PersonalizationConfig:
    """Options of `personalize`; sizes and layers are RecLoRA's (arXiv 2408.03533), optimiser and batch ReLLa's.

    Attributes:
        samples: training events for the language model; the conventional recommender has them all.
        test_events: test events that are predicted, drawn once for all seeds; all of them when None.
        positive_from: a rating of at least this is a click.
        stars: the highest rating of the scale.
        id_history: events of the history that the conventional recommender reads, when it is trained here.
        id_retrieval: which those are of a longer history: most `recent`, or most `similar` to the target (the paper's).
        max_history: events of the history that a prompt tells.
        retrieval: which those are, `similar` or `recent`.
        size: number K of meta-LoRAs.
        rank: of each.
        alpha: a meta-LoRA's output is scaled by alpha / rank.
        targets: layers that are adapted, by the last part of their names.
        combine: `factors` or `deltas`.
        temperature: of the router's softmax.
        lr: peak learning rate of AdamW, for router and meta-LoRAs; cosine decay to zero after a linear warm-up.
        warmup: share of the steps spent warming up.
        weight_decay: of AdamW.
        epochs: passes over the samples.
        batch_size: samples per step.
        token_budget: tokens, padding included, in one forward pass.
        max_tokens: length limit of a prompt; the oldest history is dropped first.
        max_title_tokens: length limit of one title.
        checkpoint_every: steps between checkpoints.
        seed: of everything random.

    Raises:
        LorarecError: an option out of range.
    """

    samples: int = 1024
    test_events: int | None = None
    positive_from: float = 4.0
    stars: float = 5.0
    id_history: int = 60
    id_retrieval: Retrieval = "recent"
    max_history: int = 10
    retrieval: Retrieval = "similar"
    size: int = 8
    rank: int = 8
    alpha: float = 16
    targets: tuple[str, ...] = TARGETS
    combine: str = "factors"
    temperature: float = 1.0
    lr: float = 1e-3
    warmup: float = 0.05
    weight_decay: float = 0.0
    epochs: int = 5
    batch_size: int = 64
    token_budget: int = 8192
    max_tokens: int = 1024
    max_title_tokens: int = 32
    checkpoint_every: int = 50
    seed: int = 42

    def __post_init__(self) -> None:
        positive = ("lr", "alpha", "temperature", "stars")
        refuse_out_of_range(self, _AT_LEAST_ONE + _STEPS, ("weight_decay", "seed"), positive)
        if not 0 <= self.warmup < 1:
            raise LorarecError(f"option warmup must be in [0, 1), got {self.warmup}")
        for name in ("id_retrieval", "retrieval"):
            if getattr(self, name) not in RETRIEVALS:
                raise LorarecError(f"option {name} must be similar or recent, got {getattr(self, name)}")

    @classmethod
    def build(cls, **options: Any) -> "PersonalizationConfig":
        """The options given by name, defaults for the rest.

        Raises:
            LorarecError: a name is unknown or a value is out of range.
        """
        refuse_unknown(cls, options)
        return cls(**options)

    def as_dict(self) -> dict[str, Any]:
        """Plain values by option name, as JSON keeps them."""
        return asdict(self) | {"targets": list(self.targets)}


@dataclass(frozen=True)
class UserRouterConfig:
    """How the router over finished adapters is trained.

    Attributes:
        cases: validation cases, drawn at random; all where there are fewer.
        held_out: share of them that decides which epoch is kept, and is not trained on.
        epochs: at most so many passes over the others.
        patience: epochs without a lower loss on the held-out cases after which it stops.
        batch_size: cases per step.
        lr: learning rate of AdamW.
        weight_decay: of AdamW.
        combine: `factors` or `deltas`.
        positive_from: a rating of at least this is a click to the conventional recommender.
        stars: the highest rating of the scale.
        token_budget: tokens, padding included, in one forward pass.
        seed: of everything random.

    Raises:
        LorarecError: an option out of range.
    """

    cases: int = 1000
    held_out: float = 0.25
    epochs: int = 10
    patience: int = 3
    batch_size: int = 32
    lr: float = 2e-3
    weight_decay: float = 0.01
    combine: str = "factors"
    positive_from: float = 4.0
    stars: float = 5.0
    token_budget: int = 8192
    seed: int = 42

    def __post_init__(self) -> None:
        at_least_one = ("epochs", "patience", "batch_size", "token_budget")
        refuse_out_of_range(self, at_least_one, ("weight_decay", "seed"), ("lr", "stars"))
        if self.cases < 2:
            raise LorarecError(f"option cases must be at least 2, some to train on and some held out, got {self.cases}")
        if not 0 < self.held_out < 1:
            raise LorarecError(f"option held_out must be between 0 and 1, got {self.held_out}")
