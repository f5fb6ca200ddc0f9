"""Results of an evaluation: metrics with intervals, by setting and row."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np

from lorarec.io import JsonObject
from lorarec.metrics import Correction

CUTOFFS = (1, 3, 5, 10)
METRIC_NAMES = (*(f"ndcg@{k}" for k in CUTOFFS), *(f"hr@{k}" for k in CUTOFFS), "mrr")
#: Candidates of a case: those stored with the split, or the whole catalogue.
Candidates = Literal["stored", "all"]
#: Metrics over a whole catalogue.
CATALOGUE_METRIC_NAMES = ("recall@10", "recall@100", "ndcg@10", "mrr")
#: Metrics by kind of candidates, and the metric that decides which row is the best.
METRICS_OF: dict[Candidates, tuple[str, ...]] = {"stored": METRIC_NAMES, "all": CATALOGUE_METRIC_NAMES}
MAIN_METRIC: dict[Candidates, str] = {"stored": "ndcg@1", "all": "ndcg@10"}
#: Number of items of a list that a recommender shows, and properties of these lists.
TOP = 10
PROPERTY_NAMES = (f"coverage@{TOP}", f"gini@{TOP}", f"novelty@{TOP}")
#: Coverage of the confidence intervals.
LEVEL = 0.95
#: Metrics of the table in report.md. HR@1 equals NDCG@1 and is left to metrics.json.
REPORT_METRICS = tuple(name for name in METRIC_NAMES if name != "hr@1")
#: Threshold of corrected p-values below which a difference is marked.
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class MetricResult:
    """The mean of a metric over cases, with its interval and test.

    Attributes:
        mean: Mean over the cases.
        low: Lower end of the bootstrap interval.
        high: Upper end of the bootstrap interval.
        p: p-value of the test against the row that is compared with; None for that row itself.
        adjusted_p: p-value corrected for the number of tests of the table; None without a test, and for metrics that
            the table does not show.
    """

    mean: float
    low: float
    high: float
    p: float | None
    adjusted_p: float | None = None

    @property
    def significant(self) -> bool:
        """Return whether the corrected p-value is below `SIGNIFICANT`."""
        return self.adjusted_p is not None and self.adjusted_p < SIGNIFICANT


def count_comparisons(rows: Iterable[Mapping[str, MetricResult]]) -> int:
    """Return the number of results with a corrected p-value, given the results of each row by name of the metric."""
    return sum(result.adjusted_p is not None for row in rows for result in row.values())


@dataclass(frozen=True)
class RowResult:
    """Result of one recommender in one setting, a row of the table.

    Attributes:
        name: Name of the row.
        ranks: Rank of the target among the candidates of each case, (cases,), or (seeds, cases) for a recommender that
            was fitted with several seeds; 1 is best, infinite is a target without a rank.
        metrics: Metrics by the names in `METRIC_NAMES`, or `CATALOGUE_METRIC_NAMES` over a whole catalogue.
        seconds_per_user: Wall time of scoring one case, in seconds.
        about: Description of the recommender.
        properties: Properties of the recommended lists by the names in `PROPERTY_NAMES`, over a whole catalogue.
    """

    name: str
    ranks: np.ndarray
    metrics: dict[str, MetricResult]
    seconds_per_user: float
    about: str
    properties: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SettingResult:
    """Results of all rows in one test setting.

    Attributes:
        setting: Name of the setting: `warm` or `new-item`.
        cases: Number of cases.
        users: Number of users of the cases.
        candidates: Hash of users, histories and candidate sets; it was the same for every row.
        compare_with: Name of the row that the tests compare with.
        rows: Results by name of the row, in the order of the table.
        correction: Correction of the p-values for the number of tests.
        catalogue: Number of items of the catalogue if all of them were candidates; None for stored candidate sets.
        repeats: Number of cases left out because the target item is in the history, over a whole catalogue.
    """

    setting: str
    cases: int
    users: int
    candidates: str
    compare_with: str
    rows: dict[str, RowResult]
    correction: Correction = "holm"
    catalogue: int | None = None
    repeats: int = 0

    @property
    def comparisons(self) -> int:
        """Number of tests of the table, for which the p-values are corrected."""
        return count_comparisons(row.metrics for row in self.rows.values())

    def is_best(self, row: str, metric: str) -> bool:
        """Return whether no row has a higher mean of a metric; equal means may differ by rounding."""
        highest = max(each.metrics[metric].mean for each in self.rows.values())
        return math.isclose(self.rows[row].metrics[metric].mean, highest, rel_tol=1e-9)


@dataclass(frozen=True)
class Evaluation:
    """Results of several recommenders on the same cases.

    Attributes:
        protocol: Dataset, split, seed and limit of the evaluation, as plain values.
        settings: Results by name of the setting.

    Examples:
        >>> from lorarec import Dataset, evaluate
        >>> evaluation = evaluate(Dataset.load("data/shop"), {}, settings=["warm"])
        >>> 0 <= evaluation.settings["warm"].rows["popularity"].metrics["ndcg@10"].mean <= 1
        True
    """

    protocol: JsonObject
    settings: dict[str, SettingResult]

    def as_dict(self) -> JsonObject:
        """Return plain values, as metrics.json holds them: everything but the ranks of single cases."""
        return {**self.protocol, "settings": {name: _setting(result) for name, result in self.settings.items()}}


def _setting(result: SettingResult) -> JsonObject:
    keys = ("cases", "users", "candidates", "compare_with", "correction", "comparisons")
    known = {key: getattr(result, key) for key in keys}
    if result.catalogue is not None:
        known |= {"catalogue": result.catalogue, "repeats": result.repeats}
    return {**known, "rows": {name: _row(row) for name, row in result.rows.items()}}


def _row(row: RowResult) -> JsonObject:
    metrics = {name: asdict(metric) for name, metric in row.metrics.items()}
    return {**metrics, **row.properties, "seconds_per_user": row.seconds_per_user, "about": row.about}
