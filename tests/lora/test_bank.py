import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel

from lorarec.errors import LorarecError
from lorarec.lora import Adapter, AdapterBank, merge, read_adapter, save_adapter, truncate_rank

LAYER = "layer"


def delta(adapter: Adapter, name: str = LAYER) -> torch.Tensor:
    a, b = adapter.tensors[name]
    return adapter.scales[name] * b @ a


def random_adapters(seed: int, ranks: list[int], width: int, height: int, scales: list[float]) -> list[Adapter]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Adapter(
            {LAYER: (torch.randn(r, width, generator=generator), torch.randn(height, r, generator=generator))},
            {LAYER: scale},
        )
        for r, scale in zip(ranks, scales, strict=True)
    ]


simplex = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(lambda w: torch.tensor(w) / sum(w))
sizes = st.integers(1, 9)


@given(st.integers(0, 999), st.lists(st.integers(1, 4), min_size=3, max_size=3), sizes, sizes, simplex)
def test_deltas_is_the_weighted_sum_of_deltas(seed, ranks, width, height, weights):
    adapters = random_adapters(seed, ranks, width, height, [2.0, 1.0, 0.5])
    merged = AdapterBank.stack(adapters).to_adapter(weights, "deltas")
    expected = sum(w * delta(adapter) for w, adapter in zip(weights, adapters, strict=True))
    torch.testing.assert_close(delta(merged), expected, rtol=1e-4, atol=1e-4)
    assert merged.ranks[LAYER] == sum(ranks)


@given(st.integers(0, 999), st.integers(1, 4), sizes, sizes, simplex)
def test_factors_is_the_formula(seed, rank, width, height, weights):
    adapters = random_adapters(seed, [rank] * 3, width, height, [2.0] * 3)
    merged = AdapterBank.stack(adapters).to_adapter(weights, "factors")
    a, b = torch.zeros(rank, width), torch.zeros(height, rank)
    for w, adapter in zip(weights, adapters, strict=True):
        a += w * adapter.tensors[LAYER][0]
        b += w * adapter.tensors[LAYER][1]
    torch.testing.assert_close(delta(merged), 2.0 * b @ a, rtol=1e-4, atol=1e-4)
    assert merged.ranks[LAYER] == rank


@pytest.mark.parametrize("combine", ["factors", "deltas"])
@given(st.integers(0, 999), st.integers(0, 2))
def test_one_hot_weights_give_the_single_adapter(combine, seed, chosen):
    adapters = random_adapters(seed, [2] * 3, 5, 7, [2.0] * 3)
    merged = AdapterBank.stack(adapters).to_adapter(torch.eye(3)[chosen], combine)
    torch.testing.assert_close(delta(merged), delta(adapters[chosen]))


@given(st.integers(0, 999), sizes, sizes, st.integers(1, 12))
def test_truncation_is_the_best_approximation_of_its_rank(seed, width, height, rank):
    merged = AdapterBank.stack(random_adapters(seed, [2, 3], width, height, [2.0, 1.0])).to_adapter(
        torch.tensor([0.4, 0.6]), "deltas"
    )
    full = delta(merged).double()
    u, s, v = torch.linalg.svd(full, full_matrices=False)
    best = u[:, :rank] * s[:rank] @ v[:rank]
    smaller = truncate_rank(merged, rank)
    torch.testing.assert_close(delta(smaller).double(), best, rtol=1e-4, atol=1e-4)
    assert smaller.ranks[LAYER] == min(rank, width, height, 5)


