"""UniSRec (Hou et al., KDD 2022): items are texts, whitened and adapted by experts, pre-trained across domains.

Simplified: texts are averaged hidden states of the backbone in place of BERT's, standardised by the general domains;
all places of a history are learned from in one pass, and the batch's items, at most `negatives` of them, are what a
next item is told apart from; the softmax of fine-tuning is over `negatives` items drawn from larger catalogues.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, normalize, softplus

from lorarec.errors import refuse_out_of_range
from lorarec.recommenders.dot_product import DotProductScorer
from lorarec.recommenders.options import takes
from lorarec.recommenders.sequential.model import PADDING, IdEmbeddings, ItemEmbeddings, NextItemModel
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

#: Items whose vectors are computed at once when all are wanted.
_ITEMS_AT_ONCE = 8192


@dataclass(frozen=True)
class UniSRecConfig(TransferConfig):
    """How UniSRec is made, besides `TransferConfig`.

    Attributes:
        experts: whitening layers that a gate mixes.
        views: weight of the sequence-sequence task beside the sequence-item task.
        drop: share of items, or of the words of titles, that an augmented view lacks; below 1.
        ids: transductive: items of the catalogue get a vector of their own besides their text's.

    Raises:
        LorarecError: a number is out of range.
    """

    experts: int = 8
    views: float = 1e-3
    drop: float = 0.2
    ids: bool = False

    fine_tuning: ClassVar[tuple[str, ...]] = (*TransferConfig.fine_tuning, "ids")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_out_of_range(self, ("experts",), ("views", "drop"), ())


class Adaptor(nn.Module):
    """Experts, each a parametric whitening (x - b) W, under a gate that training makes noisy (Section 2.1)."""

    def __init__(self, hidden: int, width: int, experts: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.shift = nn.Parameter(torch.zeros(experts, hidden))
        self.whiten = nn.Parameter(torch.randn(experts, hidden, width) * hidden**-0.5)
        self.gate = nn.Parameter(torch.zeros(hidden, experts))
        self.noise = nn.Parameter(torch.zeros(hidden, experts))

    def weights(self, texts: torch.Tensor) -> torch.Tensor:
        """(n, hidden) texts to (n, experts) weights, which add up to 1."""
        logits = texts @ self.gate
        if self.training:
            logits = logits + torch.randn_like(logits) * softplus(texts @ self.noise)
        return logits.softmax(-1)

    def forward(self, texts: torch.Tensor) -> torch.Tensor:
        """(n, hidden) to (n, width)."""
        # The shift is taken from every row alike, so it can be whitened apart from them.
        whitened = torch.einsum("nh,ehw->new", self.dropout(texts), self.whiten)
        whitened = whitened - torch.einsum("eh,ehw->ew", self.shift, self.whiten)
        return (self.weights(texts)[..., None] * whitened).sum(1)


class TextItemEmbeddings(ItemEmbeddings):
    """Vectors of length 1 from texts, and from ids where there are some.

    Args:
        texts: (items, hidden).
    """

    texts: torch.Tensor
    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(self, texts: torch.Tensor, options: UniSRecConfig) -> None:
        super().__init__()
        hidden = texts.shape[1]
        self.register_buffer("texts", texts, persistent=False)
        self.register_buffer("mean", torch.zeros(hidden))
        self.register_buffer("spread", torch.ones(hidden))
        self.adaptor = Adaptor(hidden, options.width, options.experts, options.dropout)
        self.ids: IdEmbeddings | None = None

    def standardise(self, texts: torch.Tensor) -> None:
        """Read texts from now on with the means and deviations of these."""
        self.mean, self.spread = texts.mean(0), texts.std(0, correction=0).clamp(min=1e-6)

    def give_ids(self, known: int, width: int) -> None:
        """Give the first items vectors of their own, small at first, so that texts lead."""
        self.ids = IdEmbeddings(known, width)
        nn.init.normal_(self.ids.table.weight, std=0.02)

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        # An item may stand in a batch many times; its text is adapted once.
        items, places = numbers.unique(return_inverse=True)
        vectors = normalize(self.adaptor((self.texts[items] - self.mean) / self.spread), dim=-1)
        if self.ids is not None:
            known = self.ids.table.num_embeddings
            vectors = normalize(vectors + self.ids(items.clamp(max=known - 1)) * (items < known)[:, None], dim=-1)
        return vectors[places]

    @torch.no_grad()
    def all(self) -> torch.Tensor:
        return torch.cat([self(part) for part in torch.arange(len(self.texts)).split(_ITEMS_AT_ONCE)])


@takes(UniSRecConfig)
def unisrec(material: TrainingData, **options: Any) -> DotProductScorer:
    """UniSRec; options of `UniSRecConfig`. Items that nobody chose are scored by their titles.

    Raises:
        LorarecError: an option out of range, or no general domain or backbone.
    """
    chosen = UniSRecConfig(**options)
    weights = pretrained(material, "unisrec", chosen, lambda: _pretrain(material, chosen))
    titles = [material.dataset.titles[item] for item in material.whole]
    torch.manual_seed(material.seed)
    items = TextItemEmbeddings(read_texts(material, titles), chosen)
    model = NextItemModel(items, CosineSequenceEncoder(chosen))
    model.load_state_dict(weights)
    if chosen.ids:
        items.give_ids(len(material.catalogue), chosen.width)
    about = f"UniSRec, {'text and ids' if chosen.ids else 'text'}, width {chosen.width}"
    return fine_tune(material, model.eval(), chosen, about)


def _pretrain(material: TrainingData, options: UniSRecConfig) -> NextItemModel:
    titles, histories = general_log(material)
    texts = read_texts(material, titles)
    fewer = read_texts(material, _fewer_words(titles, options.drop, options.pretrain_seed))
    torch.manual_seed(options.pretrain_seed)
    items = TextItemEmbeddings(torch.cat([texts, fewer]), options)
    items.standardise(texts)
    return pretrain(items, histories, options, _two_tasks(len(titles), options), material.progress)


def _fewer_words(titles: list[str], drop: float, seed: int) -> list[str]:
    """Titles from which words were dropped at random; one word at least is left."""
    generator = np.random.default_rng(seed)
    found = []
    for title in titles:
        words = title.split()
        chance = generator.random(len(words))
        # The last to go is never dropped.
        found.append(" ".join(word for word, at in zip(words, chance, strict=True) if at >= drop or at == chance.max()))
    return found


def _two_tasks(items: int, options: UniSRecConfig) -> Loss:
    """Sequence-item and sequence-sequence contrast (Section 2.2), over batches of all domains mixed.

    Args:
        items: of the general domains; number i + items is item i with fewer words.
    """

    def loss(model: NextItemModel, batch: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        states, targets = model(batch[:, :-1]), batch[:, 1:]
        there = targets != PADDING
        negatives = batch_items(targets[there], options.negatives, generator)
        next_item = sampled_logits(model, states[there], targets[there], negatives)
        last, rows = there.sum(1) - 1, torch.arange(len(batch))
        histories = (row[: end + 1].numpy() for row, end in zip(batch, last, strict=True))
        views = [_view(history, items, options.drop, generator) for history in histories]
        ends = torch.tensor([len(view) - 1 for view in views])
        seen = normalize(model(model.filled(views))[rows, ends], dim=-1)
        follows = targets[rows, last]
        # Two histories with the same next item are not held against each other.
        alike = (follows[:, None] == follows) & ~torch.eye(len(batch), dtype=torch.bool)
        logits = (states[rows, last] @ seen.T).masked_fill(alike, -torch.inf)
        return next_item + options.views * cross_entropy(logits, rows)

    return loss


def _view(history: np.ndarray, items: int, drop: float, generator: np.random.Generator) -> np.ndarray:
    """A history without some of its items, or with fewer words in the titles of some."""
    hit = generator.random(len(history)) < drop
    if generator.random() < 0.5:
        return history[~hit] if not hit.all() else history[-1:]
    return history + items * hit
