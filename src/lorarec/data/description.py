"""Statistics of a dataset, and a histogram of history lengths."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from lorarec.data.columns import ITEM, TIME, TITLE, USER
from lorarec.data.dataset import Dataset
from lorarec.data.times import EARLIEST_MOMENT
from lorarec.io import JsonObject, save_figure


def describe(dataset: Dataset) -> JsonObject:
    """Return statistics of a dataset.

    Returns:
        name, fingerprint, source, licence, filters; users, items, interactions; density (share of all pairs of a user
        and an item, repetitions counted once); interactions_per_user and interactions_per_item (mean, median, min,
        max; items that nobody interacted with count as 0); users_below_three_interactions; title_coverage (share of
        items whose title is not their id); time_span (first and last timestamp: ISO 8601 text in UTC, or whole numbers
        if timestamps are positions or after the year 9999).

    Examples:
        >>> from lorarec.data import describe, load_sample
        >>> describe(load_sample("action"))["interactions_per_user"]["median"]
        33.0
    """
    rows = dataset.interactions
    per_user, per_item = _lengths(rows, USER), _lengths(rows, ITEM)
    per_item = np.append(per_item, np.zeros(dataset.items.height - len(per_item), per_item.dtype))  # unseen items
    pairs = rows.select(pl.struct(USER, ITEM).n_unique()).item()
    titled = (dataset.items[TITLE] != dataset.items[ITEM]).sum()
    known = {key: dataset.info.get(key) for key in ("source", "licence", "filters")}
    return {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        **known,
        "users": len(per_user),
        "items": dataset.items.height,
        "interactions": rows.height,
        "density": pairs / (len(per_user) * dataset.items.height),
        "interactions_per_user": _summary(per_user),
        "interactions_per_item": _summary(per_item),
        "users_below_three_interactions": int((per_user < 3).sum()),
        "title_coverage": titled / dataset.items.height,
        "time_span": _time_span(rows[TIME]),
    }


def plot_lengths(dataset: Dataset, out: str | Path) -> None:
    """Write a PNG file with histograms of the interactions per user and per item.

    Raises:
        LorarecError: The file cannot be written.
    """
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, column, who in zip(axes, (USER, ITEM), ("user", "item"), strict=True):
        lengths = _lengths(dataset.interactions, column)
        edges = np.unique(np.geomspace(lengths.min(), lengths.max() + 1, 30).round()) - 0.5
        axis.hist(lengths, bins=edges, color="#3b6ea5")
        axis.set(xscale="log", yscale="log", xlabel=f"interactions per {who}", ylabel=f"number of {who}s")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.axvline(np.median(lengths), color="#c44e52", linewidth=1, label=f"median {np.median(lengths):g}")
        axis.legend(frameon=False)
    figure.suptitle(f"{dataset.name}: {dataset.interactions.height:,} interactions")
    save_figure(figure, out)


def _lengths(rows: pl.DataFrame, column: str) -> np.ndarray:
    return rows.group_by(column).len()["len"].to_numpy()


def _summary(lengths: np.ndarray) -> dict[str, float]:
    return {
        "mean": float(lengths.mean()),
        "median": float(np.median(lengths)),
        "min": int(lengths.min()),
        "max": int(lengths.max()),
    }


def _time_span(times: pl.Series) -> dict[str, str | int]:
    first, last = int(times.min() or 0), int(times.max() or 0)  # type: ignore[arg-type]
    if last < EARLIEST_MOMENT or last > datetime.max.replace(tzinfo=UTC).timestamp():
        return {"first": first, "last": last}
    return {name: datetime.fromtimestamp(at, UTC).isoformat() for name, at in (("first", first), ("last", last))}
