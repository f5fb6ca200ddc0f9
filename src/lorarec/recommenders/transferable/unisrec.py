"""UniSRec (Hou et al., KDD 2022): items are texts, whitened and adapted by experts, pre-trained across domains.

Simplified: texts are averaged hidden states of the backbone, or embeddings of a sentence encoder, instead of BERT's,
standardised over the general domains; all positions of a history are predicted in one pass, and the negatives are the
items of the batch, at most `negatives` of them; the softmax of fine-tuning is over `negatives` items drawn from larger
catalogues.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize, softplus

from lorarec.errors import refuse_out_of_range
from lorarec.options import document_options, option
from lorarec.recommenders.sequential.next_item_model import PADDING, IdEmbeddings, ItemEmbeddings, NextItemModel
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

#: Number of items whose vectors are computed at once.
_ITEMS_AT_ONCE = 8192


@document_options
@dataclass(frozen=True)
class UniSRecConfig(TransferConfig):
    """Options of `UniSRec`."""

    num_experts: int = option(8, "Number of whitening layers that the gate mixes.")
    contrastive_weight: float = option(
        1e-3, "Weight of the sequence-sequence task, relative to the sequence-item task."
    )
    drop_ratio: float = option(0.2, "Share of items, or of the words of titles, that an augmented view lacks; below 1.")
    use_item_ids: bool = option(False, "Add an embedding of the id to the text of items with training interactions.")

    fine_tuning: ClassVar[tuple[str, ...]] = (*TransferConfig.fine_tuning, "use_item_ids")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_out_of_range(self, ("num_experts",), ("contrastive_weight",), below_one=("drop_ratio",))


class Adaptor(nn.Module):
    """Experts, each a parametric whitening (x - b) W, and a gate that is noisy in training (section 2.1)."""

    def __init__(self, text_size: int, hidden_size: int, experts: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.shift = nn.Parameter(torch.zeros(experts, text_size))
        self.whiten = nn.Parameter(torch.randn(experts, text_size, hidden_size) * text_size**-0.5)
        self.gate = nn.Parameter(torch.zeros(text_size, experts))
        self.noise = nn.Parameter(torch.zeros(text_size, experts))

    def weights(self, texts: torch.Tensor) -> torch.Tensor:
        """Return the weights (n, experts) of the experts for texts (n, text_size); they sum to 1."""
        logits = texts @ self.gate
        if self.training:
            logits = logits + torch.randn_like(logits) * softplus(texts @ self.noise)
        return logits.softmax(-1)

    def forward(self, texts: torch.Tensor) -> torch.Tensor:
        """Return the adapted vectors (n, hidden_size) of texts (n, text_size)."""
        # The shift is the same for every row, so it is whitened once.
        whitened = torch.einsum("nh,ehw->new", self.dropout(texts), self.whiten)
        whitened = whitened - torch.einsum("eh,ehw->ew", self.shift, self.whiten)
        return (self.weights(texts)[..., None] * whitened).sum(1)


class TextItemEmbeddings(ItemEmbeddings):
    """Item vectors of length 1 from texts, and from ids after `add_ids`.

    Args:
        texts: Embeddings of the items' texts (items, text_size).
    """

    texts: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, texts: torch.Tensor, config: UniSRecConfig) -> None:
        super().__init__()
        text_size = texts.shape[1]
        self.register_buffer("texts", texts, persistent=False)
        self.register_buffer("mean", torch.zeros(text_size))
        self.register_buffer("std", torch.ones(text_size))
        self.adaptor = Adaptor(text_size, config.hidden_size, config.num_experts, config.dropout)
        self.ids: IdEmbeddings | None = None

    def set_statistics(self, texts: torch.Tensor) -> None:
        """Standardise texts by the means and standard deviations of these texts from now on."""
        self.mean, self.std = texts.mean(0), texts.std(0, correction=0).clamp(min=1e-6)

    def add_ids(self, items: int, hidden_size: int) -> None:
        """Add id embeddings to the first items; they are small at first, so that the texts dominate."""
        self.ids = IdEmbeddings(items, hidden_size)
        nn.init.normal_(self.ids.table.weight, std=0.02)

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """See `ItemEmbeddings.forward`."""
        # An item may occur many times in a batch; its text is adapted once.
        different, places = items.unique(return_inverse=True)
        vectors = normalize(self.adaptor((self.texts[different] - self.mean) / self.std), dim=-1)
        if self.ids is not None:
            count = self.ids.table.num_embeddings
            ids = self.ids(different.clamp(max=count - 1)) * (different < count)[:, None]
            vectors = normalize(vectors + ids, dim=-1)
        return vectors[places]

    @torch.no_grad()
    def all(self) -> torch.Tensor:
        """See `ItemEmbeddings.all`."""
        return torch.cat([self(part) for part in torch.arange(len(self.texts)).split(_ITEMS_AT_ONCE)])


class UniSRec(TransferRecommender[UniSRecConfig]):
    """Universal sequence representation learning. Items without training interactions are scored by their titles."""

    config_class = UniSRecConfig

    def fit(self, data: TrainingData) -> Self:
        """Pre-train on the general domains, or read the cached weights, and fine-tune on the training histories.

        Raises:
            LorarecError: Pre-training has no general domain, or the data have neither backbone nor text encoder.
        """
        config = self.config
        data = with_domains(data, config)
        weights = pretrained_weights(data, "unisrec", config, lambda: _pretrain(data, config))
        torch.manual_seed(data.seed)
        items = TextItemEmbeddings(item_embeddings(data, config.text_encoder), config)
        model = NextItemModel(items, CosineSequenceEncoder(config))
        model.load_state_dict(weights)
        if config.use_item_ids:
            items.add_ids(len(data.train_items), config.hidden_size)
        return self.fine_tune(data, model)

    def describe(self, texts_of: str) -> str:
        """See `TransferRecommender.describe`."""
        kind = "text and ids" if self.config.use_item_ids else "text"
        return f"UniSRec, {kind} ({texts_of}), hidden size {self.config.hidden_size}"


def _pretrain(data: TrainingData, config: UniSRecConfig) -> NextItemModel:
    titles, histories = general_histories(data)
    texts = text_embeddings(data, titles, config.text_encoder)
    augmented = text_embeddings(data, _drop_words(titles, config.drop_ratio, config.pretrain_seed), config.text_encoder)
    torch.manual_seed(config.pretrain_seed)
    items = TextItemEmbeddings(torch.cat([texts, augmented]), config)
    items.set_statistics(texts)
    return pretrain(items, histories, config, _two_tasks(len(titles), config), data.progress)


def _drop_words(titles: list[str], drop_ratio: float, seed: int) -> list[str]:
    """Return titles without some of their words, drawn at random; each has at least one word left."""
    generator = np.random.default_rng(seed)
    shorter = []
    for title in titles:
        words = title.split()
        chance = generator.random(len(words))
        # The word with the largest random number is never dropped.
        keep = (chance >= drop_ratio) | (chance == chance.max(initial=0))
        shorter.append(" ".join(word for word, is_kept in zip(words, keep, strict=True) if is_kept))
    return shorter


def _two_tasks(items: int, config: UniSRecConfig) -> Loss:
    """Return the sum of the sequence-item and the sequence-sequence contrastive loss (section 2.2).

    Args:
        items: Number of items of the general domains; number i + items is item i with fewer words.
    """

    def loss(model: NextItemModel, batch: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        states, targets = model(batch[:, :-1]), batch[:, 1:]
        present = targets != PADDING
        negatives = in_batch_negatives(targets[present], config.negatives, generator)
        sequence_item = sampled_softmax_loss(model, states[present], targets[present], negatives)
        last, rows = present.sum(1) - 1, torch.arange(len(batch))
        histories = (row[: end + 1].numpy() for row, end in zip(batch, last, strict=True))
        views = [_augmented(history, items, config.drop_ratio, generator) for history in histories]
        ends = torch.tensor([len(view) - 1 for view in views])
        encoded = normalize(model(model.pad(views))[rows, ends], dim=-1)
        next_items = targets[rows, last]
        # Two histories with the same next item are no negatives of each other.
        same = (next_items[:, None] == next_items) & ~torch.eye(len(batch), dtype=torch.bool)
        logits = (states[rows, last] @ encoded.T).masked_fill(same, -torch.inf)
        return sequence_item + config.contrastive_weight * cross_entropy(logits, rows)

    return loss


def _augmented(history: np.ndarray, items: int, drop_ratio: float, generator: np.random.Generator) -> np.ndarray:
    """Return a history without some of its items, or with fewer words in the titles of some."""
    dropped = generator.random(len(history)) < drop_ratio
    if generator.random() < 0.5:
        return history[~dropped] if not dropped.all() else history[-1:]
    return history + items * dropped
