from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorarec.data import Cooccurrence, Dataset, Split, leave_one_out
from lorarec.errors import LorarecError
from lorarec.retrieval import Index, Proposal
from lorarec.training.cases import TrainingCases
from lorarec.training.config import TrainingConfig
from tests.factories import dataset_of, hot_log, numbered_titles


def build(pairs, **options):
    return TrainingCases(pairs, TrainingConfig(**{"negatives": 5, "max_history": 3} | options))


def test_every_prefix_once_per_epoch(shop) -> None:
    dataset, split = shop
    cases = build([shop])
    expected = Counter()
    for history in split.train["history"].to_list():
        titles = [dataset.titles[item] for item in history]
        expected.update((tuple(titles[max(0, t - 3) : t]), titles[t]) for t in range(1, len(titles)))
    for epoch in (0, 3):
        drawn = [cases.case(epoch, index) for index in range(len(cases))]
        assert Counter((tuple(case.history), case.candidates[case.target]) for case in drawn) == expected


def test_negatives_are_distinct_untouched_and_never_new(shop) -> None:
    dataset, split = shop
    owners: dict[str, list[set[str]]] = {}
    for history in split.train["history"].to_list():
        titles = [dataset.titles[item] for item in history]
        owners.setdefault(titles[0], []).append(set(titles))
    new = set(split.test["new-item"]["target"].to_list())
    new_titles = {dataset.titles[item] for item in new}
    cases = build([shop], max_history=100)
    for index in range(len(cases)):
        case = cases.case(0, index)
        negatives = [title for place, title in enumerate(case.candidates) if place != case.target]
        assert len(set(case.candidates)) == 6
        assert any(not owned & set(negatives) for owned in owners[case.history[0]])
        assert not new_titles & set(case.candidates)


def test_target_places_and_negatives_are_uniform() -> None:
    cases = build([hot_log(users=200)], negatives=3)
    drawn = [cases.case(0, index) for index in range(len(cases))]
    places = Counter(case.target for case in drawn)
    assert all(abs(places[place] / len(drawn) - 0.25) < 0.06 for place in range(4))


@pytest.mark.parametrize("items", [12, 60])
def test_negatives_by_popularity(items: int) -> None:
    """Against uniform draws over all interactions and all items that leave out the user's own; both ways of drawing."""
    rng = np.random.default_rng(0)
    rows = [(f"u{user}", f"i{int(items * rng.random() ** 2)}", t) for user in range(150) for t in range(5)]
    dataset = dataset_of(rows, numbered_titles(items, "item", digits=1), "skewed")
    split = leave_one_out(dataset, new_items=0, negatives=3)
    source = TrainingCases(
        [(dataset, split)], TrainingConfig(negatives=1, negative_sampling="popularity", samples=1)
    ).sources[0]
    counts = Counter(item for history in split.train["history"].to_list() for item in history)
    shares = np.array([counts[title.replace("item ", "i")] + 1 for title in source.titles], dtype=float)
    expected, drawn = np.zeros(len(shares)), np.zeros(len(shares))
    for position in source.positions:
        user = np.searchsorted(source.starts, position, side="right") - 1
        free = shares.copy()
        free[source.items[source.starts[user] : source.starts[user + 1]]] = 0
        expected += 20 * free / free.sum()
        for _ in range(20):
            case = source.case(position, rng)
            drawn[source.titles.index(case.candidates[1 - case.target])] += 1
    assert np.abs(drawn - expected).sum() / expected.sum() < 0.1


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), epoch=st.integers(0, 5), prefixes=st.sampled_from([None, 1, 2, 10]))
def test_a_case_is_a_function_of_its_index(shop, seed, epoch, prefixes) -> None:
    from_start, single_item_histories = (build([shop], seed=seed, prefixes=prefixes) for _ in range(2))
    every = [from_start.case(epoch, index) for index in range(len(from_start))]
    index = seed % len(every)
    assert single_item_histories.case(epoch, index) == every[index]


def test_seeds_and_epochs_differ(shop) -> None:
    first = build([shop])
    orders = [tuple(first.case(epoch, 0).candidates) for epoch in range(4)]
    orders += [tuple(build([shop], seed=seed).case(0, 0).candidates) for seed in range(4)]
    assert len(set(orders)) == 8


