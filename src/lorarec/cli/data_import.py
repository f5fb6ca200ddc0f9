"""The group `lorarec data import`: from interaction logs to dataset folders."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lorarec.cli.config_options import config_options
from lorarec.cli.messages import Verb
from lorarec.cli.options import AsJson, Overwrite
from lorarec.cli.output import print_values
from lorarec.cli.table_options import BAD_TIMES_HELP, FORMAT, VALUES, TableOptions
from lorarec.data import (
    GENERAL_DOMAINS,
    SPECIFIC_DOMAIN,
    BadTimes,
    Dataset,
    RawLog,
    folder_name,
    load_sample,
    read_amazon,
    read_movielens,
    read_query,
    read_table,
    refuse_unseen_without_items,
)
from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.io import FolderKind, Progress, refuse_existing
from lorarec.options import option

import_app = typer.Typer(no_args_is_help=True, help="Turn an interaction log with item titles into a dataset folder.")
FILTERS = "Filters"


class Overlap(StrEnum):  # typer takes no list of literals
    """Parts of a dataset that may overlap with another dataset."""

    USERS = "users"
    ITEMS = "items"
    INTERACTIONS = "interactions"
    TITLES = "titles"


@dataclass(frozen=True)
class Filters:
    """Filters of an imported log.

    Raises:
        LorarecError: If `k_core` is negative, or an option has no effect.
    """

    k_core: int = option(
        0, "Drop users and items with fewer interactions than this, repeatedly until none is left.", FILTERS
    )
    keep_untitled: bool = option(False, "Name items without a title by their id instead of dropping them.", FILTERS)
    keep_unseen: bool = option(False, "Keep titled items that nobody interacted with (not with --k-core).", FILTERS)
    without: list[Path] | None = option(None, "Dataset folder whose items are left out; may be repeated.", FILTERS)
    by: list[Overlap] | None = option(
        None,
        "Part that --without compares: items if not given; may be repeated. Titles find an item under other ids.",
        FILTERS,
    )

    def __post_init__(self) -> None:
        refuse_out_of_range(self, (), ("k_core",), ())
        if self.keep_unseen and self.k_core > 1:
            raise LorarecError(
                "options keep_unseen and k_core exclude each other: every item of a core has interactions"
            )
        if self.by and not self.without:
            raise LorarecError("option by needs option without, the datasets that are compared")


Out = Annotated[Path, typer.Option(help="Dataset folder to write.")]
Name = Annotated[str | None, typer.Option(help="Name of the dataset; made from the file's name if not given.")]
BadTimesOption = Annotated[BadTimes, typer.Option(help=BAD_TIMES_HELP, rich_help_panel=VALUES)]


@import_app.command("movielens", cls=Verb)
@config_options
def import_movielens(
    *,
    path: Annotated[
        Path, typer.Argument(help="The folder or zip from grouplens.org: 100K, 1M, 10M, 20M, 25M, latest.")
    ],
    out: Out,
    name: Name = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    filters: Filters,
) -> None:
    """Import MovieLens as published.

    Example: lorarec data import movielens ml-latest-small.zip --k-core 5 --out data/movies
    """
    refuse_existing(out, overwrite, FolderKind.DATASET)
    with Progress(f"Reading {path}"):
        source = read_movielens(path)
    _finish(source, out, name, filters, overwrite, as_json)


@import_app.command("amazon", cls=Verb)
@config_options
def import_amazon(
    *,
    reviews: Annotated[
        Path, typer.Argument(help="Reviews (.json.gz, .jsonl.gz) or ratings (.csv) of 2014, 2018, 2023.")
    ],
    out: Out,
    meta: Annotated[Path | None, typer.Option(help="meta_*.json.gz or .jsonl.gz: titles, brands, categories.")] = None,
    bad_times: BadTimesOption = FORMAT.bad_times,
    name: Name = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    filters: Filters,
) -> None:
    """Import Amazon reviews as published.

    Example: lorarec data import amazon reviews_Beauty_5.json.gz --meta meta_Beauty.json.gz --out data/beauty
    """
    refuse_existing(out, overwrite, FolderKind.DATASET)
    source = read_amazon(reviews, meta, bad_times=bad_times, keep_unseen=filters.keep_unseen, progress=True)
    _finish(source, out, name, filters, overwrite, as_json)


@import_app.command("table", cls=Verb)
@config_options
def import_table(
    *,
    interactions: Annotated[
        str,
        typer.Argument(
            help="The log: .csv, .tsv, .json, .jsonl, .parquet, a folder of Parquet files, or text with another suffix "
            "such as .txt, .dat or .inter, whose format is detected; text may be gzipped. Also s3://... and gs://..., "
            "or with --query a database: postgresql://..., sqlite:///shop.db, duckdb:///shop.duckdb."
        ),
    ],
    out: Out,
    items: Annotated[
        str | None, typer.Option(help="Table of items with their titles; titles are read from the log if not given.")
    ] = None,
    query: Annotated[
        str | None, typer.Option(help="SQL query whose rows are the log; INTERACTIONS is then a database.")
    ] = None,
    items_query: Annotated[
        str | None, typer.Option(help="SQL query whose rows are the items, in the same database.")
    ] = None,
    table: TableOptions,
    licence: Annotated[str | None, typer.Option(help="Terms of use to record with the dataset.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the dataset; made from the name of the folder --out if not given.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    filters: Filters,
) -> None:
    """Import a table of interactions, whose columns are named by options.

    The table is a file, a folder of Parquet files, or the rows of a query to a database. Case and white space around
    the names of columns are ignored. Titles such as NA, null and nan count as missing. Error messages name the line of
    the file.

    Example: lorarec data import table log.csv --items catalogue.csv --user customer --item sku --time bought_at
    --title product_name --out data/shop

    Example: lorarec data import table user_artists.dat --items artists.dat --user userID --item artistID --items-id id
    --title name --order file --out data/artists

    Example: lorarec data import table duckdb:///shop.duckdb --query "SELECT user_id, item_id, timestamp FROM orders"
    --items-query "SELECT item_id, title FROM products" --out data/shop
    """
    if items_query is not None and query is None:
        raise LorarecError("option items_query needs option query, which gives the log")
    if table.items_id is not None and items is None and items_query is None:
        raise LorarecError("option items_id needs option items, the table whose column it names")
    refuse_unseen_without_items(filters.keep_unseen, items if items is not None else items_query)
    refuse_existing(out, overwrite, FolderKind.DATASET)
    columns, options = table.columns, table.format
    with Progress("Reading the log"):
        if query is None:
            source = read_table(interactions, items, columns=columns, options=options, licence=licence)
        else:
            source = read_query(
                interactions, query, items, items_query=items_query, columns=columns, options=options, licence=licence
            )
    _finish(source, out, name or folder_name(out.absolute().name), filters, overwrite, as_json)


@import_app.command("sample", cls=Verb)
def import_sample(
    out: Out,
    domain: Annotated[str, typer.Argument(help=f"One of {', '.join((SPECIFIC_DOMAIN, *GENERAL_DOMAINS))}.")],
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Copy a domain of the bundled MovieLens sample into a dataset folder.

    Example: lorarec data import sample comedy --out data/comedy
    """
    _report_import(load_sample(domain).save(out, overwrite), as_json)


def _finish(
    source: RawLog,
    out: Path,
    name: str | None,
    filters: Filters,
    overwrite: bool,
    as_json: bool,
) -> None:
    with Progress("Assembling the dataset"):
        dataset = Dataset.from_raw_log(
            source,
            name=name,
            keep_untitled=filters.keep_untitled,
            keep_unseen=filters.keep_unseen,
            without=[Dataset.load(folder) for folder in filters.without or []],
            by=filters.by or ["items"],
            k_core=filters.k_core,
        ).save(out, overwrite)
    _report_import(dataset, as_json)


def _report_import(dataset: Dataset, as_json: bool) -> None:
    info = dataset.info
    rounds = info.get("core_rounds", [])
    dropped = {part: sum(each[part] for each in rounds) for part in ("users", "items", "interactions")}
    core = {"dropped_by_k_core": {**dropped, "rounds": len(rounds)}} if rounds else {}
    values = {**info["counts"], **info["import"], "filters": info["filters"], **core, "folder": str(dataset.folder)}
    print_values(dataset.name, values, info if as_json else None)
