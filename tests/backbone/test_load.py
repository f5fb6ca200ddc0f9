"""Backbones: the embedded one, folders, and what is refused."""

from pathlib import Path

import pytest
import torch

from lorarec.backbone import Backbone
from lorarec.backbone.load import embedded_folder
from lorarec.errors import LorarecError


def test_embedded_backbone_is_small_and_knows_its_answers() -> None:
    backbone = Backbone.load()
    assert backbone.model.config.model_type == "qwen2"
    assert backbone.model.num_parameters() <= 6_000_000
    assert backbone.model.dtype == torch.float32
    assert sum(file.stat().st_size for file in embedded_folder().iterdir()) <= 12 * 2**20
    assert len(backbone.tokenizer("yes").input_ids) == len(backbone.tokenizer("no").input_ids) == 1


def test_embedded_backbone_ignores_case() -> None:
    tokenizer = Backbone.load().tokenizer
    assert tokenizer(" LEGO Star Wars").input_ids == tokenizer(" Lego STAR wars").input_ids


def test_a_saved_folder_loads_with_the_same_fingerprint(tiny_backbone: Backbone, tmp_path: Path) -> None:
    tiny_backbone.model.save_pretrained(tmp_path)
    tiny_backbone.tokenizer.save_pretrained(tmp_path)
    first, second = Backbone.load(tmp_path), Backbone.load(tmp_path)
    assert first.fingerprint == second.fingerprint
    weights = zip(first.model.parameters(), tiny_backbone.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)


def test_pickled_weights_are_refused(tiny_backbone: Backbone, tmp_path: Path) -> None:
    tiny_backbone.model.config.save_pretrained(tmp_path)
    tiny_backbone.tokenizer.save_pretrained(tmp_path)
    torch.save(tiny_backbone.model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(LorarecError, match="cannot be loaded"):
        Backbone.load(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id_or_path": "no/such/folder/here"}, "cannot be loaded"),
        ({"dtype": "float8"}, "unknown dtype"),
        ({"quantization": "2bit"}, "unknown quantization"),
    ],
)
def test_bad_input(options: dict[str, str], message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        Backbone.load(**options)
