"""A folder of Parquet files with recommendations, one row per user, that an interrupted run can resume."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import polars as pl

from lorarec.data import USER, content_hash
from lorarec.errors import LorarecError
from lorarec.io import (
    FolderKind,
    JsonObject,
    Progress,
    RunDir,
    created_folder,
    disk_errors,
    only_writer,
    read_json,
    refuse_existing,
    remove_folder,
    remove_leftovers_inside,
    replace_folder,
    versions,
    write_json,
)

RECORD = "rank.json"


@dataclass(frozen=True)
class Part:
    """Users whose rows are in one file.

    Attributes:
        number: The number of the part, from 0.
        users: User ids.
    """

    number: int
    users: list[str]

    @property
    def name(self) -> str:
        """Name of the part's file."""
        return f"part-{self.number:06}.parquet"


class Executor(Protocol):
    """The protocol of objects that compute recommendations, in this process or on a cluster."""

    def identity(self) -> JsonObject:
        """Return everything that decides a user's row: fingerprints and options."""

    def run(self, parts: Sequence[Part], out: Path) -> Iterator[int]:
        """Write the parts into a folder, in any order, and yield the number of users of each finished part."""


def split_into_parts(users: Sequence[str], size: int) -> list[Part]:
    """Return parts of `size` users each, in order; the last one may be smaller."""
    return [Part(i, list(users[start : start + size])) for i, start in enumerate(range(0, len(users), size))]


def missing(parts: Sequence[Part], out: Path) -> list[Part]:
    """Return the parts whose files are missing, damaged or incomplete."""
    return [part for part in parts if not _is_whole(part, out)]


def _is_whole(part: Part, out: Path) -> bool:
    try:
        return pl.read_parquet(out / part.name, columns=[USER], glob=False)[USER].to_list() == part.users
    except (OSError, pl.exceptions.PolarsError):
        return False


def refuse_other_folder(out: Path, overwrite: bool = False) -> None:
    """Refuse a folder that holds something else, before models are loaded.

    Raises:
        LorarecError: The folder is not empty and is not one of `recommend_to_folder`, or it would be overwritten and
            holds other files besides its parts; or OUT.work, where the new parts would be written, holds something
            else.
    """
    if overwrite or not (out / RECORD).is_file():
        refuse_existing(out, overwrite, FolderKind.RECOMMENDATIONS)
    if overwrite:
        work = _work_folder(out)
        remove_leftovers_inside(work)  # of a run that was killed while it wrote its record
        refuse_existing(work, True, FolderKind.RECOMMENDATIONS)


def _work_folder(out: Path) -> Path:
    """Return the folder in which parts are written until they replace those of `out`, on the same disk."""
    target = Path(os.path.realpath(out))
    return target.with_name(f"{target.name}.work")


def recommend_to_folder(
    executor: Executor,
    users: Sequence[str],
    out: str | Path,
    part_size: int = 1000,
    overwrite: bool = False,
    names: Mapping[str, str | None] | None = None,
    progress: bool = False,
) -> dict[str, int]:
    """Write recommendations for users as Parquet files and a record, or resume an earlier run.

    Args:
        executor: A `LocalExecutor` or a `RayExecutor`.
        users: User ids, as `read_population` returns them.
        out: A new or empty folder, or the folder of an earlier run with the same data and options.
        part_size: The number of users in a file.
        overwrite: Whether to replace the folder of a run with any data or options. The old files stay until all new
            ones are complete, which are written to OUT.work until then; an interrupted run resumes there.
        names: Further entries of the record, such as the names of the dataset and the adapter.
        progress: Whether to show the progress on standard error.

    Returns:
        The numbers of `users` and `parts`, and of the parts that were complete before (`parts_before`).

    Raises:
        LorarecError: The folder belongs to a run with other data or options or cannot be written to, another run writes
            to it, or parts are missing in the end.
    """
    out, parts = Path(out), split_into_parts(users, part_size)
    refuse_other_folder(out, overwrite)
    users_hash = content_hash(pl.DataFrame({USER: users}, schema={USER: pl.String}))
    identity = {**executor.identity(), "users": users_hash, "part_size": part_size}
    counts = {"users": len(users), "parts": len(parts)}
    details = {"counts": counts, **(names or {}), "versions": versions(), "complete": False}
    replaces = overwrite and (out / RECORD).is_file()
    folder = _work_folder(out) if replaces else out
    remedy = "choose another folder or pass overwrite=True"
    run_dir = RunDir(folder, identity, record=RECORD, key="made_of", kind="recommendation run", remedy=remedy)
    if replaces and folder.exists() and not run_dir.matches():
        with only_writer(folder):
            remove_folder(folder)
    parts_before = _score_missing(executor, parts, run_dir, details, progress)
    if replaces:
        with only_writer(folder), disk_errors(out, folder):
            replace_folder(folder, out, FolderKind.RECOMMENDATIONS)
    return {**counts, "parts_before": parts_before}


def _score_missing(
    executor: Executor, parts: Sequence[Part], run_dir: RunDir, details: JsonObject, progress: bool
) -> int:
    """Score the parts that are missing in a folder; return the number of parts that were there already."""
    users, out = sum(len(part.users) for part in parts), run_dir.path
    with created_folder(out), only_writer(out):
        run_dir.open(details)
        remove_leftovers_inside(out)
        left = missing(parts, out)
        with Progress("Ranking users", users, users - sum(len(part.users) for part in left), progress) as bar:
            for count in executor.run(left, out) if left else ():
                bar.advance(count)
        if lost := missing(parts, out):
            raise LorarecError(
                f"{out} lacks {len(lost)} of its parts, the first is {lost[0].name}: "
                "if workers run on other machines, the folder must be one that all of them share"
            )
        remove_leftovers_inside(out)  # Workers that were killed leave them.
        write_json(out / RECORD, {**read_json(out / RECORD), "complete": True})
    return len(parts) - len(left)
