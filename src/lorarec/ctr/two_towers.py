"""Two towers of texts in the manner of CTR-BERT: user and item are encoded separately."""

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

_HIDDEN_SIZE = 64


@dataclass(frozen=True)
class _Batch:
    """Events as numbers: users (n,), items (n,), histories (n, T), and ratings (n, T) in half stars plus one, 0 in
    padding."""

    user: torch.Tensor
    item: torch.Tensor
    history: torch.Tensor
    rating: torch.Tensor


class TwoTowers(nn.Module):
    """A click-through model of texts in the manner of CTR-BERT (Muhamed et al. 2021), without ids.

    The item tower encodes title and genres; the user tower encodes the profile and the titles of the history, each
    weighted by its stars. The log-odds are final layers over (user, item, user * item).

    Simplified: the backbone replaces BERT and is frozen, so that every text is encoded once (averaged last hidden
    states); the texts of a history are encoded one by one and averaged. Towers and final layers are trained on all
    training events.

    Args:
        backbone: Backbone that encodes the texts.
        log: Click log whose texts are encoded.
        max_history: Number of items of a history that are read, the latest.
        hidden_units: Sizes of the final layers.
        dropout: Dropout probability after each of them.
    """

    users: torch.Tensor
    items: torch.Tensor

    def __init__(
        self,
        backbone: Backbone,
        log: ClickLog,
        max_history: int,
        hidden_units: tuple[int, ...] = (128, 64),
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
        text_size = self.items.shape[1]
        self.item = nn.Linear(text_size, _HIDDEN_SIZE)
        self.past = nn.Linear(text_size, _HIDDEN_SIZE)
        self.profile = nn.Linear(text_size, _HIDDEN_SIZE)
        self.stars = nn.Embedding.from_pretrained(torch.ones(round(2 * log.stars) + 2, _HIDDEN_SIZE), freeze=False)
        self.final = nn.Sequential(
            feed_forward((3 * _HIDDEN_SIZE, *hidden_units), dropout), nn.Linear(hidden_units[-1], 1)
        )

    def batch(self, events: np.ndarray) -> _Batch:
        """Return a batch of events with the latest items of their histories."""
        log, past = self.log, self.log.histories(events, self.max_history)
        rating = np.where(past >= 0, np.rint(2 * log.rating[past]).astype(np.int64) + 1, 0)
        return _Batch(*map(torch.from_numpy, (log.user[events], log.item[events], log.item[past], rating)))

    def forward(self, batch: _Batch) -> torch.Tensor:
        """Return the log-odds of a click (n,)."""
        present = batch.rating > 0
        history = embedding(batch.history, self.past(self.items)) * self.stars(batch.rating) * present[..., None]
        user = history.sum(1) / present.sum(1).clamp(min=1)[:, None] + self.profile(self.users[batch.user])
        item = self.item(self.items[batch.item])
        return self.final(torch.cat([user, item, user * item], 1))[:, 0]

    def score(self, events: np.ndarray) -> np.ndarray:
        """Return the probabilities of a click (events,)."""
        with evaluation_mode(self):
            return read_events(lambda batch: self(batch).sigmoid(), self.batch, events, "Scoring with two towers")


def fit_two_towers(
    backbone: Backbone, log: ClickLog, config: CTRConfig | None = None, progress: bool = False
) -> TwoTowers:
    """Train two towers on all training events and return those of the epoch with the best validation AUC.

    Args:
        backbone: Backbone that encodes the texts.
        log: Click log with training and validation events.
        config: Options of the training; defaults if None.
        progress: Whether to show a progress bar for each epoch.

    Raises:
        LorarecError: Training or validation events all have the same label.
    """
    config = config or CTRConfig()
    torch.manual_seed(config.seed)
    towers = TwoTowers(backbone, log, config.max_history)
    train(towers, towers.batch, log, log.rows(TRAIN), config, "two towers", progress)
    return towers


def _standardised(states: np.ndarray) -> torch.Tensor:
    """Return states whose dimensions have mean 0 and standard deviation 1."""
    return torch.from_numpy((states - states.mean(0)) / (states.std(0) + 1e-6))
