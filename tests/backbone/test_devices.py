"""The accelerator that torch names is used: its type, data type and memory."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lorarec.backbone import Backbone, accelerator, default_device, describe_accelerators, free_memory, has_native_bf16
from lorarec.backbone.load import AutoModelForCausalLM
from lorarec.errors import LorarecError
from tests.factories import save_backbone

Fake = Callable[..., None]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Function that makes torch name an accelerator, with the given functions of its module such as `torch.cuda`."""

    def set_accelerator(kind: str | None, **functions: Any) -> None:
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: kind is not None)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: kind and torch.device(kind))
        monkeypatch.setattr(torch, "get_device_module", {kind: SimpleNamespace(**functions)}.__getitem__)

    return set_accelerator


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Arguments of the next call that loads a model, which then ends with an error."""
    found: dict[str, Any] = {}

    def from_pretrained(source: str, **arguments: Any) -> None:
        found.update(arguments)
        raise ValueError("not loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    return found


def bf16(native: bool) -> dict[str, Any]:
    return {"is_bf16_supported": lambda including_emulation: native or including_emulation}


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu", "hpu"])
def test_the_accelerator_is_the_default_device(kind: str, fake: Fake) -> None:
    fake(kind)
    assert default_device() == kind
    assert accelerator() == torch.device(kind)


def test_without_an_accelerator(fake: Fake) -> None:
    fake(None)
    assert (accelerator(), default_device(), describe_accelerators()) == (None, "cpu", [])
    assert not has_native_bf16("cpu")


@pytest.mark.parametrize(
    ("kind", "functions", "native"),
    [
        ("cuda", bf16(True), True),
        ("cuda", bf16(False), False),
        ("xpu", bf16(True), True),
        ("mps", {}, False),
        ("hpu", {}, False),
        ("hpu", {"is_bf16_supported": lambda: True}, False),
    ],
)
def test_emulated_bf16_does_not_count(kind: str, functions: dict[str, Any], native: bool, fake: Fake) -> None:
    fake(kind, **functions)
    assert has_native_bf16(kind) == native


@pytest.mark.parametrize(
    ("stored", "options", "native", "expected"),
    [
        ("float32", {}, True, torch.bfloat16),
        ("float32", {}, False, "auto"),
        ("float32", {"dtype": "float32"}, True, torch.float32),
        ("bfloat16", {}, True, "auto"),
        ("float16", {}, True, "auto"),
        ("float32", {"device": "cpu"}, True, torch.float32),
        ("float32", {"device": "auto"}, True, torch.bfloat16),
        ("float32", {"device": "xpu:1"}, True, torch.bfloat16),
    ],
)
def test_weights_are_loaded_on_the_accelerator_in_its_data_type(
    tiny_backbone: Backbone,
    stored: str,
    options: dict[str, Any],
    native: bool,
    expected: Any,
    fake: Fake,
    arguments: dict[str, Any],
    tmp_path: Path,
) -> None:
    tiny_backbone.model.to(getattr(torch, stored))
    save_backbone(tiny_backbone, tmp_path)
    fake("xpu", **bf16(native))
    with pytest.raises(LorarecError, match="not loaded"):
        Backbone.from_pretrained(tmp_path, **options)
    device = options.get("device", "xpu")
    assert (arguments.get("device_map", "cpu"), arguments["dtype"]) == (device, expected)


def test_the_embedded_backbone_is_in_float32_everywhere(fake: Fake, arguments: dict[str, Any]) -> None:
    fake("cuda", **bf16(True))
    with pytest.raises(LorarecError, match="not loaded"):
        Backbone.from_pretrained("embedded")
    assert (arguments["device_map"], arguments["dtype"]) == ("cuda", torch.float32)


def test_free_memory(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake("xpu", mem_get_info=lambda: (3, 8))
    assert free_memory("xpu") == 3
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 100)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 60)
    for available, expected in ((1000, 40), (7, 7)):
        monkeypatch.setattr("lorarec.backbone.devices.available_memory", lambda available=available: available)
        assert free_memory("mps") == expected


def test_accelerators_are_described(fake: Fake) -> None:
    properties = [SimpleNamespace(name="NVIDIA H100", total_memory=80 * 2**30)] * 2
    fake("cuda", device_count=lambda: 2, get_device_properties=properties.__getitem__)
    assert describe_accelerators() == ["cuda:0 (NVIDIA H100, 80 GiB)", "cuda:1 (NVIDIA H100, 80 GiB)"]
    fake("mps")
    assert describe_accelerators() == ["mps"]
