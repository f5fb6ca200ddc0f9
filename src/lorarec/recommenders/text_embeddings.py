"""Embeddings of titles, by a sentence encoder, by their words or by the backbone, which recommenders share."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from threadpoolctl import threadpool_limits

from lorarec.backbone import Backbone, SentenceEncoder, mean_states
from lorarec.data import content_hash
from lorarec.recommenders.cache import cached_tensors
from lorarec.recommenders.training_data import TrainingData

_KIND, _NAME = "texts", "texts"
#: Value of an option `text_encoder`: embeddings of words by latent semantic analysis, for which no model is needed.
LSA = "lsa"
#: Maximum size of these embeddings.
LSA_SIZE = 768
#: Share of the largest singular value below which a singular value is rounding error.
_NO_DIRECTION = 1e-6


def encode_titles(
    titles: Sequence[str], text_encoder: str | Path, cache_dir: Path | None = None, progress: bool = False
) -> np.ndarray:
    """Return the embeddings of titles by a sentence encoder, scaled to length 1: (titles, size), float32.

    Args:
        titles: Titles, such as `list(dataset.titles.values())`, which are in the order of the item table.
        text_encoder: Path of a sentence-transformers folder, or a hub id.
        cache_dir: Folder in which the embeddings are stored and found again, or None.
        progress: Whether to show a progress bar.

    Raises:
        LorarecError: The encoder is missing or unusable, or sentence-transformers is not installed.
    """
    encoder = SentenceEncoder.from_pretrained(text_encoder)

    def compute() -> dict[str, torch.Tensor]:
        return {_NAME: torch.from_numpy(encoder.encode(titles, progress=progress))}

    key = {"text_encoder": encoder.fingerprint, "titles": _hash(titles)}
    return cached_tensors(cache_dir, _KIND, key, compute)[_NAME].numpy()


def text_embeddings(
    data: TrainingData, titles: Sequence[str], text_encoder: str | None, corpus: Sequence[str] | None = None
) -> torch.Tensor:
    """Return embeddings of titles (titles, size); those by a model are computed once if the data have a cache_dir.

    Args:
        data: Data with a backbone, unless there is a text encoder.
        titles: Titles.
        text_encoder: Path of a sentence-transformers folder, or a hub id, see `encode_titles`; `LSA` for
            `lsa_embeddings`. None for the backbone's last hidden states, averaged over the tokens of each title
            (`lorarec.backbone.mean_states`).
        corpus: Titles whose words are those of `LSA`; None for all titles of the data.

    Raises:
        LorarecError: The encoder is unusable, or the data have no backbone and there is no encoder.
    """
    if text_encoder == LSA:
        return torch.from_numpy(lsa_embeddings(titles, _all_titles(data) if corpus is None else corpus))
    if text_encoder is not None:
        return torch.from_numpy(encode_titles(titles, text_encoder, data.cache_dir, data.progress))
    backbone = _backbone(data)

    def compute() -> dict[str, torch.Tensor]:
        return {_NAME: torch.from_numpy(mean_states(backbone, titles, progress=data.progress))}

    key = {"backbone": backbone.fingerprint, "titles": _hash(titles)}
    return cached_tensors(data.cache_dir, _KIND, key, compute)[_NAME]


def lsa_embeddings(titles: Sequence[str], corpus: Sequence[str], size: int = LSA_SIZE) -> np.ndarray:
    """Return embeddings of titles by latent semantic analysis (Deerwester et al., 1990): (titles, size), float32.

    TF-IDF vectors are projected onto the first right singular vectors of those of the corpus. The same titles and
    corpus have the same embeddings for any number of threads.

    Args:
        titles: Titles.
        corpus: Titles that the words and the singular vectors are learned from.
        size: Maximum size of an embedding; the rank of the corpus limits it as well.

    Examples:
        >>> films = ["Toy Story", "Toy Story 2", "The Story of Us", "Heat"]
        >>> vectors = lsa_embeddings(films, films, size=2)
        >>> vectors.shape
        (4, 2)
    """
    vectorizer, directions = _fit_lsa(tuple(corpus), size)
    if directions is None:
        return np.zeros((len(titles), 1), np.float32)
    embeddings: np.ndarray = (vectorizer.transform(titles) @ directions.T).astype(np.float32)
    return embeddings


@lru_cache(maxsize=1)  # a recommender embeds several lists of titles by the words of the same corpus
def _fit_lsa(corpus: tuple[str, ...], size: int) -> tuple[Any, np.ndarray | None]:
    """Return the fitted vectorizer of a corpus and the first right singular vectors of its TF-IDF vectors.

    Returns:
        The vectorizer, and the singular vectors (at most `size`, words), or None if no title has a word.
    """
    from sklearn.decomposition import TruncatedSVD  # takes seconds to load
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True)
    try:
        vectors = vectorizer.fit_transform(corpus)
    except ValueError:  # "empty vocabulary": titles of single characters
        return vectorizer, None
    if vectors.shape[1] == 1:  # TruncatedSVD needs two words
        return vectorizer, np.ones((1, 1))
    # Vectors of equal singular values are decided by rounding, which depends on the number of threads. The share of the
    # variance, which is not used, is 0 / 0 if all titles are equal.
    with threadpool_limits(1, user_api="blas"), np.errstate(invalid="ignore"):
        projection = TruncatedSVD(min(size, *vectors.shape), random_state=0).fit(vectors)
    # Directions that the corpus does not have are arbitrary; a title that is not in the corpus might have them.
    singular_values = projection.singular_values_
    directions: np.ndarray = projection.components_
    directions[singular_values <= _NO_DIRECTION * singular_values[0]] = 0
    return vectorizer, directions


def _all_titles(data: TrainingData) -> list[str]:
    """Return the different titles of the general domains and of the dataset."""
    datasets = [*(dataset for dataset, _ in data.general), data.dataset]
    return list(dict.fromkeys(title for dataset in datasets for title in dataset.titles.values()))


def item_embeddings(data: TrainingData, text_encoder: str | None) -> torch.Tensor:
    """Return the `text_embeddings` of the dataset's titles, (items, size), in the order of `TrainingData.item_index`.

    Raises:
        LorarecError: As for `text_embeddings`.
    """
    titles = data.dataset.titles
    row = {item: row for row, item in enumerate(titles)}
    # Embedded in the order of the item table, which does not depend on the split.
    return text_embeddings(data, list(titles.values()), text_encoder)[[row[item] for item in data.item_index]]


def centre(embeddings: np.ndarray) -> np.ndarray:
    """Return embeddings minus their mean, scaled to length 1: (items, size), float32.

    The titles of a catalogue have a direction in common, which says nothing about their differences; cosines without it
    tell neighbours apart better (Mu and Viswanath, ICLR 2018, remove the mean and more).

    Args:
        embeddings: Embeddings of all titles of a catalogue (items, size).
    """
    differences = embeddings - embeddings.mean(0)
    lengths = np.linalg.norm(differences, axis=1, keepdims=True)
    # Equal titles differ from their mean by rounding alone, which is no direction.
    has_direction = lengths > 1e-5 * np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit: np.ndarray = np.divide(differences, lengths, out=np.zeros_like(differences), where=has_direction)
    return unit


def text_source(data: TrainingData, text_encoder: str | None) -> dict[str, str]:
    """Return what decides the embeddings of `text_embeddings`: the fingerprint of the encoder or of the backbone.

    For `LSA` it is the fingerprint of the embeddings themselves, whose basis may differ between machines and versions
    of libraries where singular values are equal.

    Raises:
        LorarecError: As for `text_embeddings`.
    """
    if text_encoder == LSA:
        titles = _all_titles(data)
        return {"text_encoder": LSA, "embeddings": hashlib.sha256(lsa_embeddings(titles, titles).tobytes()).hexdigest()}
    if text_encoder is not None:
        return {"text_encoder": SentenceEncoder.from_pretrained(text_encoder).fingerprint}
    return {"backbone": _backbone(data).fingerprint}


def describe_texts(data: TrainingData, text_encoder: str | None) -> str:
    """Return whose embeddings `text_embeddings` returns, for reports, with the fingerprint of an encoder's files."""
    name = describe_saved_texts(text_encoder)
    return name if text_encoder in (None, LSA) else f"embeddings of {name} ({text_source(data, name)['text_encoder']})"


def describe_saved_texts(text_encoder: str | None) -> str:
    """Return whose embeddings `text_embeddings` returned, for reports about what was saved."""
    if text_encoder is None:
        return "the backbone's states"
    return "latent semantic analysis" if text_encoder == LSA else text_encoder


def _backbone(data: TrainingData) -> Backbone:
    data.require("backbone")
    assert data.backbone is not None
    return data.backbone


def _hash(titles: Sequence[str]) -> str:
    return content_hash(pl.DataFrame({"title": titles}))
