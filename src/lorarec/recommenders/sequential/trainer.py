"""One trainer for all next-item models.

What it makes reads any history, also of a user it has never met or one that has grown since.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.io import track
from lorarec.recommenders.sequential.model import PADDING, IdEmbeddings, NextItemModel
from lorarec.recommenders.sequential.registry import SEQUENCE_ENCODERS
from lorarec.scoring import evaluation_mode
from lorarec.training import EarlyStopping

#: Of a model, a batch of pieces of histories (batch, length) as the model wants them filled up, and what to draw from.
Loss = Callable[[NextItemModel, torch.Tensor, np.random.Generator], torch.Tensor]

#: Batches are made of histories of about the same length; of so many batches the histories are sorted by length.
_SORTED_TOGETHER = 50


@dataclass(frozen=True)
class NextItemConfig:
    """How a next-item model is made.

    Attributes:
        sequence: what reads a history, one of `SEQUENCE_ENCODERS`.
        epochs: passes over the histories; without any there is no model.
        patience: epochs without a better validation figure after which training stops, where there is one.
        width: of the item vectors.
        depth: layers that read a history.
        longest: the latest items of a history that are read.
        prefixes: next items of a history that an epoch learns from, drawn anew for each; None for all. Causal sequences
            learn from all of them in one pass anyway.
        negatives: items drawn uniformly for each batch, beside which a next item is to be named; the whole catalogue
            where it is not larger.
        batch: histories.
        lr: learning rate of Adam.
        dropout: in training.
        seed: of weights, batches and negatives.

    Raises:
        LorarecError: a number is out of range, or an unknown sequence.
    """

    sequence: str = "sasrec"
    epochs: int = 20
    patience: int = 3
    width: int = 64
    depth: int = 2
    longest: int = 50
    prefixes: int | None = None
    negatives: int = 512
    batch: int = 128
    lr: float = 2e-3
    dropout: float = 0.2
    seed: int = 42

    def __post_init__(self) -> None:
        at_least_one = ("width", "depth", "longest", "negatives", "batch", "patience", "prefixes")
        refuse_out_of_range(self, at_least_one, ("epochs", "dropout", "seed"), ("lr",))
        if self.sequence not in SEQUENCE_ENCODERS:
            raise LorarecError(f"no sequence model {self.sequence}: choose one of {', '.join(SEQUENCE_ENCODERS)}")


def fit_next_item(
    histories: list[np.ndarray],
    items: int,
    options: NextItemConfig,
    valid: Callable[[NextItemModel], float] | None = None,
    progress: bool = False,
) -> NextItemModel:
    """Make and train a model with a vector of its own for each item; see `train_next_item`."""
    loss = sampled_softmax(items, options.negatives)
    return train_next_item(new_next_item(items, options), histories, options, loss, valid, progress)


def new_next_item(items: int, options: NextItemConfig) -> NextItemModel:
    """An untrained model with a vector of its own for each item, drawn by the seed."""
    torch.manual_seed(options.seed)
    vectors = IdEmbeddings(items, options.width)
    sequence = SEQUENCE_ENCODERS[options.sequence](options.width, options.longest, options.depth, options.dropout)
    return NextItemModel(vectors, sequence)


def train_next_item(
    model: NextItemModel,
    histories: list[np.ndarray],
    options: NextItemConfig,
    loss: Loss,
    valid: Callable[[NextItemModel], float] | None = None,
    progress: bool = False,
) -> NextItemModel:
    """Train on histories of item numbers in time order.

    Long histories are read in pieces, so that no interaction is lost; a history of one item says nothing.

    Args:
        loss: such as `sampled_softmax`.
        valid: a figure of the model, higher is better, asked after each epoch; the best epoch's weights are kept. Those
            of the last epoch when None.
        progress: show a bar.
    """
    generator = np.random.default_rng(options.seed)
    torch.manual_seed(options.seed)
    optimizers = _optimizers(model, options.lr)
    best = EarlyStopping(model, options.patience)
    for _ in track(range(options.epochs), "Learning the next item", progress):
        model.train()
        pieces = list(_pieces(histories, options, model.sequence.causal, generator))
        for places in batches_by_length([len(piece) for piece in pieces], options.batch, generator):
            batch = model.filled([pieces[place] for place in places])
            loss(model, batch, generator).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        if valid is not None:
            with evaluation_mode(model):
                figure = valid(model)
            if best.ends(figure):
                break
    best.restore()
    return model.eval()


def sampled_softmax(items: int, negatives: int) -> Loss:
    """The softmax over the next item and others.

    Args:
        items: the others are among the first so many.
        negatives: so many are drawn uniformly for each batch; all are taken where there are not more.
    """

    def loss(model: NextItemModel, batch: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        drawn = np.arange(items) if items <= negatives else generator.integers(0, items, negatives)
        states = model(batch[:, :-1])
        targets = batch[:, -states.shape[1] :]
        there = targets != PADDING
        return sampled_logits(model, states[there], targets[there], torch.from_numpy(drawn))

    return loss


def sampled_logits(
    model: NextItemModel,
    states: torch.Tensor,
    targets: torch.Tensor,
    negatives: torch.Tensor,
    more: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean cross-entropy of each target (n,) beside the negatives (m,) other than itself, given states (n, width).

    Args:
        more: (k, width) vectors of further negatives.
    """
    true = (states * model.items(targets)).sum(1)
    others = states @ model.items(negatives).T
    others = others.masked_fill(targets[:, None] == negatives, -torch.inf)
    if more is not None:
        others = torch.cat([others, states @ more.T], 1)
    return (torch.logaddexp(true, others.logsumexp(1)) - true).mean()


