"""Prompts and their branches as one sequence per prompt, with attention masks that separate the branches."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from transformers import AttentionMaskInterface, DynamicCache
from transformers.masking_utils import eager_mask, sdpa_mask

from lorarec.errors import LorarecError
from lorarec.prompts import Example
from lorarec.scoring.blocks import divide
from lorarec.scoring.plan import plan_for

PROMPT = 0
PADDING = -1


@dataclass(frozen=True)
class TokenTree:
    """Rows of a prompt and its branches, right-padded.

    Attributes:
        position_ids: Positions (rows, keys); every branch continues those of the prompt.
        segment_ids: Segments (rows, keys): 0 for the prompt, 1, 2, ... for branches, -1 for padding.
        sizes: Numbers of tokens of the prompt, of the padding after it, and of each branch of every row, if they follow
            one another; None otherwise.
    """

    position_ids: torch.Tensor
    segment_ids: torch.Tensor
    sizes: Sequence[Sequence[int]] | None = None

    def visible(self, queries: int, mask_function: Callable[..., torch.Tensor]) -> torch.Tensor:
        """Return the attention mask (rows, 1, queries, keys) of the last tokens, which is true where a token attends.

        A token attends to the tokens of the prompt and of its own branch, up to itself, that the layer's own mask
        allows at its position. Every token attends to itself, so that no softmax is empty.

        Args:
            queries: Number of tokens whose mask is needed.
            mask_function: Function of row, head, query position and key position that returns the pattern of a layer
                on one sequence: causal, with a sliding window, in chunks.
        """
        segments, positions, keys = self.segment_ids, self.position_ids, self.segment_ids.shape[1]
        order = torch.arange(keys, device=segments.device)
        own, older = segments[:, keys - queries :], order[keys - queries :, None]
        related = (segments[:, None, :] == PROMPT) | (segments[:, None, :] == own[:, :, None])
        allowed = (related & (order < older))[:, None]
        rows = torch.arange(len(segments), device=segments.device)[:, None, None, None]
        pattern = mask_function(
            rows, order[:1], positions[:, None, keys - queries :, None], positions[:, None, None, :]
        )
        return (allowed & pattern) | (order == older)


class _Active:
    """The tree of a forward pass, and whether the model requested its masks."""

    def __init__(self, tree: TokenTree) -> None:
        self.tree = tree
        self.used = False


_active: ContextVar[_Active | None] = ContextVar("tree", default=None)


def _with_trees(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a mask function of transformers, so that it returns the mask of the tree within `masked_by`."""

    @wraps(original)
    def mask(*args: Any, **kwargs: Any) -> Any:
        active = _active.get()
        if active is None:
            return original(*args, **kwargs)
        active.used = True
        visible = active.tree.visible(kwargs["q_length"], kwargs["mask_function"])
        if original is sdpa_mask:
            if active.tree.sizes is not None:
                divide(visible, active.tree.sizes)
            return visible
        dtype = kwargs["dtype"]
        return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(
            ~visible, torch.finfo(dtype).min
        )

    return mask


# Models of transformers create the masks of all their layers with these two functions. Outside of `masked_by` the
# wrapped functions return what the original ones do.
AttentionMaskInterface.register("sdpa", _with_trees(sdpa_mask))
AttentionMaskInterface.register("eager", _with_trees(eager_mask))


@contextmanager
def masked_by(tree: TokenTree) -> Iterator[_Active]:
    """Mask the attention of this thread's forward passes within the block by a tree."""
    active = _Active(tree)
    token = _active.set(active)
    try:
        yield active
    finally:
        _active.reset(token)


@dataclass(frozen=True)
class TreeBatch:
    """A batch of packed examples.

    Attributes:
        input_ids: Token ids (rows, length).
        tree: Positions and segments (rows, length).
    """

    input_ids: torch.Tensor
    tree: TokenTree


def pack(examples: Sequence[Example], device: torch.device | str = "cpu", align_branches: bool = False) -> TreeBatch:
    """Lay out each example as one row: the prompt, then its branches one after the other.

    Args:
        examples: Prompts with their branches.
        device: Device of the tensors.
        align_branches: Whether the branches of all rows begin at the same index, after padding behind shorter prompts.
    """
    longest = max(len(example.prompt) for example in examples)
    gaps = [longest - len(example.prompt) if align_branches else 0 for example in examples]
    length = max(example.length + gap for example, gap in zip(examples, gaps, strict=True))
    shape = (len(examples), length)
    input_ids = torch.zeros(shape, dtype=torch.long)
    position_ids = torch.zeros(shape, dtype=torch.long)
    segment_ids = torch.full(shape, PADDING)
    for row, (example, gap) in enumerate(zip(examples, gaps, strict=True)):
        ids, positions, segments = _flatten(example, gap)
        input_ids[row, : len(ids)] = torch.tensor(ids)
        position_ids[row, : len(ids)] = torch.tensor(positions)
        segment_ids[row, : len(ids)] = torch.tensor(segments)
    sizes = [
        [len(example.prompt), gap, *map(len, example.branches)] for example, gap in zip(examples, gaps, strict=True)
    ]
    return TreeBatch(input_ids.to(device), TokenTree(position_ids.to(device), segment_ids.to(device), sizes))


def _flatten(example: Example, gap: int) -> tuple[list[int], list[int], list[int]]:
    start = len(example.prompt)
    ids = [*example.prompt, *[0] * gap]
    positions = [*range(start), *[0] * gap]
    segments = [PROMPT] * start + [PADDING] * gap
    for index, branch in enumerate(example.branches, start=1):
        ids += branch
        positions += range(start, start + len(branch))
        segments += [index] * len(branch)
    return ids, positions, segments


def tree_pass(model: Any, input_ids: torch.Tensor, tree: TokenTree, cache: DynamicCache | None = None) -> torch.Tensor:
    """Return the hidden states (rows, tokens, d) of the last tokens of a tree.

    Args:
        model: A Hugging Face causal LM.
        input_ids: Token ids (rows, tokens).
        tree: The tree, with the tokens in `cache`.
        cache: Keys and values of the tree's tokens before them; those of `input_ids` are added.

    Raises:
        LorarecError: The model did not create the mask of the tree.
    """
    with masked_by(tree) as active:
        hidden: torch.Tensor = (
            plan_for(model)
            .trunk(
                input_ids=input_ids,
                # All ones, so that positions which start again are not taken for packed sequences.
                attention_mask=torch.ones_like(tree.segment_ids),
                position_ids=tree.position_ids[:, -input_ids.shape[1] :],
                past_key_values=cache,
                use_cache=cache is not None,
            )
            .last_hidden_state
        )
    if not active.used:
        raise LorarecError(f"{type(model).__name__} does not apply the requested mask, so it cannot be scored")
    return hidden
