"""Comparison of the variants of an experiment, from the answers that a service has logged and the events after them."""

from dataclasses import asdict, dataclass
from datetime import timedelta

import numpy as np
import polars as pl

from lorarec.data import USER
from lorarec.errors import LorarecError
from lorarec.evaluation.corrections import correct_rows
from lorarec.evaluation.outcomes import ANSWER_METRICS, answer_outcomes
from lorarec.evaluation.result import LEVEL, MetricResult, count_comparisons
from lorarec.io import JsonObject
from lorarec.metrics import Correction, check_correction, resampled_means, resampled_p_value

#: Number of resamples of the users.
SAMPLES = 1000


@dataclass(frozen=True)
class VariantResult:
    """Results of a variant.

    Attributes:
        users: Number of its users.
        answers: Number of its answers.
        metrics: Means over its answers by the names in `ANSWER_METRICS`, with intervals and tests against the variant
            that is compared with.
        differences: Differences of these means to those of the variant that is compared with, with intervals; empty for
            that variant itself.
        ips: Inverse-propensity estimates (Horvitz and Thompson 1952) of the metrics over all answers of the experiment.
        snips: Self-normalised estimates (Swaminathan and Joachims 2015), which are less noisy and slightly biased.
        effective_sample_size: Square of the sum of the weights over the sum of their squares (Kish 1965).
        mean_weight: Mean weight over all answers of the experiment, which is near 1 if the propensities are right.
    """

    users: int
    answers: int
    metrics: dict[str, MetricResult]
    differences: dict[str, MetricResult]
    ips: dict[str, MetricResult]
    snips: dict[str, MetricResult]
    effective_sample_size: float
    mean_weight: float


@dataclass(frozen=True)
class AnswerEvaluation:
    """Results of the variants of an experiment.

    Attributes:
        experiment: Name of the experiment.
        window: Number of seconds after an answer in which events count.
        compare_with: Name of the variant that the others are compared with.
        variants: Results by name of the variant.
        left_out: Number of logged answers that were left out, by reason.
        correction: Correction of the p-values for the number of tests.
    """

    experiment: str
    window: float
    compare_with: str
    variants: dict[str, VariantResult]
    left_out: dict[str, int]
    correction: Correction = "holm"

    @property
    def comparisons(self) -> int:
        """Number of tests, for which the p-values are corrected."""
        return count_comparisons(variant.metrics for variant in self.variants.values())

    def as_dict(self) -> JsonObject:
        """Return plain values, as metrics.json holds them."""
        return {**asdict(self), "comparisons": self.comparisons}


def evaluate_answers(
    answers: pl.DataFrame,
    events: pl.DataFrame,
    *,
    window: timedelta = timedelta(days=1),
    experiment: str | None = None,
    compare_with: str | None = None,
    correction: Correction = "holm",
    seed: int = 0,
) -> AnswerEvaluation:
    """Compare the variants of an experiment by what users chose of their answers.

    Intervals and tests are from a bootstrap over users, so that the answers to one user need not be independent; all
    results share its resamples, of which those without a user of a variant are left out for this variant. The p-value
    of a variant with one user is 1.

    The inverse-propensity estimates are what a metric would be if the variant had answered all requests of the
    experiment: the mean of w r over all answers, with the weight w = 1 / propensity for the answers of the variant and
    0 for others. Unlike the means over the variant's own answers, they are right if its share was changed meanwhile.

    Args:
        answers: Logged answers, as `read_answers` returns them.
        events: Columns `user_id`, `item_id` and `timestamp` (see `answer_outcomes`).
        window: Time after an answer in which events count.
        experiment: Name of the experiment; None for the only one in the log.
        compare_with: Name of the variant that the others are tested against; None for that with the most answers.
        correction: Correction of the p-values for the number of tests, which are all of one family.
        seed: Seed of the resampling.

    Raises:
        LorarecError: The log has no such experiment or variant, or several experiments; the propensity of an answer is
            not a probability above 0; or as for `answer_outcomes`.
    """
    check_correction(correction)
    given = answers.filter(~pl.col("shadow"))
    named = given["experiment"].drop_nulls().unique().sort().to_list()
    if experiment is None and len(named) != 1:
        reason = f"has several experiments: choose one of {', '.join(named)}" if named else "has no experiment"
        raise LorarecError(f"the log {reason} (option experiment)")
    chosen = experiment or named[0]
    if chosen not in named:
        raise LorarecError(f"the log has no experiment {chosen!r}: choose one of {', '.join(named) or 'none'}")
    left_out = {
        "shadow": answers.height - given.height,
        "without a user": given[USER].null_count(),
        "of no variant of the experiment": given.filter(
            pl.col(USER).is_not_null(), pl.col("experiment").ne_missing(chosen)
        ).height,
    }
    # Answers of other experiments and adapters were seen too, so events may belong to them.
    outcomes = answer_outcomes(given.filter(pl.col(USER).is_not_null()), events, window)
    outcomes = outcomes.filter(pl.col("experiment") == chosen)
    if outcomes.is_empty():
        raise LorarecError(f"the log has no answers of experiment {chosen!r} to users")
    _check_propensities(outcomes)
    counts = (
        outcomes["variant"].value_counts(sort=True, name="count").sort("count", "variant", descending=[True, False])
    )
    compared = counts["variant"][0] if compare_with is None else compare_with
    names = outcomes["variant"].unique().sort().to_list()
    if compared not in names:
        raise LorarecError(f"the log has no variant {compared!r} to compare with: choose one of {', '.join(names)}")
    variants = _results(outcomes, names, compared, correction, seed)
    return AnswerEvaluation(chosen, window.total_seconds(), compared, variants, left_out, correction)


