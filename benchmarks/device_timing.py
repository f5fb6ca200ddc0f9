"""Times of lorarec and of other ways on one device, and the fraction of the device's peak, for `gpu.py`."""

import re
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

#: Part of the name of a device -> TFLOP/s in bfloat16 of dense matrices with sums in float32, without sparsity, from
#: NVIDIA's data sheets of A100, H100, H200, L40S and L4 and its white papers of GA102, Ada and Blackwell. The first
#: name that fits is taken.
NOMINAL_TFLOPS = {
    "H200 NVL": 835,
    "H200": 989,
    "H100 NVL": 835,
    "H100 PCIe": 756,
    "H100": 989,
    "A100": 312,
    "L40S": 362,
    "L4": 121,
    "RTX 5090": 209,
    "RTX 4090": 165,
    "RTX 3090": 71,
}

#: Devices of the same name with fewer units: parts of a device, laptops and the cards RTX 4090 D and 5090 D.
NOT_REDUCED = r"(?!.*(MIG|Laptop)| D\b)"

#: A way of doing some work: within the block the model is prepared, and the function does the work once.
Way = Callable[[], AbstractContextManager[Callable[[], Any]]]


@dataclass(frozen=True)
class Row:
    """One comparison of lorarec with another way.

    Attributes:
        model: Name of the shape.
        part: `ranking`, `training`, `mixing` or `serving`.
        setting: Readout, loss, rule of mixing or number of adapters.
        baseline: The other way.
        seconds: Median time of lorarec.
        ratio: Median of the other way's time divided by lorarec's.
        lowest: Lowest ratio of a round.
        highest: Highest ratio of a round.
        per_second: Candidate sets, training cases, tokens (mixing) or requests of lorarec per second.
        of_measured_peak: Operations of lorarec per second as a fraction of those of a matrix product.
        of_nominal_peak: The same as a fraction of the vendor's peak; None if it is not known.
        memory_gib: Peak of the device's memory in lorarec's part, weights included; None on a CPU.
        baseline_memory_gib: The same in the other way.
        difference: Largest difference of a score (ranking), or relative difference of the hidden states (mixing with
            the same rule), from the other way; None if they do not compute the same.
    """

    model: str
    part: str
    setting: str
    baseline: str
    seconds: float
    ratio: float
    lowest: float
    highest: float
    per_second: float
    of_measured_peak: float
    of_nominal_peak: float | None
    memory_gib: float | None
    baseline_memory_gib: float | None
    difference: float | None

    def __str__(self) -> str:
        nominal = "" if self.of_nominal_peak is None else f", {self.of_nominal_peak:.1%} of nominal"
        memory = "" if self.memory_gib is None else f"; {self.memory_gib:.1f} and {self.baseline_memory_gib:.1f} GiB"
        difference = "" if self.difference is None else f"; difference {self.difference:.1g}"
        return (
            f"{self.model:5} {self.part:9} {self.setting:20} {self.seconds:.4f} s, {self.per_second:,.1f}/s, "
            f"{self.of_measured_peak:.1%} of measured peak{nominal}; {self.baseline}: {self.ratio:.2f}x "
            f"({self.lowest:.2f} to {self.highest:.2f}){memory}{difference}"
        )


@dataclass(frozen=True)
class Timer:
    """Times one model on one device.

    Attributes:
        model: Name of the model.
        device: Device that is waited for before the clock is read.
        rounds: Number of times that every way is timed.
        peak: Measured peak of the device in operations per second.
        nominal: Peak of its vendor; None if it is not known.
    """

    model: str
    device: torch.device
    rounds: int
    peak: float
    nominal: float | None

    def compare(
        self,
        part: str,
        setting: str,
        ours: Way,
        others: dict[str, Way],
        work: tuple[int, float],
        differences: dict[str, float] | None = None,
    ) -> Iterator[Row]:
        """Time lorarec and other ways in turn and yield a row for each of the others.

        Args:
            part: `ranking`, `training`, `mixing` or `serving`.
            setting: Name of what is measured.
            ours: lorarec's way.
            others: The other ways by name.
            work: Number of items and of floating-point operations.
            differences: Differences of the results by the name of the other way.
        """
        times: dict[str, list[float]] = {name: [] for name in ("lorarec", *others)}
        memory: dict[str, float | None] = {}
        for _ in range(self.rounds):
            for name, way in {"lorarec": ours, **others}.items():
                with way() as call:
                    call()
                    seconds, memory[name] = self._timed(call)
                times[name].append(seconds)
        seconds, (items, flops) = statistics.median(times["lorarec"]), work
        for name in others:
            ratios = [other / own for other, own in zip(times[name], times["lorarec"], strict=True)]
            yield Row(
                self.model,
                part,
                setting,
                name,
                seconds,
                statistics.median(ratios),
                min(ratios),
                max(ratios),
                items / seconds,
                flops / seconds / self.peak,
                None if self.nominal is None else flops / seconds / self.nominal,
                memory["lorarec"],
                memory[name],
                (differences or {}).get(name),
            )

    def _timed(self, call: Callable[[], Any]) -> tuple[float, float | None]:
        """Return seconds and the peak of memory in GiB; a device is waited for before the clock is read."""
        on_cuda = self.device.type == "cuda"
        if on_cuda:
            torch.cuda.reset_peak_memory_stats()
        synchronize(self.device.type)
        started = time.perf_counter()
        call()
        synchronize(self.device.type)
        seconds = time.perf_counter() - started
        return seconds, torch.cuda.max_memory_allocated() / 2**30 if on_cuda else None


def synchronize(device: str) -> None:
    """Wait for the work of an accelerator."""
    if not device.startswith("cpu"):
        torch.accelerator.synchronize()


def way(function: Callable[[], Any]) -> Way:
    """Return a way that needs no preparation of the model."""

    @contextmanager
    def prepared() -> Iterator[Callable[[], Any]]:
        with torch.inference_mode():
            yield function

    return prepared


def measured_peak(device: str, dtype: str) -> float:
    """Return the operations per second of a product of two large matrices: the best of ten."""
    size = 512 if device.startswith("cpu") else 8192
    matrix = torch.randn(size, size, device=device, dtype=getattr(torch, dtype))
    seconds = []
    for _ in range(13):
        synchronize(device)
        started = time.perf_counter()
        matrix @ matrix
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds[3:])


def nominal_peak(device_name: str, dtype: str) -> float | None:
    """Return the vendor's peak in operations per second; None if it is not known."""
    if dtype != "bfloat16":
        return None
    found = (tflops for name, tflops in NOMINAL_TFLOPS.items() if re.search(rf"\b{name}\b{NOT_REDUCED}", device_name))
    return next((tflops * 1e12 for tflops in found), None)