def test_deltas_equals_peft_cat_and_full_rank_truncation_equals_deltas(
    architecture, model, make_adapter, token_ids, logits_of, tmp_path
):
    folders = [make_adapter(architecture, 1), make_adapter(architecture, 2, r=5)]
    weights = [0.3, 0.7]
    with_peft = PeftModel.from_pretrained(model, folders[0], adapter_name="0")
    with_peft.load_adapter(folders[1], "1")
    with_peft.add_weighted_adapter(["0", "1"], weights, "both", combination_type="cat")
    with_peft.set_adapter("both")
    expected = logits_of(with_peft, token_ids)
    plain = with_peft.unload()
    bank = AdapterBank.load(folders)
    for rank in (None, 8):
        out = tmp_path / f"rank{rank}"
        out.mkdir()
        merged = bank.to_adapter(torch.tensor(weights), "deltas", rank)
        save_adapter(merged, out, "tiny")
        with_peft = PeftModel.from_pretrained(plain, out)
        torch.testing.assert_close(logits_of(with_peft, token_ids), expected, rtol=1e-5, atol=1e-5)
        plain = with_peft.unload()
        merged_model = merge(plain, merged)
        torch.testing.assert_close(logits_of(plain, token_ids), expected, rtol=1e-5, atol=1e-5)
        merged_model.unmerge()


def test_adapters_on_different_layers(qwen2, make_adapter, token_ids, logits_of, tmp_path):
    folders = [make_adapter("qwen2", seed, target_modules=[name]) for seed, name in enumerate(("q_proj", "down_proj"))]
    bank = AdapterBank.load(folders)
    with pytest.raises(LorarecError, match="equal rank"):
        bank.require("factors")
    merged = bank.to_adapter(torch.tensor([0.5, 0.5]), "deltas")
    save_adapter(merged, tmp_path, "tiny")
    with_peft = PeftModel.from_pretrained(qwen2, tmp_path)
    expected = logits_of(with_peft, token_ids)
    plain = with_peft.unload()
    merge(plain, merged)
    torch.testing.assert_close(logits_of(plain, token_ids), expected, rtol=1e-5, atol=1e-5)


def test_weights_per_layer(make_adapter):
    folders = [make_adapter("qwen2", 1), make_adapter("qwen2", 2)]
    bank = AdapterBank.load(folders)
    first, *others = bank.layers
    weights = dict.fromkeys(bank.layers, torch.tensor([0.0, 1.0])) | {first: torch.tensor([1.0, 0.0])}
    merged = bank.to_adapter(weights, "factors")
    torch.testing.assert_close(delta(merged, first), delta(read_adapter(folders[0]), first))
    for name in others:
        torch.testing.assert_close(delta(merged, name), delta(read_adapter(folders[1]), name))


def test_factors_needs_equal_ranks(make_adapter):
    bank = AdapterBank.load([make_adapter("qwen2", 1), make_adapter("qwen2", 2, r=4)])
    with pytest.raises(LorarecError, match="ranks 3, 4 in adapter1, adapter2: use combine=deltas"):
        bank.to_adapter(torch.tensor([0.5, 0.5]), "factors")


def test_factors_needs_equal_scales(make_adapter):
    bank = AdapterBank.load([make_adapter("qwen2", 1), make_adapter("qwen2", 2, lora_alpha=3)])
    with pytest.raises(LorarecError, match="has 2, 1 in adapter1, adapter2: use combine=deltas"):
        bank.require("factors")


def test_unknown_rule(make_adapter):
    with pytest.raises(LorarecError, match="unknown rule 'linear'"):
        AdapterBank.load([make_adapter("qwen2", 1)]).require("linear")


def test_layers_of_different_sizes():
    with pytest.raises(LorarecError, match="different backbones: layer"):
        AdapterBank.stack(random_adapters(0, [2], 4, 5, [1.0]) + random_adapters(0, [2], 6, 5, [1.0]))


def test_no_adapter():
    with pytest.raises(LorarecError, match="at least one adapter"):
        AdapterBank.stack([])


def test_rank_below_one():
    with pytest.raises(LorarecError, match="at least 1"):
        AdapterBank.stack(random_adapters(0, [2], 4, 5, [1.0])).to_adapter(torch.ones(1), "deltas", 0)
