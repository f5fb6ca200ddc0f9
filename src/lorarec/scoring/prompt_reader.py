"""Next-token logits of prompts that are extended token by token."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from lorarec.scoring.batches import pad_rows
from lorarec.scoring.head import logits
from lorarec.scoring.plan import TREE, plan_for
from lorarec.scoring.state import SequenceState, continues_from_state, rows_of
from lorarec.scoring.tree import PADDING, PROMPT, TokenTree, tree_pass


class PromptReader:
    """Compute next-token logits of a batch of prompts; differentiable if it is made while gradients are enabled.

    Each prompt is read once and continues from the model's cached state. Models whose cached state has no gradients
    read the whole sequence again if gradients are enabled.

    Args:
        model: A Hugging Face causal LM.
        prompts: Token ids of the prompts.

    Attributes:
        logits: Logits of the next token of each prompt, (prompts, vocabulary).

    Raises:
        LorarecError: No plan is exact for the model.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]]) -> None:
        self._model, self._lock, kind = model, plan_for(model).lock, plan_for(model).kind
        rows = range(len(prompts))
        self._readers: list[_BatchReader | _StateReader | _WholeReader]
        with self._lock:
            if kind == TREE:
                self._readers = [_BatchReader(model, prompts)]
            elif continues_from_state(model):
                self._readers = [_StateReader(model, prompts[row], row) for row in rows]
            else:
                self._readers = [_WholeReader(model, prompts[row], row) for row in rows]
            self.logits = logits(model, torch.cat([reader.last for reader in self._readers]))

    def extend(self, ids: torch.Tensor) -> None:
        """Append tokens (prompts, tokens), as many to each prompt."""
        parts = [ids] if len(self._readers) == 1 else ids.split(1)
        with self._lock:
            last = [reader.extend(part) for reader, part in zip(self._readers, parts, strict=True)]
            self.logits = logits(self._model, torch.cat(last))


class _BatchReader:
    """Read all prompts as rows of one batch; padding between a prompt and what follows it is masked out."""

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]]) -> None:
        self._model, self._cache = model, DynamicCache()
        ids = pad_rows(prompts, model.device)
        self._lengths = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
        positions = torch.arange(ids.shape[1], device=model.device).expand(len(ids), -1)
        within = positions < self._lengths[:, None]
        sizes = [[len(prompt), 0] for prompt in prompts]
        self._tree = TokenTree(positions, torch.where(within, PROMPT, PADDING), sizes)
        hidden = tree_pass(model, ids, self._tree, self._cache)
        self.last = hidden[torch.arange(len(ids), device=model.device), self._lengths - 1]

    def extend(self, ids: torch.Tensor) -> torch.Tensor:
        positions = self._lengths[:, None] + torch.arange(ids.shape[1], device=ids.device)
        self._lengths = self._lengths + ids.shape[1]
        self._tree = TokenTree(
            torch.cat([self._tree.position_ids, positions], 1),
            torch.cat([self._tree.segment_ids, torch.full_like(positions, PROMPT)], 1),
        )
        self.last = tree_pass(self._model, ids, self._tree, self._cache)[:, -1]
        return self.last


class _StateReader:
    """Read one prompt by continuing from the model's cached state."""

    def __init__(self, model: Any, prompt: Sequence[int], row: int) -> None:
        self._model, self._row, self._state = model, row, SequenceState(model)
        self.last = self.extend(torch.tensor([list(prompt)], device=model.device))

    def extend(self, ids: torch.Tensor) -> torch.Tensor:
        with rows_of(self._model, [self._row]):
            self.last = self._state.read(ids)[:, -1]
        return self.last


class _WholeReader:
    """Read one prompt from its beginning each time."""

    def __init__(self, model: Any, prompt: Sequence[int], row: int) -> None:
        self._model, self._row = model, row
        self._ids = torch.empty(1, 0, dtype=torch.long, device=model.device)
        self.last = self.extend(torch.tensor([list(prompt)], device=model.device))

    def extend(self, ids: torch.Tensor) -> torch.Tensor:
        self._ids = torch.cat([self._ids, ids], 1)
        with rows_of(self._model, [self._row]):
            self.last = plan_for(self._model).trunk(input_ids=self._ids, use_cache=False).last_hidden_state[:, -1]
        return self.last
