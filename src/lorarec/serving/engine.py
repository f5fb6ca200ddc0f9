"""The model with all loaded adapters in it; every row of a batch has its own mixture. For one thread only."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from lorarec.backbone import Backbone
from lorarec.errors import LorarecError
from lorarec.lora import Adapter, AdapterBank, MixedModel, check_backbone, inject
from lorarec.personal import UserRouter
from lorarec.prompts import Example, PromptBuilder, PromptConfig
from lorarec.scoring import score, score_batch


@dataclass(frozen=True, eq=False)
class LoadedAdapter:
    """One version of an adapter or of a user chooser, held in memory; a reload makes another.

    Attributes:
        parts: the adapters it consists of, independent of the files they came from; one if it is an adapter.
        prompt: How it must be prompted.
        fingerprint: content hash of its files at the time of loading.
        chooser: mixes the parts for each user; None of an adapter.
    """

    name: str
    parts: tuple[Adapter, ...]
    prompt: PromptConfig
    fingerprint: str
    chooser: UserRouter | None = None


@dataclass(frozen=True)
class Mixture:
    """What scores a request.

    Attributes:
        shares: weight of each adapter or chooser; none is the backbone alone.
        own: the weights (layers, K) of each chooser's parts for the request's user.
    """

    shares: Mapping[LoadedAdapter, float] = field(default_factory=dict)
    own: Mapping[LoadedAdapter, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoringRequest:
    """One request as the model sees it.

    Attributes:
        example: the prompt and its candidate branches.
        builder: what built it; says the readout.
        mixture: what scores it.
    """

    example: Example
    builder: PromptBuilder
    mixture: Mixture = field(default_factory=Mixture)


class MultiAdapterEngine:
    """Scores rows of different adapters and mixtures in one pass of the backbone.

    Args:
        backbone: changed in place while adapters are installed.
        combine: `factors` or `deltas` (see `AdapterBank.to_adapter`), the rule of all mixtures.
    """

    def __init__(self, backbone: Backbone, combine: str) -> None:
        self.backbone = backbone
        self.combine = combine
        self._installed: tuple[LoadedAdapter, ...] = ()
        self._stacked: list[Adapter] = []
        self._places: dict[LoadedAdapter, list[int]] = {}
        self._mixed = MixedModel(backbone.model, {})

    def install(self, loaded: Sequence[LoadedAdapter]) -> None:
        """Replace the adapters in the model.

        Raises:
            LorarecError: an adapter is of another backbone, or the rule is not defined on these together; those
                installed before stay.
        """
        before = self._installed
        self._mixed.remove()
        try:
            for one in loaded:
                self._check(one)
            self._put(loaded)
        except BaseException:
            self._put(before)
            raise

    def _check(self, one: LoadedAdapter) -> None:
        for part in one.parts:
            check_backbone(part, self.backbone)
        if one.chooser and one.chooser.combine != self.combine:
            raise LorarecError(
                f"{one.name} was trained with combine={one.chooser.combine}, but requests are mixed by {self.combine}: "
                f"serve with --combine {one.chooser.combine}"
            )

    def _put(self, loaded: Sequence[LoadedAdapter]) -> None:
        self._stacked = []
        self._places = {one: [_place(part, self._stacked) for part in one.parts] for one in loaded}
        if loaded:
            self._mixed = inject(self.backbone.model, AdapterBank.stack(self._stacked), self.combine)
        self._installed = tuple(loaded)

    @torch.inference_mode()
    def score(self, rows: Sequence[ScoringRequest]) -> list[np.ndarray]:
        """One (candidates,) float32 array per row: log-odds or log-probabilities, as the row's readout says.

        Rows share a pass if their readouts are alike.
        """
        found = [np.empty(0, np.float32)] * len(rows)
        readouts = [(row.builder.readout, row.builder.yes_no) for row in rows]
        for readout in dict.fromkeys(readouts):
            places = [place for place, other in enumerate(readouts) if other == readout]
            for place, scores in zip(places, self._pass([rows[place] for place in places]), strict=True):
                found[place] = scores
        return found

    def _pass(self, rows: Sequence[ScoringRequest]) -> list[np.ndarray]:
        self._mixed.set_weights(self._weights([row.mixture for row in rows]))
        model, examples, builder = self.backbone.model, [row.example for row in rows], rows[0].builder
        if len(rows) == 1:  # in chunks, if it is very long
            return score(model, examples, builder)
        return [scores.float().cpu().numpy() for scores in score_batch(model, examples, builder)]

    def _weights(self, mixtures: Sequence[Mixture]) -> dict[str, torch.Tensor]:
        """Layer name -> (rows, K) weights of the stacked adapters."""
        layers = {name: number for number, name in enumerate(self._mixed.layers)}
        weights = torch.zeros(len(layers), len(mixtures), len(self._stacked))
        for row, mixture in enumerate(mixtures):
            for one, share in mixture.shares.items():
                at = [layers[name] for name in one.chooser.layers] if one.chooser else list(layers.values())
                own = mixture.own[one] if one.chooser else torch.ones(len(layers), 1)
                for place, column in zip(self._places[one], own.unbind(1), strict=True):
                    weights[at, row, place] += share * column
        return dict(zip(layers, weights.to(self.backbone.model.device), strict=True))

    def close(self) -> None:
        """Give the backbone its own layers back."""
        self._mixed.remove()
        self._put(())


def _place(adapter: Adapter, stacked: list[Adapter]) -> int:
    """Where an adapter is among those stacked: behind them if no other is the same."""
    places = (place for place, other in enumerate(stacked) if _same(adapter, other))
    if (found := next(places, None)) is not None:
        return found
    stacked.append(adapter)
    return len(stacked) - 1


def _same(one: Adapter, other: Adapter) -> bool:
    """Whether two adapters do the same; float32 holds their scales."""
    if one.tensors.keys() != other.tensors.keys():
        return False
    return all(
        math.isclose(one.scales[layer], other.scales[layer], rel_tol=1e-6)
        and all(x.dtype == y.dtype and torch.equal(x, y) for x, y in zip(pair, other.tensors[layer], strict=True))
        for layer, pair in one.tensors.items()
    )
