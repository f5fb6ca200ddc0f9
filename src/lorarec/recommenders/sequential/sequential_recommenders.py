"""SASRec, eSASRec, GRU4Rec and FMLP-Rec on item ids.

Sources: Kang and McAuley, ICDM 2018; Tikhonovich et al., RecSys 2025; Hidasi et al., ICLR 2016; Zhou et al., WWW 2022.
All are trained by the softmax over the next item and drawn items. SASRec, GRU4Rec and FMLP-Rec draw them uniformly; the
losses of their papers (binary cross-entropy with one negative; TOP1 and BPR; BPR) are weaker.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Self, TypeVar

import numpy as np
import torch

from lorarec.recommenders.cache import cached_tensors
from lorarec.recommenders.dot_product import DotProductScorer, history_scorer
from lorarec.recommenders.recommender import ScorerRecommender
from lorarec.recommenders.sequential.config import (
    ESASRecConfig,
    FMLPRecConfig,
    GRU4RecConfig,
    NextItemConfig,
    SASRecConfig,
)
from lorarec.recommenders.sequential.next_item_model import NextItemModel
from lorarec.recommenders.sequential.trainer import continue_next_item, fit_next_item, new_next_item
from lorarec.recommenders.training_data import TrainingData

Config = TypeVar("Config", bound=NextItemConfig)


class NextItemRecommender(ScorerRecommender[Config]):
    """Predict the next item of a history from item ids. Items without training interactions are ranked last.

    Attributes:
        model: Trained model, whose items are numbered as in `TrainingData.train_index`.
    """

    model: NextItemModel

    def fit(self, data: TrainingData) -> Self:
        """Train a next-item model on the training histories; NDCG@10 on validation cases chooses the epoch.

        Without validation cases it is the last epoch.
        """
        config = self.config
        items, valid = len(data.train_items), _validation_metric(data)

        def train() -> dict[str, torch.Tensor]:
            model = fit_next_item(data.histories, items, config, data.seed, valid=valid, progress=data.progress)
            return model.state_dict()

        key = [data.split.fingerprint, asdict(config), data.seed]
        return self.restore(data, cached_tensors(data.cache_dir, config.encoder, key, train))

    def update(self, data: TrainingData, previous: TrainingData, epochs: int) -> Self:
        """Train a copy further on the histories that have changed; see `Recommender.update`.

        Items that are new in the training part get an embedding. NDCG@10 on validation cases chooses the epoch.
        """
        numbers = np.array([previous.train_index.get(item, -1) for item in data.train_items], np.int64)
        config, histories = replace(self.config, epochs=epochs), data.changed_histories(previous)
        valid = _validation_metric(data)
        model = continue_next_item(
            self.model, numbers, histories, config, data.seed, valid=valid, progress=data.progress
        )
        return copy.copy(self).restore(data, model.state_dict())

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the parameters of the model; see `Recommender.tensors`."""
        return self.model.state_dict()

    def restore(self, data: TrainingData, tensors: Mapping[str, torch.Tensor]) -> Self:
        """Load the parameters of the model; see `Recommender.restore`."""
        config = self.config
        self.model = new_next_item(len(data.train_items), config)
        self.model.load_state_dict(dict(tensors))
        self.model.eval()
        about = f"{config.encoder} on item ids, hidden size {config.hidden_size}"
        self.scorer = next_item_scorer(data, self.model, about)
        return self


class SASRec(NextItemRecommender[SASRecConfig]):
    """Self-attentive sequential recommendation (Kang and McAuley, ICDM 2018)."""

    config_class = SASRecConfig


class ESASRec(NextItemRecommender[ESASRecConfig]):
    """SASRec with gated layers and mixed negatives (Tikhonovich et al., RecSys 2025, arXiv 2508.06450)."""

    config_class = ESASRecConfig


class GRU4Rec(NextItemRecommender[GRU4RecConfig]):
    """Sequential recommendation by a recurrent network (Hidasi et al., ICLR 2016)."""

    config_class = GRU4RecConfig


class FMLPRec(NextItemRecommender[FMLPRecConfig]):
    """Sequential recommendation by filters in the frequency domain (Zhou et al., WWW 2022)."""

    config_class = FMLPRecConfig


def _validation_metric(data: TrainingData) -> Callable[[NextItemModel], float] | None:
    """Return NDCG@10 on validation cases as a function of a model, or None if there are no validation cases."""
    if not data.has_validation_cases:
        return None
    return lambda model: data.validation_ndcg(next_item_scorer(data, model))


def next_item_scorer(data: TrainingData, model: NextItemModel, about: str = "") -> DotProductScorer:
    """Return a scorer of a model whose items are numbered as in `TrainingData.train_index`."""
    return history_scorer(data.train_index, model.items.all(), model.queries, about)
