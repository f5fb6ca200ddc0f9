"""Ranking of a whole catalogue in two stages, as a scorer: an index proposes a pool of items, a scorer orders it."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from lorarec.data import CANDIDATES, HISTORY, USER
from lorarec.errors import LorarecError
from lorarec.ranking.fusion import Fusion
from lorarec.ranking.index_order import INDEX, log_prior
from lorarec.recommenders import Scorer
from lorarec.retrieval import Index


class PoolScorer:
    """Rank a catalogue in two stages: an index proposes a pool of items, and a scorer orders the pool.

    The order is that of `recommend`: by the scorer's score plus `log_prior`. Items outside the pool have no rank. For
    an evaluation, the index must be built of the training part of the split.

    Args:
        index: Index that proposes the pool.
        scorer: Scorer of the pool; None for the index's own order. A fusion scores the pool by its last stage for
            candidates of an index, of which the index's order is a part.
        pool: Number of items that the index proposes.
        prior: Whether `log_prior` is added to the scores; it is never added to those of a fusion or to ranks that a
            scorer returns.

    Attributes:
        returns_ranks: True, since `score` returns ranks of the candidates: 1 is the best, infinite means no rank.

    Raises:
        LorarecError: `pool` is below 1, or the scorer is a fusion that was not fitted to candidates of an index.

    Examples:
        >>> from lorarec import Dataset, Index, PoolScorer, load_split
        >>> shop = Dataset.load("data/shop")
        >>> split = load_split(shop)
        >>> index = Index.build(shop, histories=split.train)
        >>> order = PoolScorer(index, pool=20).rank_catalogue(split.valid)
        >>> len(order) == len(split.valid), len(order[0])
        (True, 20)
    """

    returns_ranks = True

    def __init__(self, index: Index, scorer: Scorer | None = None, pool: int = 100, *, prior: bool = True) -> None:
        if pool < 1:
            raise LorarecError(f"a pool must have at least one item, got {pool}")
        if isinstance(scorer, Fusion):
            scorer.require_pool_model()
        self.index = index
        self.scorer = scorer
        self.pool = pool
        self.prior = prior

    @property
    def about(self) -> str:
        """One line for reports."""
        proposed = f"the {self.pool} items that an index proposes from {', '.join(self.index.sources)}"
        if self.scorer is None:
            return f"{proposed}, in its order; other items have no rank"
        prior = " with its order as a prior" if self._adds_prior else ""
        text = f"{proposed}, re-ranked{prior}; other items have no rank"
        about = getattr(self.scorer, "about", "")
        return f"{text}; {about}" if about else text

    @property
    def _adds_prior(self) -> bool:
        has_own_order = isinstance(self.scorer, Fusion) or getattr(self.scorer, "returns_ranks", False)
        return self.prior and not has_own_order

    def rank_catalogue(self, cases: pl.DataFrame) -> list[list[str]]:
        """Rank the pool of every case out of the whole catalogue without the items of the history.

        Args:
            cases: Columns `user_id` and `history` (item ids).

        Returns:
            The item ids of each pool, the best first.

        Raises:
            LorarecError: The scorer returned a NaN, or too few or too many scores.
        """
        return self._rank(cases, [None] * cases.height)

    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Return the ranks of the candidates of every case in a pool of candidates alone; see `Scorer.score`."""
        catalogue = pl.Enum(self.index.items)
        rows = [each.cast(catalogue).to_physical().to_numpy() for each in cases[CANDIDATES]]
        blocked = []
        for of_case in rows:
            mask = np.ones(len(self.index.items), bool)
            mask[of_case] = False
            blocked.append(mask)
        ranks = []
        for of_case, ranked in zip(rows, self._rank(cases, blocked), strict=True):
            place = np.full(len(self.index.items), np.inf)
            place[[self.index.row[item] for item in ranked]] = np.arange(1, len(ranked) + 1)
            ranks.append(place[of_case])
        return ranks

    def _rank(self, cases: pl.DataFrame, blocked: Sequence[np.ndarray | None]) -> list[list[str]]:
        histories = cases[HISTORY].to_list()
        pools = [
            [proposal.item_id for proposal in self.index.propose(history, self.pool, mask)]
            for history, mask in zip(histories, blocked, strict=True)
        ]
        if self.scorer is None:
            return pools
        proposed = cases.select(USER, HISTORY).with_columns(pl.Series(CANDIDATES, pools, pl.List(pl.String)))
        filled = proposed.filter(pl.col(CANDIDATES).list.len() > 0)
        if filled.is_empty():
            return pools
        if isinstance(self.scorer, Fusion):
            scores = iter([each.log_probabilities for each in self.scorer.score_with_parts(filled, pool=True)])
        else:
            scores = iter(self.scorer.score(filled))
        return [self._order(pool, np.asarray(next(scores), np.float64)) if pool else [] for pool in pools]

    def _order(self, pool: list[str], scores: np.ndarray) -> list[str]:
        """Return a pool in the order of its scores or ranks; of equal ones, the index's first."""
        if scores.shape != (len(pool),) or np.isnan(scores).any():
            raise LorarecError(f"a scorer gave a pool of {len(pool)} items scores of shape {scores.shape}, or NaN")
        if getattr(self.scorer, "returns_ranks", False):
            return [pool[place] for place in np.argsort(scores, kind="stable") if np.isfinite(scores[place])]
        if self._adds_prior:
            scores = scores + log_prior(len(pool))
        return [pool[place] for place in np.argsort(-scores, kind="stable")]


