"""Attention over a tree on a CPU, in blocks: the prompt by itself, then groups of branches on the prompt.

One dense mask for a whole row makes a CPU compute the attention of every branch to all other branches and throw it
away: for 30 candidates that is most of the work. The blocks leave it out. On a GPU the dense mask costs little beside
the matrix products, and one large kernel is faster than many small ones.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

#: Fewest tokens of a group of branches. Smaller groups compute less of what is masked out, but the kernel is called
#: more often, and each call has its own copy of the prompt's keys and values.
GROUP_TOKENS = 96

_ATTRIBUTE = "lorarec_blocks"


@dataclass(frozen=True)
class RowBlocks:
    """The blocks of one row of a tree.

    Attributes:
        sizes: Numbers of tokens of the prompt, of each group of branches, and of the padding.
        gap: Number of tokens of the padding between the prompt and the branches.
        prompt_mask: Attention mask (1, 1, prompt, prompt) of the prompt, or None if it is causal.
        masks: Attention masks (1, 1, tokens, prompt + tokens) of the groups.
    """

    sizes: tuple[int, ...]
    gap: int
    prompt_mask: torch.Tensor | None
    masks: tuple[torch.Tensor, ...]


def divide(visible: torch.Tensor, sizes: Sequence[Sequence[int]]) -> None:
    """Divide the attention mask of a tree into blocks, which the mask then carries to the attention layers.

    A mask is left as it is if it is not on a CPU, or if its queries begin within the prompts or the padding after them.

    Args:
        visible: Attention mask (rows, 1, queries, keys), true where a token attends; the queries are the last tokens.
        sizes: Numbers of tokens of the prompt, of the padding after it, and of each branch of every row.
    """
    cached = visible.shape[3] - visible.shape[2]
    if visible.device.type == "cpu" and all(cached == row[0] + row[1] or (cached, row[1]) == (0, 0) for row in sizes):
        setattr(visible, _ATTRIBUTE, [_row_blocks(*pair) for pair in zip(visible.split(1), sizes, strict=True)])


def _row_blocks(visible: torch.Tensor, sizes: Sequence[int]) -> RowBlocks:
    queries, keys = visible.shape[2:]
    prompt, gap, groups = sizes[0], sizes[1], list(_groups(sizes[2:]))
    prompt_mask = None
    if queries == keys:
        own = visible[:, :, :prompt, :prompt]
        prompt_mask = None if torch.equal(own[0, 0], torch.ones_like(own[0, 0]).tril()) else own
    masks, start = [], prompt + gap
    for size in groups:
        rows = visible[:, :, start - (keys - queries) :][:, :, :size]
        masks.append(torch.cat([rows[..., :prompt], rows[..., start : start + size]], -1))
        start += size
    return RowBlocks((prompt, *groups, keys - start), gap, prompt_mask, tuple(masks))


def _groups(branches: Sequence[int]) -> Iterator[int]:
    """Yield the numbers of tokens of groups of successive branches."""
    tokens = 0
    for branch in branches:
        tokens += branch
        if tokens >= GROUP_TOKENS:
            yield tokens
            tokens = 0
    if tokens:
        yield tokens


def _in_blocks(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the attention function of transformers, so that it computes a mask that was divided block by block."""

    @wraps(original)
    def attention(
        module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **kwargs: Any
    ) -> Any:
        rows: list[RowBlocks] | None = getattr(attention_mask, _ATTRIBUTE, None)
        fits = rows is not None and query.shape[2:3] + key.shape[2:3] == attention_mask.shape[2:]
        if not rows or not fits or kwargs.get("position_bias") is not None or kwargs.get("cache") is not None:
            return original(module, query, key, value, attention_mask, **kwargs)
        outputs = [
            _attend(original, module, row, queries, keys, values, kwargs)
            for row, queries, keys, values in zip(rows, query.split(1), key.split(1), value.split(1), strict=True)
        ]
        return torch.cat(outputs), None

    return attention


def _attend(
    original: Callable[..., Any],
    module: Any,
    row: RowBlocks,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    kwargs: dict[str, Any],
) -> torch.Tensor:
    """Return the attention output (1, queries, heads, d) of one row."""
    prompt, *groups, padding = row.sizes
    sizes = (prompt, row.gap, *groups, padding)
    keys, values = key.split(sizes, 2), value.split(sizes, 2)
    unread = query.shape[2] - sum(groups) - padding  # tokens of the prompt, unless they are cached
    own, *queries = query.split((unread, *groups, padding), 2)
    outputs = []
    if unread:
        causal = kwargs | {"is_causal": True}
        outputs.append(original(module, own, keys[0], values[0], row.prompt_mask, **causal)[0])
    for number, (states, mask) in enumerate(zip(queries, row.masks, strict=False), start=2):
        seen = (torch.cat([each[0], each[number]], 2) for each in (keys, values))
        outputs.append(original(module, states, *seen, mask, **kwargs)[0])
    if padding:  # nothing reads it
        outputs.append(query.new_zeros(1, padding, query.shape[1], value.shape[-1]))
    return torch.cat(outputs, 1)


# Models of transformers look their attention function up by name. For masks that were not divided the wrapped function
# is the original one.
AttentionInterface.register("sdpa", _in_blocks(sdpa_attention_forward))
