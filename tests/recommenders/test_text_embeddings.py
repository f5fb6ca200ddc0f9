"""Embeddings of words by latent semantic analysis."""

from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from threadpoolctl import threadpool_limits

from lorarec.data import Dataset, Split
from lorarec.recommenders import TextSimilarity, TextSimilarityConfig, TrainingData, UniSRec, UniSRecConfig
from lorarec.recommenders.text_embeddings import LSA, lsa_embeddings, text_source
from tests.factories import circle_log

TITLES = ["red desk lamp", "blue desk lamp", "green lamp shade", "oak desk", "oak chair", "red chair", "garden hose"]


def _tf_idf(titles: list[str]) -> np.ndarray:
    vectors: np.ndarray = TfidfVectorizer(sublinear_tf=True).fit_transform(titles).toarray()
    return vectors


def test_with_all_dimensions_products_are_those_of_tf_idf() -> None:
    vectors, found = _tf_idf(TITLES), lsa_embeddings(TITLES, TITLES)
    np.testing.assert_allclose(found @ found.T, vectors @ vectors.T, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_fewer_dimensions_are_the_first_singular_vectors(size: int) -> None:
    vectors = _tf_idf(TITLES)
    _, _, right = np.linalg.svd(vectors, full_matrices=False)
    expected = vectors @ right[:size].T
    found = lsa_embeddings(TITLES, TITLES, size)
    assert found.shape == (len(TITLES), size)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-4)


def test_words_that_the_corpus_lacks_are_left_out() -> None:
    found = lsa_embeddings(["oak unicorn", "oak", "unicorn"], TITLES)
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert not found[2].any()


def test_later_titles_have_no_part_in_directions_that_the_corpus_lacks() -> None:
    corpus, later = ["oak desk", "desk oak", "lamp shade", "shade lamp", "red"], ["oak", "lamp red", "desk red shade"]
    vectorizer = TfidfVectorizer(sublinear_tf=True).fit(corpus)
    known, vectors = (vectorizer.transform(titles).toarray() for titles in (corpus, later))
    expected = vectors @ np.linalg.pinv(known) @ known  # projected onto the span of the corpus
    found = lsa_embeddings(later, corpus)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-6)


def test_embeddings_do_not_depend_on_the_number_of_threads() -> None:
    corpus = [f"{word} no{number}" for word in ("lamp", "desk", "chair") for number in range(100)]
    found = []
    for threads in (1, 2):
        lsa_embeddings(TITLES, TITLES)  # another corpus, so that nothing is kept of the last one
        with threadpool_limits(threads, user_api="blas"):
            found.append(lsa_embeddings(corpus, corpus))
    np.testing.assert_array_equal(*found)


def test_titles_without_words() -> None:
    assert not lsa_embeddings(["?", "a"], ["?", "a"]).any()


@pytest.mark.parametrize(
    "recommender",
    [
        TextSimilarity(TextSimilarityConfig(text_encoder=LSA)),
        UniSRec(UniSRecConfig(text_encoder=LSA, pretrain_epochs=0, epochs=2, hidden_size=8)),
    ],
)
def test_recommenders_need_no_model(recommender: Any) -> None:
    dataset, split = circle_log("circles", new_items=0.2)
    data = TrainingData(dataset, split)
    fitted = recommender.fit(data)
    assert not fitted.embeds_with_backbone
    assert "latent semantic analysis" in fitted.about
    for scores in fitted.score(split.test["new-item"]):
        assert np.isfinite(scores).all()
    other = type(recommender)(recommender.config).restore(data, fitted.tensors())
    for found, expected in zip(other.score(split.valid), fitted.score(split.valid), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert other.about == fitted.about


def test_pretraining_and_target_share_the_words(dataset: Dataset, split: Split) -> None:
    config = UniSRecConfig(text_encoder=LSA, pretrain_epochs=1, epochs=1, hidden_size=8)
    general = circle_log("circles")
    fitted = UniSRec(config).fit(TrainingData(dataset, split, general=[general]))
    assert all(np.isfinite(scores).all() for scores in fitted.score(split.test["warm"]))


def test_cached_weights_belong_to_one_basis(dataset: Dataset, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine may turn the basis where singular values are equal; weights of one are wrong for the other."""
    data = TrainingData(dataset, split)
    here = text_source(data, LSA)
    assert text_source(data, LSA) == here
    monkeypatch.setattr("lorarec.recommenders.text_embeddings.lsa_embeddings", lambda *of: -lsa_embeddings(*of))
    assert text_source(data, LSA) != here


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("corpus", [["red lamp"], ["lamp"], ["lamp", "lamp", "lamp lamp"]])
def test_a_corpus_of_one_title_or_one_word(corpus: list[str]) -> None:
    embeddings = lsa_embeddings([*corpus, "chair"], corpus)
    np.testing.assert_allclose(np.abs(embeddings), [[1.0]] * len(corpus) + [[0.0]], atol=1e-6)
