"""Files of the answers that a service has logged."""

from pathlib import Path

import polars as pl

from lorarec.errors import LorarecError

#: Columns of a file of answers, one row for each.
ANSWER_SCHEMA = pl.Schema(
    {
        "request_id": pl.String(),
        # Time at which the request arrived.
        "time": pl.Datetime("us", "UTC"),
        # Id of the user, or the assignment_id of a request with a history; null without either.
        "user_id": pl.String(),
        # Null if the request named an adapter, or there was no experiment.
        "experiment": pl.String(),
        "variant": pl.String(),
        # Probability with which the user was assigned to the variant; null without a variant.
        "propensity": pl.Float64(),
        # Whether the answer was computed for comparison, after another one was sent.
        "shadow": pl.Boolean(),
        # Versions of the adapters that answered, or of the fusion.
        "versions": pl.List(pl.Struct({"name": pl.String(), "version": pl.String()})),
        # Ids of the ranked items, best first, so that the position is the place in the list; null for titles outside of
        # the catalogue.
        "item_ids": pl.List(pl.String()),
        "scores": pl.List(pl.Float64()),
        # Posterior probabilities among all candidates, of which an answer to /v1/recommend has the best only.
        "probabilities": pl.List(pl.Float64()),
        "candidates": pl.UInt32(),
    }
)


def answer_files(folder: Path) -> list[Path]:
    """Return the paths of the files of a folder of answers, oldest first."""
    return sorted(folder.glob("answers-*.parquet"))


def read_answers(folder: str | Path) -> pl.DataFrame:
    """Read the answers that `lorarec serve --answer-log` has written, in the order of time.

    Raises:
        LorarecError: The folder has no file of answers, or a file is damaged or has other columns.
    """
    files = answer_files(Path(folder))
    if not files:
        raise LorarecError(f"{folder} has no files of answers: name a folder that a service has written as answer_log")
    parts = []
    for file in files:
        try:
            part = pl.read_parquet(file, glob=False)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise LorarecError(f"{file} is not a readable Parquet file: {' '.join(str(error).split())}") from error
        if part.schema != ANSWER_SCHEMA:
            raise LorarecError(f"{file} does not have the columns of logged answers: move it to another folder")
        parts.append(part)
    return pl.concat(parts).sort("time", maintain_order=True)
