"""Objectives on unlabelled prompts, whose minimum chooses the weights of a mixture: entropy and agreement."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import torch

from lorarec.errors import LorarecError
from lorarec.lora.calibration import Calibration, candidate_scores
from lorarec.lora.injection import MixedModel
from lorarec.lora.weight_search import score_at_weights
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import PromptReader

CANDIDATES, TOKENS = ENTROPY_OBJECTIVES = ("candidates", "tokens")

ReadExample = TypeVar("ReadExample", bound=Example, contravariant=True)


class UnlabelledObjective(Protocol[ReadExample]):
    """What a search for weights minimises: a mean over prompts without labels.

    Attributes:
        metric: Name of the value in traces and plots.
    """

    metric: ClassVar[str]

    def length(self, example: ReadExample, /) -> int:
        """Return the number of tokens that an example takes in a pass."""

    def __call__(self, model: Any, examples: Sequence[ReadExample], /) -> torch.Tensor:
        """Return the value of each example, (examples,); differentiable with respect to the weights of the mixture."""


@dataclass(frozen=True)
class Entropy:
    """Compute the entropy of predictions, in nats (MoLoRec, arXiv 2502.08271, section 3.3).

    `candidates` is the entropy of the softmax over the scores of the candidate set. It is exact, because the answer is
    one of the candidates. `tokens` is the paper's objective: the entropy of the next-token distribution, averaged over
    the first `tokens` tokens of the greedy answer.

    Attributes:
        objective: `candidates` or `tokens`.
        builder: The builder of the prompts.
        tokens: The number T of answer tokens. The paper uses 3, and 5 for long titles.
        calibration: The temperatures of the adapters, for `candidates`; None for scores as they are.

    Raises:
        LorarecError: The objective is unknown, or is `tokens` for prompts that are not answered by a title.
    """

    metric: ClassVar[str] = "entropy"
    objective: str
    builder: PromptBuilder
    tokens: int = 3
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        if self.objective not in ENTROPY_OBJECTIVES:
            raise LorarecError(f"unknown objective {self.objective!r}: choose one of {', '.join(ENTROPY_OBJECTIVES)}")
        if self.objective == TOKENS and self.builder.readout != "likelihood":
            raise LorarecError(
                f"objective=tokens reads the first tokens of a title, but the readout is {self.builder.readout}: use "
                "readout likelihood, or objective=candidates"
            )

    def length(self, example: Example) -> int:
        """Return the number of tokens that an example takes in a pass."""
        return example.length if self.objective == CANDIDATES else len(example.prompt) + self.tokens

    def __call__(self, model: Any, examples: Sequence[Example]) -> torch.Tensor:
        """Return the entropy of each example, (examples,), in float32 or better."""
        if self.objective == CANDIDATES:
            scores = candidate_scores(model, examples, self.builder, self.calibration)
            return torch.stack([entropy(each) for each in scores])
        return token_entropy(model, examples, self.tokens)


@dataclass(frozen=True)
class ReferencedExample(Example):
    """A prompt with what each adapter by itself predicts.

    Attributes:
        log_posteriors: The logarithms of the adapters' posteriors over the candidates, (K, candidates).
    """

    log_posteriors: torch.Tensor


@dataclass(frozen=True)
class Agreement:
    """Compute how far the posterior of a mixture is from those of its adapters.

    It is the Jensen-Shannon divergence, in nats, of the mixture's posterior over the candidate set to that of each
    adapter by itself, averaged over the adapters. Unlike entropy it does not reward certainty: an adapter that is
    certain of everything is as far from the others as they are from it.

    Attributes:
        builder: The builder of the prompts.
        calibration: The temperatures of the adapters, as in `reference`; None for scores as they are.
    """

    metric: ClassVar[str] = "divergence"
    builder: PromptBuilder
    calibration: Calibration | None = None

    def reference(
        self, mixed: MixedModel, size: int, prompts: Sequence[Example], token_budget: int | None
    ) -> list[ReferencedExample]:
        """Add the posterior of each of the K = `size` adapters to the prompts."""
        alone = torch.eye(size, dtype=torch.float64)
        length = lambda example: example.length  # noqa: E731
        posteriors = score_at_weights(mixed, alone, prompts, self._log_posteriors, length, token_budget)
        return [
            ReferencedExample(prompt.prompt, prompt.branches, torch.stack(of_prompt))
            for prompt, *of_prompt in zip(prompts, *posteriors, strict=True)
        ]

    def length(self, example: ReferencedExample) -> int:
        """Return the number of tokens that an example takes in a pass."""
        return example.length

    def __call__(self, model: Any, examples: Sequence[ReferencedExample]) -> torch.Tensor:
        """Return the mean divergence of each example, (examples,), in float32 or better."""
        posteriors = self._log_posteriors(model, examples)
        pairs = zip(posteriors, examples, strict=True)
        return torch.stack([jensen_shannon(log_p, each.log_posteriors.to(log_p)).mean() for log_p, each in pairs])

    def _log_posteriors(self, model: Any, examples: Sequence[Example]) -> list[torch.Tensor]:
        scores = candidate_scores(model, examples, self.builder, self.calibration)
        return [each.log_softmax(-1) for each in scores]


def jensen_shannon(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """Return the Jensen-Shannon divergence, from 0 to log 2 nats, of distributions over the last dimension."""
    log_mean = torch.logaddexp(log_p, log_q) - math.log(2)
    return ((log_p.exp() * (log_p - log_mean)).sum(-1) + (log_q.exp() * (log_q - log_mean)).sum(-1)) / 2


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Return the entropy in nats of the softmax over the last dimension."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def token_entropy(model: Any, examples: Sequence[Example], tokens: int) -> torch.Tensor:
    """Return the mean entropy (examples,) of the next-token distribution over the first `tokens` greedy tokens.

    An answer ends with an end of sequence, or with a token that ends a branch, such as the end of a title's line. The
    tokens after its end do not count.
    """
    reader = PromptReader(model, [example.prompt for example in examples])
    end_tokens = _end_tokens(model)
    ends = [end_tokens | {branch[-1] for branch in example.branches} for example in examples]
    unfinished = torch.ones(len(examples), dtype=torch.bool, device=model.device)
    entropies, counted = [], []
    for step in range(tokens):
        logits = reader.logits
        entropies.append(entropy(logits.to(torch.promote_types(logits.dtype, torch.float32))))
        counted.append(unfinished)
        ids = logits.detach().argmax(-1, keepdim=True)
        ended = [token in end for token, end in zip(ids[:, 0].tolist(), ends, strict=True)]
        unfinished = unfinished & ~torch.tensor(ended, device=model.device)
        if step < tokens - 1:
            reader.extend(ids)
    weights = torch.stack(counted).to(entropies[0].dtype)
    return (torch.stack(entropies) * weights).sum(0) / weights.sum(0)


def _end_tokens(model: Any) -> set[int]:
    """Return the ids of the tokens that end a sequence."""
    config = getattr(model, "generation_config", None) or model.config
    ends = config.eos_token_id
    return set() if ends is None else set(ends) if isinstance(ends, list) else {ends}
