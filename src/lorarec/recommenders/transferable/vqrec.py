"""VQ-Rec (Hou et al., WWW 2023): a text is quantised into a few discrete codes, whose embeddings represent the item.

Simplified: texts are averaged hidden states of the backbone, or embeddings of a sentence encoder, instead of BERT's;
their product quantisation is not optimised by a rotation; the codes of the target's items come from the centroids of
the general domains, so that a code means the same in both and no permutation of the code embeddings has to be learned.
All positions of a history are predicted in one pass; negatives with permuted codes are added to the batch as a whole;
the softmax of fine-tuning is over `negatives` items drawn from larger catalogues.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from torch import nn
from torch.nn.functional import normalize, pad

from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.io import track
from lorarec.options import document_options, option
from lorarec.recommenders.sequential.next_item_model import PADDING, ItemEmbeddings, NextItemModel
from lorarec.recommenders.sequential.trainer import Loss, sampled_softmax_loss
from lorarec.recommenders.text_embeddings import item_embeddings, text_embeddings
from lorarec.recommenders.training_data import TrainingData
from lorarec.recommenders.transferable.pretraining import (
    CosineSequenceEncoder,
    TransferConfig,
    general_histories,
    in_batch_negatives,
    pretrain,
    pretrained_weights,
    with_domains,
)
from lorarec.recommenders.transferable.transfer_recommender import TransferRecommender


@document_options
@dataclass(frozen=True)
class VQRecConfig(TransferConfig):
    """Options of `VQRec`."""

    num_digits: int = option(32, "Number of codes of an item: parts that a text embedding is divided into.")
    num_codes: int = option(256, "Number of different codes of a digit; at most the items of the general domains.")
    swap_ratio: float = option(0.75, "Share of the digits of a synthetic negative that are drawn anew.")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_out_of_range(self, ("num_digits", "num_codes"), ("swap_ratio",), ())
        if self.swap_ratio > 1:
            raise LorarecError(f"option swap_ratio must be at most 1, got {self.swap_ratio}")


class CodeItemEmbeddings(ItemEmbeddings):
    """Item vectors of length 1: the mean of the embeddings of an item's codes (section 2.2).

    Args:
        texts: Embeddings of the items' texts (items, text_size).
        centroids: Centroids (digits, codes, part_size); the code of a digit is the nearest centroid.
        hidden_size: Size of the item vectors.

    Attributes:
        codes: Codes of each item (items, digits).
    """

    centroids: torch.Tensor
    codes: torch.Tensor
    first: torch.Tensor

    def __init__(self, texts: torch.Tensor, centroids: torch.Tensor, hidden_size: int) -> None:
        super().__init__()
        digits, count, _ = centroids.shape
        self.register_buffer("centroids", centroids)
        self.register_buffer("codes", nearest(texts, centroids), persistent=False)
        self.register_buffer("first", torch.arange(digits) * count, persistent=False)
        self.table = nn.EmbeddingBag(digits * count, hidden_size, mode="mean")
        nn.init.normal_(self.table.weight, std=hidden_size**-0.5)

    def embed_codes(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the vectors (n, hidden_size) of codes (n, digits)."""
        return normalize(self.table(codes + self.first), dim=-1)

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """See `ItemEmbeddings.forward`."""
        return self.embed_codes(self.codes[items.flatten()]).view(*items.shape, -1)

    def all(self) -> torch.Tensor:
        """See `ItemEmbeddings.all`."""
        return self.embed_codes(self.codes)

    def synthetic(self, items: torch.Tensor, swap_ratio: float) -> torch.Tensor:
        """Return vectors (n, hidden_size) of synthetic items: items (n,) with a share of their digits drawn anew."""
        codes = self.codes[items]
        drawn = torch.randint_like(codes, self.centroids.shape[1])
        return self.embed_codes(torch.where(torch.rand(codes.shape) < swap_ratio, drawn, codes))


def quantise(texts: torch.Tensor, digits: int, codes: int, seed: int, progress: bool = False) -> torch.Tensor:
    """Return the centroids of product quantisation (digits, codes, part_size): k-means of every part of the dimensions.

    Args:
        texts: Text embeddings (items, text_size).
        digits: Number of parts.
        codes: Number of centroids of a part.
        seed: Seed of k-means.
        progress: Whether to show a progress bar.

    Raises:
        LorarecError: There are more digits than dimensions.
    """
    if digits > texts.shape[1]:
        raise LorarecError(
            f"option num_digits must be at most {texts.shape[1]}, the size of a text embedding, got {digits}"
        )
    means = MiniBatchKMeans(min(codes, len(texts)), random_state=seed, n_init=1)
    parts = track(_parts(texts, digits).numpy(), "Finding codes", progress)
    return torch.from_numpy(np.stack([means.fit(part).cluster_centers_ for part in parts]).astype(np.float32))


def nearest(texts: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """Return the codes (items, digits) of texts (items, text_size): the nearest centroid of each part."""
    parts = _parts(texts, len(centroids))
    return torch.stack([torch.cdist(*pair).argmin(1) for pair in zip(parts, centroids, strict=True)], 1)


def _parts(texts: torch.Tensor, digits: int) -> torch.Tensor:
    """Return equal parts (digits, items, part_size) of the dimensions, padded with zeros, which change no distance."""
    filled = pad(texts, (0, -texts.shape[1] % digits))
    return filled.view(len(texts), digits, -1).transpose(0, 1).contiguous()


class VQRec(TransferRecommender[VQRecConfig]):
    """Vector-quantised item representations. Items without training interactions are scored by their titles' codes."""

    config_class = VQRecConfig

    def fit(self, data: TrainingData) -> Self:
        """Pre-train on the general domains, or read the cached weights, and fine-tune on the training histories.

        Raises:
            LorarecError: Pre-training has no general domain, the data have neither backbone nor text encoder, or the
                size of the text embeddings is less than num_digits.
        """
        config = self.config
        data = with_domains(data, config)
        weights = pretrained_weights(data, "vq-rec", config, lambda: _pretrain(data, config))
        texts = item_embeddings(data, config.text_encoder)
        items = CodeItemEmbeddings(texts, weights["items.centroids"], config.hidden_size)
        model = NextItemModel(items, CosineSequenceEncoder(config))
        model.load_state_dict(weights)
        return self.fine_tune(data, model)

    def describe(self, texts_of: str) -> str:
        """See `TransferRecommender.describe`."""
        return f"VQ-Rec, {self.config.num_digits} codes an item ({texts_of}), hidden size {self.config.hidden_size}"


def _pretrain(data: TrainingData, config: VQRecConfig) -> NextItemModel:
    titles, histories = general_histories(data)
    texts = text_embeddings(data, titles, config.text_encoder)
    centroids = quantise(texts, config.num_digits, config.num_codes, config.pretrain_seed, data.progress)
    torch.manual_seed(config.pretrain_seed)
    items = CodeItemEmbeddings(texts, centroids, config.hidden_size)
    return pretrain(items, histories, config, _contrastive_loss(items, config), data.progress)


def _contrastive_loss(items: CodeItemEmbeddings, config: VQRecConfig) -> Loss:
    """Return the sequence-item contrastive loss with the items of the batch and synthetic ones (section 2.3)."""

    def loss(model: NextItemModel, batch: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        states, targets = model(batch[:, :-1]), batch[:, 1:]
        present = targets != PADDING
        negatives = in_batch_negatives(targets[present], config.negatives, generator)
        synthetic = items.synthetic(negatives, config.swap_ratio)
        return sampled_softmax_loss(model, states[present], targets[present], negatives, synthetic)

    return loss
