"""VQ-Rec (Hou et al., WWW 2023): a text becomes a few discrete codes, whose vectors say what the item is.

Simplified: texts are averaged hidden states of the backbone in place of BERT's; their product quantisation is not
optimised by a rotation; the target's items get their codes from the general domains' centroids, so that a code means
the same in both and no permutation of the table has to be learned. All places of a history are learned from in one
pass; the code-permuted items stand as negatives before the whole batch; the softmax of fine-tuning is over `negatives`
items drawn from larger catalogues.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from torch import nn
from torch.nn.functional import normalize, pad

from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.io import track
from lorarec.recommenders.dot_product import DotProductScorer
from lorarec.recommenders.options import takes
from lorarec.recommenders.sequential.model import PADDING, ItemEmbeddings, NextItemModel
from lorarec.recommenders.sequential.trainer import Loss, sampled_logits
from lorarec.recommenders.training_data import TrainingData
from lorarec.recommenders.transferable.pretraining import (
    CosineSequenceEncoder,
    TransferConfig,
    batch_items,
    fine_tune,
    general_log,
    pretrain,
    pretrained,
    read_texts,
)


@dataclass(frozen=True)
class VQRecConfig(TransferConfig):
    """How VQ-Rec is made, besides `TransferConfig`.

    Attributes:
        digits: codes of an item: parts that a text embedding is cut into.
        codes: different codes of a digit; fewer where the general domains have fewer items.
        swapped: share of the digits of a synthetic negative that are drawn anew; at most 1.

    Raises:
        LorarecError: a number is out of range.
    """

    digits: int = 32
    codes: int = 256
    swapped: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_out_of_range(self, ("digits", "codes"), ("swapped",), ())
        if self.swapped > 1:
            raise LorarecError(f"option swapped must be at most 1, got {self.swapped}")


class CodeItemEmbeddings(ItemEmbeddings):
    """Vectors of length 1: the mean of the vectors of an item's codes (Section 2.2).

    Args:
        texts: (items, hidden).
        centroids: (digits, codes, part); an item's code of a digit is the nearest.
        width: of the vectors.

    Attributes:
        codes: (items, digits) of each item.
    """

    centroids: torch.Tensor
    codes: torch.Tensor
    first: torch.Tensor

    def __init__(self, texts: torch.Tensor, centroids: torch.Tensor, width: int) -> None:
        super().__init__()
        digits, count, _ = centroids.shape
        self.register_buffer("centroids", centroids)
        self.register_buffer("codes", nearest(texts, centroids), persistent=False)
        self.register_buffer("first", torch.arange(digits) * count, persistent=False)
        self.table = nn.EmbeddingBag(digits * count, width, mode="mean")
        nn.init.normal_(self.table.weight, std=width**-0.5)

    def of_codes(self, codes: torch.Tensor) -> torch.Tensor:
        """(n, digits) to (n, width)."""
        return normalize(self.table(codes + self.first), dim=-1)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        return self.of_codes(self.codes[numbers.flatten()]).view(*numbers.shape, -1)

    def all(self) -> torch.Tensor:
        return self.of_codes(self.codes)

    def swap(self, numbers: torch.Tensor, share: float) -> torch.Tensor:
        """(n,) items to the vectors (n, width) of such as do not exist: a share of their digits is drawn anew."""
        codes = self.codes[numbers]
        drawn = torch.randint_like(codes, self.centroids.shape[1])
        return self.of_codes(torch.where(torch.rand(codes.shape) < share, drawn, codes))


def quantise(texts: torch.Tensor, digits: int, codes: int, seed: int, progress: bool = False) -> torch.Tensor:
    """(items, hidden) texts to (digits, codes, part) centroids: k-means of every part of their dimensions.

    Raises:
        LorarecError: more digits than dimensions.
    """
    if digits > texts.shape[1]:
        raise LorarecError(f"option digits must be at most {texts.shape[1]}, the width of the backbone, got {digits}")
    means = MiniBatchKMeans(min(codes, len(texts)), random_state=seed, n_init=1)
    parts = track(_parts(texts, digits).numpy(), "Finding codes", progress)
    return torch.from_numpy(np.stack([means.fit(part).cluster_centers_ for part in parts]).astype(np.float32))


def nearest(texts: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """(items, hidden) texts to (items, digits): the number of the nearest centroid of each part."""
    parts = _parts(texts, len(centroids))
    return torch.stack([torch.cdist(*pair).argmin(1) for pair in zip(parts, centroids, strict=True)], 1)


def _parts(texts: torch.Tensor, digits: int) -> torch.Tensor:
    """(digits, items, part): the dimensions in equal parts, filled up with zeros, which change no distance."""
    filled = pad(texts, (0, -texts.shape[1] % digits))
    return filled.view(len(texts), digits, -1).transpose(0, 1).contiguous()


@takes(VQRecConfig)
def vqrec(material: TrainingData, **options: Any) -> DotProductScorer:
    """VQ-Rec; options of `VQRecConfig`. Items that nobody chose are scored by their titles' codes.

    Raises:
        LorarecError: an option out of range, or no general domain or backbone.
    """
    chosen = VQRecConfig(**options)
    weights = pretrained(material, "vq-rec", chosen, lambda: _pretrain(material, chosen))
    titles = [material.dataset.titles[item] for item in material.whole]
    items = CodeItemEmbeddings(read_texts(material, titles), weights["items.centroids"], chosen.width)
    model = NextItemModel(items, CosineSequenceEncoder(chosen))
    model.load_state_dict(weights)
    about = f"VQ-Rec, {chosen.digits} codes an item, width {chosen.width}"
    return fine_tune(material, model.eval(), chosen, about)


def _pretrain(material: TrainingData, options: VQRecConfig) -> NextItemModel:
    titles, histories = general_log(material)
    texts = read_texts(material, titles)
    centroids = quantise(texts, options.digits, options.codes, options.pretrain_seed, material.progress)
    torch.manual_seed(options.pretrain_seed)
    items = CodeItemEmbeddings(texts, centroids, options.width)
    return pretrain(items, histories, options, _enhanced(items, options), material.progress)


def _enhanced(items: CodeItemEmbeddings, options: VQRecConfig) -> Loss:
    """Sequence-item contrast with the items of all domains in the batch and with synthetic ones (Section 2.3)."""

    def loss(model: NextItemModel, batch: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        states, targets = model(batch[:, :-1]), batch[:, 1:]
        there = targets != PADDING
        negatives = batch_items(targets[there], options.negatives, generator)
        synthetic = items.swap(negatives, options.swapped)
        return sampled_logits(model, states[there], targets[there], negatives, synthetic)

    return loss
