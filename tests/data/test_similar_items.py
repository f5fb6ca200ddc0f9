"""Known items with similar titles."""

import numpy as np

from lorarec.data import SimilarItems, title_vectors

TITLES = {f"{colour}-{thing}": f"{colour} {thing}" for colour in ("red", "blue", "green") for thing in ("lamp", "desk")}
TITLES |= {"lonely": "zebra"}


def test_they_are_the_highest_cosines() -> None:
    known = [item for item in TITLES if item != "red-lamp"]
    vectors = dict(zip(TITLES, title_vectors(list(TITLES.values())).toarray(), strict=True))
    cosines = np.array([vectors["red-lamp"] @ vectors[item] for item in known])
    places, weights = SimilarItems(TITLES, known).find("red-lamp")
    assert places.tolist() == np.argsort(-cosines, kind="stable")[:5].tolist()
    np.testing.assert_allclose(weights, cosines[places] / cosines[places].sum())
    assert known[places[0]] in ("red-desk", "blue-lamp", "green-lamp")


def test_an_item_is_not_similar_to_itself() -> None:
    similar = SimilarItems(TITLES, list(TITLES))
    _, weights = similar.find("lonely")
    assert weights.tolist() == [0.0] * 5
    assert "red-lamp" not in {list(TITLES)[place] for place in similar.find("red-lamp")[0][:2]}


def test_unknown_items_have_none() -> None:
    similar = SimilarItems({"x": "a lamp"}, ["x"])
    assert similar.find("y")[0].tolist() == []
