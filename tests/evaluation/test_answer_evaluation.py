"""Logged answers are compared with loops written from the formulas, and with the true value of simulated policies."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from lorarec.errors import LorarecError
from lorarec.evaluation import ANSWER_METRICS, ANSWER_SCHEMA, answer_outcomes, evaluate_answers

START = datetime(2026, 11, 26, tzinfo=UTC)
EVENTS = {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Datetime("us", "UTC")}


def answer(seconds: float, user: str | None, items: list[str | None], variant: str | None = "a", **more: Any) -> Any:
    return {
        "request_id": None,
        "time": START + timedelta(seconds=seconds),
        "user_id": user,
        "experiment": None if variant is None else "homepage",
        "variant": variant,
        "propensity": None if variant is None else 0.5,
        "shadow": False,
        "versions": [],
        "item_ids": items,
        "scores": [0.0] * len(items),
        "probabilities": [0.0] * len(items),
        "candidates": len(items),
        **more,
    }


def frame(*answers: Any) -> pl.DataFrame:
    return pl.DataFrame(list(answers), schema=ANSWER_SCHEMA)


def events(*rows: tuple[str, str, float]) -> pl.DataFrame:
    times = [(user, item, START + timedelta(seconds=seconds)) for user, item, seconds in rows]
    return pl.DataFrame(times, schema=EVENTS, orient="row")


def drawn(seed: int, users: int = 12, answers: int = 60) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Answers and events at random, of few users and items so that they meet often."""
    rng = np.random.default_rng(seed)
    items = [f"x{k}" for k in range(15)]
    made = []
    for _ in range(answers):
        user, shown = f"u{rng.integers(users)}", rng.permutation(items)[: rng.integers(0, 13)].tolist()
        variant = ["a", "b", None][rng.integers(3)]
        propensity = None if variant is None else float(rng.choice([0.2, 0.5, 0.8]))
        made.append(answer(float(rng.uniform(0, 1000)), user, shown, variant, propensity=propensity))
    rows = [(f"u{rng.integers(users)}", str(rng.choice(items)), float(rng.uniform(0, 1200))) for _ in range(250)]
    return frame(*made).sort("time"), events(*rows)


def expected_metrics(answers: pl.DataFrame, events: pl.DataFrame, window: float) -> list[dict[str, float]]:
    """The metrics of each answer, by the definitions, one after the other."""
    rows = answers.to_dicts()
    chosen: list[set[str]] = [set() for _ in rows]
    for event in events.to_dicts():
        for index in reversed(range(len(rows))):
            row = rows[index]
            age = (event["timestamp"] - row["time"]).total_seconds()
            if row["user_id"] == event["user_id"] and event["item_id"] in row["item_ids"] and 0 <= age <= window:
                chosen[index].add(event["item_id"])
                break
    found = []
    for row, items in zip(rows, chosen, strict=True):
        ranks = sorted(row["item_ids"].index(item) + 1 for item in items)
        metrics = {"mrr": 1 / ranks[0] if ranks else 0.0}
        for k in (1, 3, 10):
            metrics[f"hr@{k}"] = float(any(rank <= k for rank in ranks))
            gain = sum(1 / math.log2(rank + 1) for rank in ranks if rank <= k)
            ideal = sum(1 / math.log2(place + 2) for place in range(min(k, len(ranks))))
            metrics[f"ndcg@{k}"] = gain / ideal if ranks else 0.0
        found.append(metrics)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_outcomes_equal_a_loop(seed: int) -> None:
    answers, happened = drawn(seed)
    outcomes = answer_outcomes(answers, happened, timedelta(seconds=300))
    expected = expected_metrics(answers, happened, 300)
    assert sum(each["hr@10"] for each in expected) > 5
    assert any(0 < each["ndcg@3"] < 1 for each in expected)
    for name in ANSWER_METRICS:
        np.testing.assert_allclose(outcomes[name].to_numpy(), [each[name] for each in expected], atol=1e-12)
    assert outcomes.drop(ANSWER_METRICS).equals(answers)


def test_an_event_belongs_to_the_latest_answer_with_its_item_within_the_window() -> None:
    answers = frame(
        answer(0, "u", ["x", "y"]),
        answer(10, "u", ["y", "x"]),
        answer(20, "u", ["z"]),
        answer(30, "v", ["x"]),
        answer(40, "u", []),
        answer(50, "u", [None, "w"]),
    )
    happened = events(("u", "x", 25), ("u", "x", 26), ("u", "y", 5), ("u", "z", 121), ("u", "w", 49), ("u", "w", 150))
    outcomes = answer_outcomes(answers, happened, timedelta(seconds=100))
    assert outcomes["hr@1"].to_list() == [0, 0, 0, 0, 0, 0]
    assert outcomes["hr@3"].to_list() == [1, 1, 0, 0, 0, 1]
    assert outcomes["mrr"].to_list() == [0.5, 0.5, 0, 0, 0, 0.5]


