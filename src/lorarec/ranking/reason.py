"""A reason for a recommendation in the words of the backbone."""

from collections.abc import Sequence
from typing import Any

import torch

from lorarec.prompts import REASON, PromptBuilder
from lorarec.ranking.ranker import Ranker

#: Items of the history that the prompt names as those that count most.
NAMED = 3
MAX_TOKENS = 120


def can_reason(ranker: Ranker) -> bool:
    """Whether the backbone is one to talk to: its tokenizer has a chat template."""
    return ranker.builder.template.chat is not None


@torch.no_grad()
def write_reason(ranker: Ranker, history: Sequence[tuple[str, float]], title: str, hint: str = "") -> str:
    """Ask why a title is recommended, and decode the answer greedily, with the ranker's adapter.

    Args:
        ranker: see `can_reason`.
        history: titles, oldest first, each with what it does to the recommended one's score.
        title: what is recommended.
        hint: what the prompt tells of it besides (see `lorarec.data.Cooccurrence`).

    Returns:
        At most `MAX_TOKENS` tokens as text.
    """
    model: Any = ranker.backbone.model
    tokenizer, builder = ranker.backbone.tokenizer, ranker.builder
    asking = PromptBuilder(tokenizer, "verdict", REASON, builder.max_tokens, builder.max_title_tokens)
    strongest = sorted((effect for _, effect in history if effect > 0), reverse=True)[:NAMED]
    counts = ["counts for it" if effect in strongest else "" for _, effect in history]
    example = asking.example([past for past, _ in history], [title], counts, hints=[hint] if hint else ())
    ids = torch.tensor([[*example.prompt, *example.branches[0]]], device=model.device)
    ends = model.generation_config.eos_token_id or []
    written = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=MAX_TOKENS,
        eos_token_id=[tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])],
    )
    return str(tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True)).strip()
