"""The accelerator of this machine: what torch can use of CUDA, ROCm, MPS, XPU and others, or none."""

import torch

from lorarec.io import available_memory


def accelerator() -> torch.device | None:
    """Return the accelerator that torch can use, such as `cuda`, `mps` or `xpu`; None if there is none."""
    return torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None


def default_device() -> str:
    """Return the device that models are loaded on by default: the accelerator, or `cpu` if there is none.

    Examples:
        >>> from lorarec.backbone import default_device
        >>> default_device() in ("cuda", "mps", "xpu", "cpu")
        True
    """
    found = accelerator()
    return "cpu" if found is None else found.type


def has_native_bf16(device: str) -> bool:
    """Return whether an accelerator computes in bfloat16 itself; False for a CPU, which computes in float32.

    It is False for MPS, since torch does not tell the chips that emulate bfloat16 from those that do not.

    Args:
        device: Type of the device, such as `cuda`.
    """
    if device in ("cpu", "mps"):
        return False
    module = torch.get_device_module(device)
    try:
        return bool(module.is_bf16_supported(including_emulation=False))
    except (AttributeError, TypeError):  # accelerators of other vendors
        return False


def free_memory(device: str) -> int:
    """Return the number of free bytes of the current accelerator.

    Args:
        device: Type of the accelerator, such as `cuda`.
    """
    if device == "mps":  # it shares the memory of the machine
        unused = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return max(0, min(unused, available_memory()))
    free: int = torch.get_device_module(device).mem_get_info()[0]
    return free


def describe_accelerators() -> list[str]:
    """Return a description of each accelerator that torch can use, such as `cuda:0 (NVIDIA H100, 80 GiB)`."""
    device = default_device()
    if device == "cpu":
        return []
    module = torch.get_device_module(device)
    if not hasattr(module, "get_device_properties"):
        return [device]
    described = []
    for number in range(module.device_count()):
        found = module.get_device_properties(number)
        described.append(f"{device}:{number} ({found.name}, {found.total_memory / 2**30:.0f} GiB)")
    return described
