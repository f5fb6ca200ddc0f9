"""The last step of a model, from hidden states to logits, by the model's own code."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lorarec.scoring.plan import plan_for


class _TrunkOutput(dict[str, Any]):
    """What a trunk returns, with hidden states alone: every other field is None."""

    def __init__(self, hidden: torch.Tensor) -> None:
        super().__init__(last_hidden_state=hidden)

    def __getattr__(self, name: str) -> Any:
        return self.get(name)

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__("last_hidden_state" if key == 0 else key)


@contextmanager
def _returning(trunk: nn.Module, hidden: torch.Tensor) -> Iterator[None]:
    """Let a module return given hidden states whatever it is called with."""
    own = trunk.__dict__.get("forward")
    trunk.forward = lambda *_, **__: _TrunkOutput(hidden)  # type: ignore[method-assign]
    try:
        yield
    finally:
        if own is None:
            del trunk.__dict__["forward"]
        else:
            trunk.forward = own  # type: ignore[method-assign]


def logits(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Logits (n, vocabulary) of hidden states (n, d); differentiable.

    The model's own `forward` runs with its trunk left out, so that whatever it does after it (a transform, a bias,
    scaling, soft caps) is done here as well.
    """
    with _returning(plan_for(model).trunk, hidden[None]):
        return model(input_ids=torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)).logits[0]
