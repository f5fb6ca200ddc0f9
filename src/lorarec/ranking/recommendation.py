"""Recommendation from a whole catalogue: an index proposes candidates, and a ranker or a fusion orders them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from lorarec.data import CANDIDATES, HISTORY, USER, Dataset, Evidence, ItemMatcher
from lorarec.errors import LorarecError
from lorarec.ranking.fusion import Fusion
from lorarec.ranking.proposal_scores import (
    ProposalScores,
    default_index,
    refuse_other_dataset,
    score_proposals,
)
from lorarec.ranking.ranker import Ranked, Ranker, best_first
from lorarec.recommenders import make_evidence
from lorarec.retrieval import CatalogueRules, Index, ItemRules, Proposal
from lorarec.scoring import posterior


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """A recommended item.

    Attributes:
        item_id: The item's id.
        title: The item's title.
        score: The ranker's score plus `log_prior`; items are ordered by it plus `boost`. It is the logarithm of a
            posterior up to a constant that is the same for all items of the pool, so scores of different pools cannot
            be compared. The score of a fusion is the logarithm of `probability`.
        log_odds: The ranker's score with the readout `verdict`, the log-odds of yes against no; otherwise None.
        log_likelihood: The ranker's score with the readout `likelihood`, the log-probability of the title given the
            prompt; otherwise None.
        log_prior: The item's prior from its place in the index's order; see the function `log_prior`. None if a fusion
            scored the item.
        parts: Name of the recommender -> what it adds to the score of a fusion; see `lorarec.ranking.FusedScores`.
            Empty if a ranker scored the item.
        boost: The sum of the boosts of the rules for this item, which is not a part of `score`; see `ItemRules`.
        probability: The item's share of the posterior over the candidate pool, the softmax of the pool's scores.
        source: The name of the source that ranked the item highest; see `lorarec.retrieval.Proposal`.
        because: The titles of the history that the proposal is based on, strongest first.

    Examples:
        >>> from lorarec import Backbone, Dataset, Ranker, recommend
        >>> shop = Dataset.load("data/shop")
        >>> ranker = Ranker(Backbone.from_pretrained("embedded"))
        >>> best = recommend(ranker, shop, shop.interactions["user_id"][0], top_k=1, pool=10)[0]
        >>> best.title == shop.titles[best.item_id]
        True
    """

    item_id: str
    title: str
    score: float
    log_odds: float | None = None
    log_likelihood: float | None = None
    log_prior: float | None = None
    parts: dict[str, float] = field(default_factory=dict)
    boost: float = 0.0
    probability: float
    source: str
    because: list[str]


def check_pool(top_k: int, pool: int) -> None:
    """Refuse a number of items to recommend that is below 1, or above the number of candidates.

    Raises:
        LorarecError: It is.
    """
    if top_k < 1:
        raise LorarecError(f"top_k must be at least 1, got {top_k}")
    if top_k > pool:
        raise LorarecError(
            f"{top_k} items cannot be recommended from a pool of {pool} candidates: use a pool of at least {top_k}, or "
            f"ask for at most {pool} items"
        )


def rank_items(
    ranker: Ranker | Fusion,
    dataset: Dataset,
    items: Sequence[str],
    *,
    user: str | None = None,
    history: Sequence[str] | None = None,
    top_k: int | None = None,
) -> list[Ranked]:
    """Order given items of a dataset for a user or a history; `Ranker.rank` does the same for titles.

    The scores of a fusion are the logarithms of the probabilities.

    Args:
        ranker: The ranker, or a fusion of this dataset.
        dataset: The dataset; its interactions provide the evidence for an adapter that reads it.
        items: The item ids to rank.
        user: A user id of the dataset; the user's own choices are left out of the co-occurrence counts.
        history: Item ids, oldest first; if None, the user's history in the dataset.
        top_k: The number of items to return; None for all.

    Returns:
        The items, best first; `Ranked.index` is the place in `items`.

    Raises:
        LorarecError: Neither a user nor a history is given, there are no items, the dataset does not have the user or
            an item, or the fusion was fitted to another dataset.

    Examples:
        >>> from lorarec import Backbone, Dataset, Ranker, rank_items
        >>> shop = Dataset.load("data/shop")
        >>> ids = shop.items["item_id"][:6].to_list()
        >>> with Ranker(Backbone.from_pretrained("embedded"), "adapters/shop") as ranker:
        ...     ranked = rank_items(ranker, shop, ids[3:], history=ids[:3], top_k=2)
        >>> ids[3:][ranked[0].index] in ids
        True
    """
    if user is None and history is None:
        raise LorarecError("rank_items needs a user of the dataset or a history of item ids")
    if not items:
        raise LorarecError("rank_items needs at least one item")
    past = list(dataset.history(user) if history is None and user is not None else history or ())
    unknown = [item for item in (*past, *items) if item not in dataset.titles]
    if unknown:
        known = next(iter(dataset.titles))
        raise LorarecError(f"item {unknown[0]!r} is not in dataset {dataset.name}: its items are like {known}")
    cases = _cases([user or ""], [past], [items])
    if isinstance(ranker, Fusion):
        refuse_other_dataset(ranker, dataset)
        scores = ranker.score(cases)[0]
    else:
        scores = ranker.score_cases(cases, dataset.titles, ranker_evidence(ranker, dataset))[0]
    return best_first(scores, [dataset.titles[item] for item in items], top_k)


def recommend(
    ranker: Ranker | Fusion,
    dataset: Dataset,
    user: str,
    top_k: int = 10,
    pool: int = 100,
    index: Index | None = None,
    allow: Collection[str] | None = None,
    deny: Collection[str] = (),
    rules: ItemRules | None = None,
) -> list[Recommendation]:
    """Recommend items that a user of a dataset has not interacted with yet.

    The index proposes a pool of candidates out of the whole catalogue, and the ranker orders them.

    Args:
        ranker: The ranker, or a fusion of this dataset.
        dataset: The dataset.
        user: A user id of the dataset.
        top_k: The number of items to recommend.
        pool: The number of candidates that the index proposes to the ranker, at least `top_k`.
        index: The dataset's index; if None, one without a next-item model is built for this call, or that of a fusion
            (see `Fusion.index`).
        allow: The ids of the only items that may be recommended; None for all.
        deny: The ids of items that must not be recommended.
        rules: Filters by columns of the items, a maximum per value of a column, and boosts; None for none.

    Returns:
        At most `top_k` recommendations, best first.

    Raises:
        LorarecError: The user is unknown, `top_k` is below 1 or above `pool`, nothing is left to recommend, the pool
            does not fit into a prompt that lists its candidates, the fusion was fitted to another dataset or not to
            candidates of an index, or a rule does not fit the columns of the items.

    Examples:
        >>> from lorarec import Backbone, Dataset, Ranker, recommend
        >>> shop = Dataset.load("data/shop")
        >>> user = shop.interactions["user_id"][0]
        >>> with Ranker(Backbone.from_pretrained("embedded"), "adapters/shop") as ranker:
        ...     items = recommend(ranker, shop, user, top_k=3, pool=10)
        >>> len(items)
        3
        >>> items[0].score >= items[1].score
        True
    """
    return recommend_users(ranker, dataset, [user], top_k, pool, index, allow, deny, rules)[user]


def recommend_users(
    ranker: Ranker | Fusion,
    dataset: Dataset,
    users: Sequence[str],
    top_k: int = 10,
    pool: int = 100,
    index: Index | None = None,
    allow: Collection[str] | None = None,
    deny: Collection[str] = (),
    rules: ItemRules | None = None,
) -> dict[str, list[Recommendation]]:
    """Recommend items to several users of a dataset; `recommend_to_folder` does so for a whole population.

    Args:
        ranker: The ranker, or a fusion of this dataset.
        dataset: The dataset.
        users: User ids of the dataset.
        top_k: The number of items to recommend to each user.
        pool: The number of candidates that the index proposes to the ranker, at least `top_k`.
        index: The dataset's index; if None, one without a next-item model is built for this call, or that of a fusion
            (see `Fusion.index`).
        allow: The ids of the only items that may be recommended; None for all.
        deny: The ids of items that must not be recommended.
        rules: Filters by columns of the items, a maximum per value of a column, and boosts; None for none.

    Returns:
        User id -> at most `top_k` recommendations, best first.

    Raises:
        LorarecError: As for `recommend`.

    Examples:
        >>> from lorarec import Backbone, Dataset, Ranker, recommend_users
        >>> shop = Dataset.load("data/shop")
        >>> users = shop.interactions["user_id"].unique(maintain_order=True)[:2].to_list()
        >>> ranker = Ranker(Backbone.from_pretrained("embedded"))
        >>> recommended = recommend_users(ranker, shop, users, top_k=3, pool=10)
        >>> [len(recommended[user]) for user in users]
        [3, 3]
    """
    check_pool(top_k, pool)
    histories = [dataset.history(user) for user in users]
    index = default_index(ranker, dataset) if index is None else index
    evidence = ranker_evidence(ranker, dataset)
    blocked = index.blocked(allow, deny)
    applied = rules.of(ItemMatcher(dataset)) if rules else None
    results = recommend_each(ranker, index, dataset.titles, users, histories, top_k, pool, blocked, evidence, applied)
    for user, items in zip(users, results, strict=True):
        if not items:
            raise LorarecError(
                f"nothing of {dataset.name} is left to recommend to user {user}: all items are in the history, denied, "
                "not allowed or do not match the filters"
            )
    return dict(zip(users, results, strict=True))


def recommend_next(
    ranker: Ranker | Fusion,
    index: Index,
    titles: dict[str, str],
    history: Sequence[str],
    top_k: int = 10,
    pool: int = 100,
    allow: Collection[str] | None = None,
    deny: Collection[str] = (),
    user: str = "",
    evidence: Evidence | None = None,
    rules: CatalogueRules | None = None,
) -> list[Recommendation]:
    """Recommend items for any history of item ids.

    Args:
        ranker: The ranker, or a fusion of this dataset.
        index: The index that proposes candidates.
        titles: Item id -> title, for all items of the index's catalogue.
        history: Item ids, oldest first; it may be empty, and ids that are not in the catalogue are ignored.
        top_k, pool, allow, deny: As for `recommend`.
        user: The id of the user whose own choices are left out of the co-occurrence counts.
        evidence: Words about candidates, for an adapter that reads them; see `Ranker.examples`.
        rules: Rules for the rows of the index's catalogue; see `ItemRules.of`.

    Returns:
        At most `top_k` recommendations, best first; an empty list if all items are in the history, denied, not allowed
        or do not match the filters.

    Raises:
        LorarecError: `top_k` is below 1 or above `pool`, the adapter reads evidence and there is none, the pool does
            not fit into a prompt that lists its candidates, or the fusion was not fitted to candidates of an index.
    """
    blocked = index.blocked(allow, deny)
    return recommend_each(ranker, index, titles, [user], [history], top_k, pool, blocked, evidence, rules)[0]


def recommend_each(
    ranker: Ranker | Fusion,
    index: Index,
    titles: dict[str, str],
    users: Sequence[str],
    histories: Sequence[Sequence[str]],
    top_k: int = 10,
    pool: int = 100,
    blocked: np.ndarray | None = None,
    evidence: Evidence | None = None,
    rules: CatalogueRules | None = None,
) -> list[list[Recommendation]]:
    """Recommend items for many histories, which are scored in common batches.

    Args:
        ranker, index, titles, top_k, pool, evidence, rules: As for `recommend_next`.
        users: The user id of each history.
        histories: Item ids of each user, oldest first.
        blocked: The items that must not be recommended to anyone; see `Index.blocked`.

    Returns:
        One list for each history, as `recommend_next` returns it.

    Raises:
        LorarecError: As for `recommend_next`.
    """
    check_pool(top_k, pool)
    known = [[item for item in history if item in titles] for history in histories]
    rules = rules or CatalogueRules()
    pools = [rules.propose(index, history, pool, top_k, blocked) for history in known]
    rows = [row for row, proposals in enumerate(pools) if proposals]
    candidates = [[proposal.item_id for proposal in pools[row]] for row in rows]
    cases = _cases([users[row] for row in rows], [known[row] for row in rows], candidates)
    results: list[list[Recommendation]] = [[] for _ in users]
    if not rows:
        return results
    for row, scores in zip(rows, score_proposals(ranker, cases, titles, evidence), strict=True):
        catalogue_rows = [index.row[proposal.item_id] for proposal in pools[row]]
        best, boosts = rules.best(catalogue_rows, scores.scores, top_k), rules.added(catalogue_rows)
        results[row] = _recommendations(pools[row], scores, titles, best, boosts)
    return results


def _cases(
    users: Sequence[str], histories: Sequence[Sequence[str]], candidates: Sequence[Sequence[str]]
) -> pl.DataFrame:
    return pl.DataFrame(
        {USER: users, HISTORY: histories, CANDIDATES: candidates},
        schema={USER: pl.String, HISTORY: pl.List(pl.String), CANDIDATES: pl.List(pl.String)},
    )


def _recommendations(
    proposals: Sequence[Proposal],
    pool: ProposalScores,
    titles: dict[str, str],
    places: Sequence[int],
    boosts: np.ndarray,
) -> list[Recommendation]:
    """Return the recommendations of the proposals at some places of the pool."""
    shares = posterior(pool.scores)
    return [
        Recommendation(
            item_id=proposals[i].item_id,
            title=titles[proposals[i].item_id],
            score=float(pool.scores[i]),
            **pool.terms(i),
            boost=float(boosts[i]),
            probability=float(shares[i]),
            source=proposals[i].source,
            because=[titles[item] for item in proposals[i].because],
        )
        for i in places
    ]


def ranker_evidence(ranker: Ranker | Fusion, dataset: Dataset) -> Evidence | None:
    """Make the evidence that a ranker reads; None for a fusion, which has that of its training part."""
    return make_evidence(ranker.prompt, dataset) if isinstance(ranker, Ranker) else None