def test_events_in_whole_seconds_may_be_of_the_second_of_the_answer() -> None:
    answers = frame(answer(0.7, "u", ["x"]), answer(5.7, "v", ["x"]))
    second = int(START.timestamp())
    happened = pl.DataFrame({"user_id": ["u", "v"], "item_id": ["x", "x"], "timestamp": [second, second + 4]})
    assert answer_outcomes(answers, happened, timedelta(seconds=60))["hr@1"].to_list() == [1, 0]
    with pytest.raises(LorarecError, match="no seconds since 1970: give times"):
        answer_outcomes(answers, happened.with_columns(pl.col("timestamp") * 1000), timedelta(seconds=60))
    with pytest.raises(LorarecError, match="the timestamps of the events are Float64"):
        answer_outcomes(answers, happened.with_columns(pl.col("timestamp").cast(pl.Float64)), timedelta(1))
    with pytest.raises(LorarecError, match="the events have no column item_id"):
        answer_outcomes(answers, happened.drop("item_id"), timedelta(1))


def test_results_equal_a_loop() -> None:
    answers, happened = drawn(7, answers=200)
    result = evaluate_answers(answers, happened, window=timedelta(seconds=300), compare_with="a")
    rows = [
        row | metrics
        for row, metrics in zip(answers.to_dicts(), expected_metrics(answers, happened, 300), strict=True)
        if row["variant"] is not None
    ]
    assert result.left_out == {
        "shadow": 0,
        "without a user": 0,
        "of no variant of the experiment": answers.height - len(rows),
    }
    for name, variant in result.variants.items():
        own = [row for row in rows if row["variant"] == name]
        assert (variant.answers, variant.users) == (len(own), len({row["user_id"] for row in own}))
        weights = [1 / row["propensity"] for row in own]
        assert math.isclose(variant.effective_sample_size, sum(weights) ** 2 / sum(w * w for w in weights))
        assert math.isclose(variant.mean_weight, sum(weights) / len(rows))
        for metric in ANSWER_METRICS:
            mean = sum(row[metric] for row in own) / len(own)
            weighted = sum(row[metric] / row["propensity"] for row in own)
            assert math.isclose(variant.metrics[metric].mean, mean, abs_tol=1e-12)
            assert math.isclose(variant.ips[metric].mean, weighted / len(rows), abs_tol=1e-12)
            assert math.isclose(variant.snips[metric].mean, weighted / sum(weights), abs_tol=1e-12)
            for kind in (variant.metrics, variant.ips, variant.snips):
                assert kind[metric].low <= kind[metric].mean <= kind[metric].high
    first, second = result.variants["a"], result.variants["b"]
    assert first.differences == {}
    for metric, difference in second.differences.items():
        expected = second.metrics[metric].mean - first.metrics[metric].mean
        assert math.isclose(difference.mean, expected, abs_tol=1e-12)
        assert first.metrics[metric].p is None
        assert (second.metrics[metric].p or 0) <= (second.metrics[metric].adjusted_p or 0) <= 1
    assert result.comparisons == len(ANSWER_METRICS)


def simulated(seed: int, users: int, rates: dict[str, float], shares: list[dict[str, float]]) -> Any:
    """Sessions of users who choose the one item of an answer with a probability; shares and habits change by phase."""
    rng = np.random.default_rng(seed)
    names, rows, happened = list(rates), [], []
    for number in range(users):
        user, taste = f"u{number}", rng.uniform(0.5, 1.5)
        for phase, share in enumerate(shares):
            variant = str(rng.choice(names, p=[share[name] for name in names]))
            for visit in range(rng.integers(1, 4)):
                seconds = 10_000.0 * phase + 100.0 * visit
                rows.append(answer(seconds, user, ["x"], variant, propensity=share[variant]))
                # In the later phase everybody chooses twice as often.
                if rng.random() < rates[variant] * taste * (1 + phase):
                    happened.append((user, "x", seconds + 10))
    return frame(*rows), events(*happened)


