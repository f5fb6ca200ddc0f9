"""Events as RecLoRA reads them: a prompt for the language model and a representation for the router."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lorarec.backbone import Backbone
from lorarec.ctr import CTRModel, Retriever
from lorarec.personal.config import PersonalizationConfig
from lorarec.personal.fallback import falls_back
from lorarec.prompts import CLICK, Example, PromptBuilder, click_examples


@dataclass(frozen=True)
class EventRows:
    """Some events of a click log.

    Attributes:
        examples: one prompt with one branch each.
        representation: (n, d) last hidden layer of the conventional recommender.
        label: (n,) float32, 1 for a click.
        falls_back: (n,) True where the router's mean weights are taken (see `lorarec.personal.fallback`).
    """

    examples: Sequence[Example]
    representation: torch.Tensor
    label: torch.Tensor
    falls_back: torch.Tensor

    def __len__(self) -> int:
        return len(self.examples)


class EventReader:
    """Makes `EventRows`. The conventional recommender is read without gradients, so that it stays as it is.

    Args:
        embeddings: (items, d) by which the prompts' histories are retrieved.

    Attributes:
        builder: of the prompts.
    """

    def __init__(
        self, backbone: Backbone, recommender: CTRModel, options: PersonalizationConfig, embeddings: np.ndarray
    ) -> None:
        log = recommender.encoder.log
        self.recommender = recommender
        self.options = options
        self.builder = PromptBuilder(
            backbone.tokenizer,
            template=CLICK,
            max_tokens=backbone.token_limit(options.max_tokens),
            max_title_tokens=options.max_title_tokens,
        )
        self.retriever = Retriever(log.user, log.item, log.time, embeddings)

    def read(self, events: np.ndarray, retrieval: str) -> EventRows:
        """The rows of some events, with histories that are `similar` to the target or `recent`."""
        log, count = self.recommender.encoder.log, self.options.max_history
        if retrieval == "similar":
            histories = self.retriever.similar(log.user[events], log.item[events], log.time[events], count)
        else:
            histories = log.histories(events, count)
        return EventRows(
            click_examples(log, events, histories, self.builder),
            torch.from_numpy(self.recommender.representation(events)),
            torch.from_numpy(log.label[events]).float(),
            torch.from_numpy(falls_back(self.recommender.encoder, events)),
        )
