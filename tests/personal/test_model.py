"""The personal LoRA against PEFT, against itself row by row, and on disk."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.lora import AdapterBank, AdapterRecord, MixedLinear
from lorarec.personal import PersonalLora, meta_loras
from lorarec.prompts import PromptBuilder, PromptConfig
from lorarec.scoring import score_batch

WIDTH = 6
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
RULES = pytest.mark.parametrize("combine", ["factors", "deltas"])


def personal_lora(backbone: Backbone, size: int = 3, targets=("q_proj", "v_proj"), **options) -> PersonalLora:
    """Return a personal LoRA with random B, so that the adapters have an effect, in evaluation mode."""
    torch.manual_seed(1)
    bank = meta_loras(backbone.model, size, r=2, lora_alpha=4, target_modules=targets)
    for layer in bank.layers.values():
        layer.b.normal_(0, 0.5)
    return PersonalLora(backbone, bank, WIDTH, **options).eval()


@pytest.fixture
def users():
    return 2 * torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def token_ids():
    return torch.randint(300, (4, 20), generator=torch.Generator().manual_seed(5))


def run(personal: PersonalLora, users: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        personal.set_weights(personal(users))
        return personal.backbone.model(input_ids=ids).logits.softmax(-1)


def train_steps(personal: PersonalLora, users: torch.Tensor, ids: torch.Tensor) -> None:
    optimiser = torch.optim.AdamW([p for p in personal.parameters() if p.requires_grad], lr=0.05)
    personal.train()
    for _ in range(3):
        personal.set_weights(personal(users))
        logits = personal.backbone.model(input_ids=ids).logits[:, -1]
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(len(ids)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    personal.eval()


def contents(module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def test_untrained_it_is_the_backbone(any_backbone, users, token_ids):
    targets = ("c_attn",) if any_backbone.id.endswith("gpt2") else ("q_proj", "v_proj")
    with torch.no_grad():
        expected = any_backbone.model(input_ids=token_ids).logits.softmax(-1)
    bank = meta_loras(any_backbone.model, 3, target_modules=targets)
    with PersonalLora(any_backbone, bank, WIDTH) as personal:
        assert torch.equal(run(personal, users, token_ids), expected)


def test_meta_loras_start_as_those_of_peft(tiny_backbone):
    bank = meta_loras(tiny_backbone.model, 200, r=4, lora_alpha=8, target_modules=("q_proj", "down_proj"))
    peft = get_peft_model(tiny_backbone.model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]))
    adapted = {name: m for name, m in peft.base_model.model.named_modules() if hasattr(m, "lora_A")}
    assert bank.layers.keys() == adapted.keys()
    for name, layer in bank.layers.items():
        a, b = adapted[name].lora_A["default"].weight, adapted[name].lora_B["default"].weight
        assert layer.a.shape == (200, *a.shape)
        assert layer.b.shape == (200, *b.shape)
        assert not layer.b.any()
        # Uniform between plus and minus 1 / sqrt(in): PEFT's one draw comes near its bounds, 200 draws very near.
        bound = a.shape[1] ** -0.5
        assert 0.9 * bound < float(a.detach().abs().max()) <= bound
        assert 0.99 * bound < float(layer.a.abs().max()) <= bound
        assert layer.scale.tolist() == [adapted[name].scaling["default"]] * 200


def test_one_meta_lora_equals_plain_lora(tiny_backbone, users, token_ids):
    with personal_lora(tiny_backbone, 1) as personal:
        found, bank = run(personal, users, token_ids), personal.bank
    peft = get_peft_model(
        tiny_backbone.model, LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    )
    for name, layer in bank.layers.items():
        module = peft.base_model.model.get_submodule(name)
        module.lora_A["default"].weight.data = layer.a[0]
        module.lora_B["default"].weight.data = layer.b[0]
    with torch.no_grad():
        expected = peft(input_ids=token_ids).logits.softmax(-1)
    torch.testing.assert_close(found, expected, **CLOSE)


@RULES
@pytest.mark.parametrize("strategy", ["merge", "gate"])
def test_mixed_users_equal_users_one_by_one(combine, strategy, any_backbone, users, token_ids):
    targets = ("c_attn", "c_proj") if any_backbone.id.endswith("gpt2") else ("q_proj", "v_proj")
    with personal_lora(any_backbone, targets=targets, combine=combine) as personal:
        for layer in personal.mixed.layers.values():
            layer.strategy = strategy
        together = run(personal, users, token_ids)
        for row in range(len(users)):
            separate = run(personal, users[row : row + 1], token_ids[row : row + 1])
            torch.testing.assert_close(together[row : row + 1], separate, **CLOSE)


def test_merging_equals_gating_with_gradients(tiny_backbone, users, token_ids):
    found = []
    for strategy in ("merge", "gate"):
        with personal_lora(tiny_backbone) as personal:
            for layer in personal.mixed.layers.values():
                layer.strategy = strategy
            personal.set_weights(personal(users))
            tiny_backbone.model(input_ids=token_ids).logits.softmax(-1)[..., :9].sum().backward()
            found.append([parameter.grad for parameter in personal.parameters()])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@RULES
def test_identical_users_get_identical_outputs(combine, tiny_backbone, users, token_ids):
    with personal_lora(tiny_backbone, combine=combine) as personal:
        same = run(personal, users[[0, 1, 0]], token_ids[[0, 0, 0]])
    assert torch.equal(same[0], same[2])
    assert not torch.allclose(same[0], same[1], **CLOSE)


def test_rows_of_scored_prompts_have_their_own_users(tiny_backbone, users):
    builder = PromptBuilder(tiny_backbone.tokenizer)
    examples = [builder.example(["red lamp"] * n, ["novel", "big brush"][: 1 + n % 2]) for n in range(len(users))]
    with personal_lora(tiny_backbone) as personal, torch.no_grad():
        personal.set_weights(personal(users))
        together = score_batch(tiny_backbone.model, examples, builder)
        for row, example in enumerate(examples):
            personal.set_weights(personal(users[row : row + 1]))
            torch.testing.assert_close(score_batch(tiny_backbone.model, [example], builder)[0], together[row], **CLOSE)


@RULES
def test_exported_adapter_under_plain_peft_gives_the_same(combine, any_backbone, users, token_ids, tmp_path):
    targets = ("c_attn", "c_proj") if any_backbone.id.endswith("gpt2") else ("q_proj", "v_proj")
    record = AdapterRecord(PromptConfig(max_history=7))
    with personal_lora(any_backbone, targets=targets, combine=combine, record=record) as personal:
        expected = run(personal, users, token_ids)
        for row, user in enumerate(users):
            personal.train().export(user, tmp_path / str(row))
            personal.eval()
    meta = json.loads((tmp_path / "0" / "lorarec.json").read_text())
    assert (meta["readout"], meta["options"]["max_history"]) == ("verdict", 7)
    assert meta["backbone"]["fingerprint"] == any_backbone.fingerprint
    model = any_backbone.model
    for row in range(len(users)):
        peft = PeftModel.from_pretrained(model, tmp_path / str(row))
        with torch.no_grad():
            adapted = peft(input_ids=token_ids[row : row + 1]).logits.softmax(-1)
            peft.merge_adapter()
            merged = peft(input_ids=token_ids[row : row + 1]).logits.softmax(-1)
            peft.unmerge_adapter()
        model = peft.unload()
        torch.testing.assert_close(adapted, expected[row : row + 1], **CLOSE)
        torch.testing.assert_close(merged, expected[row : row + 1], **CLOSE)


def test_training_moves_bank_and_router_and_nothing_else(tiny_backbone, users, token_ids):
    model = tiny_backbone.model
    before = contents(model)
    assert all(parameter.requires_grad for parameter in model.parameters())
    with personal_lora(tiny_backbone) as personal:
        own = contents(personal)
        train_steps(personal, users, token_ids)
        assert not any(torch.equal(own[name], value) for name, value in personal.named_parameters())
        frozen = {id(p): p for p in model.parameters()}.keys() - {id(p) for p in personal.parameters()}
        assert all(p.grad is None and not p.requires_grad for p in model.parameters() if id(p) in frozen)
    assert not any(isinstance(module, MixedLinear) for module in model.modules())
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@RULES
def test_over_finished_adapters_only_the_router_moves(
    combine, tiny_backbone, write_adapter, users, token_ids, tmp_path
):
    folders = [write_adapter(tiny_backbone.model, tmp_path / name, seed) for seed, name in enumerate(("one", "two"))]
    bank = AdapterBank.load(folders, tiny_backbone)
    with PersonalLora(tiny_backbone, bank, WIDTH, combine=combine, trainable=False) as personal:
        before, router = contents(tiny_backbone.model), contents(personal)
        train_steps(personal, users, token_ids)
        assert all(name.startswith("router.") for name in router)
        assert not any(torch.equal(router[name], value) for name, value in personal.named_parameters())
        assert all(torch.equal(before[name], value) for name, value in tiny_backbone.model.state_dict().items())
        assert all(parameter.grad is None for parameter in tiny_backbone.model.parameters())
        expected = run(personal, users, token_ids)
        personal.save(tmp_path / "saved")
        personal.export(users[0], tmp_path / "user")
    with PersonalLora.load(tmp_path / "saved", tiny_backbone) as personal:
        assert torch.equal(run(personal, users, token_ids), expected)
        assert personal.bank.names == ("one", "two")
        assert {name.split(".")[0] for name, _ in personal.named_parameters()} == {"router"}
    peft = PeftModel.from_pretrained(tiny_backbone.model, tmp_path / "user")
    with torch.no_grad():
        torch.testing.assert_close(peft(input_ids=token_ids[:1]).logits.softmax(-1), expected[:1], **CLOSE)


def test_bank_of_a_half_precision_backbone_is_trained_in_full(tiny_backbone, users, token_ids):
    tiny_backbone.model.bfloat16()
    with personal_lora(tiny_backbone) as personal:
        train_steps(personal, users, token_ids)
        assert {p.dtype for p in personal.parameters()} == {p.grad.dtype for p in personal.parameters()}
        assert {parameter.dtype for parameter in personal.parameters()} == {torch.float32}


@RULES
def test_saved_and_loaded_it_is_the_same(combine, tiny_backbone, users, token_ids, tmp_path):
    record = AdapterRecord(PromptConfig(max_history=7), options={"r": 2}, details={"crm": "din"})
    with personal_lora(tiny_backbone, combine=combine, temperature=3.0, record=record) as personal:
        recorded = personal.record
        train_steps(personal, users, token_ids)
        expected, weights = run(personal, users, token_ids), personal(users)
        personal.save(tmp_path / "saved")
        with pytest.raises(LorarecError, match="saved exists already"):
            personal.save(tmp_path / "saved")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["saved"]
    with PersonalLora.load(tmp_path / "saved", tiny_backbone) as personal:
        assert torch.equal(personal(users), weights)
        assert torch.equal(run(personal, users, token_ids), expected)
        assert personal.record == recorded
        assert (recorded.prompt, recorded.options, recorded.details) == (record.prompt, record.options, record.details)
        train_steps(personal, users, token_ids)
        assert not torch.equal(run(personal, users, token_ids), expected)


@pytest.fixture
def saved(tiny_backbone, tmp_path):
    with personal_lora(tiny_backbone) as personal:
        personal.save(tmp_path / "saved")
    return tmp_path / "saved"


def drop_tensor(folder, ending):
    state = load_file(folder / "personal.safetensors")
    save_file({k: v for k, v in state.items() if not k.endswith(ending)}, folder / "personal.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "personal.json").unlink(), r"personal\.json does not exist"),
        (lambda folder: (folder / "personal.json").write_text("[]"), "does not describe a personal LoRA"),
        (lambda folder: (folder / "personal.safetensors").unlink(), r"personal\.safetensors does not exist"),
        (lambda folder: (folder / "personal.safetensors").write_bytes(b"\xff" * 64), "is corrupted"),
        (lambda folder: drop_tensor(folder, "0.self_attn.q_proj.a"), r"layers\.0\.self_attn\.q_proj\.a is missing"),
        (lambda folder: drop_tensor(folder, "router.out_bias"), "does not hold the router"),
    ],
)
def test_damaged_folders(damage, message, saved, tiny_backbone):
    damage(saved)
    with pytest.raises(LorarecError, match=message):
        PersonalLora.load(saved, tiny_backbone)
    assert not any(isinstance(module, MixedLinear) for module in tiny_backbone.model.modules())
    assert all(parameter.requires_grad for parameter in tiny_backbone.model.parameters())


def test_folder_of_another_backbone(saved, tiny_backbone):
    other = Backbone(tiny_backbone.model, tiny_backbone.tokenizer, "other", "ffff")
    with pytest.raises(LorarecError, match=r"belongs to backbone tiny-qwen2 \(qwen2\), not to other \(ffff\)"):
        PersonalLora.load(saved, other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_meta_loras": 0}, "num_meta_loras and r of at least 1 and lora_alpha above 0, got 0, 8, 16"),
        ({"r": 0}, "8, 0, 16"),
        ({"lora_alpha": -1.0}, "8, 8, -1"),
        ({"target_modules": ("q_proj", "nope")}, "no linear layer 'nope': choose from down_proj, gate_proj"),
        ({"target_modules": ()}, "at least one layer"),
    ],
)
def test_bad_banks(settings, message, tiny_backbone):
    with pytest.raises(LorarecError, match=message):
        meta_loras(tiny_backbone.model, **settings)


def test_bad_rule_does_not_change_the_backbone(tiny_backbone):
    with pytest.raises(LorarecError, match="unknown rule 'sum'"):
        personal_lora(tiny_backbone, combine="sum")
    assert all(parameter.requires_grad for parameter in tiny_backbone.model.parameters())


def test_users_that_do_not_fit_the_batch(tiny_backbone, users, token_ids):
    with (
        personal_lora(tiny_backbone) as personal,
        pytest.raises(LorarecError, match="weights for 4 rows do not fit an input of shape"),
    ):
        run(personal, users, token_ids[:3])
