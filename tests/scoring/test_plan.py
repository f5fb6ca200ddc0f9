"""The configuration of a model decides its scoring plan."""

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from lorarec.errors import LorarecError
from lorarec.prompts import Example
from lorarec.scoring import PREFIX, ROWS, TREE, branch_scores, plan_for

from .architectures import ARCHITECTURES, REFUSED, build

VOCABULARY = 200
KINDS = {
    TREE: ["llama", "gpt2", "mistral", "gemma3_text", "gpt_oss", "llama4_text", "qwen2 (window)", "gpt_neox", "bert"],
    PREFIX: ["bloom", "mpt", "falcon (alibi)", "gpt_neo", "mamba2", "mamba", "jamba", "qwen3_next", "lfm2", "bart"],
    ROWS: ["openai-gpt", "recurrent_gemma", "rwkv", "xlstm", "roberta"],
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in KINDS.items() for name in names])
def test_the_fastest_exact_plan_is_chosen(kind: str, name: str) -> None:
    plan = plan_for(build(name, VOCABULARY))
    assert plan.kind == kind
    assert bool(plan.reason) == (kind != TREE)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_models_without_a_plan_are_refused_by_name(name: str) -> None:
    with pytest.raises(LorarecError, match=rf"\({ARCHITECTURES[name].model_type}\) cannot be scored: .+"):
        plan_for(build(name, VOCABULARY))


@pytest.mark.parametrize(
    ("name", "windows"), [("llama", ()), ("mistral", (16,)), ("llama4_text", (16,)), ("gpt_neo", (16,))]
)
def test_windows(name: str, windows: tuple[int, ...]) -> None:
    assert plan_for(build(name, VOCABULARY)).windows == windows


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("llama", 512),
        ("gpt2", 512),
        ("llama (dynamic rope)", 64),
        ("phi3 (longrope)", 64),
        ("roberta", 511),
        ("bloom", None),
        ("mamba", None),
        ("mpt", 512),
        ("whisper", 448),
    ],
)
def test_positions_end_where_the_model_is_no_longer_defined(name: str, limit: int | None) -> None:
    assert plan_for(build(name, VOCABULARY)).max_positions == limit


def test_flash_attention_takes_no_tree() -> None:
    model = build("llama", VOCABULARY)
    model.config._attn_implementation = "flash_attention_2"
    assert plan_for(model).kind == PREFIX


def test_a_tree_leaves_other_passes_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    """A pass without a tree, before and after one, has transformers' own masks."""
    model, ids = build("mistral", VOCABULARY), torch.arange(60)[None]
    with torch.no_grad():
        before = model(input_ids=ids).logits
        branch_scores(model, [Example(list(range(40)), [[1, 2], [3]])], "verdict", (4, 5))
        assert torch.equal(model(input_ids=ids).logits, before)


def test_eager_attention_takes_the_same_masks() -> None:
    model, example = build("gemma3_text", VOCABULARY), Example(list(range(3, 60)), [[1, 2, 9], [3]])
    with torch.no_grad():
        expected = branch_scores(model, [example], "likelihood", (4, 5))[0]
        model.set_attn_implementation("eager")
        torch.testing.assert_close(branch_scores(model, [example], "likelihood", (4, 5))[0], expected)