def _optimizers(model: NextItemModel, lr: float) -> list[torch.optim.Optimizer]:
    """Adam; in its sparse form for tables whose gradients are sparse."""
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding) and module.sparse]
    sparse = [table.weight for table in tables]
    known = {id(weight) for weight in sparse}
    dense = [weight for weight in model.parameters() if weight.requires_grad and id(weight) not in known]
    found: list[torch.optim.Optimizer] = [torch.optim.Adam(dense, lr)]
    return [torch.optim.SparseAdam(sparse, lr), *found] if sparse else found


def _pieces(
    histories: list[np.ndarray], options: NextItemConfig, causal: bool, generator: np.random.Generator
) -> Iterator[np.ndarray]:
    """Pieces of two to longest + 1 items whose last item follows the others.

    Of a causal model every item of a piece is learned from, so the first item of a piece is the last of that before.
    Of others the last alone, so there is a piece for every item but the first, or for some that are drawn.
    """
    for history in histories:
        if causal:
            lasts = np.arange(len(history) - 1, 0, -options.longest)
        else:
            lasts = next_item_positions(len(history), options.prefixes, generator)
        for last in lasts:
            yield history[max(0, last - options.longest) : last + 1]


def next_item_positions(length: int, prefixes: int | None, generator: np.random.Generator) -> np.ndarray:
    """Places of a history that follow others; at most `prefixes` of them, drawn, unless that is None."""
    places = np.arange(length - 1, 0, -1)
    return places if prefixes is None or len(places) <= prefixes else generator.choice(places, prefixes, replace=False)


def batches_by_length(lengths: Sequence[int], size: int, generator: np.random.Generator) -> Iterator[list[int]]:
    """Random batches of the places of lengths that are about the same, so that little is filled up; each place once."""
    order = generator.permutation(len(lengths)).tolist()
    for start in range(0, len(order), size * _SORTED_TOGETHER):
        block = sorted(order[start : start + size * _SORTED_TOGETHER], key=lambda place: lengths[place])
        parts = [block[begin : begin + size] for begin in range(0, len(block), size)]
        for part in generator.permutation(len(parts)):
            yield parts[part]
