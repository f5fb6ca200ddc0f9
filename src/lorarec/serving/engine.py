"""The model with all loaded adapters in it; every row of a batch has its own mixture. For one thread only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from lorarec.adapters import Adapter, AdapterBank, MixedModel, check_backbone, install
from lorarec.backbone import Backbone
from lorarec.prompts import Example, PromptBuilder
from lorarec.scoring import score, score_batch


@dataclass(frozen=True, eq=False)
class Loaded:
    """One version of an adapter, held in memory; a reload makes another.

    Attributes:
        adapter: its tensors, independent of the files they came from.
        settings: how it must be prompted (`lorarec.adapters.prompting`).
        fingerprint: content hash of the folder at the time of loading.
    """

    name: str
    adapter: Adapter
    settings: dict[str, Any]
    fingerprint: str


@dataclass(frozen=True)
class Row:
    """One request as the model sees it.

    Attributes:
        example: the prompt and its candidate branches.
        builder: what built it; says the readout.
        mixture: weight of each adapter; none is the backbone alone.
    """

    example: Example
    builder: PromptBuilder
    mixture: Mapping[Loaded, float] = field(default_factory=dict)


class Engine:
    """Scores rows of different adapters and mixtures in one pass of the backbone.

    Args:
        backbone: changed in place while adapters are installed.
        combine: `factors` or `deltas` (see `AdapterBank.merge`), the rule of all mixtures.
    """

    def __init__(self, backbone: Backbone, combine: str) -> None:
        self.backbone = backbone
        self.combine = combine
        self._installed: tuple[Loaded, ...] = ()
        self._mixed = MixedModel(backbone.model, {})

    def install(self, loaded: Sequence[Loaded]) -> None:
        """Replace the adapters in the model.

        Raises:
            LorarecError: an adapter is of another backbone, or the rule is not defined on these together; those
                installed before stay.
        """
        before = self._installed
        self._mixed.remove()
        try:
            for one in loaded:
                check_backbone(one.adapter, self.backbone)
            self._put(loaded)
        except BaseException:
            self._put(before)
            raise

    def _put(self, loaded: Sequence[Loaded]) -> None:
        if loaded:
            bank = AdapterBank.stack([one.adapter for one in loaded])
            self._mixed = install(self.backbone.model, bank, self.combine)
        self._installed = tuple(loaded)

    @torch.inference_mode()
    def score(self, rows: Sequence[Row]) -> list[np.ndarray]:
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

    def _pass(self, rows: Sequence[Row]) -> list[np.ndarray]:
        weights = torch.tensor([[row.mixture.get(one, 0.0) for one in self._installed] for row in rows])
        self._mixed.set_weights(weights.to(self.backbone.model.device) if self._installed else None)
        model, examples, builder = self.backbone.model, [row.example for row in rows], rows[0].builder
        if len(rows) == 1:  # in chunks, if it is very long
            return score(model, examples, builder)
        return [scores.float().cpu().numpy() for scores in score_batch(model, examples, builder)]

    def close(self) -> None:
        """Give the backbone its own layers back."""
        self._mixed.remove()
        self._installed = ()
