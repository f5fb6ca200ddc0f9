"""`benchmarks/gpu.py` on a CPU with a tiny model: what it prints, not how fast anything is."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"
SMALL = ["--models", "tiny", "--device", "cpu", "--dtype", "float32", "--rounds", "1", "--prompts", "2", "--cases", "2"]
SMALL += ["--adapters", "2", "--token-budget", "256"]

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="benchmarks/ is not here")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("gpu")


def test_every_part_is_measured(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main([*SMALL, "--json"])
    device, *rows = map(json.loads, capsys.readouterr().out.splitlines())
    assert device["device"] == "cpu"
    assert device["nominal_peak_tflops"] is None
    assert device["measured_peak_tflops"] > 0
    per_setting: dict[tuple[str, str], int] = {}
    for row in rows:
        assert row["lowest"] <= row["ratio"] <= row["highest"]
        assert row["of_measured_peak"] > 0
        assert row["memory_gib"] is None
        per_setting[row["part"], row["setting"]] = per_setting.get((row["part"], row["setting"]), 0) + 1
    mixed = {f"{combine}, {weights}" for combine in ("factors", "deltas") for weights in ("all rows", "each row")}
    assert per_setting == {
        ("ranking", "verdict"): 2,
        ("ranking", "likelihood"): 2,
        ("training", "listwise"): 1,
        ("training", "next-token"): 2,
        **{("mixing", setting): 2 for setting in mixed},
        ("serving", "2 adapters"): 2,
    }
    compared = [row["difference"] for row in rows if row["difference"] is not None]
    assert len(compared) == 3  # two readouts, and the mixture that PEFT makes too
    assert max(compared) < 1e-3


def test_a_part_without_memory_is_named(
    gpu: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(run: object) -> None:
        raise torch.OutOfMemoryError("Tried to allocate 20 GiB")

    monkeypatch.setitem(gpu.PARTS, "training", full)
    gpu.main([*SMALL, "--parts", "training", "serving"])
    _, skipped, *rows = capsys.readouterr().out.splitlines()
    assert "out of memory, lower the token budget: Tried to allocate" in json.loads(skipped)["skipped"]
    assert len(rows) == 2
    assert all(row.startswith("tiny  serving") for row in rows)


def test_a_missing_gpu_is_said(gpu: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SystemExit) as caught:
        gpu.main([])
    assert caught.value.code == 2
    assert "no CUDA device is available" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA L40", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", None),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_peaks_by_the_name_of_the_device(gpu: ModuleType, name: str, tflops: float | None) -> None:
    assert gpu.nominal_peak(name, "bfloat16") == (tflops and tflops * 1e12)
    assert gpu.nominal_peak(name, "float32") is None
