"""Evidence for prompts: co-occurrence, and the ranks of candidates by a next-item model beside it."""

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import torch

from lorarec.data import (
    HISTORY,
    ITEM,
    SILENT,
    USER,
    Cooccurrence,
    Dataset,
    Evidence,
    EvidenceModelConfig,
    JointEvidence,
    SimilarItems,
    Split,
    content_hash,
    dataset_cooccurrence,
    load_split,
    new_item_word,
    rank_word,
)
from lorarec.prompts import PromptConfig
from lorarec.recommenders.cache import cached_tensors
from lorarec.recommenders.sequential.config import SASRecConfig
from lorarec.recommenders.sequential.next_item_model import NextItemModel
from lorarec.recommenders.sequential.sequential_recommenders import SASRec
from lorarec.recommenders.training_data import TrainingData
from lorarec.scoring import cache_folder

#: Folder of fitted models in the user's cache folder, and start of the names of their folders.
CACHE, KIND = "evidence", "sasrec"

logger = logging.getLogger(__name__)


class NextItemRanks:
    """Describe a candidate by one word: its rank among the items, ordered by a next-item model.

    The model orders the items of its training part that are not in the history. The rank of the candidate, as a share
    of all of them, gives one of the words of `lorarec.data.Cooccurrence`. Items that the model does not know are called
    new; their score is the mean over five known items with the most similar titles, weighted by the cosine of TF-IDF
    vectors. If the model knows no item of the history, no candidate has a word.

    Args:
        model: Fitted model, whose items are numbered as in `TrainingData.train_index`.
        data: Data that the model was fitted to.
    """

    def __init__(self, model: NextItemModel, data: TrainingData) -> None:
        self._model = model
        self._index = data.train_index
        self._vectors = model.items.all().detach().numpy()
        self._similar = SimilarItems(data.dataset.titles, data.train_items)

    def with_titles(self, titles: Mapping[str, str]) -> Self:
        """Return the words for a catalogue with further items or other titles; see `CandidateWords.with_titles`."""
        other = copy(self)
        other._similar = SimilarItems(titles, list(self._index))
        return other

    def hints(
        self,
        history: Sequence[str],
        candidates: Sequence[str],
        user: str | None = None,
        hidden: Sequence[bool] | None = None,
        max_history: int | None = None,
    ) -> list[str]:
        """Return a word about each candidate; see `lorarec.data.Evidence`. `user` and `max_history` are not read."""
        known = np.array([self._index[item] for item in history if item in self._index], np.int64)
        scores = self._vectors @ self._model.queries([known])[0].numpy() if len(known) else None
        ordered = np.empty(0) if scores is None else np.sort(np.delete(scores, known))
        hints = []
        for position, item in enumerate(candidates):
            is_new = item not in self._index or (hidden is not None and hidden[position])
            score = None if scores is None else self._borrowed(scores, item) if is_new else scores[self._index[item]]
            word = SILENT if score is None else self._word(score, ordered)
            hints.append(new_item_word(word) if is_new else word)
        return hints

    def _word(self, score: float, ordered: np.ndarray) -> str:
        """Return the word of a score, given the scores of the items that are not in the history in rising order."""
        return rank_word(len(ordered) - int(np.searchsorted(ordered, score)), len(self._index))

    def _borrowed(self, scores: np.ndarray, item: str) -> float | None:
        """Return the score of a new item, or None if no known item has a similar title."""
        similar, weights = self._similar.find(item)
        return float(scores[similar] @ weights) if weights.any() else None


class CrossFittedRanks:
    """Describe the candidates of a user by a model that was fitted to other users.

    Args:
        half_of: Half of each user, 0 or 1.
        ranks: Words for users of half 0, from the model that was fitted to half 1, and those for users of half 1.
    """

    def __init__(self, half_of: Mapping[str, int], ranks: Sequence[NextItemRanks]) -> None:
        self._half_of = half_of
        self._ranks = ranks

    def hints(
        self,
        history: Sequence[str],
        candidates: Sequence[str],
        user: str | None = None,
        hidden: Sequence[bool] | None = None,
        max_history: int | None = None,
    ) -> list[str]:
        """Return a word about each candidate for a user of the training part; see `NextItemRanks.hints`."""
        assert user is not None
        return self._ranks[self._half_of[user]].hints(history, candidates, user, hidden)

    def with_titles(self, titles: Mapping[str, str]) -> Self:
        """Return the words for a catalogue with further items or other titles; see `CandidateWords.with_titles`."""
        return type(self)(self._half_of, [each.with_titles(titles) for each in self._ranks])


