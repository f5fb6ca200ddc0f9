"""Training cases: pairs of a history and its next item, of several datasets, with sampled negatives.

Every random choice is a pure function of (seed, dataset, epoch, index) and not of earlier draws, so that a run can be
resumed at any index and distributed over processes without changing its cases.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import polars as pl

from lorarec.data import CANDIDATES, HISTORY, IS_NEW, TARGET, USER, Dataset, Split
from lorarec.errors import LorarecError
from lorarec.recommenders import make_training_evidence
from lorarec.training.config import TrainingConfig

PASS, ORDER, NEGATIVES = 1, 2, 3  # independent random streams of one seed
#: Number of items that an index proposes for a history, from which hard negatives are drawn.
POOL = 100


class ProposedItem(Protocol):
    """An item that an index proposes."""

    @property
    def item_id(self) -> str:
        """Id of the item."""
        ...


class CandidateIndex(Protocol):
    """An object that proposes items of a catalogue for a history, such as `lorarec.Index`."""

    def propose(self, history: Sequence[str], pool: int = POOL) -> Sequence[ProposedItem]:
        """Return at most `pool` items for a history of item ids; the same history gives the same items."""
        ...


#: Function that makes an index of the training part of a split.
IndexBuilder = Callable[[Dataset, Split], CandidateIndex]


@dataclass(frozen=True)
class TrainingCase:
    """One training case as titles.

    Attributes:
        history: Titles of the history, oldest first.
        candidates: Titles of the candidates, one of which is the next item.
        target: Index of the next item among the candidates.
        hints: Words about the candidates (see `lorarec.data.Evidence`); empty without evidence.
    """

    history: list[str]
    candidates: list[str]
    target: int
    hints: list[str]


class CaseSampler:
    """Samples training cases of one dataset.

    Negatives are drawn from the items that occur in the training or validation part, so that new items of the test part
    are never seen, not even as negatives. Users who have interacted with all but fewer than `negatives` of these items
    are set aside: they give no cases, but their interactions count in the evidence and popularity of others. If the
    training part was marked by `lorarec.data.mark_new_cases`, only new items are targets.

    Hard negatives are drawn uniformly from the items that an index proposes for the whole history before the target.
    The index has seen the interactions of the case's user, the target among them. They raise the places of the user's
    own items, and none of these is ever a negative, so that the negatives hardly depend on the target. If the index
    proposes too few other items, the rest of the negatives is drawn as without it.

    Args:
        dataset: Dataset.
        split: Split of the dataset.
        config: Options.
        index: Index of the training part of the split, for hard negatives.
        progress: Show a progress bar while models for evidence are fitted.

    Attributes:
        name: Name of the dataset.
        positions: Positions (n,) in the concatenated histories that can be a target: all but the first of each user who
            is not set aside, or those of them that are new.
        users_set_aside: Number of users for whom there are too few negatives.

    Raises:
        LorarecError: If no user has two training interactions, or there are too few negatives for all who have.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: Split,
        config: TrainingConfig,
        index: CandidateIndex | None = None,
        progress: bool = False,
    ) -> None:
        self.name = dataset.name
        self.config = config
        self.index = index
        histories = split.train[HISTORY]
        lengths = histories.list.len().to_numpy().astype(np.int64)
        self.starts = np.concatenate([[0], np.cumsum(lengths)])
        valid = split.valid
        seen = [histories.explode(), valid[HISTORY].explode(), valid[TARGET], valid[CANDIDATES].explode()]
        catalogue = pl.concat([each.drop_nulls().rename("item") for each in seen]).unique(maintain_order=True)
        self.ids = catalogue.to_list()
        self.titles = [dataset.titles[item] for item in self.ids]
        self.row = {item: row for row, item in enumerate(self.ids)}
        self.users = split.train[USER].to_list()
        self.evidence = make_training_evidence(config, dataset, split, progress)
        items = histories.explode().drop_nulls().cast(pl.Enum(catalogue)) if len(catalogue) else pl.Series([])
        self.items = items.to_physical().to_numpy().astype(np.int64)
        # Negatives are drawn from this array: every item once and, by popularity, once more for each interaction.
        popular = [self.items] if config.negative_sampling == "popularity" else []
        self.pool = np.concatenate([np.arange(len(self.titles)), *popular])
        left = len(self.titles) - histories.list.n_unique().fill_null(0).to_numpy().astype(np.int64)
        too_few = left < config.negatives
        self.users_set_aside = int((too_few & (lengths > 1)).sum())
        target = np.repeat(~too_few, lengths)
        target[self.starts[:-1][lengths > 0]] = False
        if IS_NEW in split.train.columns:
            target &= split.train[IS_NEW].explode().drop_nulls().to_numpy().astype(bool)
        self.positions = np.flatnonzero(target)
        if not (lengths > 1).any():
            raise LorarecError(f"dataset {self.name} has no training cases: no user has two training interactions")
        if IS_NEW in split.train.columns and not too_few.all() and len(self.positions) == 0:
            raise LorarecError(f"dataset {self.name} has no new training cases: append more interactions to it")
        if len(self.positions) == 0:
            raise LorarecError(
                f"dataset {self.name} has no training cases: its {self.users_set_aside} users with two training "
                f"interactions leave at most {left[lengths > 1].max()} of {len(self.titles)} items, too few for "
                f"{config.negatives} negatives: lower option negatives of the training or use more items"
            )

    def __len__(self) -> int:
        """Return the number of cases in one pass: all positions, or at most `config.prefixes` per user."""
        if self.config.prefixes is None:
            return len(self.positions)
        users = np.searchsorted(self.starts, self.positions, side="right")
        return int(np.minimum(np.bincount(users), self.config.prefixes).sum())

    def one_pass(self, stream: Sequence[int]) -> np.ndarray:
        """Return the positions of the targets of one pass in random order, (len(self),).

        Args:
            stream: Key of the random stream.
        """
        rng = np.random.default_rng(list(stream))
        if self.config.prefixes is None:
            return rng.permutation(self.positions)
        users = np.searchsorted(self.starts, self.positions, side="right")
        order = np.lexsort((rng.random(len(users)), users))
        first_of_user = np.searchsorted(users, users)  # users are sorted: where the positions of each user begin
        chosen = order[np.arange(len(users)) - first_of_user < self.config.prefixes]
        return rng.permutation(self.positions[chosen])

    def case(self, position: int, rng: np.random.Generator) -> TrainingCase:
        """Return the case whose target is at `position`, with candidates in random order."""
        user = int(np.searchsorted(self.starts, position, side="right")) - 1
        start, end = self.starts[user], self.starts[user + 1]
        past = self.items[start:position]
        owned = self.items[start:end]
        candidates = self._negatives(owned, self._hard_negatives(past, owned, rng), rng)
        target = int(rng.integers(len(candidates) + 1))
        candidates.insert(target, int(self.items[position]))
        hints = self._hints(past.tolist(), candidates, target, self.users[user], rng)
        shown = past[-self.config.max_history :]
        return TrainingCase(
            [self.titles[item] for item in shown], [self.titles[item] for item in candidates], target, hints
        )

    def _hints(
        self, history: list[int], candidates: list[int], target: int, user: str, rng: np.random.Generator
    ) -> list[str]:
        if self.evidence is None:
            return []
        share = np.full(len(candidates), self.config.new_items)
        if self.config.new_targets is not None:
            share[target] = self.config.new_targets
        hidden = rng.random(len(candidates)) < share
        history_ids, candidate_ids = ([self.ids[item] for item in items] for items in (history, candidates))
        return self.evidence.hints(history_ids, candidate_ids, user, hidden.tolist(), self.config.max_history)

    def _hard_negatives(self, history: np.ndarray, owned: np.ndarray, rng: np.random.Generator) -> list[int]:
        """Return distinct items that the index proposes for a history and the user never interacted with."""
        wanted = round(self.config.hard_negatives * self.config.negatives)
        if self.index is None or not wanted:
            return []
        proposed = [self.row.get(each.item_id) for each in self.index.propose([self.ids[row] for row in history], POOL)]
        # Items without a row occur neither in training nor in validation.
        near = np.setdiff1d(np.array([row for row in proposed if row is not None], np.int64), owned)
        return rng.choice(near, min(wanted, len(near)), replace=False).tolist()

    def _negatives(self, owned: np.ndarray, hard: list[int], rng: np.random.Generator) -> list[int]:
        """Return `config.negatives` distinct items: the hard ones, and others that the user never interacted with."""
        wanted = self.config.negatives
        if len(self.titles) < 4 * (len(owned) + wanted):  # rejection sampling would need many draws
            shares = np.bincount(self.pool).astype(float)
            shares[owned] = shares[hard] = 0
            if len(hard) == wanted:
                return hard
            others = rng.choice(len(shares), wanted - len(hard), replace=False, p=shares / shares.sum())
            return [*hard, *others.tolist()]
        taken = {*owned.tolist(), *hard}
        drawn = list(hard)
        while len(drawn) < wanted:
            for item in self.pool[rng.integers(len(self.pool), size=wanted - len(drawn))].tolist():
                if item not in taken:
                    taken.add(item)
                    drawn.append(item)
        return drawn


