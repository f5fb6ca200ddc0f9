"""Backbones: the embedded one, folders, and models that are refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers.utils.logging
from huggingface_hub.utils import are_progress_bars_disabled
from safetensors.torch import load_file, save_file

from lorarec.backbone import Backbone, hide_weights_progress, load
from lorarec.backbone.load import embedded_folder
from lorarec.errors import LorarecError
from tests.factories import save_backbone


def test_embedded_backbone_is_small_and_knows_its_answers() -> None:
    backbone = Backbone.from_pretrained()
    assert backbone.model.config.model_type == "qwen2"
    assert backbone.model.num_parameters() <= 6_000_000
    assert backbone.model.dtype == torch.float32
    assert sum(file.stat().st_size for file in embedded_folder().iterdir()) <= 12 * 2**20
    assert len(backbone.tokenizer("yes").input_ids) == len(backbone.tokenizer("no").input_ids) == 1


def test_a_package_without_the_embedded_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "embedded_folder", lambda: tmp_path / "embedded")
    with pytest.raises(LorarecError, match="the embedded backbone was removed from this installation"):
        Backbone.from_pretrained()


def test_embedded_backbone_ignores_case() -> None:
    tokenizer = Backbone.from_pretrained().tokenizer
    assert tokenizer(" LEGO Star Wars").input_ids == tokenizer(" Lego STAR wars").input_ids


def test_a_saved_folder_loads_with_the_same_fingerprint(tiny_backbone: Backbone, tmp_path: Path) -> None:
    save_backbone(tiny_backbone, tmp_path)
    first, second = Backbone.from_pretrained(tmp_path), Backbone.from_pretrained(tmp_path)
    assert first.fingerprint == second.fingerprint
    weights = zip(first.model.parameters(), tiny_backbone.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)


def test_pickled_weights_are_refused(tiny_backbone: Backbone, tmp_path: Path) -> None:
    tiny_backbone.model.config.save_pretrained(tmp_path)
    tiny_backbone.tokenizer.save_pretrained(tmp_path)
    torch.save(tiny_backbone.model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(LorarecError, match="cannot be loaded"):
        Backbone.from_pretrained(tmp_path)


def _without_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-20])


def _without_a_weight(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _with_another_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 2 * config["intermediate_size"]}))


def _without_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def _without_config(folder: Path) -> None:
    _without_tokenizer(folder)
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without_weights, r"backbone .* cannot be loaded: its weights are truncated or corrupted \(.*\): copy or"),
        (_without_a_weight, r"its weights have no model\.layers\.1\.mlp\.up_proj\.weight: copy or download it again"),
        (_with_another_shape, r"have another shape of model\.layers\.0\.mlp\.down_proj\.weight than config\.json says"),
        (_without_tokenizer, r"has no vocabulary of a tokenizer: add its files, such as tokenizer\.json"),
        (_without_config, r"is not a Transformers folder \(it has no config\.json\)"),
    ],
)
def test_folders_that_lack_something_are_refused(
    tiny_backbone: Backbone, spoil: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    spoil(save_backbone(tiny_backbone, tmp_path))
    with pytest.raises(LorarecError, match=message):
        Backbone.from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16", "float16"])
def test_8_bit_floats_are_dequantised(tiny_backbone: Backbone, dtype: str, tmp_path: Path) -> None:
    """The weights are stored as by DeepSeek and Qwen: a scale for each block of the weights."""
    save_backbone(tiny_backbone, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    for name in [name for name in state if name.endswith("_proj.weight")]:
        scale = state[name].abs().max() / 448
        state[name] = (state[name] / scale).to(torch.float8_e4m3fn)
        state[f"{name}_scale_inv"] = scale.reshape(1, 1)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128], "fmt": "e4m3"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = Backbone.from_pretrained(tmp_path, dtype=dtype, device="cpu").model
    wanted = torch.float32 if dtype == "auto" else getattr(torch, dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {wanted}
    for name, weight in model.state_dict().items():
        before = tiny_backbone.model.state_dict()[name]
        torch.testing.assert_close(weight.float(), before, rtol=0.08, atol=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_id_or_path": "no/such/folder/here"}, "no/such/folder/here: there is no such folder, and it cannot"),
        ({"dtype": "float8"}, "option dtype must be auto or float32"),
        ({"quantization": "2bit"}, "option quantization must be 4bit or 8bit"),
    ],
)
def test_bad_input(options: dict[str, str], message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        Backbone.from_pretrained(**options)


def test_bars_of_weights_go_and_bars_of_downloads_stay() -> None:
    transformers.utils.logging.enable_progress_bar()
    hide_weights_progress()
    assert not transformers.utils.logging.is_progress_bar_enabled()
    assert not are_progress_bars_disabled()
    transformers.utils.logging.enable_progress_bar()
