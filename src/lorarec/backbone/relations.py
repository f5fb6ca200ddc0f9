"""Which titles of a catalogue are related, judged by their words and by a sentence encoder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from sklearn.feature_extraction.text import TfidfVectorizer
from transformers import AutoModel, AutoTokenizer

from lorarec.errors import LorarecError

NEIGHBOURS = 12


@torch.no_grad()
def encode_texts(encoder: str | Path, texts: Sequence[str], batch: int = 256) -> np.ndarray:
    """Mean-pooled, unit-length sentence vectors (texts, d) of a Hugging Face encoder folder.

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
    for start in track(range(0, len(texts), batch), "Encoding titles", transient=True):
        rows = order[start : start + batch]
        inputs = tokenizer([texts[i] for i in rows], padding=True, truncation=True, max_length=48, return_tensors="pt")
        weights = inputs["attention_mask"][..., None].float()
        mean = (model(**inputs).last_hidden_state * weights).sum(1) / weights.sum(1)
        vectors[rows] = torch.nn.functional.normalize(mean, dim=-1).numpy()
    return vectors


def word_neighbours(titles: Sequence[str]) -> np.ndarray:
    """For each title the `NEIGHBOURS` others with the most similar TF-IDF vectors, (titles, NEIGHBOURS) int32.

    Rows that share no word with enough others are filled with -1.
    """
    # Words of more than a twentieth of the titles relate nothing, except in a small catalogue.
    common = max(0.05, min(1.0, 50 / len(titles)))
    matrix = TfidfVectorizer(sublinear_tf=True, max_df=common).fit_transform(titles)
    return _neighbours(matrix, lambda rows: (rows @ matrix.T).toarray(), len(titles))


def vector_neighbours(vectors: np.ndarray) -> np.ndarray:
    """As `word_neighbours`, by cosine of unit vectors (titles, d)."""
    return _neighbours(vectors, lambda rows: rows @ vectors.T, len(vectors))


def _neighbours(rows, similarity, count: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    result = np.full((count, NEIGHBOURS), -1, np.int32)
    kept = min(NEIGHBOURS, count - 1)
    for start in track(range(0, count, 1024), "Relating titles", transient=True):
        scores = np.asarray(similarity(rows[start : start + 1024]), np.float32)
        own = np.arange(start, start + len(scores))
        scores[np.arange(len(scores)), own] = -1
        best = np.argpartition(-scores, kept - 1, axis=1)[:, :kept]
        values = np.take_along_axis(scores, best, 1)
        result[own, :kept] = np.where(values > 0.1, best, -1)
    return result
