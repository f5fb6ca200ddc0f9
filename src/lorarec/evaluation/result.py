"""What an evaluation found, as values: figures with intervals, by setting and row."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

CUTOFFS = (1, 3, 5, 10)
METRIC_NAMES = (*(f"ndcg@{k}" for k in CUTOFFS), *(f"hr@{k}" for k in CUTOFFS), "mrr")
LEVEL = 0.95
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class MetricResult:
    """Mean over cases, ends of its bootstrap interval, and p of the paired t-test against the compared row.

    `p` is None for the compared row itself.
    """

    mean: float
    low: float
    high: float
    p: float | None

    @property
    def significant(self) -> bool:
        """Whether p is below `SIGNIFICANT`."""
        return self.p is not None and self.p < SIGNIFICANT


@dataclass(frozen=True)
class RowResult:
    """One row of a table.

    Attributes:
        ranks: (cases,) rank of the true candidate, 1 is best; in the order of the cases. (seeds, cases) of a row that
            was fitted several times.
        figures: by the names in `METRIC_NAMES`.
        seconds_per_user: wall time of scoring one case.
        about: what the row is.
    """

    name: str
    ranks: np.ndarray
    figures: dict[str, MetricResult]
    seconds_per_user: float
    about: str


@dataclass(frozen=True)
class SettingResult:
    """One table: the rows of one test setting.

    Attributes:
        setting: `warm` or `new-item`.
        cases: number of cases.
        users: number of users they belong to.
        candidates: hash of users, histories and candidate sets, which was the same for every row.
        compare_with: the row that p-values compare with.
        rows: name -> row, in the order of the table.
    """

    setting: str
    cases: int
    users: int
    candidates: str
    compare_with: str
    rows: dict[str, RowResult]


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of several rows on the same cases.

    Attributes:
        protocol: dataset, split, seed and limit that the figures belong to.
        settings: name -> table.
    """

    protocol: dict[str, Any]
    settings: dict[str, SettingResult]

    def as_dict(self) -> dict[str, Any]:
        """What metrics.json holds: everything but the single ranks."""
        return {**self.protocol, "settings": {name: _setting(result) for name, result in self.settings.items()}}


def _setting(result: SettingResult) -> dict[str, Any]:
    known = {key: getattr(result, key) for key in ("cases", "users", "candidates", "compare_with")}
    return {**known, "rows": {name: _row(row) for name, row in result.rows.items()}}


def _row(row: RowResult) -> dict[str, Any]:
    figures = {name: asdict(figure) for name, figure in row.figures.items()}
    return {**figures, "seconds_per_user": row.seconds_per_user, "about": row.about}
