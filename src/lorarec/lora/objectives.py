"""The entropy of a model's predictions on unlabelled prompts (MoLoRec, arXiv 2502.08271, section 3.3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lorarec.errors import LorarecError
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import PromptReader, score_batch

CANDIDATES, TOKENS = ENTROPY_OBJECTIVES = ("candidates", "tokens")


@dataclass(frozen=True)
class Entropy:
    """Compute the entropy of predictions, in nats; differentiable with respect to the weights of the mixture.

    `candidates` is the entropy of the softmax over the scores of the candidate set. It is exact, because the answer is
    one of the candidates. `tokens` is the paper's objective: the entropy of the next-token distribution, averaged over
    the first `tokens` tokens of the greedy answer.

    Attributes:
        objective: `candidates` or `tokens`.
        builder: The builder of the prompts.
        tokens: The number T of answer tokens. The paper uses 3, and 5 for long titles.

    Raises:
        LorarecError: The objective is unknown, or is `tokens` for prompts that are not answered by a title.
    """

    objective: str
    builder: PromptBuilder
    tokens: int = 3

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
            return torch.stack([entropy(scores) for scores in score_batch(model, examples, self.builder)])
        return token_entropy(model, [example.prompt for example in examples], self.tokens)


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Return the entropy in nats of the softmax over the last dimension."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def token_entropy(model: Any, prompts: Sequence[list[int]], tokens: int) -> torch.Tensor:
    """Return the mean entropy (prompts,) of the next-token distribution over the first `tokens` greedy tokens.

    Tokens after an end of sequence do not count.
    """
    reader = PromptReader(model, prompts)
    unfinished = torch.ones(len(prompts), dtype=torch.bool, device=model.device)
    entropies, counted = [], []
    for step in range(tokens):
        logits = reader.logits
        entropies.append(entropy(logits.to(torch.promote_types(logits.dtype, torch.float32))))
        counted.append(unfinished)
        ids = logits.detach().argmax(-1, keepdim=True)
        unfinished = unfinished & ~torch.isin(ids[:, 0], _end_tokens(model))
        if step < tokens - 1:
            reader.extend(ids)
    weights = torch.stack(counted).to(entropies[0].dtype)
    return (torch.stack(entropies) * weights).sum(0) / weights.sum(0)


def _end_tokens(model: Any) -> torch.Tensor:
    config = getattr(model, "generation_config", None) or model.config
    ends = config.eos_token_id
    return torch.tensor([] if ends is None else ends, device=model.device, dtype=torch.long).reshape(-1)
