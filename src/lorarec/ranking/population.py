"""Recommendations for a whole population: its users, and the model and data with which they are computed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl

from lorarec.backbone import Backbone, BackboneConfig
from lorarec.data import HISTORY, USER, Dataset, ItemMatcher, histories_of, open_table
from lorarec.errors import LorarecError
from lorarec.io import JsonObject, new_file
from lorarec.lora import read_adapter
from lorarec.ranking.fusion import Fusion, fusion_fingerprint, has_adapters
from lorarec.ranking.population_parts import Part
from lorarec.ranking.proposal_scores import default_index
from lorarec.ranking.ranker import Ranker
from lorarec.ranking.recommendation import Recommendation, check_pool, ranker_evidence, recommend_each
from lorarec.retrieval import Index, ItemRules

#: Name of a column of lists, with one value for each item -> attribute of `Recommendation`, if a ranker scores. Either
#: `log_odds` or `log_likelihoods` holds nulls, depending on the adapter's readout.
RANKER_LISTS = {
    "item_ids": "item_id",
    "scores": "score",
    "log_odds": "log_odds",
    "log_likelihoods": "log_likelihood",
    "log_priors": "log_prior",
    "probabilities": "probability",
}
#: The same if a fusion scores. The column `parts` holds a list for each part of the scores.
FUSION_LISTS = {"item_ids": "item_id", "scores": "score", "probabilities": "probability"}
PARTS = "parts"
#: The list that is written besides if the rules have boosts.
BOOST_LISTS = {"boosts": "boost"}
#: The number of users whose prompts are in memory at the same time.
USERS_AT_ONCE = 1000


@dataclass(frozen=True)
class PopulationConfig:
    """The data, model and options of recommendations for many users, which are sent to workers.

    Attributes:
        dataset: Path of the dataset folder; all workers see the same paths.
        adapter: Path of the adapter folder; None for the backbone alone.
        index: Path of the index folder; if None, an index without a next-item model is built, or that of the fusion.
        backbone: The id of the backbone and the options of loading it.
        top_k: The number of items to recommend.
        pool: The number of candidates that the index proposes to the ranker, at least `top_k`.
        fusion: Path of a fusion folder, which is used in place of the backbone and the adapter; None for these.
        new_item_prior: Prior of new items of the fusion; None for its own. See `FusionConfig.new_item_prior`.
        rules: Filters by columns of the items, a maximum per value of a column, and boosts.

    Raises:
        LorarecError: `top_k` is below 1 or above `pool`.
    """

    dataset: Path
    adapter: Path | None = None
    index: Path | None = None
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    top_k: int = 10
    pool: int = 100
    fusion: Path | None = None
    new_item_prior: float | Literal["auto"] | None = None
    rules: ItemRules = field(default_factory=ItemRules)

    def __post_init__(self) -> None:
        check_pool(self.top_k, self.pool)


class PopulationScorer:
    """Recommends items for the users of a population; the dataset, the index and the ranker or fusion are loaded once.

    Args:
        config: The data, model and options.
        dataset: The dataset at the path of the config.

    Raises:
        LorarecError: A folder of the config is missing or damaged, or belongs to another dataset or backbone, the
            fusion was not fitted to candidates of an index, or a rule does not fit the columns of the items.
    """

    def __init__(self, config: PopulationConfig, dataset: Dataset) -> None:
        self._config, self._titles = config, dataset.titles
        self._rules = config.rules.of(ItemMatcher(dataset))
        index = Index.load(config.index, dataset) if config.index else None
        self._ranker: Ranker | Fusion
        model: JsonObject
        if config.fusion:
            self._ranker, model = _load_fusion(config, config.fusion, dataset)
        else:
            self._ranker, model = _load_ranker(config)
        self._index = index or default_index(self._ranker, dataset)
        self._evidence = ranker_evidence(self._ranker, dataset)
        self._histories = histories_of(dataset.interactions)
        self._lists, self._parts = (
            (FUSION_LISTS, self._ranker.pool_parts) if isinstance(self._ranker, Fusion) else (RANKER_LISTS, [])
        )
        if config.rules.boost:
            self._lists = {**self._lists, **BOOST_LISTS}
        self._identity: JsonObject = {
            "dataset": dataset.fingerprint,
            **model,
            "quantization": config.backbone.quantization,
            "index": self._index.record.get("fingerprint"),
            "top": config.top_k,
            "pool": config.pool,
            "columns": list(self._schema),
        }
        if rules := config.rules.as_dict():  # without rules, unfinished folders of earlier versions are continued
            self._identity["rules"] = rules

    @property
    def _schema(self) -> pl.Schema:
        lists = {name: pl.List(pl.String if name == "item_ids" else pl.Float32) for name in self._lists}
        parts = {PARTS: pl.Struct(dict.fromkeys(self._parts, pl.List(pl.Float32)))} if self._parts else {}
        return pl.Schema({USER: pl.String(), **lists, **parts})

    def identity(self) -> JsonObject:
        """Return everything that decides a user's row: fingerprints and options."""
        return self._identity

    def recommend(self, users: Sequence[str]) -> pl.DataFrame:
        """Return one row for each user, in the order given, with empty lists if nothing is left.

        Returns:
            Column `user_id`, and columns of lists with one value for each item, the best first.
        """
        rows = pl.DataFrame({USER: users}, schema={USER: pl.String})
        rows = rows.join(self._histories, on=USER, how="left", maintain_order="left")
        return pl.concat([self._recommend(some) for some in rows.iter_slices(USERS_AT_ONCE)])

    def _recommend(self, rows: pl.DataFrame) -> pl.DataFrame:
        users, histories, config = rows[USER].to_list(), rows[HISTORY].to_list(), self._config
        recommended = recommend_each(
            self._ranker,
            self._index,
            self._titles,
            users,
            histories,
            config.top_k,
            config.pool,
            evidence=self._evidence,
            rules=self._rules,
        )
        columns: dict[str, list[Any]] = {
            name: [[getattr(item, field) for item in items] for items in recommended]
            for name, field in self._lists.items()
        }
        if self._parts:
            columns[PARTS] = [_lists_of_parts(items, self._parts) for items in recommended]
        return pl.DataFrame({USER: users, **columns}, schema=self._schema)

    def write(self, part: Part, out: Path) -> None:
        """Write the file of a part into a folder, whole or not at all; a file of the same name is replaced."""
        rows = self.recommend(part.users)
        with new_file(out / part.name) as path:
            rows.write_parquet(path, compression="zstd")


