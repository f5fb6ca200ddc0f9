"""K adapters of one backbone, stacked layer by layer, and the two rules that combine them into one adapter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.io import JsonObject, source_name
from lorarec.lora.combine import COMBINE_RULES, FACTORS
from lorarec.lora.peft_folder import LAYER_CHOICE, Adapter, AdapterLike, read_adapter

#: One weight per adapter, (K,), for the whole model or per layer name.
Weights = torch.Tensor | Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class StackedLayer:
    """The stacked adapters of one linear layer.

    Attributes:
        a: The matrices A, (K, rank, in); rows are zero where an adapter has a lower rank or does not adapt the layer.
        b: The matrices B, (K, out, rank); columns are zero in the same places.
        scale: The scale alpha / rank of each adapter, (K,).
        ranks: The rank of each adapter; 0 where it does not adapt the layer.
    """

    a: torch.Tensor
    b: torch.Tensor
    scale: torch.Tensor
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class AdapterBank:
    """A bank of K adapters of one backbone, stacked layer by layer.

    Attributes:
        layers: Layer name -> the stacked adapters of the layer.
        size: The number K of adapters.
        config: PEFT's settings for the choice of layers, if all adapters have the same.
        names: The names of the adapters in messages and plots.
    """

    layers: dict[str, StackedLayer]
    size: int
    config: JsonObject
    names: tuple[str, ...]

    @classmethod
    def load(cls, adapters: Sequence[AdapterLike], backbone: Backbone | None = None) -> "AdapterBank":
        """Read PEFT folders and stack them; an adapter that has been read already is used directly.

        Raises:
            LorarecError: An adapter cannot be read or belongs to another backbone.
        """
        return cls.stack([read_adapter(adapter, backbone) for adapter in adapters])

    @classmethod
    def stack(cls, adapters: Sequence[Adapter]) -> "AdapterBank":
        """Stack adapters of the same backbone, in float32 unless all are in float64.

        Raises:
            LorarecError: There is no adapter, or two adapters have different sizes of the same layer.
        """
        if not adapters:
            raise LorarecError("a bank needs at least one adapter")
        names = tuple(source_name(adapter.source) if adapter.folder else "adapter" for adapter in adapters)
        if len(set(names)) < len(names):
            names = tuple(f"{name} ({number})" for number, name in enumerate(names, start=1))
        modules = {module: None for adapter in adapters for module in adapter.tensors}
        layers = {module: _stack_layer(module, adapters) for module in modules}
        return cls(layers, len(adapters), _shared_config(adapters), names)

    def require(self, combine: str) -> None:
        """Check that a rule is defined for this bank.

        Args:
            combine: `factors` or `deltas`.

        Raises:
            LorarecError: The rule is unknown, or is `factors` and the ranks or scales of the adapters differ.
        """
        if combine not in COMBINE_RULES:
            raise LorarecError(f"unknown rule {combine!r}: choose one of {', '.join(COMBINE_RULES)}")
        for name, layer in self.layers.items() if combine == FACTORS else ():
            if len(set(layer.ranks)) > 1:
                raise LorarecError(
                    f"combine=factors needs adapters of equal rank, but {name} has ranks "
                    f"{', '.join(map(str, layer.ranks))} in {', '.join(self.names)}: use combine=deltas"
                )
            if len(set(layer.scale.tolist())) > 1:
                raise LorarecError(
                    f"combine=factors needs adapters of equal alpha / rank, but {name} has "
                    f"{', '.join(f'{scale:g}' for scale in layer.scale.tolist())} in {', '.join(self.names)}: "
                    "use combine=deltas"
                )

    def to_adapter(self, weights: Weights, combine: str, rank: int | None = None) -> Adapter:
        """Combine the adapters into one.

        `factors`: A = sum_k w_k A_k, B = sum_k w_k B_k, delta = s B A (MoLoRec, arXiv 2502.08271, eqs. 6-8).
        `deltas`: delta = sum_k w_k s_k B_k A_k, represented exactly; the rank is the sum of the ranks.

        Args:
            weights: The weights (K,) for the whole model, or layer name -> (K,).
            combine: `factors` or `deltas`.
            rank: The rank to which the result is truncated by a singular value decomposition, if any.

        Raises:
            LorarecError: The rule is not defined for this bank, or `rank` is below 1.
        """
        self.require(combine)
        tensors, scales = {}, {}
        for name, layer in self.layers.items():
            weight = (weights if isinstance(weights, torch.Tensor) else weights[name]).to(layer.a)
            tensors[name], scales[name] = (_factors if combine == FACTORS else _deltas)(layer, weight)
        combined = Adapter(tensors, scales, self.config)
        return combined if rank is None else truncate_rank(combined, rank)


def _shared_config(adapters: Sequence[Adapter]) -> JsonObject:
    """Return the settings by which PEFT finds the layers; the choice of layers only if all adapters share it."""
    first = adapters[0]
    config = {"fan_in_fan_out": first.config.get("fan_in_fan_out", False)}
    if all(adapter.tensors.keys() == first.tensors.keys() for adapter in adapters):
        config |= {key: first.config[key] for key in LAYER_CHOICE if first.config.get(key) is not None}
    return config


def _stack_layer(name: str, adapters: Sequence[Adapter]) -> StackedLayer:
    pairs = [adapter.tensors.get(name) for adapter in adapters]
    present = [pair for pair in pairs if pair is not None]
    sizes = {(a.shape[1], b.shape[0]) for a, b in present}
    if len(sizes) > 1:
        raise LorarecError(f"the adapters belong to different backbones: {name} has different sizes in them")
    width, height = sizes.pop()
    rank = max(a.shape[0] for a, _ in present)
    dtype = torch.float64 if all(a.dtype == torch.float64 for a, _ in present) else torch.float32
    stacked_a = torch.zeros(len(adapters), rank, width, dtype=dtype)
    stacked_b = torch.zeros(len(adapters), height, rank, dtype=dtype)
    ranks = []
    for index, pair in enumerate(pairs):
        own = pair[0].shape[0] if pair is not None else 0
        ranks.append(own)
        if pair is not None:
            stacked_a[index, :own] = pair[0]
            stacked_b[index, :, :own] = pair[1]
    scale = [adapter.scales.get(name, 0.0) for adapter in adapters]
    return StackedLayer(stacked_a, stacked_b, torch.tensor(scale, dtype=dtype), tuple(ranks))


def _factors(layer: StackedLayer, weight: torch.Tensor) -> tuple[tuple[torch.Tensor, torch.Tensor], float]:
    a = torch.einsum("k,kri->ri", weight, layer.a)
    b = torch.einsum("k,kor->or", weight, layer.b)
    return (a, b), float(layer.scale[0])


def _deltas(layer: StackedLayer, weight: torch.Tensor) -> tuple[tuple[torch.Tensor, torch.Tensor], float]:
    a = torch.cat([weight[k] * layer.scale[k] * layer.a[k, :rank] for k, rank in enumerate(layer.ranks)])
    b = torch.cat([layer.b[k, :, :rank] for k, rank in enumerate(layer.ranks)], dim=1)
    return (a, b), 1.0


def truncate_rank(adapter: Adapter, rank: int) -> Adapter:
    """Return the adapter of at most `rank` whose layers' deltas are closest to those of `adapter` (Frobenius norm).

    With B = Q_b R_b and A^T = Q_a R_a, the singular values of the delta are those of the small matrix R_b R_a^T, so the
    out x in matrix is never computed: O((in + out) r^2) per layer.

    Raises:
        LorarecError: `rank` is below 1.
    """
    tensors = {name: _truncate_layer(a, b, adapter.scales[name], rank) for name, (a, b) in adapter.tensors.items()}
    return Adapter(tensors, dict.fromkeys(tensors, 1.0), adapter.config)


def _truncate_layer(a: torch.Tensor, b: torch.Tensor, scale: float, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    q_b, r_b = torch.linalg.qr(b.double())
    q_a, r_a = torch.linalg.qr(a.double().T)
    u, s, v = torch.linalg.svd(scale * r_b @ r_a.T, full_matrices=False)
    return low_rank_factors(q_b @ u, s, v @ q_a.T, rank, a.dtype)


def low_rank_factors(
    u: torch.Tensor, s: torch.Tensor, v: torch.Tensor, rank: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the matrices A (rank, in) and B (out, rank) of the largest singular values of a delta.

    Args:
        u: Left singular vectors (out, n), one in each column.
        s: Singular values (n,), largest first.
        v: Right singular vectors (n, in), one in each row.
        rank: Maximum number of singular values.
        dtype: Data type of the result.

    Raises:
        LorarecError: `rank` is below 1.
    """
    if rank < 1:
        raise LorarecError(f"the rank must be at least 1, got {rank}")
    # Each factor gets the square roots of the singular values, so that both stay in range in half precision.
    root = s[:rank].sqrt()
    return (root[:, None] * v[:rank]).to(dtype), (u[:, :rank] * root).to(dtype)
