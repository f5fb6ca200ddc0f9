"""Recommendations for a whole population, in a folder of Parquet parts that a killed run leaves fit to go on with."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import polars as pl
from rich.console import Console
from rich.progress import Progress

from lorarec.adapters import read_adapter
from lorarec.artefacts import TEMPORARY, new_file, read_json, refuse_existing, versions, write_json
from lorarec.backbone import Backbone
from lorarec.data import Dataset, histories_of
from lorarec.data.columns import HISTORY, USER
from lorarec.data.content_hash import content_hash
from lorarec.data.reading import collect, column_names, scan_table
from lorarec.errors import LorarecError
from lorarec.ranking.catalogue import recommend_each, whole_evidence
from lorarec.ranking.ranker import Ranker
from lorarec.retrieval import Index

RECORD = "rank.json"
SCHEMA = pl.Schema(
    {
        USER: pl.String(),
        "item_ids": pl.List(pl.String),
        "scores": pl.List(pl.Float32),
        "probabilities": pl.List(pl.Float32),
    }
)
#: Users whose prompts are in memory at once.
AT_ONCE = 1000


@dataclass(frozen=True)
class Job:
    """What users are scored with: paths and options alone, so that it can travel to workers that see the same paths.

    Attributes:
        adapter: a PEFT folder; None for the backbone alone.
        index: made by `lorarec index`; None for a light one, made on the spot.
        top, pool: see `lorarec.ranking.recommend`.
    """

    dataset: Path
    adapter: Path | None = None
    index: Path | None = None
    backbone: str = "embedded"
    dtype: str = "auto"
    device: str | None = None
    quantization: str | None = None
    trust_remote_code: bool = False
    top: int = 10
    pool: int = 100


@dataclass(frozen=True)
class Part:
    """Users whose rows share a file."""

    number: int
    users: list[str]

    @property
    def name(self) -> str:
        """Of its file."""
        return f"part-{self.number:06}.parquet"


class Engine(Protocol):
    """Something that scores parts."""

    def identity(self) -> dict[str, Any]:
        """See `Scorer.identity`."""

    def run(self, parts: Sequence[Part], out: Path) -> Iterator[int]:
        """Write the parts into a folder, in any order; yields the users of each as it is there."""


class Scorer:
    """Dataset, index and ranker, loaded once for many parts.

    Args:
        dataset: that of the job's path.

    Raises:
        LorarecError: something that the job names is missing, damaged, or does not belong to the rest.
    """

    def __init__(self, job: Job, dataset: Dataset) -> None:
        self._job, self._titles = job, dataset.titles
        adapter = read_adapter(job.adapter) if job.adapter else None
        index = Index.load(job.index, dataset) if job.index else None
        backbone = Backbone.load(job.backbone, job.dtype, job.device, job.quantization, job.trust_remote_code)
        self._ranker = Ranker(backbone, adapter)
        self._index = index or Index.build(dataset)
        self._evidence = whole_evidence(dataset) if self._ranker.evidence else None
        self._histories = histories_of(dataset.interactions)
        self._made_of = {
            "dataset": dataset.fingerprint,
            "adapter": adapter.fingerprint if adapter else None,
            "backbone": backbone.fingerprint,
            "dtype": str(backbone.model.dtype).removeprefix("torch."),
            "quantization": job.quantization,
            "index": self._index.record.get("fingerprint"),
            "top": job.top,
            "pool": job.pool,
        }

    def identity(self) -> dict[str, Any]:
        """What decides a user's row: fingerprints and options."""
        return self._made_of

    def rank(self, users: Sequence[str]) -> pl.DataFrame:
        """One row for each user, in the order given, of `SCHEMA`; empty lists where nothing is left to recommend."""
        asked = pl.DataFrame({USER: users}, schema={USER: pl.String})
        asked = asked.join(self._histories, on=USER, how="left", maintain_order="left")
        return pl.concat([self._rank(rows) for rows in asked.iter_slices(AT_ONCE)])

    def _rank(self, asked: pl.DataFrame) -> pl.DataFrame:
        users, job = asked[USER].to_list(), self._job
        histories = asked[HISTORY].to_list()
        found = recommend_each(
            self._ranker, self._index, self._titles, users, histories, job.top, job.pool, evidence=self._evidence
        )
        columns = {
            "item_ids": [[item.item_id for item in items] for items in found],
            "scores": [[item.score for item in items] for items in found],
            "probabilities": [[item.probability for item in items] for items in found],
        }
        return pl.DataFrame({USER: users, **columns}, schema=SCHEMA)

    def write(self, part: Part, out: Path) -> None:
        """Score a part and put its file into a folder, whole; what is there under its name is replaced."""
        rows = self.rank(part.users)
        with new_file(out / part.name) as path:
            rows.write_parquet(path, compression="zstd")


class TorchEngine:
    """Scores part after part in this process; raises as `Scorer` does."""

    def __init__(self, job: Job, dataset: Dataset) -> None:
        self._scorer = Scorer(job, dataset)
        self.identity = self._scorer.identity

    def run(self, parts: Sequence[Part], out: Path) -> Iterator[int]:
        """See `Engine`."""
        for part in parts:
            self._scorer.write(part, out)
            yield len(part.users)


