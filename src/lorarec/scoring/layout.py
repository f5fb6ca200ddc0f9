"""Packing prompts and their candidate branches into one batch of trees."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lorarec.prompts import Example

PROMPT = 0
PADDING = -1


@dataclass(frozen=True)
class TreeBatch:
    """Rows of prompt and branches, right-padded.

    Attributes:
        input_ids: (rows, length) token ids.
        position_ids: (rows, length); every branch continues the prompt's positions.
        segment_ids: (rows, length): 0 for the prompt, 1.. for branches, -1 for padding.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    segment_ids: torch.Tensor

    def attention_mask(self, dtype: torch.dtype) -> torch.Tensor:
        """Additive mask (rows, 1, length, length): a token sees the prompt and its own branch, up to itself.

        Padding sees itself, so that no softmax is over nothing.
        """
        segments = self.segment_ids
        length = segments.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
        related = (segments[:, None, :] == PROMPT) | (segments[:, None, :] == segments[:, :, None])
        return additive((related & causal)[:, None], dtype)


def additive(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Zero where `allowed`, the most negative number of `dtype` elsewhere."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, torch.finfo(dtype).min)


def pack(examples: Sequence[Example], device: torch.device | str = "cpu") -> TreeBatch:
    """Lay out each example as one row: the prompt, then its branches one after the other."""
    length = max(example.length for example in examples)
    shape = (len(examples), length)
    input_ids = torch.zeros(shape, dtype=torch.long)
    position_ids = torch.zeros(shape, dtype=torch.long)
    segment_ids = torch.full(shape, PADDING)
    for row, example in enumerate(examples):
        ids, positions, segments = _flatten(example)
        input_ids[row, : len(ids)] = torch.tensor(ids)
        position_ids[row, : len(ids)] = torch.tensor(positions)
        segment_ids[row, : len(ids)] = torch.tensor(segments)
    return TreeBatch(input_ids.to(device), position_ids.to(device), segment_ids.to(device))


def _flatten(example: Example) -> tuple[list[int], list[int], list[int]]:
    start = len(example.prompt)
    ids, positions, segments = list(example.prompt), list(range(start)), [PROMPT] * start
    for index, branch in enumerate(example.branches, start=1):
        ids += branch
        positions += range(start, start + len(branch))
        segments += [index] * len(branch)
    return ids, positions, segments
