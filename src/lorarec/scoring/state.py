"""Sequences that are read in several passes, continuing from the state that the model caches."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import nn

from lorarec.errors import LorarecError
from lorarec.scoring.plan import PREFIX, plan_for


class RowModule(nn.Module):
    """A layer that may treat each row of a batch differently.

    Attributes:
        row_index: Index of the settings that each row of the input uses, (rows,); None if row i uses settings i.
    """

    row_index: torch.Tensor | None = None


@contextmanager
def rows_of(model: Any, index: Sequence[int]) -> Iterator[None]:
    """Let row i of the model's input use the settings of row `index[i]` of the batch within the block."""
    layers = [module for module in model.modules() if isinstance(module, RowModule)]
    chosen = torch.tensor(index, device=model.device)
    for layer in layers:
        layer.row_index = chosen
    try:
        yield
    finally:
        for layer in layers:
            layer.row_index = None


def continues_from_state(model: Any) -> bool:
    """Return whether sequences can continue from the model's cached state now, which has no gradients."""
    return plan_for(model).kind == PREFIX and not (torch.is_grad_enabled() or model.training)


class SequenceState:
    """The state that a model caches of the tokens that it has read.

    Args:
        model: A Hugging Face causal LM whose plan has a state, in evaluation mode.
    """

    def __init__(self, model: Any) -> None:
        plan = plan_for(model)
        self._trunk, self._argument = plan.trunk, plan.state
        self._takes_positions, self._single_tokens = plan.takes_positions, plan.single_tokens
        self._length = 0
        self._state: Any = None

    @torch.no_grad()
    def read(self, ids: torch.Tensor) -> torch.Tensor:
        """Read more tokens (rows, tokens) and return their hidden states (rows, tokens, d).

        Raises:
            LorarecError: The model returns no state.
        """
        if self._state is not None and self._single_tokens:
            return torch.cat([self._read(column) for column in ids.split(1, dim=1)], 1)
        return self._read(ids)

    def _read(self, ids: torch.Tensor) -> torch.Tensor:
        given = {} if self._state is None else {self._argument: self._state}
        if self._takes_positions:
            # Not every model continues the positions of a cached state by itself.
            places = torch.arange(self._length, self._length + ids.shape[1], device=ids.device)
            given["position_ids"] = places.expand(len(ids), -1)
        output = self._trunk(input_ids=ids, use_cache=True, **given)
        self._state = getattr(output, self._argument, None)
        if self._state is None:
            raise LorarecError(
                f"{type(self._trunk).__name__} returns no cached state, so candidates cannot continue from it"
            )
        self._length += ids.shape[1]
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def repeated(self, rows: int) -> Self:
        """Copy the state of one row for a batch of `rows` sequences that continue from it."""
        other = copy.copy(self)
        other._state = _repeated(copy.deepcopy(self._state), rows)
        return other


def _repeated(state: Any, rows: int) -> Any:
    if hasattr(state, "reorder_cache"):
        state.reorder_cache(torch.zeros(rows, dtype=torch.long))
        return state
    return [tensor.repeat_interleave(rows, 0) for tensor in state]
