"""Recommendation over a whole catalogue: a cheap candidate stage, then the ranker."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

from lorarec.data import Dataset, Evidence
from lorarec.data.columns import CANDIDATES, HISTORY, ITEM, USER
from lorarec.errors import LorarecError
from lorarec.ranking.ranker import Ranker
from lorarec.scoring import posterior


@dataclass(frozen=True)
class Recommendation:
    """One recommended item.

    Attributes:
        score: the ranker's score.
        probability: its share of the posterior over the candidate pool.
        source: what proposed it: `together` (chosen by users who chose the history), `title` (similar words) or
            `popular`.
        because: titles of the history that the proposal rests on, strongest first.
    """

    item_id: str
    title: str
    score: float
    probability: float
    source: str
    because: list[str]


class CandidateStage:
    """Proposes items by co-occurrence with the history, by similar titles, and by popularity, in turns.

    Co-occurrence knows items with interactions, titles bring in brand-new ones, and popularity fills up.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.items = dataset.items[ITEM].to_list()
        self.row = {item: row for row, item in enumerate(self.items)}
        users = dataset.interactions[USER].rank("dense").to_numpy().astype(np.int64) - 1
        rows = np.array([self.row[item] for item in dataset.interactions[ITEM].to_list()])
        shape = (int(users.max()) + 1, len(self.items))
        seen = csr_matrix((np.ones(len(users), np.float32), (users, rows)), shape=shape)
        seen.data[:] = 1
        self.popularity = np.asarray(seen.sum(0)).ravel()
        # Dividing by the root of the counts makes the product of two columns their cosine.
        self.interactions = seen.multiply(1 / np.sqrt(np.maximum(self.popularity, 1))).tocsc()
        # Any run of characters is a word: no catalogue is without one.
        words = TfidfVectorizer(token_pattern=r"\S+", sublinear_tf=True)
        self.words = words.fit_transform(dataset.items["title"].to_list())

    def propose(self, history: Sequence[str], pool: int) -> dict[str, tuple[str, list[str]]]:
        """Up to `pool` items outside the history: item -> (source, items of the history it rests on)."""
        known = [item for item in history if item in self.row]
        rows = [self.row[item] for item in known]
        together = np.asarray((self.interactions[:, rows].T @ self.interactions).todense())
        words = np.asarray((self.words[rows] @ self.words.T).todense())
        found: dict[str, tuple[str, list[str]]] = {}
        rankings = {"together": together, "title": words, "popular": self.popularity[None] * np.ones((1, 1))}
        for source, table in rankings.items():
            total = table.sum(0) if len(table) else np.zeros(len(self.items))
            total[rows] = 0
            limit = len(found) + (pool // 3 if source != "popular" else pool - len(found))
            for row in np.argsort(-total, kind="stable"):
                if len(found) >= limit or total[row] <= 0:
                    break
                if self.items[row] in found:
                    continue
                because = (
                    [] if source == "popular" else [known[i] for i in np.argsort(-table[:, row])[:2] if table[i, row]]
                )
                found[self.items[row]] = (source, because)
        return found


def recommend(ranker: Ranker, dataset: Dataset, user: str, top: int = 10, pool: int = 100) -> list[Recommendation]:
    """Recommend items that the user has not interacted with yet.

    Args:
        user: a user id of the dataset.
        top: how many.
        pool: candidates that the cheap stage hands to the ranker.

    Returns:
        At most `top` recommendations, best first.

    Raises:
        LorarecError: an unknown user, or a readout that lists its candidates in the prompt with too large a pool.
    """
    history = dataset.interactions.filter(pl.col(USER) == user)[ITEM].to_list()
    if not history:
        known = ", ".join(dataset.interactions[USER].unique(maintain_order=True).head(3).to_list())
        raise LorarecError(f"user {user} is not in dataset {dataset.name}: its users are like {known}")
    proposals = CandidateStage(dataset).propose(history, pool)
    if not proposals:
        raise LorarecError(
            f"user {user} has interacted with every item of {dataset.name}: nothing is left to recommend"
        )
    titles = dataset.titles
    items = list(proposals)
    case = pl.DataFrame({USER: [user], HISTORY: [history], CANDIDATES: [items]})
    scores = ranker.score_cases(case, titles, whole_evidence(dataset) if ranker.evidence else None)[0]
    shares = posterior(scores)
    return [
        Recommendation(
            item_id=items[i],
            title=titles[items[i]],
            score=float(scores[i]),
            probability=float(shares[i]),
            source=proposals[items[i]][0],
            because=[titles[item] for item in proposals[items[i]][1]],
        )
        for i in np.argsort(-scores, kind="stable")[:top]
    ]


def whole_evidence(dataset: Dataset) -> Evidence:
    """Evidence of everything that all users chose."""
    histories = dataset.interactions.group_by(USER, maintain_order=True).agg(pl.col(ITEM).alias(HISTORY))
    return Evidence(histories, dataset.titles)
