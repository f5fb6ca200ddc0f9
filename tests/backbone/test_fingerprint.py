"""Fingerprints depend on the weights and not on their source."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lorarec.backbone import Backbone, fingerprint
from lorarec.backbone.fingerprint import fingerprint_of_files, fingerprint_of_first_rows, weights_fingerprint
from lorarec.backbone.load import embedded_folder


@pytest.fixture
def folder(tiny_backbone: Backbone, tmp_path: Path) -> Path:
    save(tiny_backbone, tmp_path / "plain")
    return tmp_path / "plain"


def save(backbone: Backbone, folder: Path, **options: Any) -> Path:
    backbone.model.save_pretrained(folder, **options)
    backbone.tokenizer.save_pretrained(folder)
    return folder


def in_cache(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Arrange a folder as in the hub's cache; return the hub id."""
    repository = cache / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "snapshots").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    folder.rename(repository / "snapshots" / ("0" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return "someone/tiny"


def test_hub_id_folder_shards_dtype_and_metadata_do_not_matter(
    tiny_backbone: Backbone, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Backbone.from_pretrained(folder).fingerprint
    shards = save(tiny_backbone, tmp_path / "shards", max_shard_size="20KB")
    assert len(list(shards.glob("*.safetensors"))) > 2
    noted = save(tiny_backbone, tmp_path / "noted")
    save_file(load_file(noted / "model.safetensors"), noted / "model.safetensors", metadata={"by": "someone"})
    save_file({"unused": torch.ones(2)}, noted / "consolidated.safetensors")
    found = [Backbone.from_pretrained(each).fingerprint for each in (shards, noted)]
    found += [Backbone.from_pretrained(folder, dtype=dtype).fingerprint for dtype in ("bfloat16", "float16")]
    found.append(Backbone.from_pretrained(in_cache(folder, tmp_path / "hub", monkeypatch)).fingerprint)
    assert set(found) == {expected}


def test_any_tensor_changes_the_fingerprint_of_large_and_small_models(
    tiny_backbone: Backbone, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fine-tuned models with the same embeddings differ, as small models and as large ones, which are sampled."""
    state = tiny_backbone.model.state_dict()
    for whole in (1 << 28, 0):
        monkeypatch.setattr(fingerprint, "WHOLE", whole)
        seen = {weights_fingerprint(tiny_backbone.model, str(folder))}
        for number, name in enumerate(["model.layers.1.mlp.down_proj.weight", "model.norm.weight"]):
            before = state[name].clone()
            state[name].mul_(1.01)
            seen.add(weights_fingerprint(tiny_backbone.model, str(save(tiny_backbone, tmp_path / f"{whole}-{number}"))))
            seen.add(weights_fingerprint(tiny_backbone.model, "no/files"))
            state[name].copy_(before)
        assert len(seen) == 5


def test_spans_reach_from_end_to_end() -> None:
    for size in (1, fingerprint.SPANS * fingerprint.SPAN, fingerprint.SPANS * fingerprint.SPAN + 1, 10**9):
        spans = fingerprint._spans(size)
        assert spans[0][0] == 0
        assert spans[-1][0] + spans[-1][1] == size
        assert sum(length for _, length in spans) <= fingerprint.SPANS * fingerprint.SPAN


def test_without_files_it_is_of_the_parameters(tiny_backbone: Backbone) -> None:
    """Another version of transformers, or other precision, does not change the fingerprint."""
    model = tiny_backbone.model
    before = weights_fingerprint(model, "some/hub-id")
    model.config.transformers_version = "0.1"
    model.config.dtype = torch.float16
    assert weights_fingerprint(model, "some/hub-id") == before
    with torch.no_grad():
        model.get_input_embeddings().weight[0] += 1
    assert weights_fingerprint(model, "some/hub-id") != before


def test_fingerprints_of_earlier_versions_are_known(tiny_backbone: Backbone, folder: Path, caplog: Any) -> None:
    embedded = Backbone.from_pretrained()
    assert fingerprint_of_files(str(embedded_folder())) == "035af74fcef58362"
    assert embedded.has_fingerprint("035af74fcef58362")
    assert embedded.has_fingerprint(embedded.fingerprint)
    backbone = Backbone.from_pretrained(folder)
    assert backbone.has_fingerprint(str(fingerprint_of_files(str(folder))))
    assert not backbone.has_fingerprint("035af74fcef58362")
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert backbone.has_fingerprint(fingerprint_of_first_rows(backbone.model, str(folder)))
    assert "from a few weights" in caplog.text


def test_index_names_the_files(tiny_backbone: Backbone, tmp_path: Path) -> None:
    shards = save(tiny_backbone, tmp_path / "shards", max_shard_size="20KB")
    index = json.loads((shards / "model.safetensors.index.json").read_text())
    assert fingerprint.weight_files(str(shards)) == sorted(shards / name for name in {*index["weight_map"].values()})
    assert fingerprint.weight_files(str(tmp_path)) == []
