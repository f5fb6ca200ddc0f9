"""Events of a click log as inputs: a prompt for the language model and a representation for the router."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lorarec.backbone import Backbone
from lorarec.ctr import CTRModel, Retriever
from lorarec.personal.config import PersonalizationConfig
from lorarec.personal.fallback import falls_back
from lorarec.prompts import CLICK, Example, PromptConfig, click_examples


@dataclass(frozen=True)
class EventRows:
    """Some events of a click log.

    Attributes:
        examples: One prompt with one branch for each event.
        representation: Last hidden layer of the click-through model, (events, d).
        label: 1 for a click, (events,) float32.
        falls_back: True for an event that has the router's mean weights, (events,) (see `lorarec.personal.fallback`).
    """

    examples: Sequence[Example]
    representation: torch.Tensor
    label: torch.Tensor
    falls_back: torch.Tensor

    def __len__(self) -> int:
        return len(self.examples)


class EventReader:
    """Makes `EventRows` of events; the click-through model is frozen, so it is read without gradients.

    Args:
        backbone: Backbone that reads the prompts.
        ctr_model: Click-through model.
        config: Options.
        embeddings: Embeddings of the items, (items, d), by which histories similar to a target are retrieved.

    Attributes:
        builder: Builder of the prompts.
    """

    def __init__(
        self, backbone: Backbone, ctr_model: CTRModel, config: PersonalizationConfig, embeddings: np.ndarray
    ) -> None:
        log = ctr_model.encoder.log
        self.ctr_model = ctr_model
        self.config = config
        self.builder = backbone.prompt_builder(
            PromptConfig(template=CLICK, max_tokens=config.max_tokens, max_title_tokens=config.max_title_tokens)
        )
        self.retriever = Retriever(log.user, log.item, log.time, embeddings)

    def read(self, events: np.ndarray, retrieval: str) -> EventRows:
        """Return the rows of some events, with histories that are `similar` to the target or `recent`."""
        log, count = self.ctr_model.encoder.log, self.config.max_history
        if retrieval == "similar":
            histories = self.retriever.similar(log.user[events], log.item[events], log.time[events], count)
        else:
            histories = log.histories(events, count)
        return EventRows(
            click_examples(log, events, histories, self.builder),
            torch.from_numpy(self.ctr_model.representation(events)),
            torch.from_numpy(log.label[events]).float(),
            torch.from_numpy(falls_back(self.ctr_model.encoder, events)),
        )
