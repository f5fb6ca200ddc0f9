"""What scorers learn from has no hidden items; the cases have them as targets and candidates."""

from dataclasses import replace

import pytest

from lorarec.data import Split
from lorarec.errors import LorarecError
from lorarec.recommenders import divide_for_fusion


def _items(split: Split) -> set[str]:
    lists = [split.train["history"], split.valid["history"], split.valid["candidates"]]
    return {item for each in lists for items in each.to_list() for item in items} | set(split.valid["target"])


def test_hidden_items_are_nowhere(split: Split) -> None:
    before = split.train.clone()
    divided = divide_for_fusion(split, 0.2, cases=1, seed=1)
    known = {item for history in split.train["history"] for item in history}
    assert len(divided.hidden) == round(0.2 * len(known))
    assert set(divided.hidden) <= known
    assert not _items(divided.split) & set(divided.hidden)
    assert divided.split.test == {}
    assert divided.split.fingerprint != split.fingerprint
    assert split.train.equals(before)
    assert divide_for_fusion(split, 0.2, seed=1).hidden.equals(divided.hidden)
    assert not divide_for_fusion(split, 0.2, seed=2).hidden.equals(divided.hidden)


def test_cases_keep_hidden_targets_and_candidates(split: Split) -> None:
    divided = divide_for_fusion(split, 0.2, cases=1000, new_targets=1.0, seed=1)
    cases, valid = divided.cases.sort("user_id"), split.valid.sort("user_id")
    hidden = set(divided.hidden)
    assert cases.select("user_id", "target", "candidates").equals(valid.select("user_id", "target", "candidates"))
    assert cases["history"].to_list() == [
        [item for item in history if item not in hidden] for history in valid["history"].to_list()
    ]
    assert divided.hidden_targets == sum(target in hidden for target in valid["target"])


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_share_of_cases_with_hidden_targets(split: Split, share: float) -> None:
    divided = divide_for_fusion(split, 0.5, cases=12, new_targets=share, seed=0)
    possible = int(split.valid["target"].is_in(divided.hidden.implode()).sum())
    assert len(divided.cases) == 12
    assert divided.hidden_targets == min(round(12 * share), possible)


def test_test_cases_are_not_needed(split: Split) -> None:
    without_test, whole = divide_for_fusion(replace(split, test={})), divide_for_fusion(split)
    assert without_test.split.train.equals(whole.split.train)
    assert without_test.cases.equals(whole.cases)


def test_too_little_data(split: Split) -> None:
    with pytest.raises(LorarecError, match="no training interactions are left"):
        divide_for_fusion(split, 0.999)
    with pytest.raises(LorarecError, match="has no validation cases"):
        divide_for_fusion(replace(split, valid=split.valid.head(0)))
