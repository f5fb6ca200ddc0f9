"""Logits of some tokens alone, by the head of a model."""

from collections.abc import Callable

import pytest
import torch

from lorarec.scoring.readout import verdict_scores
from tests.scoring.architectures import build

YES_NO = (7, 30)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_log_odds_are_not_rounded_to_half_precision(dtype: torch.dtype, autocast: bool) -> None:
    """In bfloat16, logits from 16 to 32 are multiples of 1/8, so that many candidates would have equal scores."""
    model = build("llama", 96).to(dtype).eval()
    hidden = 5 * torch.randn(200, model.config.hidden_size, generator=torch.Generator().manual_seed(0)).to(dtype)
    yes, no = model.lm_head.weight[list(YES_NO)].double()
    expected = hidden.double() @ (yes - no)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = verdict_scores(model, hidden, YES_NO)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)
    assert len(found.unique()) == len(hidden)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "following"),
    [("gemma2 (softcaps)", lambda logits: 2 * torch.tanh(logits / 2)), ("granite (logits scaling)", lambda x: x / 3)],
)
def test_what_follows_the_projection_is_applied(name: str, following: Callable[[torch.Tensor], torch.Tensor]) -> None:
    model = build(name, 96).bfloat16().eval()
    hidden = torch.randn(20, model.config.hidden_size, generator=torch.Generator().manual_seed(0)).bfloat16()
    yes, no = following(hidden.double() @ model.lm_head.weight[list(YES_NO)].double().T).T
    torch.testing.assert_close(verdict_scores(model, hidden, YES_NO).double(), yes - no, atol=1e-4, rtol=1e-4)
