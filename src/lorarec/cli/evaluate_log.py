"""The part of the verb `evaluate` that compares variants by the logged answers of a service."""

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.io import FolderKind, refuse_existing
from lorarec.options import convert_options, document_options, option

if TYPE_CHECKING:
    import polars as pl

    from lorarec.metrics import Correction

ANSWERS = "Answers of a service"
#: Largest window in seconds, 100 years: times have a limit.
MAX_WINDOW = 36_525 * 86_400


@document_options
@dataclass(frozen=True)
class LogConfig:
    """Options of the evaluation of logged answers.

    Raises:
        LorarecError: If a value is of the wrong type or out of range, or options do not go together.
    """

    log: str | None = option(
        None,
        "Folder of `lorarec serve --answer-log`, in place of a dataset: its variants are compared, by default with the "
        "one that has the most answers.",
        ANSWERS,
    )
    db: str | None = option(None, "SQLite file or database URL of the service, for the events.", ANSWERS)
    events: str | None = option(None, "Parquet file of events: user_id, item_id, timestamp.", ANSWERS)
    window: float = option(86_400.0, "Number of seconds after an answer in which events count.", ANSWERS)
    experiment: str | None = option(None, "Experiment of the log; None for the only one.", ANSWERS)

    def __post_init__(self) -> None:
        convert_options(self)
        others = [name for name in ("db", "events", "experiment") if getattr(self, name) is not None]
        if self.log is None and others:
            raise LorarecError(f"option {others[0]} is for logged answers: give option log")
        if self.log is not None and (self.db is None) == (self.events is None):
            raise LorarecError("the events of the users come from one place: give either option db or option events")
        refuse_out_of_range(self, positive=("window",))
        if self.window > MAX_WINDOW:
            raise LorarecError(f"option window must be at most {MAX_WINDOW} seconds, got {self.window}")


def evaluate_log(
    config: LogConfig,
    compare: str | None,
    correction: "Correction",
    out: Path | None,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Compare the variants of an experiment by what users chose of the logged answers."""
    if out is not None:
        refuse_existing(out, overwrite, FolderKind.EVALUATION)
    from lorarec.evaluation import (
        answer_table,
        evaluate_answers,
        propensity_table,
        read_answers,
        write_answer_report,
    )

    assert config.log is not None
    answers = read_answers(config.log)
    evaluation = evaluate_answers(
        answers,
        _events(config, answers),
        window=timedelta(seconds=config.window),
        experiment=config.experiment,
        compare_with=compare,
        correction=correction,
        seed=seed,
    )
    if out is not None:
        write_answer_report(evaluation, Path(config.log), out, overwrite)
    if as_json:
        typer.echo(json.dumps(evaluation.as_dict(), indent=2, ensure_ascii=False))
        return
    console = Console()
    console.print(answer_table(evaluation))
    console.print(propensity_table(evaluation))
    for reason, count in evaluation.left_out.items():
        if count:
            console.print(f"{count:,} answers left out: {reason}", markup=False, highlight=False)
    if out is not None:
        console.print(f"Report written to {out / 'report.md'}", markup=False, highlight=False, soft_wrap=True)


def _events(config: LogConfig, answers: "pl.DataFrame") -> "pl.DataFrame":
    """Return the events of the users of answers, from the file or the database."""
    if config.events is not None:
        from lorarec.data import read_parquet

        return read_parquet(Path(config.events), "give a Parquet file with user_id, item_id and timestamp")
    try:
        from lorarec.serving import events_since
    except ImportError as error:
        raise LorarecError(f"reading the database needs {error.name}: pip install 'lorarec[serve]'") from None
    assert config.db is not None
    users = answers["user_id"].drop_nulls().unique().to_list()
    first = answers["time"].dt.epoch("s").min()
    return events_since(config.db, users, first if isinstance(first, int) else 0)
