"""Adapters made elsewhere name their base model."""

import json
import logging
import re

import pytest

from lorarec.backbone.load import embedded_folder
from lorarec.errors import LorarecError
from lorarec.lora import read_adapter

SNAPSHOT = "/root/.cache/huggingface/hub/models--Qwen--Qwen2.5-0.5B/snapshots/abc123"


@pytest.fixture
def named(make_adapter):
    """An adapter whose configuration names a base model."""

    def name(base, revision=None):
        folder = make_adapter("qwen2", 1)
        path = folder / "adapter_config.json"
        config = json.loads(path.read_text()) | {"base_model_name_or_path": base, "revision": revision}
        path.write_text(json.dumps(config))
        return folder

    return name


@pytest.mark.parametrize(
    ("base", "used"),
    [
        ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B"),
        ("qwen/QWEN2.5-0.5b", "Qwen/Qwen2.5-0.5B"),
        ("Qwen/Qwen2.5-0.5B", "/models/Qwen2.5-0.5B"),
        ("/models/Qwen2.5-0.5B/", "Qwen/Qwen2.5-0.5B"),
        ("unsloth/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B"),
        (SNAPSHOT, "Qwen/Qwen2.5-0.5B"),
        ("Qwen/Qwen2.5-0.5B", SNAPSHOT),
        (SNAPSHOT, "models/Qwen2.5-0.5B"),
        ("embedded", "embedded"),
        (str(embedded_folder()), "embedded"),
        ("/elsewhere/site-packages/lorarec/backbone/embedded", "embedded"),
        (None, "Qwen/Qwen2.5-0.5B"),
        ("", "embedded"),
    ],
)
def test_names_of_the_same_model(base, used, named, qwen2, as_backbone, caplog) -> None:
    assert read_adapter(named(base), as_backbone(qwen2, used)).tensors
    assert not caplog.records


@pytest.mark.parametrize(
    ("base", "used"),
    [
        ("meta-llama/Llama-2-7b-hf", "embedded"),
        ("embedded", "Qwen/Qwen2.5-0.5B"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-0.5B"),
        (SNAPSHOT, "Qwen/Qwen3-0.6B"),
        ("Qwen/Qwen2.5-0.5B", SNAPSHOT.replace("2.5", "3")),
    ],
)
def test_another_model_is_refused(base, used, named, qwen2, as_backbone) -> None:
    displayed = base.rpartition("/")[2] if base != SNAPSHOT else "Qwen2.5-0.5B"
    message = (
        rf"belongs to base model '.*{re.escape(displayed)}', not to {re.escape(used)}: .* write {re.escape(used)} as"
    )
    with pytest.raises(LorarecError, match=message):
        read_adapter(named(base), as_backbone(qwen2, used))
    assert read_adapter(named(used), as_backbone(qwen2, used)).tensors
    assert read_adapter(named(base)).tensors


@pytest.mark.parametrize(
    ("base", "used"),
    [
        ("/models/finetuned", "Qwen/Qwen2.5-0.5B"),
        ("Qwen/Qwen2.5-0.5B", "/models/ours"),
        ("/models/theirs", "/models/ours"),
        ("../theirs", "embedded"),
        ("~/models/theirs", "embedded"),
        ("gpt2", "distilgpt2"),
    ],
)
def test_unclear_base_models_are_reported(base, used, named, qwen2, as_backbone, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        assert read_adapter(named(base), as_backbone(qwen2, used)).tensors
    (record,) = caplog.records
    assert base in record.getMessage()
    assert used in record.getMessage()


def test_another_revision_is_reported(named, qwen2, as_backbone, caplog) -> None:
    qwen2.config._commit_hash = "abc123"
    backbone = as_backbone(qwen2, "Qwen/Qwen2.5-0.5B")
    for base, revision in [(backbone.id, None), (backbone.id, "main"), (backbone.id, "abc123"), (SNAPSHOT, None)]:
        read_adapter(named(base, revision), backbone)
    assert not caplog.records
    for base, revision in [(backbone.id, "v2"), (SNAPSHOT.replace("abc", "def"), None)]:
        with caplog.at_level(logging.WARNING):
            read_adapter(named(base, revision), backbone)
        assert "revision" in caplog.records.pop().getMessage()


def test_a_recorded_fingerprint_takes_precedence(named, qwen2, as_backbone, caplog) -> None:
    folder = named("meta-llama/Llama-2-7b-hf")
    backbone = as_backbone(qwen2, "embedded")
    record = {"backbone": {"id": "moved", "fingerprint": backbone.fingerprint}}
    (folder / "lorarec.json").write_text(json.dumps(record))
    assert read_adapter(folder, backbone).tensors
    assert not caplog.records


@pytest.mark.parametrize("base", ["models--a--" * 40_000, "/models--" * 40_000 + "snapshots/", "a/" + "b" * 50_000])
def test_a_long_name_is_read_in_linear_time(base, named, qwen2, as_backbone) -> None:
    """Forty thousand parts would take days in cubic time; names of the hub longer than a path are no error."""
    folder = named(base)
    if base.startswith("a/"):
        with pytest.raises(LorarecError, match="belongs to base model 'a/b"):
            read_adapter(folder, as_backbone(qwen2, "Qwen/Qwen2.5-0.5B"))
    else:
        assert read_adapter(folder, as_backbone(qwen2, "Qwen/Qwen2.5-0.5B")).tensors
