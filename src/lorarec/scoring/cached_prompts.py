"""Prompts that a model has read, from whose keys and values branches continue in later passes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from lorarec.prompts import Example
from lorarec.scoring.tree import pack, tree_pass


@dataclass(frozen=True, eq=False)
class CachedPrompt:
    """A prompt that a model has read; its tensors are its own and are never changed, so threads may share it.

    Attributes:
        layers: Keys and values (1, heads, tokens, d) of each layer; None for a layer that has none of its own.
        last_hidden: Hidden state (1, d) of the last token.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor] | None, ...]
    last_hidden: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Size of its tensors in bytes."""
        return sum(each.nbytes for pair in self.layers if pair for each in pair) + self.last_hidden.nbytes


def read_examples(model: Any, examples: Sequence[Example]) -> tuple[torch.Tensor, list[CachedPrompt]]:
    """Read prompts with their branches in one pass.

    Args:
        model: A Hugging Face causal LM whose plan is `tree`.
        examples: Prompts with their branches; an example may have no branches.

    Returns:
        The hidden states (rows, tokens, d) of the packed examples, and the read prompts.
    """
    batch, cache = pack(examples, model.device), _new_cache()
    hidden = tree_pass(model, batch.input_ids, batch.tree, cache)
    return hidden, [_copy_prompt(cache, hidden, row, len(each.prompt)) for row, each in enumerate(examples)]


def _new_cache() -> DynamicCache:
    # Without a configuration the cache keeps all keys, also those that a window of the last token no longer shows.
    return DynamicCache()


def _copy_prompt(cache: DynamicCache, hidden: torch.Tensor, row: int, tokens: int) -> CachedPrompt:
    """Copy what belongs to a prompt of a pass, so that the tensors of the pass are not kept."""
    rows = slice(row, row + 1)
    layers = tuple(
        None if keys is None else (keys[rows, :, :tokens].clone(), values[rows, :, :tokens].clone())
        for keys, values, _ in cache
    )
    return CachedPrompt(layers, hidden[rows, tokens - 1].clone())


def read_branches(model: Any, examples: Sequence[Example], prompts: Sequence[CachedPrompt]) -> torch.Tensor:
    """Read the branches of examples whose prompts have been read.

    Args:
        model: The model that read the prompts.
        examples: Prompts with their branches.
        prompts: The read prompt of each example.

    Returns:
        Hidden states (rows, 1 + tokens, d) of the last prompt token and of all branches in turn, padded on the right.
    """
    batch = pack(examples, model.device, align_branches=True)
    longest = max(len(example.prompt) for example in examples)
    cache = _new_cache()
    cache.layers = [_joined(layers, longest) for layers in zip(*(prompt.layers for prompt in prompts), strict=True)]
    hidden = tree_pass(model, batch.input_ids[:, longest:], batch.tree, cache)
    return torch.cat([torch.stack([prompt.last_hidden for prompt in prompts]), hidden], 1)


def _joined(layers: Sequence[tuple[torch.Tensor, torch.Tensor] | None], longest: int) -> DynamicLayer:
    """Return the cache of one layer with a row for each prompt."""
    joined = DynamicLayer()
    if pairs := [pair for pair in layers if pair is not None]:
        keys, values = (_pad(states, longest) for states in zip(*pairs, strict=True))
        joined.lazy_initialization(keys, values)
        joined.keys, joined.values = keys, values  # an update would copy them
    return joined


def _pad(states: Sequence[torch.Tensor], longest: int) -> torch.Tensor:
    """Return states (1, heads, tokens, d) of prompts as rows, padded on the right with 0 to the longest."""
    if len(states) == 1:
        return states[0]
    first = states[0]
    padded = first.new_zeros(len(states), first.shape[1], longest, first.shape[3])
    for row, each in enumerate(states):
        padded[row, :, : each.shape[2]] = each[0]
    return padded
