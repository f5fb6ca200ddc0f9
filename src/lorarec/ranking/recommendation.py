"""Recommendation over a whole catalogue: the index proposes candidates, the ranker orders them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import polars as pl

from lorarec.data import CANDIDATES, HISTORY, USER, Cooccurrence, Dataset, histories_of, history_of
from lorarec.errors import LorarecError
from lorarec.ranking.ranker import Ranker
from lorarec.retrieval import Index, Proposal
from lorarec.scoring import posterior


@dataclass(frozen=True)
class Recommendation:
    """One recommended item.

    Attributes:
        score: the ranker's score plus `log_prior`, by which items are ordered. It is the logarithm of a posterior up to
            a constant that is the same for all items of the pool, so scores of different pools cannot be compared.
        log_odds: the ranker's score with the readout `verdict`, the log-odds of yes against no; otherwise None.
        log_likelihood: the ranker's score with the readout `likelihood`, the log-probability of the title given the
            prompt; otherwise None.
        log_prior: the item's prior from its place in the index's order, see the function `log_prior`.
        probability: its share of the posterior over the candidate pool, the softmax of the pool's scores.
        source: what ranked it highest, see `lorarec.retrieval.Proposal`.
        because: titles of the history that the proposal rests on, strongest first.
    """

    item_id: str
    title: str
    score: float
    log_odds: float | None
    log_likelihood: float | None
    log_prior: float
    probability: float
    source: str
    because: list[str]


def recommend(
    ranker: Ranker,
    dataset: Dataset,
    user: str,
    top: int = 10,
    pool: int = 100,
    index: Index | None = None,
    allow: Collection[str] | None = None,
    deny: Collection[str] = (),
) -> list[Recommendation]:
    """Recommend items that a user of a dataset has not interacted with yet.

    Args:
        user: a user id of the dataset.
        index: of the dataset; made on the spot, without a next-item model, when None.
        top, pool, allow, deny: see `recommend_next`.

    Raises:
        LorarecError: an unknown user, nothing left to recommend, or a readout that lists its candidates in the prompt
            with too large a pool.
    """
    history = history_of(dataset, user)
    index = index or Index.build(dataset)
    evidence = whole_evidence(dataset) if ranker.evidence else None
    found = recommend_next(ranker, index, dataset.titles, history, top, pool, allow, deny, user, evidence)
    if not found:
        raise LorarecError(
            f"nothing of {dataset.name} is left to recommend to user {user}: all items are in the history, denied or "
            "not allowed"
        )
    return found


def recommend_next(
    ranker: Ranker,
    index: Index,
    titles: dict[str, str],
    history: Sequence[str],
    top: int = 10,
    pool: int = 100,
    allow: Collection[str] | None = None,
    deny: Collection[str] = (),
    user: str = "",
    evidence: Cooccurrence | None = None,
) -> list[Recommendation]:
    """Recommend items for any history, whoever's it is.

    Args:
        titles: item id -> title, of the index's catalogue.
        history: item ids in time order; may be empty, and those that the catalogue does not know are passed over.
        top: how many.
        pool: candidates that the index hands to the ranker.
        allow, deny: the only items that may be recommended, and those that must not; see `Index.blocked`.
        user: whose own choices the evidence leaves out.
        evidence: for an adapter that reads it.

    Returns:
        At most `top` recommendations, best first; none where everything is in the history, denied or not allowed.

    Raises:
        LorarecError: the adapter reads evidence and there is none, or a readout that lists its candidates in the prompt
            with too large a pool.
    """
    blocked = index.blocked(allow, deny)
    return recommend_each(ranker, index, titles, [user], [history], top, pool, blocked, evidence)[0]


def recommend_each(
    ranker: Ranker,
    index: Index,
    titles: dict[str, str],
    users: Sequence[str],
    histories: Sequence[Sequence[str]],
    top: int = 10,
    pool: int = 100,
    blocked: np.ndarray | None = None,
    evidence: Cooccurrence | None = None,
) -> list[list[Recommendation]]:
    """Recommend items for many histories, which share the ranker's passes.

    Args:
        users: whose history each is; see `recommend_next`, as for all but `blocked`.
        blocked: what must not be recommended to anyone, see `Index.blocked`.

    Returns:
        One list for each history, as `recommend_next` gives it.

    Raises:
        LorarecError: as `recommend_next`.
    """
    known = [[item for item in history if item in titles] for history in histories]
    pools = [index.propose(history, pool, blocked) for history in known]
    asked = [row for row, proposals in enumerate(pools) if proposals]
    cases = pl.DataFrame(
        {
            USER: [users[row] for row in asked],
            HISTORY: [known[row] for row in asked],
            CANDIDATES: [[proposal.item_id for proposal in pools[row]] for row in asked],
        },
        schema={USER: pl.String, HISTORY: pl.List(pl.String), CANDIDATES: pl.List(pl.String)},
    )
    found: list[list[Recommendation]] = [[] for _ in users]
    for row, scores in zip(asked, ranker.score_cases(cases, titles, evidence), strict=True):
        found[row] = _best(pools[row], scores, ranker.readout, titles, top)
    return found


def log_prior(count: int) -> np.ndarray:
    """Return the logarithm of the prior of the index's first `count` proposals, (count,) float32, up to a constant.

    The prior of the proposal at place n is proportional to 1 / n. A ranker learns to tell the right item from random
    ones, most of which are unlikely; in a pool all items are likely, and the order of the index says how likely.
    """
    return -np.log1p(np.arange(count, dtype=np.float32))


class ScoreParts(TypedDict):
    """The terms of a score, named as the attributes of `Recommendation`."""

    log_odds: float | None
    log_likelihood: float | None
    log_prior: float


def score_parts(readout: str, ranker_score: float, prior: float) -> ScoreParts:
    """Return the terms of a score.

    Args:
        readout: `verdict` or `likelihood`.
        ranker_score: the log-odds or log-probability, depending on the readout.
        prior: the item's `log_prior`.
    """
    return {
        "log_odds": float(ranker_score) if readout == "verdict" else None,
        "log_likelihood": float(ranker_score) if readout == "likelihood" else None,
        "log_prior": float(prior),
    }


def _best(
    proposals: Sequence[Proposal], ranker_scores: np.ndarray, readout: str, titles: dict[str, str], top: int
) -> list[Recommendation]:
    prior = log_prior(len(ranker_scores))
    scores = ranker_scores + prior
    shares = posterior(scores)
    return [
        Recommendation(
            item_id=proposals[i].item_id,
            title=titles[proposals[i].item_id],
            score=float(scores[i]),
            **score_parts(readout, ranker_scores[i], prior[i]),
            probability=float(shares[i]),
            source=proposals[i].source,
            because=[titles[item] for item in proposals[i].because],
        )
        for i in np.argsort(-scores, kind="stable")[:top]
    ]


def whole_evidence(dataset: Dataset) -> Cooccurrence:
    """Evidence of everything that all users chose."""
    return Cooccurrence(histories_of(dataset.interactions), dataset.titles)
