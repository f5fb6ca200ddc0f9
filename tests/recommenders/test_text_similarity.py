"""Similarity by embeddings against loops over titles, and the cache of embeddings."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from lorarec.backbone import Backbone, SentenceEncoder, mean_states
from lorarec.data import Dataset, Split
from lorarec.errors import LorarecError
from lorarec.experiments import RECOMMENDERS
from lorarec.recommenders import (
    TextSimilarity,
    TextSimilarityConfig,
    TrainingData,
    divide_for_fusion,
    encode_titles,
)
from lorarec.recommenders.dot_product import UNKNOWN_ITEM_SCORE
from tests.factories import save_sentence_encoder


def _fit(data: TrainingData, **options: Any) -> TextSimilarity:
    return TextSimilarity(TextSimilarityConfig(**options)).fit(data)


def _check(found: list[np.ndarray], vector: dict[str, np.ndarray], cases: pl.DataFrame, latest: int) -> None:
    mean = np.mean(list(vector.values()), 0)
    vector = {item: embedding - mean for item, embedding in vector.items()}
    for scores, history, candidates in zip(found, cases["history"], cases["candidates"], strict=True):
        cosines = [
            sum(
                vector[item] @ vector[past] / np.linalg.norm(vector[item]) / np.linalg.norm(vector[past])
                for past in history.to_list()[-latest:]
            )
            for item in candidates
        ]
        np.testing.assert_allclose(scores, cosines, atol=1e-5)


def test_hidden_items_change_neither_the_scores_nor_the_saved_vectors(
    text_encoder: str, dataset: Dataset, split: Split
) -> None:
    """So a fusion that was fitted without some items can be saved and loaded with all of them."""
    data, cases = TrainingData(dataset, split), split.test["new-item"]
    less = replace(data, split=divide_for_fusion(split, hidden_items=0.3).split)
    used = _fit(less, text_encoder=text_encoder).refit(data)
    restored = TextSimilarity(used.config).restore(data, used.tensors())
    for found, again, expected in zip(
        used.score(cases), restored.score(cases), _fit(data, text_encoder=text_encoder).score(cases), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(again, expected)


@pytest.mark.parametrize("setting", ["warm", "new-item"])
def test_scores_equal_a_loop_over_own_embeddings(
    text_encoder: str, dataset: Dataset, split: Split, setting: str
) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(text_encoder, device="cpu")
    vector = {item: model.encode(title, normalize_embeddings=True) for item, title in dataset.titles.items()}
    cases = split.test[setting]
    recommender = _fit(TrainingData(dataset, split), text_encoder=text_encoder, max_history=2)
    _check(recommender.score(cases), vector, cases, 2)
    fingerprint = SentenceEncoder.from_pretrained(text_encoder).fingerprint
    assert f"{text_encoder} ({fingerprint})" in recommender.about


def test_without_an_encoder_the_backbone_reads_the_titles(
    shared_backbone: Backbone, dataset: Dataset, split: Split
) -> None:
    states = mean_states(shared_backbone, list(dataset.titles.values())).astype(np.float64)
    vector = dict(zip(dataset.titles, states, strict=True))
    cases = split.test["new-item"]
    _check(_fit(TrainingData(dataset, split, backbone=shared_backbone)).score(cases), vector, cases, 10)
    with pytest.raises(LorarecError, match="nouns: this recommender needs backbone"):
        _fit(TrainingData(dataset, split))


def test_empty_histories_and_unknown_candidates(shared_backbone: Backbone, dataset: Dataset, split: Split) -> None:
    items = list(dataset.titles)[:2]
    cases = pl.DataFrame(
        {"user_id": ["a", "b"], "history": [[], items[:1]], "candidates": [items, [*items, "stranger"]]},
        schema_overrides={"history": pl.List(pl.String)},
    )
    nothing, known = _fit(TrainingData(dataset, split, backbone=shared_backbone)).score(cases)
    assert not nothing.any()
    assert known[0] == pytest.approx(1, abs=1e-6)
    assert known[2] == UNKNOWN_ITEM_SCORE


def test_equal_titles_tell_nothing(text_encoder: str, dataset: Dataset, split: Split) -> None:
    same = replace(dataset, items=dataset.items.with_columns(pl.lit("lamp").alias("title")))
    scores = _fit(TrainingData(same, split), text_encoder=text_encoder).score(split.test["warm"])
    assert not np.concatenate(scores).any()


def test_embeddings_are_stored_by_fingerprint(
    text_encoder: str, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles, other = ["red lamp", "novel"], save_sentence_encoder(tokenizer, tmp_path / "other", seed=1)
    stored = tmp_path / "stored"
    first = encode_titles(titles, text_encoder, stored)
    assert not np.allclose(first, encode_titles(titles, other, stored))
    assert len(list(stored.glob("texts-*"))) == 2
    assert not np.array_equal(first, encode_titles(titles[::-1], text_encoder, stored))
    np.testing.assert_array_equal(first, encode_titles(titles, text_encoder))

    def encode(*args: object, **kwargs: object) -> np.ndarray:
        raise AssertionError("the embeddings are stored")

    monkeypatch.setattr(SentenceEncoder, "encode", encode)
    copy = tmp_path / "copy"
    shutil.copytree(text_encoder, copy)
    np.testing.assert_array_equal(first, encode_titles(titles, copy, stored))


QUICK = {"pretrain_epochs": 1, "epochs": 1, "hidden_size": 8, "num_layers": 1, "max_history": 10, "batch_size": 32}


@pytest.mark.parametrize(
    ("system", "options"), [("unisrec", {"num_experts": 2}), ("vq-rec", {"num_digits": 8, "num_codes": 16})]
)
def test_systems_that_transfer_read_the_encoder_in_place_of_the_backbone(
    system: str, options: dict[str, int], text_encoder: str, with_new_items: TrainingData, tmp_path: Path
) -> None:
    without = replace(with_new_items, backbone=None, cache_dir=tmp_path / "stored")
    cases = with_new_items.split.test["new-item"].head(4)
    fits = [
        RECOMMENDERS[system].from_options({**QUICK, **options, **encoder}).fit(data)
        for encoder, data in (
            ({"text_encoder": text_encoder}, without),
            ({"text_encoder": text_encoder}, replace(without, cache_dir=None)),
            ({}, replace(with_new_items, cache_dir=tmp_path / "stored")),
        )
    ]
    assert len(list((tmp_path / "stored").glob(f"{system}-*"))) == 2
    first, again, backbone = (np.concatenate(fit.score(cases)) for fit in fits)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, backbone)
    assert text_encoder in fits[0].about
    assert "the backbone's states" in fits[2].about


def test_the_code_count_is_limited_by_the_embeddings(text_encoder: str, with_new_items: TrainingData) -> None:
    recommender = RECOMMENDERS["vq-rec"].from_options({**QUICK, "num_digits": 17, "text_encoder": text_encoder})
    with pytest.raises(LorarecError, match="option num_digits must be at most 16, the size of a text embedding"):
        recommender.fit(replace(with_new_items, cache_dir=None))