def _load_ranker(config: PopulationConfig) -> tuple[Ranker, JsonObject]:
    """Return the ranker of a config, and its part of the identity of a run."""
    adapter = read_adapter(config.adapter) if config.adapter else None
    backbone = Backbone.from_config(config.backbone)
    return Ranker(backbone, adapter), {
        "adapter": adapter.fingerprint if adapter else None,
        **_backbone_identity(backbone),
    }


def _load_fusion(config: PopulationConfig, folder: Path, dataset: Dataset) -> tuple[Fusion, JsonObject]:
    """Return the fusion of a config, and its part of the identity of a run."""
    backbone = Backbone.from_config(config.backbone) if has_adapters(folder) else None
    fusion = Fusion.load(folder, dataset, backbone)
    if config.new_item_prior is not None:
        fusion = fusion.with_new_item_prior(config.new_item_prior)
    return fusion, {
        "fusion": fusion_fingerprint(folder),
        "new_item_prior": fusion.config.new_item_prior,
        **(_backbone_identity(backbone) if backbone else {}),
    }


def _backbone_identity(backbone: Backbone) -> JsonObject:
    return {"backbone": backbone.fingerprint, "dtype": str(backbone.model.dtype).removeprefix("torch.")}


def _lists_of_parts(items: Sequence[Recommendation], names: Sequence[str]) -> dict[str, list[float]]:
    return {name: [item.parts[name] for item in items] for name in names}


class LocalExecutor:
    """Computes recommendations in this process, part by part.

    Args:
        config: The data, model and options.
        dataset: The dataset at the path of the config.

    Raises:
        LorarecError: As for `PopulationScorer`.
    """

    def __init__(self, config: PopulationConfig, dataset: Dataset) -> None:
        self._scorer = PopulationScorer(config, dataset)
        self.identity = self._scorer.identity

    def run(self, parts: Sequence[Part], out: Path) -> Iterator[int]:
        """Write the parts into a folder; see `Executor`."""
        for part in parts:
            self._scorer.write(part, out)
            yield len(part.users)


def read_population(dataset: Dataset, path: str | Path | None = None) -> list[str]:
    """Return the user ids of a dataset, or those of a table's column `user_id`, sorted and without repetitions.

    Args:
        dataset: The dataset.
        path: Path of a CSV, Parquet or JSONL file; None for all users of the dataset.

    Raises:
        LorarecError: The table cannot be read, has no column `user_id`, is empty, or has a user that the dataset does
            not have.
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
            f"{path}: dataset {dataset.name} lacks {len(unknown)} of its users, the first is {unknown[0]!r}: "
            "remove them, or import their interactions"
        )
    return users.to_list()
