"""Logits of hidden states, computed by the model's own code."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from lorarec.scoring.plan import plan_for

#: Whether the head of a model can compute the logits of some tokens alone, by model and token ids.
_narrow: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], bool]] = WeakKeyDictionary()


class _TrunkOutput(dict[str, Any]):
    """The output of a trunk with hidden states only; every other field is None."""

    def __init__(self, hidden: torch.Tensor) -> None:
        super().__init__(last_hidden_state=hidden)

    def __getattr__(self, name: str) -> Any:
        return self.get(name)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__("last_hidden_state" if key == 0 else key)


@contextmanager
def _calling(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Replace the `forward` of a module within the block."""
    own = module.__dict__.get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.__dict__["forward"]
        else:
            module.forward = own


def logits(model: Any, hidden: torch.Tensor, tokens: tuple[int, ...] | None = None) -> torch.Tensor:
    """Return the logits (n, vocabulary) of hidden states (n, d), or (n, tokens) of some tokens; differentiable.

    The `forward` of the model runs without its trunk, so that everything after the trunk (a transform, a bias, scaling,
    soft caps) is applied.

    Args:
        model: A Hugging Face causal LM.
        hidden: Hidden states of the trunk.
        tokens: Ids of the tokens whose logits are needed; if the head allows it, no others are computed, and these in
            float32 or better, as a model in half precision rounds logits more coarsely than candidates differ.
    """
    with plan_for(model).lock:
        if tokens is None:
            return _run_head(model, hidden)
        if not _takes_tokens(model, hidden, tokens):
            return _run_head(model, hidden)[:, list(tokens)]
        return _run_head(model, hidden, tokens)


def _run_head(model: Any, hidden: torch.Tensor, tokens: tuple[int, ...] | None = None) -> torch.Tensor:
    ids = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
    with ExitStack() as stack:
        stack.enter_context(_calling(plan_for(model).trunk, lambda *_, **__: _TrunkOutput(hidden[None])))
        if tokens is not None:
            head = model.get_output_embeddings()
            stack.enter_context(_calling(head, lambda states: _project(head, states, list(tokens))))
        output: torch.Tensor = model(input_ids=ids).logits[0]
    return output


def _project(head: nn.Linear, states: torch.Tensor, tokens: list[int]) -> torch.Tensor:
    """Return the output of a vocabulary projection for some tokens, in float32 or better."""
    precise = torch.promote_types(states.dtype, torch.float32)
    bias = None if head.bias is None else head.bias[tokens].to(precise)
    with torch.autocast(states.device.type, enabled=False):
        return nn.functional.linear(states.to(precise), head.weight[tokens].to(precise), bias)


def _takes_tokens(model: Any, hidden: torch.Tensor, tokens: tuple[int, ...]) -> bool:
    """Return whether the steps of a model after its vocabulary projection treat every token alike.

    This is tested once with the first hidden states: a model that truncates, masks or shifts the vocabulary returns
    other logits or none.
    """
    known = _narrow.setdefault(model, {})
    if tokens not in known:
        known[tokens] = False
        head = model.get_output_embeddings()
        # Only this class: quantised or adapted projections do more than multiply.
        if type(head) is nn.Linear:
            close = max(1e-3, 8 * torch.finfo(head.weight.dtype).eps)
            states = hidden[:4].to(head.weight.dtype)
            with torch.no_grad(), torch.autocast(hidden.device.type, enabled=False), suppress(RuntimeError, IndexError):
                whole = _run_head(model, states)[:, list(tokens)].float()
                known[tokens] = torch.allclose(_run_head(model, states, tokens).float(), whole, rtol=close, atol=close)
    return known[tokens]
