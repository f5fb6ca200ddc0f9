"""Similarity of the texts of candidates and history items, by embeddings of their titles."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import polars as pl
import torch

from lorarec.data import HISTORY
from lorarec.options import document_options, option
from lorarec.recommenders.baselines import SimilarityConfig
from lorarec.recommenders.dot_product import DotProductScorer
from lorarec.recommenders.interactions import known_items
from lorarec.recommenders.recommender import ScorerRecommender
from lorarec.recommenders.text_embeddings import centre, describe_saved_texts, describe_texts, text_embeddings
from lorarec.recommenders.training_data import TrainingData

#: Name of the tensor of the vectors. Under `vectors`, their order depended on the training part.
_NAME = "title_vectors"


@document_options
@dataclass(frozen=True)
class TextSimilarityConfig(SimilarityConfig):
    """Options of `TextSimilarity`."""

    text_encoder: str | None = option(
        None,
        "Sentence-transformers folder or hub id that embeds titles; lsa for latent semantic analysis of their words; "
        "None for the backbone's averaged states.",
    )


class TextSimilarity(ScorerRecommender[TextSimilarityConfig]):
    """Score a candidate by the sum of the cosines between its title's embedding and those of the latest history titles.

    It is `TfIdf` with embeddings in place of TF-IDF vectors; the mean of all embeddings is subtracted first (see
    `lorarec.recommenders.centre`). Interactions are not used, and new items are scored like known ones. Candidates that
    are not in the dataset are ranked last.

    Attributes:
        vectors: Centred embeddings of the items (items, size), in the order of the item table.
    """

    vectors: torch.Tensor
    config_class = TextSimilarityConfig
    uses_seed = False
    scores_new_items = True

    @property
    def embeds_with_backbone(self) -> bool:
        """Whether `fit` embeds texts with `TrainingData.backbone`."""
        return self.config.text_encoder is None

    def fit(self, data: TrainingData) -> Self:
        """Embed the titles of the dataset, or read their embeddings from the cache.

        Raises:
            LorarecError: The text encoder is unusable, or the data have no backbone and there is no encoder.
        """
        texts_of = describe_texts(data, self.config.text_encoder)
        embeddings = text_embeddings(data, list(data.dataset.titles.values()), self.config.text_encoder)
        return self._with_vectors(data, torch.from_numpy(centre(embeddings.numpy())), texts_of)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the item vectors; see `Recommender.tensors`."""
        return {_NAME: self.vectors}

    def restore(self, data: TrainingData, tensors: Mapping[str, torch.Tensor]) -> Self:
        """Take over the item vectors, so that the encoder is not needed; see `Recommender.restore`."""
        return self._with_vectors(data, tensors[_NAME], describe_saved_texts(self.config.text_encoder))

    def _with_vectors(self, data: TrainingData, vectors: torch.Tensor, texts_of: str) -> Self:
        config, index = self.config, data.item_rows
        self.vectors = vectors

        def queries(cases: pl.DataFrame) -> torch.Tensor:
            histories = known_items(cases[HISTORY].list.tail(config.max_history), index)
            return torch.stack([vectors[history].sum(0) for history in histories])

        about = f"cosines of titles ({texts_of}) to the last {config.max_history} titles of the history"
        self.scorer = DotProductScorer(index, vectors, queries, about)
        return self
