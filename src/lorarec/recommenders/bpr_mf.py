"""BPR-MF (Rendle et al., UAI 2009): matrix factorisation with the pairwise loss of Bayesian personalised ranking."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
import torch
from torch import nn
from torch.nn.functional import logsigmoid

from lorarec.data import USER
from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.io import track
from lorarec.options import document_options, option
from lorarec.recommenders.dot_product import DotProductScorer
from lorarec.recommenders.early_stopping import CHECKED_CASES, EarlyStopping, refuse_divergence
from lorarec.recommenders.recommender import ScorerRecommender
from lorarec.recommenders.recommender_config import RecommenderConfig
from lorarec.recommenders.training_data import TrainingData


@document_options
@dataclass(frozen=True)
class BPRMFConfig(RecommenderConfig):
    """Options of `BPRMF`."""

    epochs: int = option(60, "Maximum number of passes over the interactions.")
    patience: int = option(5, "Number of epochs without a better validation NDCG@10 after which training stops.")
    hidden_size: int = option(64, "Size of the user and item vectors.")
    batch_size: int = option(1024, "Number of interactions per step.")
    learning_rate: float = option(3e-3, "Learning rate of Adam.")
    weight_decay: float = option(1e-2, "Weight of the squared norms of the vectors in the loss of a pair.")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one = ("epochs", "patience", "hidden_size", "batch_size")
        refuse_out_of_range(self, at_least_one, ("weight_decay",), ("learning_rate",))


class MatrixFactorization(nn.Module):
    """Vectors of users and items and biases of items."""

    def __init__(self, users: int, items: int, hidden_size: int) -> None:
        super().__init__()
        self.user, self.item, self.bias = (
            nn.Embedding(rows, size, sparse=True)
            for rows, size in ((users, hidden_size), (items, hidden_size), (items, 1))
        )
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.1 * hidden_size**-0.5)
        nn.init.zeros_(self.bias.weight)

    @torch.no_grad()
    def scores(self, triples: torch.Tensor) -> torch.Tensor:
        """Return the scores (n,) of the positive items of triples (n, 3) of user, positive item and negative item."""
        users, positives, _ = triples.unbind(1)
        return (self.user(users) * self.item(positives)).sum(1) + self.bias(positives)[:, 0]

    def loss(self, triples: torch.Tensor, weight_decay: float) -> torch.Tensor:
        """Return the mean of -log sigmoid(score of the positive - score of the negative) plus the L2 penalty.

        Args:
            triples: User, positive item and negative item (n, 3).
        """
        users, positives, negatives = triples.unbind(1)
        user, positive, negative = self.user(users), self.item(positives), self.item(negatives)
        margin = (user * (positive - negative)).sum(1) + (self.bias(positives) - self.bias(negatives))[:, 0]
        squared_norms = (user**2 + positive**2 + negative**2).sum(1)
        return (weight_decay * squared_norms - logsigmoid(margin)).mean()


class BPRMF(ScorerRecommender[BPRMFConfig]):
    """Matrix factorisation trained on pairs of a chosen and an unchosen item.

    For users without training interactions, the scores are the item biases. Items without any are ranked last.
    """

    config_class = BPRMFConfig

    def fit(self, data: TrainingData) -> Self:
        """Learn from the training part of the split; NDCG@10 on validation cases chooses the epoch.

        Without validation cases it is the last epoch.

        Raises:
            LorarecError: Every user chose every item.
        """
        config, histories, items = self.config, data.histories, len(data.train_items)
        users = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
        pairs = np.stack([users, np.concatenate(histories)], 1)
        chosen = np.unique(pairs[:, 0] * items + pairs[:, 1])
        pairs = pairs[~chose_everything(len(histories), items, chosen)[pairs[:, 0]]]
        if not len(pairs):
            raise LorarecError(f"{data.dataset.name}: every user chose every item, so BPR-MF has no negatives")
        torch.manual_seed(data.seed)
        generator = np.random.default_rng(data.seed)
        model = MatrixFactorization(len(histories), items, config.hidden_size)
        optimizer = torch.optim.SparseAdam(list(model.parameters()), config.learning_rate)
        stopping = EarlyStopping(model, config.patience)
        for _ in track(range(config.epochs), "BPR-MF", data.progress):
            order = generator.permutation(len(pairs))
            negatives = sample_negatives(pairs[order, 0], items, chosen, generator)
            triples = torch.from_numpy(np.column_stack([pairs[order], negatives]))
            for batch in triples.split(config.batch_size):
                optimizer.zero_grad()
                model.loss(batch, config.weight_decay).backward()
                optimizer.step()
            refuse_divergence(model, "BPR-MF", model.scores(triples[:CHECKED_CASES]))
            if data.has_validation_cases and stopping.step(data.validation_ndcg(_scorer(data, model))):
                break
        stopping.restore()
        self.scorer = _scorer(data, model)
        return self


def chose_everything(users: int, items: int, chosen: np.ndarray) -> np.ndarray:
    """Return whether each user chose every item (users,).

    Args:
        chosen: The different values of user * items + item of all interactions.
    """
    return np.bincount(chosen // items, minlength=users) >= items


def sample_negatives(users: np.ndarray, items: int, chosen: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw an item (n,) for each user (n,), uniformly among the items that the user did not choose.

    Args:
        users: Users (n,), none of whom chose everything.
        chosen: The different values of user * items + item of all interactions, in ascending order.
    """
    negatives = generator.integers(0, items, len(users))
    rejected = np.arange(len(users))
    for _ in range(10):
        pairs = users[rejected] * items + negatives[rejected]
        rejected = rejected[chosen[np.searchsorted(chosen, pairs).clip(max=len(chosen) - 1)] == pairs]
        if not len(rejected):
            return negatives
        negatives[rejected] = generator.integers(0, items, len(rejected))
    for place in rejected:  # For users who chose most items, rejection sampling would take too long.
        first, last = np.searchsorted(chosen, [users[place] * items, (users[place] + 1) * items])
        allowed = np.setdiff1d(np.arange(items), chosen[first:last] - users[place] * items, assume_unique=True)
        negatives[place] = generator.choice(allowed)
    return negatives


def _scorer(data: TrainingData, model: MatrixFactorization) -> DotProductScorer:
    rows = {user: row for row, user in enumerate(data.users)}

    def queries(cases: pl.DataFrame) -> torch.Tensor:
        user_rows = torch.tensor([rows.get(user, -1) for user in cases[USER].to_list()])
        return model.user.weight.detach()[user_rows] * (user_rows >= 0)[:, None]

    about = f"BPR-MF, hidden size {model.user.embedding_dim}"
    return DotProductScorer(data.train_index, model.item.weight, queries, about, model.bias.weight[:, 0])
