"""Similarities of the titles of a catalogue, by their words and by a sentence encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from transformers import AutoModel, AutoTokenizer

from lorarec.errors import LorarecError
from lorarec.io import new_file, track

NEIGHBOURS = 12


@torch.no_grad()
def encode_texts(encoder: str | Path, texts: Sequence[str], batch: int = 256) -> np.ndarray:
    """Return mean-pooled sentence vectors (texts, d) of unit length from the folder of a Hugging Face encoder.

    Raises:
        LorarecError: the encoder cannot be loaded.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(encoder))
        model = AutoModel.from_pretrained(str(encoder), use_safetensors=True).eval()
    except (OSError, ValueError) as error:
        raise LorarecError(f"encoder {encoder} cannot be loaded: {str(error).splitlines()[0]}") from error
    order = np.argsort([len(text) for text in texts])
    vectors = np.zeros((len(texts), model.config.hidden_size), np.float32)
    for start in track(range(0, len(texts), batch), "Encoding titles"):
        rows = order[start : start + batch]
        inputs = tokenizer(
            [texts[i] for i in rows],
            padding=True,
            truncation=True,
            max_length=48,
            return_tensors="pt",
            split_special_tokens=True,
        )
        weights = inputs["attention_mask"][..., None].float()
        mean = (model(**inputs).last_hidden_state * weights).sum(1) / weights.sum(1)
        vectors[rows] = torch.nn.functional.normalize(mean, dim=-1).numpy()
    return vectors


@dataclass(frozen=True)
class Relations:
    """Similarities of the titles of a catalogue.

    Attributes:
        words: (titles, words) Sparse TF-IDF vectors of unit length.
        vectors: (titles, d) Sentence vectors of unit length; None without an encoder.
        neighbours: (titles, `NEIGHBOURS`) Tables of the most similar other titles by words and, with vectors, by
            meaning; -1 fills rows with fewer neighbours.
    """

    words: sp.csr_matrix
    vectors: np.ndarray | None
    neighbours: tuple[np.ndarray, ...]

    def similarity(self, titles: np.ndarray, listed: np.ndarray) -> np.ndarray:
        """Return how well each of `titles` fits a list of titles, (titles,).

        The fit is a soft maximum of the similarities to the listed titles.
        """
        result = _soft_maximum((self.words[titles] @ self.words[listed].T).toarray(), 0.2)
        if self.vectors is not None:
            result += 0.5 * _soft_maximum(self.vectors[titles] @ self.vectors[listed].T, 0.1)
        return result


def relate(titles: Sequence[str], encoder: str | Path | None, file: Path) -> Relations:
    """Relate titles by their words and, if the folder of an encoder is given, by meaning.

    Args:
        file: Path of the npz file that stores neighbours and vectors, which take minutes to compute.
    """
    # Words in more than a twentieth of the titles are ignored, except in a small catalogue.
    common = max(0.05, min(1.0, 50 / len(titles)))
    words = TfidfVectorizer(sublinear_tf=True, max_df=common).fit_transform(titles).tocsr()
    if not file.exists():
        parts: dict[str, Any] = {"by_words": _neighbours(words, lambda rows: (rows @ words.T).toarray(), len(titles))}
        if encoder is not None:
            vectors = encode_texts(encoder, titles)
            parts |= {
                "by_meaning": _neighbours(vectors, lambda rows: rows @ vectors.T, len(titles)),
                "vectors": vectors,
            }
        with new_file(file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **parts)
    with np.load(file) as saved:
        neighbours = tuple(saved[name] for name in ("by_words", "by_meaning") if name in saved)
        return Relations(words, saved.get("vectors"), neighbours)


def _soft_maximum(similarities: np.ndarray, temperature: float) -> np.ndarray:
    """Return temperature * log mean exp(s / temperature) over the last axis."""
    return temperature * np.log(np.exp(similarities / temperature).mean(-1))


def _neighbours(rows, similarity, count: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Return the most similar others of each row, (count, NEIGHBOURS); -1 stands for a similarity below a tenth."""
    result = np.full((count, NEIGHBOURS), -1, np.int32)
    size = min(NEIGHBOURS, count - 1)
    for start in track(range(0, count, 1024), "Relating titles"):
        scores = np.asarray(similarity(rows[start : start + 1024]), np.float32)
        own = np.arange(start, start + len(scores))
        scores[np.arange(len(scores)), own] = -1
        best = np.argpartition(-scores, size - 1, axis=1)[:, :size]
        values = np.take_along_axis(scores, best, 1)
        result[own, :size] = np.where(values > 0.1, best, -1)
    return result
