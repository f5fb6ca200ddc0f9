"""BPR-MF (Rendle et al., UAI 2009): a vector for each user and item, learned from pairs."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import nn
from torch.nn.functional import logsigmoid

from lorarec.data import USER
from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.io import track
from lorarec.recommenders.dot_product import DotProductScorer
from lorarec.recommenders.options import takes
from lorarec.recommenders.training_data import TrainingData
from lorarec.training import EarlyStopping


@dataclass(frozen=True)
class BPRConfig:
    """How BPR-MF is trained.

    Attributes:
        epochs: at most so many passes over the interactions.
        patience: epochs without a better validation figure after which it stops.
        width: of the vectors.
        batch: interactions; for each an item is drawn that its user did not choose.
        lr: learning rate of Adam.
        penalty: weight of the squared lengths of the vectors of a pair.

    Raises:
        LorarecError: a number is out of range.
    """

    epochs: int = 60
    patience: int = 5
    width: int = 64
    batch: int = 1024
    lr: float = 3e-3
    penalty: float = 1e-2

    def __post_init__(self) -> None:
        refuse_out_of_range(self, ("epochs", "patience", "width", "batch"), ("penalty",), ("lr",))


class Factors(nn.Module):
    """Vectors of users and items and biases of items."""

    def __init__(self, users: int, items: int, width: int) -> None:
        super().__init__()
        self.user, self.item, self.bias = (
            nn.Embedding(rows, size, sparse=True) for rows, size in ((users, width), (items, width), (items, 1))
        )
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.1 * width**-0.5)
        nn.init.zeros_(self.bias.weight)

    def loss(self, triples: torch.Tensor, penalty: float) -> torch.Tensor:
        """-log sigmoid of how much further a user's chosen item scores than the other, plus the penalty; mean.

        Args:
            triples: (n, 3) user, item that the user chose, item that the user did not choose.
        """
        users, chosen, others = triples.unbind(1)
        user, one, two = self.user(users), self.item(chosen), self.item(others)
        ahead = (user * (one - two)).sum(1) + (self.bias(chosen) - self.bias(others))[:, 0]
        lengths = (user**2 + one**2 + two**2).sum(1)
        return (penalty * lengths - logsigmoid(ahead)).mean()


@takes(BPRConfig)
def bpr(material: TrainingData, **options: float) -> DotProductScorer:
    """BPR-MF; options of `BPRConfig`. Users that training does not have get the items' biases alone."""
    chosen = BPRConfig(**options)  # type: ignore[arg-type]
    histories = material.histories
    items = len(material.catalogue)
    users = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    pairs = np.stack([users, np.concatenate(histories)], 1)
    taken = np.unique(pairs[:, 0] * items + pairs[:, 1])
    pairs = pairs[~chose_everything(len(histories), items, taken)[pairs[:, 0]]]
    if not len(pairs):
        raise LorarecError(f"{material.dataset.name}: every user chose every item, so BPR-MF has no negatives")
    torch.manual_seed(material.seed)
    generator = np.random.default_rng(material.seed)
    model = Factors(len(histories), items, chosen.width)
    optimizer = torch.optim.SparseAdam(list(model.parameters()), chosen.lr)
    best = EarlyStopping(model, chosen.patience)
    for _ in track(range(chosen.epochs), "BPR-MF", material.progress):
        order = generator.permutation(len(pairs))
        others = not_chosen(pairs[order, 0], items, taken, generator)
        triples = torch.from_numpy(np.column_stack([pairs[order], others]))
        for batch in triples.split(chosen.batch):
            optimizer.zero_grad()
            model.loss(batch, chosen.penalty).backward()
            optimizer.step()
        if best.ends(material.figure(_scorer(material, model))):
            break
    best.restore()
    return _scorer(material, model)


def chose_everything(users: int, items: int, taken: np.ndarray) -> np.ndarray:
    """Return whether each user chose every item, (users,).

    Args:
        taken: user * items + item of every choice, each once.
    """
    return np.bincount(taken // items, minlength=users) >= items


def not_chosen(users: np.ndarray, items: int, taken: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """An item for each user, drawn uniformly among those the user did not choose.

    Args:
        users: of whom none chose everything.
        taken: user * items + item of every choice, ascending, each once.
    """
    drawn = generator.integers(0, items, len(users))
    again = np.arange(len(users))
    for _ in range(10):
        pairs = users[again] * items + drawn[again]
        again = again[taken[np.searchsorted(taken, pairs).clip(max=len(taken) - 1)] == pairs]
        if not len(again):
            return drawn
        drawn[again] = generator.integers(0, items, len(again))
    for place in again:  # users who chose most items, for whom drawing again would take too long
        first, last = np.searchsorted(taken, [users[place] * items, (users[place] + 1) * items])
        left = np.setdiff1d(np.arange(items), taken[first:last] - users[place] * items, assume_unique=True)
        drawn[place] = generator.choice(left)
    return drawn


def _scorer(material: TrainingData, model: Factors) -> DotProductScorer:
    row = {user: place for place, user in enumerate(material.users)}

    def queries(cases: pl.DataFrame) -> torch.Tensor:
        rows = torch.tensor([row.get(user, -1) for user in cases[USER].to_list()])
        return model.user.weight.detach()[rows] * (rows >= 0)[:, None]

    about = f"BPR-MF, width {model.user.embedding_dim}"
    return DotProductScorer(material.row, model.item.weight, queries, about, model.bias.weight[:, 0])