def test_ips_recovers_the_value_of_a_policy_where_means_do_not() -> None:
    """Variant b got most users in the later phase, in which all chose more; a and b are equally good."""
    rates, shares = {"a": 0.2, "b": 0.2}, [{"a": 0.9, "b": 0.1}, {"a": 0.2, "b": 0.8}]
    truth, inside, fooled = 0.3, 0, 0
    for seed in range(20):
        answers, happened = simulated(seed, 400, rates, shares)
        result = evaluate_answers(answers, happened, window=timedelta(seconds=60), compare_with="a", seed=seed)
        for variant in result.variants.values():
            for estimate in (variant.ips["hr@1"], variant.snips["hr@1"]):
                inside += estimate.low <= truth <= estimate.high
            fooled += not variant.metrics["hr@1"].low <= truth <= variant.metrics["hr@1"].high
            assert 0 < variant.effective_sample_size < variant.answers
            assert math.isclose(variant.mean_weight, 1, abs_tol=0.35)
    assert inside >= 70  # of 80 intervals of 95%
    assert fooled >= 36  # of 40


def test_a_difference_is_found_and_none_is_made_up() -> None:
    half = [{"a": 0.5, "b": 0.5}]
    better = evaluate_answers(*simulated(1, 800, {"a": 0.2, "b": 0.4}, half), compare_with="a").variants["b"]
    assert better.differences["hr@1"].low < 0.2 < better.differences["hr@1"].high
    assert better.metrics["hr@1"].significant
    found = [
        evaluate_answers(*simulated(seed, 300, {"a": 0.3, "b": 0.3}, half), compare_with="a").variants["b"]
        for seed in range(20)
    ]
    assert sum(each.differences["hr@1"].low > 0 or each.differences["hr@1"].high < 0 for each in found) <= 4


def test_a_variant_with_one_user_is_no_different() -> None:
    """The mean over one user is the same in all resamples, so that the difference has one sign in all of them."""
    shown = [answer(0, f"u{user}", ["x"], "b" if user else "a") for user in range(30)]
    result = evaluate_answers(frame(*shown), events(("u0", "x", 1)))
    assert [result.variants[name].users for name in "ab"] == [1, 29]
    assert (result.compare_with, result.variants["a"].differences["hr@1"].low) == ("b", 1.0)
    assert {metric.p for metric in result.variants["a"].metrics.values()} == {1.0}


def test_intervals_are_over_users_not_answers() -> None:
    """Users with many alike answers are no more evidence than users with one."""
    rng = np.random.default_rng(0)
    likes = rng.random(100) < 0.4
    once = [answer(0, f"u{user}", ["x"]) for user in range(100)]
    often = [answer(second, f"u{user}", ["x"]) for user in range(100) for second in range(20)]
    happened = [(f"u{user}", "x", second + 0.5) for user in range(100) if likes[user] for second in range(20)]
    widths = []
    for rows in (once, often):
        result = evaluate_answers(frame(*rows).sort("time"), events(*happened), window=timedelta(seconds=1))
        metric = result.variants["a"].metrics["hr@1"]
        assert math.isclose(metric.mean, likes.mean())
        widths.append(metric.high - metric.low)
    assert math.isclose(*widths, rel_tol=1e-9)


def cases() -> Iterator[tuple[pl.DataFrame, dict[str, Any], str]]:
    one = frame(answer(0, "u", ["x"]))
    yield frame(answer(0, "u", ["x"], None)), {}, "the log has no experiment"
    other = frame(answer(0, "u", ["x"]), answer(0, "u", ["x"], experiment="other"))
    yield other, {}, "the log has several experiments: choose one of homepage, other"
    yield one, {"experiment": "none"}, "the log has no experiment 'none': choose one of homepage"
    yield one, {"compare_with": "none"}, "no variant 'none' to compare with: choose one of a"
    yield frame(answer(0, None, ["x"])), {}, "no answers of experiment 'homepage' to users"
    yield one, {"correction": "none"}, "no correction 'none'"
    for propensity in (0.0, -0.5, 1.5, math.nan, math.inf, None):
        weighted = frame(answer(0, "u", ["x"]), answer(1, "u", ["x"], propensity=propensity, request_id="r7"))
        yield weighted, {}, rf"1 answers of the experiment have a propensity .* {propensity} \(request r7\)"


@pytest.mark.parametrize(("answers", "options", "message"), cases())
def test_what_cannot_be_evaluated_is_refused(answers: pl.DataFrame, options: dict[str, Any], message: str) -> None:
    with pytest.raises(LorarecError, match=message):
        evaluate_answers(answers, events(("u", "x", 1)), **options)


def test_shadow_answers_and_those_without_a_user_are_left_out() -> None:
    answers = frame(
        answer(0, "u", ["x"]), answer(0, "u", ["y"], "b", shadow=True), answer(1, None, ["x"], propensity=1.0)
    )
    result = evaluate_answers(answers, events(("u", "x", 1), ("u", "y", 1)))
    assert list(result.variants) == ["a"]
    assert result.left_out == {"shadow": 1, "without a user": 1, "of no variant of the experiment": 0}
