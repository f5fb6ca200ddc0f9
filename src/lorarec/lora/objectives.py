"""How unsure a model is about unlabelled prompts (MoLoRec, arXiv 2502.08271, section 3.3)."""

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
    """Entropy of predictions, in nats; differentiable in whatever the model's weights depend on.

    `candidates`: of the softmax over the scores of the candidate set, exact because the answer is one of them.
    `tokens`: mean over the first `tokens` greedy answer tokens of that of the next-token distribution, the paper's.

    Attributes:
        objective: `candidates` or `tokens`.
        builder: what built the prompts.
        tokens: the paper's T (3; it uses 5 for long titles).

    Raises:
        LorarecError: unknown objective, or `tokens` over prompts that are not answered by a title.
    """

    objective: str
    builder: PromptBuilder
    tokens: int = 3

    def __post_init__(self) -> None:
        if self.objective not in ENTROPY_OBJECTIVES:
            raise LorarecError(f"unknown objective {self.objective!r}: choose one of {', '.join(ENTROPY_OBJECTIVES)}")
        if self.objective == TOKENS and self.builder.readout != "likelihood":
            raise LorarecError("objective=tokens reads the first tokens of a title: use readout likelihood")

    def length(self, example: Example) -> int:
        """Tokens that one example takes in a pass."""
        return example.length if self.objective == CANDIDATES else len(example.prompt) + self.tokens

    def __call__(self, model: Any, examples: Sequence[Example]) -> torch.Tensor:
        """Entropy of each example, (examples,) in at least float32."""
        if self.objective == CANDIDATES:
            return torch.stack([entropy(scores) for scores in score_batch(model, examples, self.builder)])
        return token_entropy(model, [example.prompt for example in examples], self.tokens)


def entropy(logits: torch.Tensor) -> torch.Tensor:
    """Entropy in nats of the softmax over the last dimension."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def token_entropy(model: Any, prompts: Sequence[list[int]], tokens: int) -> torch.Tensor:
    """Mean entropy (prompts,) of the next-token distribution over the first `tokens` greedy tokens.

    Tokens after an end of sequence do not count.
    """
    reader = PromptReader(model, prompts)
    alive = torch.ones(len(prompts), dtype=torch.bool, device=model.device)
    entropies, counted = [], []
    for step in range(tokens):
        logits = reader.logits
        entropies.append(entropy(logits.to(torch.promote_types(logits.dtype, torch.float32))))
        counted.append(alive)
        ids = logits.detach().argmax(-1, keepdim=True)
        alive = alive & ~torch.isin(ids[:, 0], _end_tokens(model))
        if step < tokens - 1:
            reader.extend(ids)
    weights = torch.stack(counted).to(entropies[0].dtype)
    return (torch.stack(entropies) * weights).sum(0) / weights.sum(0)


def _end_tokens(model: Any) -> torch.Tensor:
    config = getattr(model, "generation_config", None) or model.config
    ends = config.eos_token_id
    return torch.tensor([] if ends is None else ends, device=model.device, dtype=torch.long).reshape(-1)
