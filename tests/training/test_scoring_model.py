from contextlib import suppress

import pytest
import torch
from peft import PeftModel

from lorarec.errors import LorarecError
from lorarec.lora import read_adapter
from lorarec.prompts import PromptBuilder
from lorarec.ranking import Ranker
from lorarec.scoring import score_batch
from lorarec.training.config import TrainingConfig
from lorarec.training.scoring_model import adapted


@pytest.fixture
def builder(backbone):
    return PromptBuilder(backbone.tokenizer)


@pytest.fixture
def examples(builder):
    return [
        builder.example(["red lamp", "hot chair"], ["new table", "cold plate"]),
        builder.example(["old lamp"], ["dry chair", "hot plate"]),
    ]


def scores(model, examples, builder):
    with torch.no_grad():
        return torch.stack(score_batch(model, examples, builder))


def perturb(model) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)


def test_backbone_is_unchanged(backbone, builder, examples) -> None:
    before, names = scores(backbone.model, examples, builder), [name for name, _ in backbone.model.named_modules()]
    use_cache = backbone.model.config.use_cache
    with suppress(KeyboardInterrupt), adapted(backbone, builder, TrainingConfig()) as model:
        perturb(model)
        model.train()
        raise KeyboardInterrupt
    assert [name for name, _ in backbone.model.named_modules()] == names
    assert torch.equal(scores(backbone.model, examples, builder), before)
    assert not backbone.model.training
    assert backbone.model.config.use_cache == use_cache
    assert not hasattr(backbone.model, "peft_config")


def test_only_adapter_weights_get_gradients(backbone, builder, examples) -> None:
    with adapted(backbone, builder, TrainingConfig(r=2)) as model:
        perturb(model)
        sum(each.sum() for each in model(examples)).backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == ("lora_" in name), name


def test_starts_as_the_backbone_and_from_the_seed(backbone, builder, examples) -> None:
    before = scores(backbone.model, examples, builder)
    found = []
    for _ in range(2):
        with adapted(backbone, builder, TrainingConfig(r=2)) as model:
            assert torch.equal(scores(model.base_model.model, examples, builder), before)
            found.append([parameter.clone() for name, parameter in model.named_parameters() if "lora_A" in name])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_gradient_checkpointing_changes_nothing(backbone, builder, examples) -> None:
    gradients = []
    for recompute in (False, True):
        options = TrainingConfig(r=2, gradient_checkpointing=recompute)
        with adapted(backbone, builder, options) as model:
            torch.manual_seed(1)
            perturb(model)
            model.train()
            torch.manual_seed(2)
            sum(each.sum() for each in model(examples)).backward()
            gradients.append([parameter.grad for name, parameter in model.named_parameters() if "lora_" in name])
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*gradients, strict=True))


def test_saved_folder_is_plain_peft(backbone, builder, examples, tmp_path) -> None:
    with adapted(backbone, builder, TrainingConfig(r=2)) as model:
        perturb(model)
        model.eval()
        expected = scores(model.base_model.model, examples, builder)
        model.save_pretrained(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    reloaded = PeftModel.from_pretrained(backbone.model, str(tmp_path))
    assert torch.allclose(scores(reloaded.base_model.model, examples, builder), expected, atol=1e-6)


def test_continues_from_a_folder(backbone, builder, examples, tmp_path) -> None:
    with adapted(backbone, builder, TrainingConfig(r=2)) as model:
        perturb(model)
        model.eval()
        expected = scores(model.base_model.model, examples, builder)
        model.save_pretrained(str(tmp_path))
    with adapted(backbone, builder, TrainingConfig(r=7), start=read_adapter(tmp_path, backbone)) as model:
        model.eval()
        assert model.peft_config["default"].r == 2
        assert torch.allclose(scores(model.base_model.model, examples, builder), expected, atol=1e-6)
        assert all(parameter.requires_grad for name, parameter in model.named_parameters() if "lora_" in name)


def test_named_layers_and_unknown_ones(backbone, builder) -> None:
    with adapted(backbone, builder, TrainingConfig(target_modules="q_proj, v_proj")) as model:
        trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert {name.split(".lora_")[0].split(".")[-1] for name in trained} == {"q_proj", "v_proj"}
    with (
        pytest.raises(LorarecError, match="nowhere"),
        adapted(backbone, builder, TrainingConfig(target_modules="nowhere")),
    ):
        pass


@pytest.mark.parametrize(
    "options",
    [
        {"rank_pattern": {"q_proj": 5}, "alpha_pattern": {r"layers\.1\.self_attn\.(q|v)_proj": 7}},
        {"use_rslora": True, "rank_pattern": {"down_proj": 2}},
        {"target_modules": r".*layers\.1\..*(q|v)_proj"},
        {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
        {"target_modules": "all-linear", "exclude_modules": r".*mlp.*", "init_lora_weights": "gaussian"},
    ],
)
def test_training_continues_from_adapters_of_any_settings(
    options, backbone, builder, examples, write_adapter, tmp_path
) -> None:
    folder = write_adapter(backbone.model, tmp_path / "start", 1, task_type="CAUSAL_LM", **options)
    start = read_adapter(folder)
    with adapted(backbone, builder, TrainingConfig(), start=read_adapter(folder, backbone)) as model:
        model.eval()
        found = scores(model.base_model.model, examples, builder)
        model.save_pretrained(str(tmp_path / "again"))
    again = read_adapter(tmp_path / "again")
    assert again.tensors.keys() == start.tensors.keys()
    assert again.scales == pytest.approx(start.scales)
    with Ranker(backbone, folder) as ranker:
        torch.testing.assert_close(found, scores(ranker.backbone.model, examples, builder), rtol=1e-4, atol=1e-4)