def _check_propensities(outcomes: pl.DataFrame) -> None:
    """Refuse answers of an experiment without a propensity by which they could be weighted."""
    wrong = outcomes.filter(~((pl.col("propensity") > 0) & (pl.col("propensity") <= 1)).fill_null(value=False))
    if wrong.height:
        raise LorarecError(
            f"{wrong.height:,} answers of the experiment have a propensity that is not above 0 and at most 1, first "
            f"{wrong['propensity'][0]} (request {wrong['request_id'][0]}): correct it to the probability of the variant"
        )


def _results(
    outcomes: pl.DataFrame, names: list[str], compared: str, correction: Correction, seed: int
) -> dict[str, VariantResult]:
    _, user = np.unique(outcomes[USER].to_numpy(), return_inverse=True)
    is_of = np.stack([(outcomes["variant"] == name).to_numpy() for name in names])  # (variants, answers)
    weights = is_of / outcomes["propensity"].to_numpy()
    metrics = outcomes.select(ANSWER_METRICS).to_numpy()
    # Sums over the answers of each user; a resample of users gives ratios of their means.
    users = int(user.max()) + 1
    columns = [np.ones(len(user)), *is_of.astype(np.float64), *weights]
    columns += [each * metric for kind in (is_of, weights) for each in kind for metric in metrics.T]
    sums = np.stack([np.bincount(user, weights=column, minlength=users) for column in columns], axis=1)
    values = np.concatenate([sums.mean(0)[None], resampled_means(sums, SAMPLES, seed)])  # first the sample itself
    total, values = values[:, 0], values[:, 1:]
    count, weight, rest = np.split(values, [len(names), 2 * len(names)], axis=1)
    shape = (len(values), 2, len(names), len(ANSWER_METRICS))
    plain, weighted = rest.reshape(shape).transpose(1, 2, 3, 0)  # (variants, metrics, 1 + samples)
    with np.errstate(invalid="ignore", divide="ignore"):
        means, snips = plain / count.T[:, None], weighted / weight.T[:, None]
    ips = weighted / total
    base = means[names.index(compared)]

    def results(found: np.ndarray, tested: np.ndarray | None = None) -> dict[str, MetricResult]:
        p = [None if tested is None else _p_value(each[1:]) for each in (found if tested is None else tested)]
        return {name: _result(each, one) for name, each, one in zip(ANSWER_METRICS, found, p, strict=True)}

    others = [index for index, name in enumerate(names) if name != compared]
    users_of = (sums[:, 1 : 1 + len(names)] > 0).sum(0)

    def differences(index: int) -> np.ndarray | None:
        """Return what is tested; resamples say nothing about a mean over one user, which is the same in all of them."""
        if index not in others:
            return None
        difference = means[index] - base
        return difference if min(users_of[index], users_of[names.index(compared)]) > 1 else np.zeros_like(difference)

    tested = {name: results(means[index], differences(index)) for index, name in enumerate(names)}
    corrected = correct_rows(tested, ANSWER_METRICS, correction)
    return {
        name: VariantResult(
            users=int(users_of[index]),
            answers=int(is_of[index].sum()),
            metrics=corrected[name],
            differences=results(means[index] - base) if index in others else {},
            ips=results(ips[index]),
            snips=results(snips[index]),
            effective_sample_size=float(weights[index].sum() ** 2 / (weights[index] ** 2).sum()),
            mean_weight=float(weights[index].mean()),
        )
        for index, name in enumerate(names)
    }


def _result(values: np.ndarray, p: float | None) -> MetricResult:
    """Return the first of some values, with the interval of the others."""
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(values[1:], [tail, 1 - tail])
    return MetricResult(float(values[0]), float(low), float(high), p)


def _p_value(differences: np.ndarray) -> float:
    return resampled_p_value(differences[np.isfinite(differences)])
