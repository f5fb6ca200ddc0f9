"""Recommendations for a whole population: what users are scored with, and who they are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from lorarec.backbone import Backbone, Dtype, Quantization
from lorarec.data import HISTORY, USER, Dataset, histories_of, open_table
from lorarec.errors import LorarecError
from lorarec.io import new_file
from lorarec.lora import read_adapter
from lorarec.ranking.population_parts import Part
from lorarec.ranking.ranker import Ranker
from lorarec.ranking.recommendation import recommend_each, whole_evidence
from lorarec.retrieval import Index

#: Column of lists, one value for each item -> attribute of `Recommendation`. Of `log_odds` and `log_likelihoods` one
#: holds nulls, as the adapter's readout says.
LISTS = {
    "item_ids": "item_id",
    "scores": "score",
    "log_odds": "log_odds",
    "log_likelihoods": "log_likelihood",
    "log_priors": "log_prior",
    "probabilities": "probability",
}
SCHEMA = pl.Schema(
    {USER: pl.String(), **{name: pl.List(pl.String if name == "item_ids" else pl.Float32) for name in LISTS}}
)
#: Users whose prompts are in memory at once.
AT_ONCE = 1000


@dataclass(frozen=True)
class PopulationConfig:
    """What users are scored with: paths and options alone, so that it can travel to workers that see the same paths.

    Attributes:
        adapter: a PEFT folder; None for the backbone alone.
        index: made by `lorarec index`; None for a light one, made on the spot.
        top_k, pool: see `lorarec.ranking.recommend`.
    """

    dataset: Path
    adapter: Path | None = None
    index: Path | None = None
    backbone: str = "embedded"
    dtype: Dtype = "auto"
    device: str | None = None
    quantization: Quantization | None = None
    trust_remote_code: bool = False
    top_k: int = 10
    pool: int = 100


class PopulationScorer:
    """Dataset, index and ranker, loaded once for many parts.

    Args:
        dataset: that of the job's path.

    Raises:
        LorarecError: something that the job names is missing, damaged, or does not belong to the rest.
    """

    def __init__(self, job: PopulationConfig, dataset: Dataset) -> None:
        self._job, self._titles = job, dataset.titles
        adapter = read_adapter(job.adapter) if job.adapter else None
        index = Index.load(job.index, dataset) if job.index else None
        backbone = Backbone.from_pretrained(
            job.backbone, job.dtype, job.device, job.quantization, job.trust_remote_code
        )
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
            "top": job.top_k,
            "pool": job.pool,
            "columns": list(SCHEMA),
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
            self._ranker, self._index, self._titles, users, histories, job.top_k, job.pool, evidence=self._evidence
        )
        columns = {name: [[getattr(item, one) for item in items] for items in found] for name, one in LISTS.items()}
        return pl.DataFrame({USER: users, **columns}, schema=SCHEMA)

    def write(self, part: Part, out: Path) -> None:
        """Score a part and put its file into a folder, whole; what is there under its name is replaced."""
        rows = self.rank(part.users)
        with new_file(out / part.name) as path:
            rows.write_parquet(path, compression="zstd")


class LocalExecutor:
    """Scores part after part in this process; raises as `PopulationScorer` does."""

    def __init__(self, job: PopulationConfig, dataset: Dataset) -> None:
        self._scorer = PopulationScorer(job, dataset)
        self.identity = self._scorer.identity

    def run(self, parts: Sequence[Part], out: Path) -> Iterator[int]:
        """See `Engine`."""
        for part in parts:
            self._scorer.write(part, out)
            yield len(part.users)


def read_population(dataset: Dataset, path: str | Path | None = None) -> list[str]:
    """User ids in order, each once: all of a dataset, or those of a table's column user_id.

    Raises:
        LorarecError: the table cannot be read, lacks the column, names nobody, or names a user that the dataset lacks.
    """
    known = dataset.interactions[USER].unique()
    if path is None:
        return known.sort().to_list()
    table = open_table(path)
    column = table.find(USER)
    if column is None:
        raise LorarecError(f"{path}: no column {USER} (there are {', '.join(table.names)})")
    table.require_single_values([column])
    users = table.read({USER: column})[0][USER].cast(pl.String).drop_nulls().unique().sort()
    if users.is_empty():
        raise LorarecError(f"{path} names no user: put user ids into its column {USER}")
    unknown = users.filter(~users.is_in(known.implode()))
    if len(unknown):
        raise LorarecError(
            f"{path}: {len(unknown)} of its users are not in dataset {dataset.name}, the first is {unknown[0]!r}: "
            "remove them, or import their interactions"
        )
    return users.to_list()
