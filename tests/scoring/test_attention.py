"""The implementations of attention that a backbone can be loaded with give the same scores."""

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.prompts import READOUTS, PromptBuilder
from lorarec.scoring import plan_for, score_batch
from tests.factories import make_backbone, save_backbone

HISTORY, CANDIDATES = ["hot lamp", "red chair", "old table"], ["new plate", "cold table", "hot chair"]


@pytest.mark.parametrize(
    ("architecture", "plan"),
    [("llama", "tree"), ("qwen2", "tree"), ("mistral", "tree"), ("gpt2", "tree"), ("opt", "tree"), ("lfm2", "prefix")],
)
def test_sdpa_and_eager_are_equal(
    architecture: str, plan: str, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    save_backbone(make_backbone(architecture, tokenizer), tmp_path)
    scores: dict[str, list[torch.Tensor]] = {}
    for implementation in ("sdpa", "eager"):
        backbone = Backbone.from_pretrained(tmp_path, device="cpu", attn_implementation=implementation)
        assert backbone.model.config._attn_implementation == implementation
        assert plan_for(backbone.model).kind == plan
        builders = [PromptBuilder(backbone.tokenizer, readout) for readout in READOUTS]
        with torch.no_grad():
            scores[implementation] = [
                score_batch(backbone.model, [builder.example(HISTORY[:count], CANDIDATES) for count in (3, 1)], builder)
                for builder in builders
            ]
    torch.testing.assert_close(scores["sdpa"], scores["eager"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("implementation", ["flash_attention_2", "flash_attention_3", "flex_attention", "kernels/some"])
def test_implementations_that_take_no_tree_mask_are_refused_by_name(implementation: str, tmp_path: Path) -> None:
    message = f"option attn_implementation must be sdpa or eager or null, got '{implementation}'"
    with pytest.raises(LorarecError, match=message):
        Backbone.from_pretrained(tmp_path, attn_implementation=implementation)  # type: ignore[arg-type]
