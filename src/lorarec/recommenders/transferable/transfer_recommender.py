"""Fine-tuning, scoring and saving of recommenders whose histories the Transformer of SASRec encodes."""

from collections.abc import Mapping
from typing import Self, TypeVar

import torch

from lorarec.errors import LorarecError
from lorarec.recommenders.dot_product import DotProductScorer, history_scorer
from lorarec.recommenders.recommender import ScorerRecommender
from lorarec.recommenders.sequential.next_item_model import IdEmbeddings, NextItemModel
from lorarec.recommenders.sequential.trainer import sampled_softmax, train_next_item
from lorarec.recommenders.text_embeddings import describe_texts, saved_texts
from lorarec.recommenders.training_data import TrainingData
from lorarec.recommenders.transferable.pretraining import CosineSequenceEncoder, TransferConfig, next_item_config

Config = TypeVar("Config", bound=TransferConfig)


class TransferRecommender(ScorerRecommender[Config]):
    """A pre-trained next-item model with item vectors from texts, fine-tuned on the target.

    After the fit, the vectors of all items of the dataset are fixed.

    Attributes:
        model: Trained model, whose items are numbered as in the item table.
    """

    scores_new_items = True
    model: NextItemModel

    @property
    def embeds_with_backbone(self) -> bool:
        """Whether `fit` embeds texts with `TrainingData.backbone`."""
        return self.config.text_encoder is None

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

        def scorer(model: NextItemModel) -> DotProductScorer:
            return history_scorer(data.item_index, model.items.all(), model.queries)

        config = self.config
        model.sequence.requires_grad_(not (config.freeze_encoder and config.pretrain_epochs))
        loss = sampled_softmax(len(data.train_items), config.negatives)
        steps = next_item_config(config, config.epochs, config.learning_rate)
        valid = lambda model: data.validation_ndcg(scorer(model))  # noqa: E731
        train_next_item(model.eval(), data.histories, steps, loss, data.seed, valid=valid, progress=data.progress)
        vectors = model.items.all()[[data.item_index[item] for item in data.dataset.titles]]
        tensors = {f"sequence.{name}": each for name, each in model.sequence.state_dict().items()}
        return self._load(data, tensors | {"items.table.weight": vectors}, describe_texts(data, config.text_encoder))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the parameters of the encoder and the item vectors; see `Recommender.tensors`."""
        return self.model.state_dict()

    def restore(self, data: TrainingData, tensors: Mapping[str, torch.Tensor]) -> Self:
        """Load the model, so that the embeddings of texts are not needed; see `Recommender.restore`."""
        return self._load(data, tensors, saved_texts(self.config.text_encoder))

    def update(self, data: TrainingData, previous: TrainingData, epochs: int) -> Self:
        """Refuse: another training would score new items on another scale; see `Recommender.refit`.

        Raises:
            LorarecError: Always.
        """
        raise LorarecError(f"{type(self).__name__} cannot be updated: fit it again")

    def _load(self, data: TrainingData, tensors: Mapping[str, torch.Tensor], texts_of: str) -> Self:
        config = self.config
        items = IdEmbeddings(len(data.dataset.titles), config.hidden_size)
        self.model = NextItemModel(items, CosineSequenceEncoder(config))
        self.model.load_state_dict(dict(tensors))
        self.model.eval()
        self.scorer = history_scorer(data.item_rows, items.all(), self.model.queries, self.describe(texts_of))
        return self
