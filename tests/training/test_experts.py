"""Mixtures of experts: adapters with the default layers can be read, ranked with, and trained further."""

import pytest

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.lora import AdapterBank, read_adapter
from lorarec.ranking import Ranker
from lorarec.training import TrainingConfig, train
from lorarec.training.scoring_model import target_layers
from tests.factories import tiny_model

FEW = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
SHARED = ATTENTION | {"gate_proj", "up_proj", "down_proj", "shared_expert_gate"}
MLA = {"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"}
LATENT = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8}

#: Model type -> its configuration and the layers that get an adapter by default.
MODELS = {
    "mixtral": ({"num_local_experts": 4, "num_key_value_heads": 2}, ATTENTION),
    "qwen3_moe": ({"num_experts": 4, "head_dim": 8, "num_key_value_heads": 2, **FEW}, ATTENTION),
    "gpt_oss": ({"num_local_experts": 4, "head_dim": 8, "num_key_value_heads": 2, "rope_parameters": None}, ATTENTION),
    "granitemoe": ({"num_local_experts": 4, "num_key_value_heads": 2}, ATTENTION),
    "qwen2_moe": ({"num_experts": 4, "shared_expert_intermediate_size": 16, "num_key_value_heads": 2, **FEW}, SHARED),
    "olmoe": ({"num_experts": 4, "num_key_value_heads": 2, "num_experts_per_tok": 2}, ATTENTION),
    "deepseek_v3": (
        {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "num_key_value_heads": 4, **FEW, **LATENT},
        MLA,
    ),
}
QUICK = {"batch_size": 8, "samples": 8, "negatives": 4, "r": 2, "epochs": 1, "learning_rate": 1e-2, "eval_users": 0}


def experts(kind: str, vocab_size: int):
    return tiny_model(kind, vocab_size, initializer_range=0.02, **MODELS[kind][0])


@pytest.mark.parametrize("kind", MODELS)
def test_records_of_train_are_read(kind, backbone, shop, tmp_path) -> None:
    tokenizer = backbone.tokenizer
    backbone = Backbone(experts(kind, len(tokenizer)), tokenizer, kind, kind)
    before = [name for name, _ in backbone.model.named_modules()]
    config = TrainingConfig(**QUICK)
    first = train(backbone, [shop], tmp_path / "first", config)
    second = train(backbone, [shop], tmp_path / "second", config, start_from=first)
    for out in (first, second):
        adapter = read_adapter(out, backbone)
        assert {name.rpartition(".")[2] for name in adapter.tensors} == MODELS[kind][1]
        assert all(b.any() for _, b in adapter.tensors.values())
        with Ranker(backbone, out) as ranker:
            found = ranker.score_titles([["red lamp"]], [["hot chair", "old plate"]])[0]
        with Ranker(backbone) as ranker:
            assert abs(found - ranker.score_titles([["red lamp"]], [["hot chair", "old plate"]])[0]).max() > 0
    assert AdapterBank.load([first, second], backbone).size == 2
    assert [name for name, _ in backbone.model.named_modules()] == before


@pytest.mark.parametrize(
    "target", ["experts", "gate", "router", "w1", "gate_up_proj", "lm_head", "embed_tokens", "norm"]
)
def test_targets_that_are_no_linear_layers(target, backbone, shop, tmp_path) -> None:
    tokenizer = backbone.tokenizer
    backbone = Backbone(experts("mixtral", len(tokenizer)), tokenizer, "mixtral", "mixtral")
    with pytest.raises(LorarecError, match=f"{target}: no linear layer .*: choose from k_proj, o_proj, q_proj, v_proj"):
        train(backbone, [shop], tmp_path / "adapter", TrainingConfig(target_modules=f"q_proj,{target}", **QUICK))
    assert not list(tmp_path.iterdir())


def test_full_names_and_last_parts() -> None:
    model = experts("qwen2_moe", 50)
    assert target_layers(model, "model.layers.1.self_attn.q_proj") == ["model.layers.1.self_attn.q_proj"]
    assert target_layers(model, "self_attn.q_proj, k_proj") == [
        f"model.layers.{layer}.self_attn.{name}_proj" for name in "qk" for layer in (0, 1)
    ]
