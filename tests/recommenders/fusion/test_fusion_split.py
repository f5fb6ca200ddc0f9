"""What scorers learn from has no hidden items; the cases have them as targets and candidates."""

from dataclasses import replace

import polars as pl
import pytest

from lorarec.data import Split
from lorarec.errors import LorarecError
from lorarec.recommenders import divide_for_fusion, with_validation_targets


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


@pytest.mark.parametrize("share", [0.1, 0.33, 0.9])
def test_share_of_hidden_targets_where_most_are_hidden(split: Split, share: float) -> None:
    divided = divide_for_fusion(split, 0.8, cases=1000, new_targets=share, seed=0)
    known = len(divided.cases) - divided.hidden_targets
    assert known == int((~split.valid["target"].is_in(divided.hidden.implode())).sum())
    possible = len(split.valid) - known
    assert divided.hidden_targets == min(round(known / (1 - share) * share), possible)


def test_no_case_is_left(split: Split) -> None:
    hidden = divide_for_fusion(split, 0.8, new_targets=1.0, seed=0).hidden
    only_new = replace(split, valid=split.valid.filter(pl.col("target").is_in(hidden.implode())))
    with pytest.raises(LorarecError, match=r"no validation cases are left .* allow more new targets than 0\.33"):
        divide_for_fusion(only_new, 0.8, seed=0)
    assert len(divide_for_fusion(only_new, 0.8, new_targets=1.0, seed=0).cases) == len(only_new.valid)


def test_histories_end_with_the_validation_targets_that_are_known(split: Split) -> None:
    first = split.train["user_id"][0]
    only = split.train.filter(pl.col("user_id") == first)["history"][0].to_list()
    unknown = next(item for item in split.valid["candidates"].explode() if item not in set(only))
    cases = pl.DataFrame({"user_id": [first, first, first, "stranger"], "target": [only[0], unknown, only[1], only[0]]})
    few = replace(split, train=split.train.head(1), valid=cases)
    longer = with_validation_targets(few)
    assert longer.train.to_dicts() == [{"user_id": first, "history": [*only, only[0], only[1]]}]
    assert longer.train.schema == split.train.schema
    assert longer.valid.is_empty()
    assert longer.test == {}
    assert longer.fingerprint not in (split.fingerprint, few.fingerprint)


def test_users_keep_their_order_and_those_without_a_case_their_history(split: Split) -> None:
    less = replace(split, valid=split.valid.sample(5, seed=1))
    longer = with_validation_targets(less)
    targets = dict(less.valid.select("user_id", "target").iter_rows())
    known = set(split.train["history"].explode())
    assert longer.train["user_id"].equals(split.train["user_id"])
    for user, history, before in zip(*longer.train, split.train["history"], strict=True):
        added = [targets[user]] if targets.get(user) in known else []
        assert history.to_list() == [*before, *added]


def test_test_cases_are_not_needed(split: Split) -> None:
    without_test, whole = divide_for_fusion(replace(split, test={})), divide_for_fusion(split)
    assert without_test.split.train.equals(whole.split.train)
    assert without_test.cases.equals(whole.cases)


def test_too_little_data(split: Split) -> None:
    with pytest.raises(LorarecError, match="no training interactions are left"):
        divide_for_fusion(split, 0.999)
    with pytest.raises(LorarecError, match="has no validation cases"):
        divide_for_fusion(replace(split, valid=split.valid.head(0)))