def fusion_catalogue_scorer(fusion: Fusion, pool: int = 100) -> Fusion | PoolScorer:
    """Return the scorer by which a fusion ranks a whole catalogue.

    A fusion of recommenders that can score every item does so, with a prior of new items that does not depend on the
    cases. A fusion with adapters orders what its own index proposes, on which its weights were fitted.

    Args:
        fusion: Fusion of the training part of the split.
        pool: Number of items that the index proposes.

    Raises:
        LorarecError: The fusion has adapters and was not fitted to candidates of an index.

    Examples:
        >>> from lorarec import Dataset, evaluate, fuse
        >>> from lorarec.ranking import fusion_catalogue_scorer
        >>> shop = Dataset.load("data/shop")
        >>> scorer = fusion_catalogue_scorer(fuse(shop, recommenders=["item-knn", "tf-idf", "popularity"]))
        >>> evaluation = evaluate(shop, {"fusion": scorer}, settings=["warm"], candidates="all", limit=5)
        >>> 0 <= evaluation.settings["warm"].rows["fusion"].metrics["recall@100"].mean <= 1
        True
    """
    if fusion.scores_catalogue:
        return fusion.with_fixed_prior()
    return PoolScorer(fusion.index(), fusion, pool)


def pool_scorers(index: Index, scorers: Mapping[str, Scorer], pool: int = 100) -> dict[str, PoolScorer]:
    """Return the rows of an evaluation over a whole catalogue whose scorers are too slow to score all items.

    Args:
        index: Index of the training part of the split, which proposes the pool.
        scorers: Scorers by name.
        pool: Number of items that the index proposes.

    Returns:
        `index`, the index's own order of the pool, and for each scorer `index+NAME`, its order of the same pool.

    Raises:
        LorarecError: The pool is empty, or a scorer is a fusion that was not fitted to candidates of an index.

    Examples:
        >>> from lorarec import Backbone, Dataset, Index, adapter_scorers, evaluate, load_split, pool_scorers
        >>> shop = Dataset.load("data/shop")
        >>> split = load_split(shop)
        >>> scorers = adapter_scorers(Backbone.from_pretrained("embedded"), shop, split, {"shop": "adapters/shop"})
        >>> rows = pool_scorers(Index.build(shop, histories=split.train), scorers, pool=20)
        >>> list(rows)
        ['index', 'index+zero-shot', 'index+shop']
    """
    reranked = {f"{INDEX}+{name}": PoolScorer(index, scorer, pool) for name, scorer in scorers.items()}
    return {INDEX: PoolScorer(index, None, pool), **reranked}
