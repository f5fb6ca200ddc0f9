import pytest
import torch
from peft import PeftModel

from lorarec.errors import LorarecError
from lorarec.lora import AdapterBank, save_adapter
from lorarec.lora.combine import PRUNING_RULES
from lorarec.lora.pruning import prune_and_merge


def drawn(input: torch.Tensor) -> torch.Tensor:
    """Draw the same values for PEFT, in another order of layers; PEFT's matrices are transposed in GPT-2."""
    rows, columns = map(torch.arange, input.shape)
    return (torch.outer(rows, columns) % 5 < 3).to(input)


def svd_in_double_precision(matrix: torch.Tensor, svd=torch.linalg.svd, **options) -> tuple[torch.Tensor, ...]:
    """Decompose in double precision; in PEFT's single precision, close singular values turn the vectors of a cut."""
    return tuple(each.to(matrix) for each in svd(matrix.double(), **options))


@pytest.mark.parametrize("rule", PRUNING_RULES)
@pytest.mark.parametrize(("weights", "rank"), [([0.3, 0.7], None), ([1.0, -0.5], 3)])
def test_rules_equal_those_of_peft(
    rule, weights, rank, model, architecture, make_adapter, token_ids, logits_of, tmp_path, monkeypatch
):
    monkeypatch.setattr(torch, "bernoulli", drawn)
    monkeypatch.setattr(torch.linalg, "svd", svd_in_double_precision)
    folders = [make_adapter(architecture, 1), make_adapter(architecture, 2, r=5, lora_alpha=7)]
    with_peft = PeftModel.from_pretrained(model, folders[0], adapter_name="0")
    with_peft.load_adapter(folders[1], "1")
    with_peft.add_weighted_adapter(
        ["0", "1"], weights, "both", combination_type=f"{rule}_svd", svd_rank=rank, density=0.6
    )
    with_peft.set_adapter("both")
    expected = logits_of(with_peft, token_ids)
    plain = with_peft.unload()
    merged = prune_and_merge(AdapterBank.load(folders), torch.tensor(weights), rule, 0.6, rank)
    assert set(merged.ranks.values()) == {rank or 5}
    out = tmp_path / "merged"
    out.mkdir()
    save_adapter(merged, out, "tiny")
    assert (expected - logits_of(plain, token_ids)).abs().max() > 1e-4
    torch.testing.assert_close(
        logits_of(PeftModel.from_pretrained(plain, out), token_ids), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("rule", ["magnitude_prune", "dare_linear"])
def test_a_density_of_one_is_the_rule_deltas(rule, make_adapter, recwarn):
    folders = [make_adapter("qwen2", 1), make_adapter("qwen2", 2, r=5, target_modules=["q_proj", "down_proj"])]
    bank, weights = AdapterBank.load(folders), torch.tensor([0.4, 0.9])
    merged, expected = prune_and_merge(bank, weights, rule, 1.0, rank=13), bank.to_adapter(weights, "deltas")
    assert merged.tensors.keys() == expected.tensors.keys()
    for name, (a, b) in merged.tensors.items():
        wanted_a, wanted_b = expected.tensors[name]
        torch.testing.assert_close(b @ a, wanted_b @ wanted_a, rtol=1e-4, atol=1e-5)
    assert not any("density" in str(warning.message) for warning in recwarn)


def test_ties_keeps_the_values_of_the_majoritys_sign(make_adapter):
    bank = AdapterBank.load([make_adapter("qwen2", seed) for seed in (1, 2, 3)])
    weights = torch.tensor([0.2, 0.3, 0.5])
    merged = prune_and_merge(bank, weights, "ties", 1.0, rank=100)
    for name, layer in bank.layers.items():
        deltas = layer.scale[:, None, None] * layer.b @ layer.a
        expected = torch.zeros(deltas.shape[1:])
        for row, column in torch.cartesian_prod(*map(torch.arange, deltas.shape[1:])).tolist():
            values = deltas[:, row, column]
            same = values.sign() == (1 if values.sum() >= 0 else -1)
            expected[row, column] = (weights * values)[same].sum() / max(1, same.sum())
        a, b = merged.tensors[name]
        torch.testing.assert_close(b @ a, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_below_one_is_refused(rank, make_adapter):
    bank = AdapterBank.load([make_adapter("qwen2", seed) for seed in (1, 2)])
    with pytest.raises(LorarecError, match=f"the rank must be at least 1, got {rank}"):
        prune_and_merge(bank, torch.tensor([0.5, 0.5]), "ties", 0.5, rank)


def test_dare_depends_on_the_seed_alone(make_adapter):
    bank = AdapterBank.load([make_adapter("qwen2", seed) for seed in (1, 2)])
    state = torch.random.get_rng_state()
    merged = [prune_and_merge(bank, torch.tensor([0.5, 0.5]), "dare_ties", 0.5, seed=seed) for seed in (1, 1, 2)]
    first, again, other = ([a for a, _ in adapter.tensors.values()] for adapter in merged)
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, other))
    assert torch.equal(torch.random.get_rng_state(), state)
