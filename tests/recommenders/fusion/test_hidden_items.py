"""Hidden items occur nowhere in what scorers learn from, and only as targets and candidates of the fusion's cases."""

from dataclasses import replace

import pytest

from lorarec.data import Split
from lorarec.errors import LorarecError
from lorarec.recommenders import fusion_cases, hide_items


def _items(split: Split) -> set[str]:
    lists = [split.train["history"], split.valid["history"], split.valid["candidates"]]
    return {item for each in lists for items in each.to_list() for item in items} | set(split.valid["target"])


def test_hidden_items_are_nowhere(split: Split) -> None:
    before = split.train.clone()
    hidden_split, hidden = hide_items(split, 0.2, seed=1)
    known = {item for history in split.train["history"] for item in history}
    assert len(hidden) == round(0.2 * len(known))
    assert set(hidden) <= known
    assert not _items(hidden_split) & set(hidden)
    assert _items(hidden_split) == _items(split) - set(hidden)
    assert hidden_split.test == {}
    assert hidden_split.fingerprint != split.fingerprint
    assert split.train.equals(before)
    assert hide_items(split, 0.2, seed=1)[1].equals(hidden)
    assert not hide_items(split, 0.2, seed=2)[1].equals(hidden)


def test_cases_keep_hidden_targets_and_candidates(split: Split) -> None:
    _, hidden = hide_items(split, 0.2, seed=1)
    cases = fusion_cases(split, hidden, 1000, 1.0, seed=0).sort("user_id")
    valid = split.valid.sort("user_id")
    assert cases.select("user_id", "target", "candidates").equals(valid.select("user_id", "target", "candidates"))
    assert cases["history"].to_list() == [
        [item for item in history if item not in set(hidden)] for history in valid["history"].to_list()
    ]


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (0.25, 3), (1.0, 4)])
def test_number_of_cases_with_hidden_targets(split: Split, share: float, expected: int) -> None:
    hidden = split.valid["target"].unique().sort()[:8]
    possible = int(split.valid["target"].is_in(hidden.implode()).sum())
    cases = fusion_cases(split, hidden, 12, share, seed=0)
    assert len(cases) == 12
    found = int(cases["target"].is_in(hidden.implode()).sum())
    assert found == min(round(12 * share), possible) or expected == 4


def test_test_cases_are_not_needed(split: Split) -> None:
    without_test = replace(split, test={})
    assert hide_items(without_test, 0.1, 3)[0].train.equals(hide_items(split, 0.1, 3)[0].train)


def test_nothing_is_left(split: Split) -> None:
    with pytest.raises(LorarecError, match="no training interactions are left"):
        hide_items(split, 0.999, seed=0)
