"""Fine-tuning, scoring and saving of recommenders whose histories the Transformer of SASRec encodes."""

import copy
from collections.abc import Collection, Mapping
from typing import Self, TypeVar

import numpy as np
import polars as pl
import torch

from lorarec.data import CANDIDATES
from lorarec.errors import LorarecError
from lorarec.recommenders.dot_product import DotProductScorer, history_scorer
from lorarec.recommenders.recommender import Requirement, ScorerRecommender
from lorarec.recommenders.sequential.next_item_model import IdEmbeddings, NextItemModel
from lorarec.recommenders.sequential.trainer import sampled_softmax, train_next_item
from lorarec.recommenders.text_embeddings import describe_saved_texts, describe_texts
from lorarec.recommenders.training_data import TrainingData
from lorarec.recommenders.transferable.pretraining import (
    CosineSequenceEncoder,
    TransferConfig,
    needed_domains,
    next_item_config,
)

Config = TypeVar("Config", bound=TransferConfig)

#: Beginning of the names of the tensors of the model that scores new items.
_OF_NEW_ITEMS = "new_items."


class TransferRecommender(ScorerRecommender[Config]):
    """A pre-trained next-item model with item vectors from texts, fine-tuned on the target.

    After the fit, the vectors of all items of the dataset are fixed.

    In a fusion, known items are scored by a model that was trained on all of them, as those of other recommenders are.
    New items are scored by the model that the weights of the fusion were fitted to (see `refit`).

    Attributes:
        model: Trained model, whose items are numbered as in the item table.
        model_of_new_items: Model that scores items without training interactions, if it is another one.
        scorer_of_new_items: Scorer by that model, or None.
        known: Items with training interactions.
    """

    # In the first version an untrained Transformer stayed frozen, and a fusion trained once; in the second, embeddings
    # of words depended on the number of threads.
    version = 3
    scores_new_items = True
    model: NextItemModel
    model_of_new_items: NextItemModel | None = None
    scorer_of_new_items: DotProductScorer | None = None
    known: Collection[str] = ()

    @property
    def embeds_with_backbone(self) -> bool:
        """Whether `fit` embeds texts with `TrainingData.backbone`."""
        return self.config.text_encoder is None

    @property
    def requirements(self) -> frozenset[Requirement]:
        """See `Recommender.requirements`."""
        return super().requirements | needed_domains(self.config)

    def describe(self, texts_of: str) -> str:
        """Return one line for reports.

        Args:
            texts_of: Name of the model whose text embeddings are read.
        """
        raise NotImplementedError

    def fine_tune(self, data: TrainingData, model: NextItemModel) -> Self:
        """Fine-tune a pre-trained model on the target's training histories, and fix its item vectors.

        The softmax is over items with training interactions, so that items without any are not used as negatives.

        Args:
            data: Data of the target.
            model: Model whose items are numbered as in `TrainingData.item_index`.
        """
        trained = self.train(data, model, data.histories, self.config.epochs)
        return self._load(data, self.fixed_tensors(data, trained), describe_texts(data, self.config.text_encoder))

    def train(
        self, data: TrainingData, model: NextItemModel, histories: list[np.ndarray], epochs: int
    ) -> NextItemModel:
        """Train a model on histories of the target and return it; NDCG@10 on validation cases chooses the epoch.

        Without validation cases it is the last epoch.

        Args:
            data: Data of the target.
            model: Model whose items are numbered as in `TrainingData.item_index`.
            histories: Histories in these numbers.
            epochs: Maximum number of passes over the histories.
        """

        def scorer(model: NextItemModel) -> DotProductScorer:
            return history_scorer(data.item_index, model.items.all(), model.queries)

        config = self.config
        model.sequence.requires_grad_(not (config.freeze_encoder and config.pretrain_epochs))
        loss = sampled_softmax(len(data.train_items), config.negatives)
        steps = next_item_config(config, epochs, config.learning_rate)
        valid = (lambda model: data.validation_ndcg(scorer(model))) if data.has_validation_cases else None
        return train_next_item(model.eval(), histories, steps, loss, data.seed, valid=valid, progress=data.progress)

    def fixed_tensors(self, data: TrainingData, model: NextItemModel) -> dict[str, torch.Tensor]:
        """Return the tensors of a trained model whose item vectors are fixed, in the order of the item table.

        Args:
            data: Data of the target.
            model: Model whose items are numbered as in `TrainingData.item_index`.
        """
        vectors = model.items.all()[[data.item_index[item] for item in data.dataset.titles]]
        tensors = {f"sequence.{name}": each for name, each in model.sequence.state_dict().items()}
        return tensors | {"items.table.weight": vectors}

    def fixed_items(self, items: int, tensors: Mapping[str, torch.Tensor]) -> IdEmbeddings:
        """Return the item embeddings that `fixed_tensors` are loaded into.

        Args:
            items: Number of items.
            tensors: Tensors of the model by name.
        """
        return IdEmbeddings(items, self.config.hidden_size)

    def refit(self, data: TrainingData) -> Self:
        """Return a copy that is trained again, and scores new items as this one does; see `Recommender.refit`.

        Without the second training, the items that were hidden would be scored by their texts alone.
        """
        trained = copy.copy(self).fit(data)
        tensors = {**trained.tensors(), **tensors_of_new_items(self.model.state_dict())}
        return trained._load(data, tensors, describe_texts(data, self.config.text_encoder))

    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Score the candidates of every case; see `Scorer.score`."""
        scores = self.scorer.score(cases)
        if self.scorer_of_new_items is None:
            return scores
        of_new = self.scorer_of_new_items.score(cases)
        known = ([item in self.known for item in candidates] for candidates in cases[CANDIDATES].to_list())
        return [np.where(*each) for each in zip(known, scores, of_new, strict=True)]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the parameters of the encoders and the item vectors; see `Recommender.tensors`."""
        of_new = {} if self.model_of_new_items is None else self.model_of_new_items.state_dict()
        return {**self.model.state_dict(), **tensors_of_new_items(of_new)}

    def restore(self, data: TrainingData, tensors: Mapping[str, torch.Tensor]) -> Self:
        """Load the model, so that the embeddings of texts are not needed; see `Recommender.restore`."""
        return self._load(data, tensors, describe_saved_texts(self.config.text_encoder))

    def check_update(self, data: TrainingData) -> None:
        """Refuse: another training would score new items on another scale; see `Recommender.refit`.

        Raises:
            LorarecError: Always, unless a subclass can make vectors of later items.
        """
        raise LorarecError(f"{type(self).__name__} cannot be updated: fit it again")

    def _load(self, data: TrainingData, tensors: Mapping[str, torch.Tensor], texts_of: str) -> Self:
        of_new = {name.removeprefix(_OF_NEW_ITEMS): each for name, each in tensors.items() if _is_of_new(name)}
        self.model = self._model(data, {name: each for name, each in tensors.items() if not _is_of_new(name)})
        self.model_of_new_items = self._model(data, of_new) if of_new else None
        self.scorer = _scorer(data, self.model, self.describe(texts_of))
        self.scorer_of_new_items = _scorer(data, self.model_of_new_items) if self.model_of_new_items else None
        self.known = data.train_index
        return self

    def _model(self, data: TrainingData, tensors: Mapping[str, torch.Tensor]) -> NextItemModel:
        items = self.fixed_items(len(data.dataset.titles), tensors)
        model = NextItemModel(items, CosineSequenceEncoder(self.config))
        model.load_state_dict(dict(tensors))
        return model.eval()


def tensors_of_new_items(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors of a model under the names that they have as those of the model of new items."""
    return {_OF_NEW_ITEMS + name: each for name, each in tensors.items()}


def _is_of_new(name: str) -> bool:
    """Return whether a tensor is one of the model of new items."""
    return name.startswith(_OF_NEW_ITEMS)


def _scorer(data: TrainingData, model: NextItemModel, about: str = "") -> DotProductScorer:
    return history_scorer(data.item_rows, model.items.all(), model.queries, about)
