"""CTR-BERT's row of the tables: a click from the text of a user and the text of an item, each read by itself."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import embedding

from lorarec.backbone import Backbone, mean_states
from lorarec.ctr.ctr_model import read_events
from lorarec.ctr.network import feed_forward
from lorarec.ctr.trainer import CTRConfig, train
from lorarec.data import TITLE, TRAIN, ClickLog
from lorarec.prompts import genres, profiles
from lorarec.scoring import evaluation_mode

_WIDTH = 64


@dataclass(frozen=True)
class _Batch:
    """Events as row numbers: user (n,), item (n,), history (n, T), and ratings (n, T) in half stars plus one, 0 where
    there is none."""

    user: torch.Tensor
    item: torch.Tensor
    history: torch.Tensor
    rating: torch.Tensor


class TwoTowers(nn.Module):
    """Two towers of texts in the manner of CTR-BERT (Muhamed et al. 2021), with no ids: new items are as known as old.

    The item's tower encodes title and genres; the user's tower encodes the profile and the titles of the history, each
    weighed by its stars. The log-odds are final layers over (user, item, user * item). Simplified: the backbone
    stands in for BERT and stays as it is, so that every text is encoded once (last hidden states, averaged); texts of
    a history are encoded one by one and averaged. Towers and final layers are trained on all training events.

    Args:
        backbone: the encoder.
        log: whose texts are encoded.
        max_history: the latest items of a history that are seen.
        layers: sizes of the final layers.
        dropout: after each of them.
    """

    users: torch.Tensor
    items: torch.Tensor

    def __init__(
        self,
        backbone: Backbone,
        log: ClickLog,
        max_history: int,
        layers: tuple[int, ...] = (128, 64),
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.log = log
        self.max_history = max_history
        titles = log.dataset.items[TITLE]
        texts = [f"{title}: {kinds}" if kinds else title for title, kinds in zip(titles, genres(log), strict=True)]
        self.register_buffer("items", _standardised(mean_states(backbone, texts)))
        about = [f"about the user: {profile}" for profile in profiles(log)]
        self.register_buffer("users", _standardised(mean_states(backbone, about)))
        hidden = self.items.shape[1]
        self.item = nn.Linear(hidden, _WIDTH)
        self.past = nn.Linear(hidden, _WIDTH)
        self.profile = nn.Linear(hidden, _WIDTH)
        self.stars = nn.Embedding.from_pretrained(torch.ones(round(2 * log.stars) + 2, _WIDTH), freeze=False)
        self.final = nn.Sequential(feed_forward([3 * _WIDTH, *layers], dropout), nn.Linear(layers[-1], 1))

    def batch(self, events: np.ndarray) -> _Batch:
        """Events with the latest of their histories."""
        log, shown = self.log, self.log.histories(events, self.max_history)
        rating = np.where(shown >= 0, np.rint(2 * log.rating[shown]).astype(np.int64) + 1, 0)
        return _Batch(*map(torch.from_numpy, (log.user[events], log.item[events], log.item[shown], rating)))

    def forward(self, batch: _Batch) -> torch.Tensor:
        """(n,) log-odds of a click."""
        present = batch.rating > 0
        history = embedding(batch.history, self.past(self.items)) * self.stars(batch.rating) * present[..., None]
        user = history.sum(1) / present.sum(1).clamp(min=1)[:, None] + self.profile(self.users[batch.user])
        item = self.item(self.items[batch.item])
        return self.final(torch.cat([user, item, user * item], 1))[:, 0]

    def score(self, events: np.ndarray) -> np.ndarray:
        """Probabilities (events,) of a click."""
        with evaluation_mode(self):
            return read_events(lambda batch: self(batch).sigmoid(), self.batch, events, "Scoring with two towers")


def fit_two_towers(
    backbone: Backbone, log: ClickLog, options: CTRConfig | None = None, progress: bool = False
) -> TwoTowers:
    """Train two towers on all training events; those of the epoch with the best validation AUC are kept.

    Raises:
        LorarecError: training or validation events labelled all alike.
    """
    options = options or CTRConfig()
    torch.manual_seed(options.seed)
    towers = TwoTowers(backbone, log, options.max_history)
    train(towers, towers.batch, log, log.rows(TRAIN), options, "two towers", progress)
    return towers


def _standardised(states: np.ndarray) -> torch.Tensor:
    """Every dimension with mean 0 and deviation 1."""
    return torch.from_numpy((states - states.mean(0)) / (states.std(0) + 1e-6))