def test_prefixes_per_user(shop) -> None:
    _, split = shop
    cases = build([shop], prefixes=2)
    lengths = split.train["history"].list.len()
    assert len(cases) == sum(min(2, length - 1) for length in lengths)
    targets = [cases.epoch_order(0)[:, 1].tolist(), cases.epoch_order(1)[:, 1].tolist()]
    assert len(set(targets[0])) == len(cases)
    assert set(targets[0]) != set(targets[1])


def test_samples_go_through_all_cases_before_repeating(shop) -> None:
    total = len(build([shop]))
    cases = build([shop], samples=total // 3)
    seen = [place for epoch in range(3) for place in cases.epoch_order(epoch)[:, 1].tolist()]
    assert len(set(seen)) == len(seen) == total // 3 * 3


@pytest.mark.parametrize(("balance", "near"), [("size", False), ("equal", True)])
def test_balance(balance, near) -> None:
    sources = [hot_log("large", users=60), hot_log("small", users=10)]
    cases = build(sources, balance=balance, samples=100)
    assert len(cases) == 100
    share = Counter(cases.epoch_order(0)[:, 0].tolist())
    assert abs(share[0] - share[1]) <= 1 if near else share[0] > 4 * share[1]
    assert all("small" in title for title in cases.case(0, [*cases.epoch_order(0)[:, 0]].index(1)).candidates)


def test_dataset_without_cases(shop) -> None:
    dataset, split = shop
    single_item_histories = split.train.with_columns(pl.col("history").list.head(1))
    with pytest.raises(LorarecError, match="shop has no training cases"):
        build([(dataset, type(split)(single_item_histories, split.valid, split.test, split.info))])
    with pytest.raises(LorarecError, match="shop has no training cases"):
        build([(dataset, type(split)(split.train.clear(), split.valid, split.test, split.info))])


def test_more_candidates_than_items(shop) -> None:
    with pytest.raises(LorarecError, match=r"shop has .* items.* option negatives"):
        build([shop], negatives=39)


def test_evidence_leaves_out_the_user_and_calls_some_candidates_new(shop) -> None:
    dataset, split = shop
    titles = {title: item for item, title in dataset.titles.items()}
    evidence = Cooccurrence(split.train, dataset.titles)
    owner = {tuple(history): user for user, history in split.train.select("user_id", "history").iter_rows()}
    hinted = build([shop], new_items=0, max_history=100)
    for index in range(len(hinted)):
        case = hinted.case(0, index)
        history_ids = [titles[title] for title in case.history]
        chosen = [*history_ids, titles[case.candidates[case.target]]]
        owners = [user for history, user in owner.items() if list(history[: len(chosen)]) == chosen]
        words = [evidence.hints(history_ids, [titles[title] for title in case.candidates], user) for user in owners]
        assert case.hints in words
    hidden = build([shop], new_items=0.5)
    drawn = [hidden.case(0, index) for index in range(len(hidden))]
    assert drawn == [hidden.case(0, index) for index in range(len(hidden))]
    by_place = [[case.hints[place] == "new" for case in drawn] for place in range(6)]
    assert all(0.3 < np.mean(new) < 0.95 for new in by_place)
    assert all(case.hints == [] for case in (build([shop], evidence=False).case(0, index) for index in range(3)))


def test_a_share_of_the_targets_is_called_new(shop) -> None:
    always, never = (build([shop], new_items=0, new_targets=share) for share in (0.999, 0.0))
    for index in range(len(always)):
        hinted, plain = always.case(0, index), never.case(0, index)
        assert hinted.hints[hinted.target].startswith("new")
        assert hinted.candidates == plain.candidates
        del hinted.hints[hinted.target], plain.hints[plain.target]
        assert hinted.hints == plain.hints


def _with_a_user_of_everything(touched: int, users: int = 12) -> tuple[Dataset, object]:
    """Users with 6 of 40 items each, and one who has the first `touched` of them."""
    rows = [(f"u{user}", f"i{(user * 7 + place * 3) % 40}", place) for user in range(users) for place in range(6)]
    rows += [("till", f"i{item}", item) for item in range(touched)]
    dataset = dataset_of(rows, numbered_titles(40, "item", digits=1))
    return dataset, leave_one_out(dataset, new_items=0, negatives=5)


@pytest.mark.parametrize("options", [{}, {"prefixes": 2}, {"negative_sampling": "popularity"}, {"evidence": True}])
@pytest.mark.parametrize(("touched", "aside"), [(40, 1), (38, 1), (34, 0), (10, 0)])
def test_users_who_leave_no_negatives_are_set_aside(touched: int, aside: int, options: dict[str, object]) -> None:
    dataset, split = _with_a_user_of_everything(touched)
    cases = build([(dataset, split)], max_history=100, **options)
    (source,) = cases.sources
    assert source.users_set_aside == aside
    till = split.train["user_id"].to_list().index("till")  # type: ignore[attr-defined]
    own = set(range(source.starts[till], source.starts[till + 1]))
    assert bool(own & set(source.positions.tolist())) == (not aside)
    assert len(cases) == len({tuple(each) for each in cases.epoch_order(0)})
    longest = max(len(cases.case(0, index).history) for index in range(len(cases)))
    assert longest <= 4 or not aside


def test_only_users_who_leave_no_negatives() -> None:
    dataset, split = _with_a_user_of_everything(35, users=0)
    message = r"its 1 users with two training interactions leave at most 6 of 39 items, too few for 8 negatives"
    with pytest.raises(LorarecError, match=message):
        build([(dataset, split)], negatives=8)


def _light_index(dataset: Dataset, split: Split) -> Index:
    return Index.build(dataset, histories=split.train)


@pytest.mark.parametrize(("share", "hard"), [(0.5, 2), (1, 5), (0.1, 0)])
@pytest.mark.parametrize("users", [24, 3])
def test_hard_negatives_are_proposed_for_the_history_and_never_the_users_own(
    share: float, hard: int, users: int
) -> None:
    dataset, split = hot_log(users=users)
    index = _light_index(dataset, split)
    ids = {title: item for item, title in dataset.titles.items()}
    cases = TrainingCases(
        [(dataset, split)], TrainingConfig(negatives=5, max_history=2, hard_negatives=share), _light_index
    )
    (source,) = cases.sources
    rng = np.random.default_rng(0)
    for position in source.positions:
        user = int(np.searchsorted(source.starts, position, side="right")) - 1
        history = split.train["history"][user].to_list()
        before = history[: position - source.starts[user]]
        pool = {item.item_id for item in index.propose(before, 100)}
        case = source.case(int(position), rng)
        negatives = [ids[title] for place, title in enumerate(case.candidates) if place != case.target]
        assert len(set(negatives)) == 5
        assert not set(negatives) & set(history)
        assert set(negatives) <= set(source.ids)
        near = pool & set(source.ids) - set(history)
        assert len(near & set(negatives)) >= min(hard, len(near))


def test_few_proposals_are_completed_by_other_items(shop: tuple[Dataset, Split]) -> None:
    dataset, split = shop
    wanted = split.train["history"][0].to_list()

    class TwoItems:
        """Proposes two of the user's own items, a new one and one more."""

        def propose(self, history: list[str], pool: int = 100) -> list[Proposal]:
            del pool
            others = [item for item in source.ids if item not in wanted]
            new = next(item for item in dataset.titles if item not in source.row)
            return [Proposal(item, "title", []) for item in (*wanted, new, others[0]) if item not in history]

    cases = TrainingCases([shop], TrainingConfig(negatives=5, hard_negatives=1), lambda *_: TwoItems())
    (source,) = cases.sources
    case = source.case(1, np.random.default_rng(0))
    assert len(set(case.candidates)) == 6
    assert dataset.titles[next(item for item in source.ids if item not in wanted)] in case.candidates
    own = {dataset.titles[item] for item in wanted}
    assert own & set(case.candidates) == {case.candidates[case.target]}


def test_hard_negatives_are_functions_of_their_index_and_off_by_default(shop: tuple[Dataset, Split]) -> None:
    config = TrainingConfig(negatives=5, hard_negatives=0.6)
    first, second = (TrainingCases([shop], config, _light_index) for _ in range(2))
    every = [first.case(2, index) for index in range(len(first))]
    assert [second.case(2, index) for index in reversed(range(len(second)))] == every[::-1]
    plain, given = build([shop]), TrainingCases([shop], TrainingConfig(negatives=5, max_history=3), _light_index)
    assert [plain.case(0, index) for index in range(9)] == [given.case(0, index) for index in range(9)]
    assert every[0].candidates != build([shop], max_history=10).case(2, 0).candidates


def test_hard_negatives_need_an_index(shop: tuple[Dataset, Split]) -> None:
    with pytest.raises(LorarecError, match=r"option hard_negatives is 0\.5, but there is no index .* give build_index"):
        build([shop], hard_negatives=0.5)
    with pytest.raises(LorarecError, match=r"option hard_negatives must be in \[0, 1\], got 1\.5"):
        TrainingConfig(hard_negatives=1.5)
