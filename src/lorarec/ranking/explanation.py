"""Why an item is recommended: what each item of the history does to its score, and a reason in words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from lorarec.data import CANDIDATES, HISTORY, USER, Cooccurrence, Dataset
from lorarec.errors import LorarecError
from lorarec.ranking.ranker import Ranker
from lorarec.ranking.reason import can_reason, write_reason
from lorarec.ranking.recommendation import log_prior, score_parts, whole_evidence
from lorarec.retrieval import Index
from lorarec.scoring import posterior, score


@dataclass(frozen=True)
class Influence:
    """What one item of the history does to the candidate.

    Attributes:
        score: the candidate's score for the whole history minus that without the item: positive if the item speaks for
            the candidate.
        probability: the same of its probability.
    """

    item_id: str
    title: str
    score: float
    probability: float


@dataclass(frozen=True)
class Explanation:
    """A candidate's score, and what it rests on.

    Attributes:
        score: `log_odds` or `log_likelihood`, as the ranker's readout gives it, plus `log_prior`; all four as in
            `lorarec.ranking.Recommendation`.
        probability: its share of the posterior over the candidates.
        candidates: how many there were.
        influences: of the latest items of the history, oldest first; those before them are not in the prompt.
        reason: in the words of the backbone; None if it has no chat template.
    """

    user_id: str
    item_id: str
    title: str
    score: float
    log_odds: float | None
    log_likelihood: float | None
    log_prior: float
    probability: float
    candidates: int
    influences: list[Influence]
    reason: str | None


def explain(
    ranker: Ranker,
    dataset: Dataset,
    user: str,
    item: str | None = None,
    pool: int = 100,
    index: Index | None = None,
) -> Explanation:
    """Explain the score of an item among the candidates of a recommendation by leaving out items of the history.

    The whole history is one row of a batch, each other row lacks one item, as if the user had never chosen it: evidence
    is counted with what is left, and where the history is longer than a prompt shows, an older item moves up. A
    backbone with a chat template then writes a reason, as in the case study of MoLoRec (arXiv 2502.08271); the prompt
    tells it which items count most.

    Args:
        user: a user id of the dataset.
        item: an item id outside the user's history; the best of the pool when None.
        pool: candidates that the index proposes for the whole history.
        index: of the dataset; made on the spot, without a next-item model, when None.

    Raises:
        LorarecError: an unknown user or item, an item of the user's own history, nothing left to recommend, or a
            readout that lists its candidates in the prompt with too large a pool.
    """
    history, candidates = compared_items(dataset, user, item, pool, index)
    evidence = whole_evidence(dataset) if ranker.evidence else None
    histories = shorter_histories(history, ranker.max_history)
    ranker_scores = _score(ranker, dataset, user, histories, candidates, evidence)
    prior = log_prior(len(candidates))
    scores = [row + prior for row in ranker_scores]
    place = int(np.argmax(scores[0])) if item is None else candidates.index(item)
    shown = history[-ranker.max_history :]
    found = [
        Influence(past, dataset.titles[past], *map(float, effect))
        for past, effect in zip(shown, influences(scores, place), strict=True)
    ]
    chosen = candidates[place]
    return Explanation(
        user_id=user,
        item_id=chosen,
        title=dataset.titles[chosen],
        score=float(scores[0][place]),
        **score_parts(ranker.readout, ranker_scores[0][place], prior[place]),
        probability=float(posterior(scores[0])[place]),
        candidates=len(candidates),
        influences=found,
        reason=_reason(ranker, dataset, user, chosen, found, evidence) if can_reason(ranker) else None,
    )


def compared_items(
    dataset: Dataset, user: str, item: str | None, pool: int, index: Index | None
) -> tuple[list[str], list[str]]:
    """Return a user's history and the candidates of `explain`, including the item itself; arguments as for `explain`.

    Raises:
        LorarecError: an unknown user or item, an item of the user's own history, or nothing left to recommend.
    """
    history = list(dataset.history(user))
    if item is not None and item not in dataset.titles:
        known = next(iter(dataset.titles))
        raise LorarecError(f"item {item} is not in dataset {dataset.name}: its items are like {known}")
    if item in history:
        raise LorarecError(f"user {user} has chosen item {item} already: give one outside the history")
    proposals = (index or Index.build(dataset)).propose(history, pool)
    candidates = [proposal.item_id for proposal in proposals]
    if item is not None and item not in candidates:
        candidates.append(item)
    if not candidates:
        raise LorarecError(f"nothing of {dataset.name} is left to recommend to user {user}: the history has all items")
    return history, candidates


def shorter_histories(history: Sequence[str], shown: int) -> list[list[str]]:
    """The whole history, then the history without each of its latest `shown` items in turn, oldest first."""
    first = max(0, len(history) - shown)
    return [list(history), *([*history[:i], *history[i + 1 :]] for i in range(first, len(history)))]


def influences(scores: Sequence[np.ndarray], place: int) -> np.ndarray:
    """What leaving out each item takes from one candidate.

    Args:
        scores: (candidates,) for each of `shorter_histories`.
        place: of the candidate.

    Returns:
        (items, 2): its score and its probability for the whole history minus those without the item.
    """
    both = np.array([(row[place], posterior(row)[place]) for row in scores])
    return both[0] - both[1:]


def _score(
    ranker: Ranker,
    dataset: Dataset,
    user: str,
    histories: list[list[str]],
    candidates: list[str],
    evidence: Cooccurrence | None,
) -> list[np.ndarray]:
    """The same candidates for every history, in one batch whatever the ranker's budget."""
    rows = len(histories)
    cases = pl.DataFrame(
        {USER: [user] * rows, HISTORY: histories, CANDIDATES: [candidates] * rows},
        schema_overrides={HISTORY: pl.List(pl.String)},
    )
    examples = ranker.examples(cases, dataset.titles, evidence)
    budget = rows * max(example.length for example in examples)
    return score(ranker.backbone.model, examples, ranker.builder, budget)


def _reason(
    ranker: Ranker, dataset: Dataset, user: str, item: str, found: list[Influence], evidence: Cooccurrence | None
) -> str:
    shown = [influence.item_id for influence in found]
    hint = evidence.hints(shown, [item], user)[0] if evidence else ""
    history = [(influence.title, influence.score) for influence in found]
    return write_reason(ranker, history, dataset.titles[item], hint)
