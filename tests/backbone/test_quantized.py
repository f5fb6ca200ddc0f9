"""Models that are stored quantized: loaded with adapters beside their layers, or refused by name."""

import importlib.util
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedTokenizerFast, TorchAoConfig

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.lora import Adapter, AdapterBank, inject, linear_layers, merge, save_merged
from lorarec.prompts import PromptBuilder
from lorarec.ranking import Ranker
from lorarec.scoring import score, score_batch
from lorarec.training import TrainingConfig, train
from tests.factories import QUICK, hot_backbone, hot_log, make_backbone, random_adapter, save_backbone

HISTORY, CANDIDATES = ["hot lamp", "red chair"], ["new plate", "cold table", "hot chair"]


def mark(folder: Path, **settings: Any) -> Path:
    """Say in the configuration of a saved model that it is quantized."""
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = settings
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if weights are loaded."""

    def from_pretrained(source: str, **arguments: Any) -> None:
        pytest.fail(f"{source} is loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"quant_method": "gptq", "bits": 4, "group_size": 128},
            "is stored quantized by gptq, which takes no adapters",
        ),
        ({"quant_method": "awq", "bits": 4, "zero_point": True}, "is stored quantized by awq, which takes no adapters"),
        ({"quant_method": "hqq"}, "is stored quantized by hqq, "),
        ({"quant_method": "exl9"}, "is stored quantized by exl9, "),
        ({"bits": 3}, "is stored quantized by an unnamed method, "),
    ],
)
def test_other_methods_are_refused_by_name_before_weights_are_read(
    tiny_backbone: Backbone, settings: dict[str, Any], message: str, tmp_path: Path, loads_nothing: None
) -> None:
    mark(save_backbone(tiny_backbone, tmp_path), **settings)
    with pytest.raises(
        LorarecError, match=f"^backbone {tmp_path} {message}.*load the model that it was quantized from"
    ):
        Backbone.from_pretrained(tmp_path)


def test_a_quantized_model_is_not_quantized_again(tiny_backbone: Backbone, tmp_path: Path, loads_nothing: None) -> None:
    mark(save_backbone(tiny_backbone, tmp_path), quant_method="fp8", weight_block_size=[128, 128])
    with pytest.raises(LorarecError, match="is stored quantized by fp8: load it without option quantization"):
        Backbone.from_pretrained(tmp_path, quantization="4bit")


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({"quant_method": "torchao", "quant_type": {}}, {}, "weights quantized by torchao need .* pip install torchao"),
        ({"load_in_4bit": True}, {}, r"by bitsandbytes need its library: pip install 'lorarec\[quantized\]'"),
        ({"quant_method": "compressed-tensors"}, {}, "pip install compressed-tensors"),
        ({}, {"quantization": "8bit"}, r"by bitsandbytes need its library: pip install 'lorarec\[quantized\]'"),
    ],
)
def test_a_missing_library_is_named(
    tiny_backbone: Backbone,
    settings: dict[str, Any],
    options: dict[str, Any],
    message: str,
    tmp_path: Path,
    loads_nothing: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mark(save_backbone(tiny_backbone, tmp_path), **settings)
    find_spec = importlib.util.find_spec
    libraries = ("torchao", "bitsandbytes", "compressed_tensors")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in libraries else find_spec(name))
    with pytest.raises(LorarecError, match=message):
        Backbone.from_pretrained(tmp_path, **options)


def test_mxfp4_is_dequantized_exactly(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Experts of gpt-oss are stored as 4-bit floats, two to a byte, with a power of two for each 32 of them."""
    layers = ["sliding_attention", "full_attention"]
    sizes = {"intermediate_size": 32, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 16}
    experts = {"num_local_experts": 2, "num_experts_per_tok": 2, "layer_types": layers}
    save_backbone(make_backbone("gpt_oss", tokenizer, **sizes, **experts), tmp_path)
    magnitudes = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    values, draws = torch.cat([magnitudes, -magnitudes]), torch.Generator().manual_seed(0)
    state, expected = load_file(tmp_path / "model.safetensors"), {}
    for name in [name for name in state if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        count, inputs, outputs = state.pop(name).shape
        numbers = torch.randint(16, (count, outputs, inputs // 32, 32), generator=draws)
        scales = torch.randint(120, 126, (count, outputs, inputs // 32), generator=draws)
        expected[name] = (values[numbers] * 2.0 ** (scales[..., None] - 127)).reshape(count, outputs, inputs).mT
        state[f"{name}_blocks"] = (numbers[..., ::2] | numbers[..., 1::2] << 4).to(torch.uint8)
        state[f"{name}_scales"] = scales.to(torch.uint8)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    mark(tmp_path, quant_method="mxfp4", modules_to_not_convert=["lm_head"])
    model = Backbone.from_pretrained(tmp_path, device="cpu").model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert len(expected) == 4
    for name, weight in expected.items():
        assert torch.equal(model.state_dict()[name], weight)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_compressed_tensors_are_dequantized(tiny_backbone: Backbone, dtype: str, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors", reason="it is not installed: pip install compressed-tensors")
    save_backbone(tiny_backbone, tmp_path)
    state, expected = load_file(tmp_path / "model.safetensors"), {}
    for name in [name for name in state if name.endswith("_proj.weight")]:
        scale = state[name].abs().amax(1, keepdim=True) / 127
        state[name] = (state[name] / scale).round().to(torch.int8)
        state[f"{name}_scale"] = scale
        expected[name] = (state[name] * scale).to(getattr(torch, dtype))
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    status = {"quantization_status": "compressed", "format": "int-quantized", "ignore": ["lm_head"]}
    mark(tmp_path, quant_method="compressed-tensors", config_groups={"group_0": group}, **status)
    loaded = Backbone.from_pretrained(tmp_path, dtype=dtype, device="cpu").model.state_dict()
    for name, weight in expected.items():
        assert torch.equal(loaded[name], weight)


def _torchao() -> Any:
    pytest.importorskip("torchao", reason="it is not installed: pip install torchao")
    from torchao.quantization import Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


def _bitsandbytes() -> Any:
    pytest.importorskip("bitsandbytes", reason="it is not installed: pip install 'lorarec[quantized]'")
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")


def _float_weight(layer: Any) -> torch.Tensor:
    """The weights that a quantized layer computes with."""
    if type(layer).__name__ == "Linear4bit":
        import bitsandbytes

        return bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    return layer.weight.dequantize()


@dataclass
class Quantized:
    """A quantized backbone of a folder, and one in floats that computes the same."""

    backbone: Backbone
    floats: Backbone


@pytest.fixture(scope="module", params=[_torchao, _bitsandbytes], ids=["torchao", "bitsandbytes"])
def quantized(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    """A tiny model that is stored quantized, by each method whose layers stay quantized."""
    settings, folder = request.param(), tmp_path_factory.mktemp("quantized")
    plain = save_backbone(hot_backbone(width=64), folder / "plain")
    model = AutoModelForCausalLM.from_pretrained(
        plain, quantization_config=settings, dtype=torch.float32, device_map="cpu"
    )
    model.save_pretrained(folder / "stored")
    hot_backbone(width=64).tokenizer.save_pretrained(folder / "stored")
    backbone, floats = (Backbone.from_pretrained(folder / name, device="cpu") for name in ("stored", "plain"))
    weights = {f"{name}.weight": _float_weight(layer) for name, layer in linear_layers(backbone.model).items()}
    floats.model.load_state_dict(weights, strict=False)
    return Quantized(backbone, floats)


def _scores(backbone: Backbone, adapter: Adapter) -> np.ndarray:
    builder = PromptBuilder(backbone.tokenizer)
    merged = merge(backbone.model, adapter)
    try:
        [scores] = score(backbone.model, [builder.example(HISTORY, CANDIDATES)], builder)
    finally:
        merged.unmerge()
    return scores


def test_an_adapter_beside_quantized_layers_is_exact(quantized: Quantized) -> None:
    adapter = random_adapter(quantized.floats, 0)
    beside, merged = (_scores(each, adapter) for each in (quantized.backbone, quantized.floats))
    np.testing.assert_allclose(beside, merged, atol=1e-4)
    zero = replace(adapter, scales=dict.fromkeys(adapter.scales, 0.0))
    assert np.abs(beside - _scores(quantized.backbone, zero)).max() > 0.1


def test_mixtures_by_row_are_exact(quantized: Quantized) -> None:
    adapters = [random_adapter(quantized.floats, seed) for seed in (0, 1)]
    bank, weights = AdapterBank.stack(adapters), torch.tensor([[0.3, 0.7], [1.0, 0.0]])
    builder = PromptBuilder(quantized.floats.tokenizer)
    examples = [builder.example(HISTORY[:count], CANDIDATES) for count in (1, 2)]
    found = []
    for backbone in (quantized.backbone, quantized.floats):
        with inject(backbone.model, bank, "factors") as mixed, torch.no_grad():
            mixed.set_weights(weights)
            found.append(torch.stack(score_batch(backbone.model, examples, builder)))
    torch.testing.assert_close(*found, atol=1e-4, rtol=0)


def test_an_adapter_is_trained_on_quantized_layers(quantized: Quantized, tmp_path: Path) -> None:
    config = TrainingConfig(**{**QUICK, "epochs": 1, "samples": 16, "eval_users": 0, "lora_dropout": 0.0})
    dataset, split = hot_log()
    trained = [
        train(backbone, [(dataset, split)], tmp_path / name, config)
        for name, backbone in (("quantized", quantized.backbone), ("floats", quantized.floats))
    ]
    assert trained[0].record.backbone_fingerprint == quantized.backbone.fingerprint != quantized.floats.fingerprint
    expected = _scores(quantized.floats, trained[1])
    np.testing.assert_allclose(_scores(quantized.backbone, trained[0]), expected, atol=1e-2)
    untrained = replace(trained[1], scales=dict.fromkeys(trained[1].scales, 0.0))
    assert np.abs(_scores(quantized.floats, untrained) - expected).max() > 0.1
    with Ranker(quantized.backbone, trained[0]) as ranker:
        assert len(ranker.rank(HISTORY, CANDIDATES)) == 3


def test_nothing_is_merged_into_quantized_layers(quantized: Quantized, tmp_path: Path) -> None:
    with pytest.raises(LorarecError, match=r"cannot be merged into .*q_proj of .*stored, whose weights are quantized"):
        save_merged(quantized.backbone, random_adapter(quantized.floats, 0), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_the_fingerprint_is_that_of_the_stored_weights(quantized: Quantized) -> None:
    again = Backbone.from_pretrained(quantized.backbone.id, dtype="bfloat16", device="cpu")
    assert again.fingerprint == quantized.backbone.fingerprint