class TrainingCases:
    """The training cases of all datasets, epoch by epoch.

    Args:
        datasets: Datasets with their splits.
        config: Options.
        build_index: Function that makes the index of each dataset, for hard negatives.
        progress: Show a progress bar while models for evidence are fitted.

    Attributes:
        sources: Sampler of each dataset.
        quotas: Number of cases of each dataset in one epoch.

    Raises:
        LorarecError: As for `CaseSampler`, or `config` asks for hard negatives and there is no `build_index`.
    """

    def __init__(
        self,
        datasets: Sequence[tuple[Dataset, Split]],
        config: TrainingConfig,
        build_index: IndexBuilder | None = None,
        progress: bool = False,
    ) -> None:
        if config.hard_negatives and build_index is None:
            raise LorarecError(
                f"option hard_negatives is {config.hard_negatives:g}, but there is no index to draw them from: give "
                "build_index"
            )
        build = build_index if config.hard_negatives else None
        self.config = config
        self.sources = [
            CaseSampler(dataset, split, config, None if build is None else build(dataset, split), progress)
            for dataset, split in datasets
        ]
        sizes = np.array([len(source) for source in self.sources])
        shares = sizes / sizes.sum() if config.balance == "size" else np.full(len(sizes), 1 / len(sizes))
        total = config.samples or int(sizes.sum())
        edges = np.round(np.cumsum(shares) * total).astype(int)
        self.quotas = np.diff(edges, prepend=0)
        self.epoch_order = lru_cache(maxsize=2)(self._epoch_order)
        self.one_pass = lru_cache(maxsize=2 * len(self.sources))(self._one_pass)

    def __len__(self) -> int:
        """Return the number of cases in one epoch."""
        return int(self.quotas.sum())

    def case(self, epoch: int, index: int) -> TrainingCase:
        """Return case `index` of `epoch`, the same one in every call."""
        source, position = self.epoch_order(epoch)[index]
        rng = np.random.default_rng([self.config.seed, NEGATIVES, epoch, index])
        return self.sources[source].case(int(position), rng)

    def _epoch_order(self, epoch: int) -> np.ndarray:
        """Return the index of the source and the position of every case of an epoch, (cases, 2), shuffled.

        Each dataset continues where the last epoch stopped, so that all its cases are used before one is repeated.
        """
        parts = []
        for number, (source, quota) in enumerate(zip(self.sources, self.quotas, strict=True)):
            begin, end, size = epoch * quota, (epoch + 1) * quota, len(source)
            passes = [self.one_pass(number, turn) for turn in range(begin // size, -(-end // size))]
            skipped = begin // size * size
            places = np.concatenate([*passes, np.empty(0, dtype=np.int64)])[begin - skipped : end - skipped]
            parts.append(np.stack([np.full(quota, number), places], axis=1))
        return np.random.default_rng([self.config.seed, ORDER, epoch]).permutation(np.concatenate(parts))

    def _one_pass(self, number: int, turn: int) -> np.ndarray:
        return self.sources[number].one_pass([self.config.seed, PASS, turn, number])
