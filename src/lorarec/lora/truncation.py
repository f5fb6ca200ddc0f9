"""Cutting an adapter to a lower rank with the least error."""

import torch

from lorarec.errors import LorarecError
from lorarec.lora.peft_folder import Adapter


def truncate_rank(adapter: Adapter, rank: int) -> Adapter:
    """The adapter of at most `rank` whose layers' deltas are nearest to those of `adapter` (Frobenius norm).

    With B = Q_b R_b and A^T = Q_a R_a, the delta's singular values are those of the small R_b R_a^T, so the
    out x in matrix is never formed: O((in + out) r^2) per layer.

    Raises:
        LorarecError: `rank` is below 1.
    """
    if rank < 1:
        raise LorarecError(f"the rank must be at least 1, got {rank}")
    tensors = {name: _cut_layer(a, b, adapter.scales[name], rank) for name, (a, b) in adapter.tensors.items()}
    return Adapter(tensors, dict.fromkeys(tensors, 1.0), adapter.config)


def _cut_layer(a: torch.Tensor, b: torch.Tensor, scale: float, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    q_b, r_b = torch.linalg.qr(b.double())
    q_a, r_a = torch.linalg.qr(a.double().T)
    u, s, v = torch.linalg.svd(scale * r_b @ r_a.T, full_matrices=False)
    # Half of each singular value goes to either side, so that both factors stay in range in half precision.
    root = s[:rank].sqrt()
    return (root[:, None] * (v[:rank] @ q_a.T)).to(a.dtype), (q_b @ u[:, :rank] * root).to(b.dtype)
