"""Recommenders that are fitted to the same data and score the same candidates."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix

from lorarec.backbone import Backbone
from lorarec.data import CANDIDATES, HISTORY, USER, SimilarItems
from lorarec.errors import LorarecError
from lorarec.recommenders.fusion.candidate_scores import CandidateScores
from lorarec.recommenders.fusion.fusion_split import with_validation_targets
from lorarec.recommenders.recommender import Recommender
from lorarec.recommenders.sequential.config import UPDATE_EPOCHS
from lorarec.recommenders.training_data import TrainingData


class ScorerGroup:
    """Score candidates by several recommenders; those that know nothing of new items borrow from similar ones.

    The borrowed score of an item without training interactions is the mean of the scores of the known items with the
    most similar titles, weighted by the cosines of TF-IDF vectors. If no title is similar, it is the mean of the known
    candidates of the case.

    Args:
        recommenders: Recommenders that are fitted to `data`, by name.
        data: Data with the known items: those with training interactions.
    """

    def __init__(self, recommenders: Mapping[str, Recommender[Any]], data: TrainingData) -> None:
        self.recommenders = dict(recommenders)
        self.data = data
        self.known = data.train_index
        self.similar = SimilarItems(data.dataset.titles, data.train_items)

    @classmethod
    def fit(cls, recommenders: Mapping[str, Recommender[Any]], data: TrainingData) -> Self:
        """Return a group of copies of the recommenders, fitted to the data."""
        return cls({name: copy.copy(each).fit(data) for name, each in recommenders.items()}, data)

    def refit(self, data: TrainingData) -> Self:
        """Return a group of copies of the recommenders for other data of the dataset; see `Recommender.refit`."""
        return type(self)({name: each.refit(data) for name, each in self.recommenders.items()}, data)

    def check_update(self, backbone: Backbone | None = None) -> None:
        """Check that all recommenders can be updated, before any of them is trained.

        Args:
            backbone: Backbone that embeds titles, if it is not that of the data.

        Raises:
            LorarecError: One of them cannot; see `Recommender.check_update`.
        """
        data = replace(self.data, backbone=backbone or self.data.backbone)
        for recommender in self.recommenders.values():
            recommender.check_update(data)

    def update(self, data: TrainingData, epochs: int) -> Self:
        """Return a group of copies of the recommenders for the data after an update; see `Recommender.update`.

        Raises:
            LorarecError: One of them cannot be updated, and none was trained.
        """
        self.check_update(data.backbone)
        updated = {name: each.update(data, self.data, epochs) for name, each in self.recommenders.items()}
        return type(self)(updated, data)

    def learn_validation_targets(self) -> Self:
        """Return a group of copies of the recommenders that have learned from the validation targets as well.

        They are those of `with_validation_targets`. Recommenders that cannot be updated stay as they are.
        """
        data = replace(self.data, split=with_validation_targets(self.data.split))
        longer = {
            name: each.update(data, self.data, UPDATE_EPOCHS) if _can_be_updated(each, self.data) else each
            for name, each in self.recommenders.items()
        }
        return type(self)(longer, data)

    def score(self, cases: pl.DataFrame, given: Mapping[str, Sequence[np.ndarray]] | None = None) -> CandidateScores:
        """Score the candidates of every case by every recommender.

        Args:
            cases: Columns `user_id`, `history` and `candidates`.
            given: Scores of some of the recommenders by name, as their `score` returns them for these cases.

        Raises:
            LorarecError: `given` has a name that is none of the recommenders, a case has no candidates or an item that
                the dataset does not have, or the scores of a recommender are not one finite number for each candidate.
        """
        given = given or {}
        if unknown := sorted(given.keys() - self.recommenders.keys()):
            choices = ", ".join(self.recommenders)
            raise LorarecError(f"scores are given for {unknown[0]!r}, which is no recommender: choose from {choices}")
        cases = cases.select(USER, HISTORY, CANDIDATES)
        sizes = cases[CANDIDATES].list.len().fill_null(0).to_numpy().astype(np.int64)
        if not sizes.all():
            case = int(np.argmin(sizes))
            raise LorarecError(f"case {case} (user {cases[USER][case]}) has no candidates: leave out this case")
        self._refuse_unknown_items(cases)
        candidates = cases[CANDIDATES].to_list()
        new = np.array([item not in self.known for each in candidates for item in each], bool)
        extended, borrow = self._with_similar_items(candidates)
        known_only = cases.with_columns(pl.Series(CANDIDATES, extended, dtype=pl.List(pl.String)))
        unmatched = new & (borrow.getnnz(1) == 0)
        columns = []
        for name, recommender in self.recommenders.items():
            if name in given:
                columns.append(_concatenate(name, given[name], candidates))
            elif recommender.scores_new_items:
                columns.append(_concatenate(name, recommender.score(cases), candidates))
            else:
                borrowed = borrow @ _concatenate(name, recommender.score(known_only), extended)
                columns.append(_fill_unmatched(borrowed, unmatched, new, sizes))
        lengths = cases[HISTORY].list.len().fill_null(0).to_numpy().astype(np.int64)
        return CandidateScores(np.stack(columns, axis=1), new, sizes, lengths)

    def _refuse_unknown_items(self, cases: pl.DataFrame) -> None:
        known = self.data.item_rows
        for column in (CANDIDATES, HISTORY):
            for user, items in cases.select(USER, column).iter_rows():
                unknown = [item for item in items or () if item not in known]
                if unknown:
                    raise LorarecError(
                        f"item {unknown[0]!r} in the {column} of user {user!r} is not in dataset "
                        f"{self.data.dataset.name}: leave it out"
                    )

    def _with_similar_items(self, candidates: list[list[str]]) -> tuple[list[list[str]], csr_matrix]:
        """Return candidate lists with similar known items in place of new ones, and a matrix that undoes this.

        The matrix (candidates, extended candidates) turns scores of the returned lists into scores of the given ones.
        """
        extended: list[list[str]] = []
        rows: list[int] = []
        columns: list[int] = []
        weights: list[float] = []
        row = offset = 0
        for items in candidates:
            column_of: dict[str, int] = {}
            for item in items:
                sources, shares = ([item], [1.0]) if item in self.known else self._similar_items(item)
                rows += [row] * len(sources)
                columns += [offset + column_of.setdefault(source, len(column_of)) for source in sources]
                weights += shares
                row += 1
            # A list must not be empty; the score of an item without weight is not used.
            extended.append(list(column_of) or self.data.train_items[:1])
            offset += len(extended[-1])
        return extended, csr_matrix((weights, (rows, columns)), (row, offset))

    def _similar_items(self, item: str) -> tuple[list[str], list[float]]:
        places, weights = self.similar.find(item)
        matched = weights > 0
        return [self.data.train_items[place] for place in places[matched]], weights[matched].tolist()


def _can_be_updated(recommender: Recommender[Any], data: TrainingData) -> bool:
    try:
        recommender.check_update(data)
    except LorarecError:
        return False
    return True


def _concatenate(name: str, scores: Sequence[np.ndarray], candidates: list[list[str]]) -> np.ndarray:
    """Return the scores of a recommender for all cases, one case after the other.

    Raises:
        LorarecError: The scores are not one finite number for each candidate.
    """
    if len(scores) != len(candidates):
        raise LorarecError(f"{name} has scores of {len(scores)} cases for {len(candidates)} cases")
    for row, (of_case, items) in enumerate(zip(scores, candidates, strict=True)):
        if np.shape(of_case) != (len(items),):
            shape = np.shape(of_case)
            raise LorarecError(f"{name} has scores of shape {shape} for the {len(items)} candidates of case {row}")
    joined = np.concatenate(scores).astype(np.float64)
    if not (finite := np.isfinite(joined)).all():
        place = int(np.argmin(finite))
        item = [item for items in candidates for item in items][place]
        raise LorarecError(
            f"{name} gives item {item} the score {joined[place]}: leave out this recommender, or make it return finite "
            "scores"
        )
    return joined


def _fill_unmatched(scores: np.ndarray, unmatched: np.ndarray, new: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the scores with the mean of the case's known candidates at unmatched ones; 0 if it has none."""
    starts = np.cumsum(sizes) - sizes
    known = np.add.reduceat(~new, starts, dtype=np.int64)
    means = np.add.reduceat(np.where(new, 0, scores), starts) / np.maximum(known, 1)
    return np.where(unmatched, np.repeat(means, sizes), scores)
