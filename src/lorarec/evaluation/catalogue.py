"""Evaluation over a whole catalogue: every item that is not in the history of a case is a candidate."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from lorarec.data import CANDIDATES, HISTORY, ITEM, TARGET, USER, Dataset, Split, content_hash
from lorarec.errors import LorarecError
from lorarec.evaluation.case_metrics import check_scores, measure_target_ranks, ranks_of_places, scorer_inputs
from lorarec.evaluation.result import PROPERTY_NAMES, TOP
from lorarec.io import Progress
from lorarec.metrics import coverage, gini_index, self_information
from lorarec.ranking import PoolScorer
from lorarec.recommenders import Scorer, encode_lists
from lorarec.retrieval import best

_CANDIDATES_AT_ONCE = 1_000_000


@dataclass(frozen=True)
class CaseRanking:
    """Ranks of cases under one scorer.

    Attributes:
        ranks: Rank of the target of every case, (cases,); 1 is best, infinite is a target without a rank.
        seconds: Wall time per case, in seconds.
        properties: Properties of the recommended lists by the names in `PROPERTY_NAMES`; empty for stored candidates.
    """

    ranks: np.ndarray
    seconds: float
    properties: dict[str, float] = field(default_factory=dict)


class Catalogue:
    """All items of a dataset as the candidates of every case.

    The items are in a random order, the same for all cases and scorers. Since of equal scores the earlier candidate
    ranks first, the ranks of items with the same score, such as those that a scorer does not know, are random.

    Args:
        dataset: Dataset with the items.
        split: Split whose training part says how many users chose an item.
        seed: Seed of the order.

    Attributes:
        items: Item ids in the order of the candidates.
    """

    def __init__(self, dataset: Dataset, split: Split, seed: int = 0) -> None:
        ids = dataset.items[ITEM]
        self.items = ids.gather(np.random.default_rng(seed).permutation(len(ids)))
        self._row = {item: row for row, item in enumerate(self.items.to_list())}
        rows, _ = encode_lists(split.train[HISTORY].list.unique(), self.items)
        self._novelty = self_information(np.bincount(rows, minlength=len(self.items)), split.train.height)

    def hash(self, cases: pl.DataFrame) -> str:
        """Return the hash of users, histories and candidates."""
        return content_hash(cases.select(USER, HISTORY), self.items.to_frame())

    def rank(self, name: str, scorer: Scorer, setting: str, cases: pl.DataFrame, progress: bool = False) -> CaseRanking:
        """Rank the whole catalogue by a scorer, which gets the cases without their targets.

        A `PoolScorer` ranks its pools. Any other scorer scores all candidates, in slices of the cases that bound the
        memory.

        Args:
            name: Name of the scorer, for error messages.
            scorer: Scorer.
            setting: Name of the setting, for error messages.
            cases: Cases whose target is not in the history.
            progress: Whether to show the number of ranked cases on standard error; pools are ranked at once.

        Raises:
            LorarecError: The scorer changed the cases, or returned a NaN, too few or too many scores.
        """
        where = f"row {name}, setting {setting}"
        if isinstance(scorer, PoolScorer):
            return self._rank_pools(where, scorer, cases)
        return self._rank_candidates(where, scorer, cases, progress)

    def _rank_pools(self, where: str, scorer: PoolScorer, cases: pl.DataFrame) -> CaseRanking:
        began = time.perf_counter()
        try:
            lists = scorer.rank_catalogue(cases.select(USER, HISTORY))
        except LorarecError as error:
            raise LorarecError(f"{where}: {error}") from error
        seconds = (time.perf_counter() - began) / cases.height
        pairs = zip(lists, cases[TARGET].to_list(), strict=True)
        ranks = np.array([items.index(target) + 1 if target in items else np.inf for items, target in pairs])
        top = [np.array([self._row[item] for item in items[:TOP]], np.int64) for items in lists]
        return CaseRanking(ranks, seconds, self._properties(top))

    def _rank_candidates(self, where: str, scorer: Scorer, cases: pl.DataFrame, progress: bool) -> CaseRanking:
        ranks: list[np.ndarray] = []
        top: list[np.ndarray] = []
        seconds = 0.0
        with Progress("Ranking all items", cases.height, enabled=progress) as done:
            for some in cases.iter_slices(max(1, _CANDIDATES_AT_ONCE // len(self.items))):
                expected, rows = self._with_candidates(some)
                given = expected.clone()
                began = time.perf_counter()
                scores = scorer.score(given)
                seconds += time.perf_counter() - began
                if not given.equals(expected):
                    raise LorarecError(f"{where}: the scorer changed the cases it was given")
                arrays = check_scores(where, scores, expected)
                targets = some[TARGET].to_list()
                places = [np.searchsorted(of, self._row[target]) for of, target in zip(rows, targets, strict=True)]
                ranks.append(ranks_of_places(where, scorer, arrays, np.array(places)))
                if getattr(scorer, "returns_ranks", False):
                    arrays = [-array for array in arrays]
                best_places = [best(array, TOP) for array in arrays]
                top += [of[b[array[b] > -np.inf]] for of, b, array in zip(rows, best_places, arrays, strict=True)]
                done.advance(some.height)
        return CaseRanking(np.concatenate(ranks), seconds / cases.height, self._properties(top))

    def _with_candidates(self, cases: pl.DataFrame) -> tuple[pl.DataFrame, list[np.ndarray]]:
        """Return users, histories and candidates of some cases, and the rows of the candidates of each."""
        history, lengths = encode_lists(cases[HISTORY], self.items)
        is_candidate = np.ones((cases.height, len(self.items)), bool)
        is_candidate[np.repeat(np.arange(cases.height), lengths), history] = False
        case, rows = np.nonzero(is_candidate)
        flat = pl.DataFrame({"case": case, CANDIDATES: self.items.gather(rows)})
        lists = flat.group_by("case", maintain_order=True).agg(CANDIDATES)[CANDIDATES]
        ends = np.cumsum(is_candidate.sum(axis=1))
        return cases.select(USER, HISTORY, lists), np.split(rows, ends[:-1])

    def _properties(self, top: Sequence[np.ndarray]) -> dict[str, float]:
        """Return the properties of the first items (rows) that each case is shown; none if nothing is shown."""
        shown = [rows for rows in top if len(rows)]
        if not shown:
            return {}
        exposure = np.bincount(np.concatenate(shown), minlength=len(self.items))
        novelty = np.mean([self._novelty[rows].mean() for rows in shown])
        return dict(zip(PROPERTY_NAMES, (coverage(exposure), gini_index(exposure), float(novelty)), strict=True))


def rank_cases(
    name: str,
    scorer: Scorer,
    setting: str,
    cases: pl.DataFrame,
    catalogue: Catalogue | None,
    progress: bool = False,
) -> CaseRanking:
    """Rank the stored candidates of the cases by a scorer, or the whole catalogue if there is one.

    Raises:
        LorarecError: As for `measure_target_ranks` and `Catalogue.rank`.
    """
    if catalogue is not None:
        return catalogue.rank(name, scorer, setting, cases, progress)
    return CaseRanking(*measure_target_ranks(name, scorer, setting, cases))


def hash_candidates(cases: pl.DataFrame, catalogue: Catalogue | None) -> str:
    """Return the hash of users, histories and candidates."""
    return content_hash(scorer_inputs(cases)) if catalogue is None else catalogue.hash(cases)


def without_repeats(setting: str, cases: pl.DataFrame) -> pl.DataFrame:
    """Return the cases of a setting whose target is not in the history: no item of a history is a candidate.

    Raises:
        LorarecError: There is no such case.
    """
    kept = cases.filter(~pl.col(HISTORY).list.contains(pl.col(TARGET)))
    if kept.is_empty():
        raise LorarecError(
            f"setting {setting}: no case is left, since the target item of each is in its history: evaluate with "
            "stored candidates"
        )
    return kept
