"""UniSRec (Hou et al., KDD 2022): items are texts, whitened and adapted by experts, pre-trained across domains.

Simplified: texts are averaged hidden states of the backbone, or embeddings of a sentence encoder, instead of BERT's,
standardised over the general domains; all positions of a history are predicted in one pass, and the negatives are the
items of the batch, at most `negatives` of them; the softmax of fine-tuning is over `negatives` items drawn from larger
catalogues.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize

from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.options import document_options, option
from lorarec.recommenders.sequential.next_item_model import PADDING, IdEmbeddings, NextItemModel
from lorarec.recommenders.sequential.trainer import Loss, sampled_softmax_loss
from lorarec.recommenders.text_embeddings import LSA, item_embeddings, text_embeddings
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
from lorarec.recommenders.transferable.text_items import FixedTextItems, TextItemEmbeddings
from lorarec.recommenders.transferable.transfer_recommender import TransferRecommender, tensors_of_new_items

#: Number of items whose texts are embedded again before an update, to see whether it is possible.
_CHECKED_ITEMS = 1000
#: Maximum difference of coordinates of vectors of length 1 that are equal but for rounding.
_TOLERANCE = 1e-3
_FIT_AGAIN = "fit it again (a fusion: run `lorarec fuse` again)"
#: Names of tensors of `FixedTextItems` in a model.
_VECTORS, _FROM_TEXTS, _IS_FIRST = "items.table.weight", "items.from_texts.", "items.is_first"


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
        items = _new_items(item_embeddings(data, config.text_encoder), config)
        model = NextItemModel(items, CosineSequenceEncoder(config))
        model.load_state_dict(weights)
        if config.use_item_ids:
            items.add_ids(len(data.train_items), config.hidden_size)
        return self.fine_tune(data, model)

    def fixed_tensors(self, data: TrainingData, model: NextItemModel) -> dict[str, torch.Tensor]:
        """Return fixed item vectors, and without ids the weights that make those of later items as well."""
        tensors = super().fixed_tensors(data, model)
        if self.config.use_item_ids:
            return tensors
        weights = {_FROM_TEXTS + name: each for name, each in model.items.state_dict().items()}
        return {**tensors, **weights, _IS_FIRST: torch.ones(len(data.dataset.titles), dtype=torch.bool)}

    def fixed_items(self, items: int, tensors: Mapping[str, torch.Tensor]) -> IdEmbeddings:
        """See `TransferRecommender.fixed_items`."""
        if _IS_FIRST not in tensors:
            return super().fixed_items(items, tensors)
        no_texts = torch.empty(0, len(tensors[f"{_FROM_TEXTS}mean"]))
        return FixedTextItems(items, self.config.hidden_size, _new_items(no_texts, self.config))

    def check_update(self, data: TrainingData) -> None:
        """Check that later titles can be embedded as the titles of the fit were; see `Recommender.check_update`.

        The titles of some items are embedded again and compared with the vectors of these items.

        Raises:
            LorarecError: There are ids, the fit was saved without the weights that later items need, or the
                embeddings of texts cannot be computed again.
        """
        items = _items_of(self.model_of_new_items or self.model, self.config)
        rows = np.linspace(0, len(data.item_rows) - 1, min(len(data.item_rows), _CHECKED_ITEMS)).astype(np.int64)
        titles = list(data.dataset.titles.values())
        texts = self._embed([titles[row] for row in rows], data, data, items)
        _refuse_other_texts(texts, items, torch.from_numpy(rows))

    def update(self, data: TrainingData, previous: TrainingData, epochs: int) -> Self:
        """Train a copy further on the histories that have changed; see `Recommender.update`.

        The model that scores new items keeps its weights, on which those of a fusion depend. Items that are later than
        the fit get vectors of it, from their titles. NDCG@10 on validation cases chooses the epoch.

        Raises:
            LorarecError: As for `check_update`; or an item of the previous data is missing.
        """
        config, of_new = self.config, self.model_of_new_items or self.model
        fitted, before = (_items_of(model, config) for model in (self.model, of_new))
        rows = _rows_of(previous, data)
        texts = self._embed(list(data.dataset.titles.values()), data, previous, before)
        _refuse_other_texts(texts[rows], before, torch.arange(len(rows)))

        items = _new_items(texts[[data.item_rows[item] for item in data.item_index]], config)
        items.load_state_dict(fitted.from_texts.state_dict())
        model = NextItemModel(items, CosineSequenceEncoder(config))
        model.sequence.load_state_dict(self.model.sequence.state_dict())
        trained = self.train(data, model, data.changed_histories(previous), epochs)

        is_first = torch.zeros(len(texts), dtype=torch.bool)
        is_first[rows] = before.is_first
        vectors = before.embed(texts)
        vectors[rows] = before.all()
        kept = {**of_new.state_dict(), _VECTORS: vectors, _IS_FIRST: is_first}
        tensors = {**self.fixed_tensors(data, trained), _IS_FIRST: is_first, **tensors_of_new_items(kept)}
        return copy.copy(self).restore(data, tensors)

    def _embed(
        self, titles: list[str], data: TrainingData, previous: TrainingData, items: FixedTextItems
    ) -> torch.Tensor:
        """Return embeddings of titles, for which words are those of the titles of the first fit."""
        firsts = zip(previous.dataset.titles.values(), items.is_first.tolist(), strict=True)
        corpus = list(dict.fromkeys(title for title, is_first in firsts if is_first))
        return text_embeddings(data, titles, self.config.text_encoder, corpus)

    def describe(self, texts_of: str) -> str:
        """See `TransferRecommender.describe`."""
        kind = "text and ids" if self.config.use_item_ids else "text"
        return f"UniSRec, {kind} ({texts_of}), hidden size {self.config.hidden_size}"


def _new_items(texts: torch.Tensor, config: UniSRecConfig) -> TextItemEmbeddings:
    return TextItemEmbeddings(texts, config.hidden_size, config.num_experts, config.dropout)


def _items_of(model: NextItemModel, config: UniSRecConfig) -> FixedTextItems:
    """Return the items of a model, which can make vectors of later items.

    Raises:
        LorarecError: They cannot.
    """
    reason = ""
    if config.use_item_ids:
        reason = "it has ids, which later items lack (use_item_ids)"
    elif config.text_encoder == LSA and config.pretrain_epochs:
        reason = "its words are those of the domains of pre-training as well, which are not at hand"
    elif not isinstance(model.items, FixedTextItems):
        reason = "it was saved by an earlier version, without the weights that make vectors of later items"
    if reason:
        raise LorarecError(f"UniSRec cannot be updated, since {reason}: {_FIT_AGAIN}")
    assert isinstance(model.items, FixedTextItems)
    return model.items


def _rows_of(previous: TrainingData, data: TrainingData) -> list[int]:
    """Return the row of each item of previous data in the item table.

    Raises:
        LorarecError: An item is missing.
    """
    if missing := [item for item in previous.dataset.titles if item not in data.item_rows]:
        raise LorarecError(
            f"item {missing[0]!r} of {previous.dataset.name} is missing in {data.dataset.name}, which should be the "
            "same dataset after an update: append to the dataset that the recommender was fitted to"
        )
    return [data.item_rows[item] for item in previous.dataset.titles]


def _refuse_other_texts(texts: torch.Tensor, items: FixedTextItems, rows: torch.Tensor) -> None:
    """Refuse embeddings of texts that are not those of the fit.

    Another encoder or other titles give others. So may another machine or version of a library for latent semantic
    analysis, if singular values are nearly equal.

    Args:
        texts: Embeddings of the texts of some items (n, text_size).
        items: Vectors of the items.
        rows: Rows of the items in the item table (n,).

    Raises:
        LorarecError: They are others.
    """
    size = len(items.from_texts.mean)
    if texts.shape[1] != size or not torch.allclose(items.embed(texts), items.all()[rows], rtol=0, atol=_TOLERANCE):
        raise LorarecError(
            "UniSRec cannot be updated, since the titles of its items have other embeddings here than at its fit "
            f"(another text encoder or backbone, other titles, or another machine): {_FIT_AGAIN}"
        )


def _pretrain(data: TrainingData, config: UniSRecConfig) -> NextItemModel:
    titles, histories = general_histories(data)
    texts = text_embeddings(data, titles, config.text_encoder)
    augmented = text_embeddings(data, _drop_words(titles, config.drop_ratio, config.pretrain_seed), config.text_encoder)
    torch.manual_seed(config.pretrain_seed)
    items = _new_items(torch.cat([texts, augmented]), config)
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