def population(dataset: Dataset, path: str | Path | None = None) -> list[str]:
    """User ids in order, each once: all of a dataset, or those of a table's column user_id.

    Raises:
        LorarecError: the table cannot be read, lacks the column, names nobody, or names a user that the dataset lacks.
    """
    known = dataset.interactions[USER].unique()
    if path is None:
        return known.sort().to_list()
    table = scan_table(path)
    columns = column_names(table, path)
    if USER not in columns:
        raise LorarecError(f"{path}: no column {USER} (there are {', '.join(columns)})")
    users = collect(table.select(pl.col(USER).cast(pl.String)).drop_nulls(), path)[USER].unique().sort()
    if users.is_empty():
        raise LorarecError(f"{path} names no user: put user ids into its column {USER}")
    unknown = users.filter(~users.is_in(known.implode()))
    if len(unknown):
        raise LorarecError(
            f"{path}: {len(unknown)} of its users are not in dataset {dataset.name}, the first is {unknown[0]!r}: "
            "remove them, or import their interactions"
        )
    return users.to_list()


def cut(users: Sequence[str], size: int) -> list[Part]:
    """Parts of so many users each, in order; the last one may be smaller."""
    return [Part(i, list(users[start : start + size])) for i, start in enumerate(range(0, len(users), size))]


def missing(parts: Sequence[Part], out: Path) -> list[Part]:
    """The parts that are not in the folder, one row per user, whole."""
    return [part for part in parts if not _is_whole(part, out)]


def _is_whole(part: Part, out: Path) -> bool:
    try:
        return pl.read_parquet(out / part.name, columns=[USER], glob=False)[USER].to_list() == part.users
    except (OSError, pl.exceptions.PolarsError):
        return False


def refuse_stranger(out: Path, overwrite: bool = False) -> None:
    """Refuse a folder that holds something else, before models are loaded.

    Raises:
        LorarecError: it is not empty, was not begun by `score_population`, and is not to be replaced.
    """
    if not (out / RECORD).is_file():
        refuse_existing(out, overwrite)


def score_population(
    engine: Engine,
    users: Sequence[str],
    out: str | Path,
    part_size: int = 1000,
    overwrite: bool = False,
    names: dict[str, Any] | None = None,
    progress: bool = False,
) -> dict[str, int]:
    """Write recommendations for users as Parquet parts and a record, or go on where an earlier run stopped.

    Args:
        users: from `population`.
        out: a new or empty folder, or one that was begun with the same data and options.
        names: what the record tells beside fingerprints and options.

    Returns:
        Counts of users and parts, and of the parts that were there already.

    Raises:
        LorarecError: the folder was begun with other data or options or cannot be written to, or parts are missing in
            the end.
    """
    out, parts = Path(out), cut(users, part_size)
    refuse_stranger(out, overwrite)
    users_hash = content_hash(pl.DataFrame({USER: users}, schema={USER: pl.String}))
    made_of = {**engine.identity(), "users": users_hash, "part_size": part_size}
    record = {
        "made_of": made_of,
        "counts": {"users": len(users), "parts": len(parts)},
        **(names or {}),
        "versions": versions(),
    }
    if overwrite and out.exists():
        shutil.rmtree(out)
    _begin(out, record)
    left = missing(parts, out)
    with Progress(console=Console(stderr=True), transient=True, disable=not progress) as bar:
        task = bar.add_task("Ranking users", total=len(users), completed=len(users) - sum(len(p.users) for p in left))
        for count in engine.run(left, out) if left else ():
            bar.advance(task, count)
    if lost := missing(parts, out):
        raise LorarecError(
            f"{len(lost)} parts are missing in {out}, the first is {lost[0].name}: "
            "if workers run on other machines, --out must be a folder that all of them share"
        )
    for path in out.glob(f".*{TEMPORARY}"):  # of writers that were killed
        path.unlink(missing_ok=True)
    write_json(out / RECORD, {**read_json(out / RECORD), "complete": True})
    return {"users": len(users), "parts": len(parts), "parts_before": len(parts) - len(left)}


def _begin(out: Path, record: dict[str, Any]) -> None:
    """Make the folder with its record, or check that it was begun with the same."""
    if not (out / RECORD).is_file():
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LorarecError(f"cannot write to {out.parent}: {error.strerror}") from error
        write_json(out / RECORD, {**record, "complete": False})
        return
    begun = read_json(out / RECORD)
    begun = begun.get("made_of") if isinstance(begun, dict) else None
    if not isinstance(begun, dict):
        raise LorarecError(f"{out / RECORD} does not say what {out} was made of: pass --overwrite")
    other = [
        f"{name} ({begun.get(name)}, not {now})" for name, now in record["made_of"].items() if begun.get(name) != now
    ]
    if other:
        raise LorarecError(f"{out} was begun with another {', '.join(other)}: choose another --out or pass --overwrite")