def make_evidence(
    prompt: PromptConfig, dataset: Dataset, split: Split | None = None, progress: bool = False
) -> Evidence | None:
    """Make the evidence that prompts have in use: in validation, evaluation and recommendation.

    A model is fitted to the whole training part of the split, unless that was done before: fitted models are kept in
    the user's cache folder (see `lorarec.scoring.cache_folder`).

    Args:
        prompt: Options of the prompts.
        dataset: Dataset whose items are candidates.
        split: Split whose training part is counted; if None, co-occurrence is counted over all interactions, and a
            model is fitted to the training part of the split that `load_split` returns.
        progress: Whether to show a progress bar while a model is fitted.

    Returns:
        None if prompts have no evidence.

    Examples:
        >>> from lorarec import Dataset, PromptConfig
        >>> from lorarec.recommenders import make_evidence
        >>> shop = Dataset.load("data/shop")
        >>> evidence = make_evidence(PromptConfig(evidence=True), shop)
        >>> ids = list(shop.titles)
        >>> len(evidence.hints(ids[:2], ids[2:5]))
        3
    """
    if not prompt.evidence:
        return None
    cooccurrence = dataset_cooccurrence(dataset) if split is None else Cooccurrence(split.train, dataset.titles)
    model = prompt.evidence_model
    if not isinstance(model, EvidenceModelConfig):
        return cooccurrence
    split = load_split(dataset) if split is None else split
    return JointEvidence(cooccurrence, _fit_ranks(model, dataset, split.train, split.valid, progress), model)


def make_training_evidence(
    prompt: PromptConfig, dataset: Dataset, split: Split, progress: bool = False
) -> Evidence | None:
    """Make the evidence of training cases, which depends on no target of the case's user.

    Co-occurrence leaves out the user's own choices. For the words of a model, the users of the training part are
    divided into two halves by the seed of the model; the words of a user come from a model that was fitted to the other
    half alone, whose validation cases choose its epoch.

    Args:
        prompt: Options of the prompts.
        dataset: Dataset whose items are candidates.
        split: Split whose training part the cases come from.
        progress: Whether to show a progress bar while a model is fitted.

    Returns:
        None if prompts have no evidence.
    """
    model = prompt.evidence_model
    if not isinstance(model, EvidenceModelConfig):
        return make_evidence(prompt, dataset, split)
    users = split.train[USER].to_list()
    halves = np.random.default_rng(model.seed).permutation(len(users)) % 2
    half_of = dict(zip(users, halves.tolist(), strict=True))
    ranks = []
    for half in (0, 1):
        is_other = pl.col(USER).is_in([user for user in users if half_of[user] != half])
        ranks.append(_fit_ranks(model, dataset, split.train.filter(is_other), split.valid.filter(is_other), progress))
    return JointEvidence(Cooccurrence(split.train, dataset.titles), CrossFittedRanks(half_of, ranks), model)


def _fit_ranks(
    config: EvidenceModelConfig, dataset: Dataset, train: pl.DataFrame, valid: pl.DataFrame, progress: bool
) -> NextItemRanks:
    """Fit a model to training histories, unless it is in the cache; validation cases choose its epoch."""
    options = asdict(config)
    seed = options.pop("seed")
    train = train.select(USER, HISTORY)
    made_of = content_hash(train, valid, dataset.items.select(ITEM))
    split = Split(train, valid, {}, {"fingerprint": made_of})
    data = TrainingData(dataset, split, seed=seed, progress=progress)
    sasrec = SASRec(SASRecConfig(**options))

    def fit() -> dict[str, Any]:
        logger.warning("fitting %s to %s users of %s for the words in prompts", KIND, f"{len(train):,}", dataset.name)
        return sasrec.fit(data).tensors()

    with torch.random.fork_rng(devices=[]):  # the seeds of the fit are not those of the caller
        sasrec.restore(data, cached_tensors(_cache_dir(), KIND, [made_of, options, seed], fit))
    return NextItemRanks(sasrec.model, data)


def _cache_dir() -> Path | None:
    """Return the folder of fitted models, or None if it cannot be written to."""
    folder = cache_folder() / CACHE
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder if os.access(folder, os.W_OK) else None
