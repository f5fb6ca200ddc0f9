"""Known items with similar texts, with sparse and with dense vectors."""

import numpy as np
import pytest

from lorarec.data import SimilarItems, title_vectors

TITLES = {f"{colour}-{thing}": f"{colour} {thing}" for colour in ("red", "blue", "green") for thing in ("lamp", "desk")}
TITLES |= {"lonely": "zebra"}


@pytest.mark.parametrize("dense", [False, True])
def test_they_are_the_highest_cosines(dense: bool) -> None:
    sparse = title_vectors(list(TITLES.values()))
    row = {item: place for place, item in enumerate(TITLES)}
    known = [item for item in TITLES if item != "red-lamp"]
    similar = SimilarItems(sparse.toarray() if dense else sparse, row, known)
    table = sparse.toarray()
    cosines = np.array([table[row["red-lamp"]] @ table[row[item]] for item in known])
    places, weights = similar.find("red-lamp")
    assert places.tolist() == np.argsort(-cosines, kind="stable")[:5].tolist()
    np.testing.assert_allclose(weights, cosines[places] / cosines[places].sum())
    assert known[places[0]] in ("red-desk", "blue-lamp", "green-lamp")


@pytest.mark.parametrize("dense", [False, True])
def test_an_item_is_not_similar_to_itself(dense: bool) -> None:
    sparse = title_vectors(list(TITLES.values()))
    similar = SimilarItems(
        sparse.toarray() if dense else sparse, {item: row for row, item in enumerate(TITLES)}, list(TITLES)
    )
    _, weights = similar.find("lonely")
    assert weights.tolist() == [0.0] * 5
    assert "red-lamp" not in {list(TITLES)[place] for place in similar.find("red-lamp")[0][:2]}


def test_unknown_items_have_none() -> None:
    similar = SimilarItems(title_vectors(["a lamp"]), {"x": 0}, ["x"])
    assert similar.find("y")[0].tolist() == []
