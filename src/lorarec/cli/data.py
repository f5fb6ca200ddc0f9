"""Verbs about data: import, describe, split."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lorarec.cli.output import print_figures
from lorarec.data import (
    GENERAL_DOMAINS,
    SPECIFIC_DOMAIN,
    BadTimes,
    Columns,
    Dataset,
    Decimal,
    Ids,
    Order,
    Quote,
    RawLog,
    TableFormat,
    assemble,
    draw_split,
    load_sample,
    plot_lengths,
    read_amazon,
    read_movielens,
    read_table,
)
from lorarec.data import describe as describe_dataset
from lorarec.errors import LorarecError
from lorarec.io import DATASET, Progress, refuse_existing

import_app = typer.Typer(no_args_is_help=True, help="Turn an interaction log with item titles into a dataset folder.")
COLUMNS, OPTIONS = Columns(), TableFormat()


class Overlap(StrEnum):  # typer takes no list of literals
    """What two datasets may share."""

    USERS = "users"
    ITEMS = "items"
    INTERACTIONS = "interactions"
    TITLES = "titles"


Out = Annotated[Path, typer.Option(help="The dataset folder to write.")]
Name = Annotated[str | None, typer.Option(help="A name for the dataset instead of one made from the file's.")]
KCore = Annotated[
    int,
    typer.Option(
        min=0,
        help="Drop users and items with fewer interactions than this, in rounds until none is left; the counts "
        "of each round are reported.",
    ),
]
KeepUntitled = Annotated[
    bool, typer.Option("--keep-untitled", help="Name items without a title by their id instead of dropping them.")
]
KeepUnseen = Annotated[
    bool, typer.Option("--keep-unseen", help="Keep titled items that nobody interacted with (not with --k-core).")
]
Without = Annotated[
    list[Path] | None, typer.Option(help="Leave out what this dataset folder also has; may be given several times.")
]
By = Annotated[
    list[Overlap] | None,
    typer.Option(help="What --without compares: items if unset; may be repeated. Titles find one item under two ids."),
]
BadTimesOption = Annotated[
    BadTimes,
    typer.Option(
        help="What to do if times are missing, unreadable or far from the others (0, the year 9999, another unit): "
        "refuse the log, drop and count these rows, or keep times that are only far from the others."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")]
Folder = Annotated[Path, typer.Argument(help="A dataset folder made by `lorarec import`.")]


@import_app.command("movielens")
def import_movielens(
    path: Annotated[
        Path, typer.Argument(help="The folder or zip from grouplens.org: 100K, 1M, 10M, 20M, 25M, latest.")
    ],
    out: Out,
    name: Name = None,
    k_core: KCore = 0,
    keep_untitled: KeepUntitled = False,
    keep_unseen: KeepUnseen = False,
    without: Without = None,
    by: By = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Import MovieLens as published.

    Example: lorarec import movielens ml-latest-small.zip --k-core 5 --out data/movies
    """
    refuse_existing(out, overwrite, DATASET)
    with Progress(f"Reading {path}"):
        source = read_movielens(path)
    _finish(source, out, name, k_core, keep_untitled, keep_unseen, without, by, overwrite, as_json)


@import_app.command("amazon")
def import_amazon(
    reviews: Annotated[
        Path, typer.Argument(help="Reviews (.json.gz, .jsonl.gz) or ratings (.csv) of 2014, 2018, 2023.")
    ],
    out: Out,
    meta: Annotated[Path | None, typer.Option(help="meta_*.json.gz or .jsonl.gz: titles, brands, categories.")] = None,
    bad_times: BadTimesOption = OPTIONS.bad_times,
    name: Name = None,
    k_core: KCore = 0,
    keep_untitled: KeepUntitled = False,
    keep_unseen: KeepUnseen = False,
    without: Without = None,
    by: By = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Import Amazon reviews as published.

    Example: lorarec import amazon reviews_Beauty_5.json.gz --meta meta_Beauty.json.gz --out data/beauty
    """
    refuse_existing(out, overwrite, DATASET)
    with _errors_with_flags():
        source = read_amazon(reviews, meta, bad_times=bad_times, progress=True)
    _finish(source, out, name, k_core, keep_untitled, keep_unseen, without, by, overwrite, as_json)


@import_app.command("table")
def import_table(
    interactions: Annotated[
        Path,
        typer.Argument(
            help="The log: .csv, .tsv, .json, .jsonl, .parquet, a folder of Parquet files, or text with another suffix "
            "such as .txt, .dat or .inter, whose format is detected; text may be gzipped."
        ),
    ],
    out: Out,
    items: Annotated[
        Path | None, typer.Option(help="A table of items with their titles; without it titles are read from the log.")
    ] = None,
    user: Annotated[str, typer.Option(help="Column of user ids.")] = COLUMNS.user,
    item: Annotated[str, typer.Option(help="Column of item ids, in both tables.")] = COLUMNS.item,
    items_id: Annotated[
        str | None, typer.Option(help="Column of item ids in --items, if its name differs from --item.")
    ] = None,
    time: Annotated[
        str,
        typer.Option(
            help="Column of times: seconds, milliseconds, microseconds or nanoseconds since 1970 (the unit that fits "
            "most values is used), 20231114, ISO 8601 text (UTC if it names no zone), or positions (0, 1, 2)."
        ),
    ] = COLUMNS.time,
    rating: Annotated[str | None, typer.Option(help="Column of ratings; `rating` is taken if it is there.")] = None,
    title: Annotated[str, typer.Option(help="Column of item titles.")] = COLUMNS.title,
    time_format: Annotated[
        str | None, typer.Option(help="Format of times in other text, as for strptime: %d.%m.%Y reads 14.11.2023.")
    ] = None,
    bad_times: BadTimesOption = OPTIONS.bad_times,
    order: Annotated[
        Order, typer.Option(help="Order interactions by time or, for logs without times, by their place in the file.")
    ] = OPTIONS.order,
    separator: Annotated[
        str | None,
        typer.Option(
            help="The character, or several, between fields (\\t for a tab). Default: a comma for .csv, a tab for "
            ".tsv, and detected from the content of other text."
        ),
    ] = None,
    quote: Annotated[
        Quote | None,
        typer.Option(
            help="The quotes around fields. Default: none if fields are separated by tabs or several characters, "
            "otherwise double, but quoted fields that span lines which look like rows are refused; double allows them."
        ),
    ] = None,
    no_header: Annotated[
        bool, typer.Option("--no-header", help="The text has no header; its columns are named column_1, column_2, ...")
    ] = False,
    decimal: Annotated[
        Decimal | None,
        typer.Option(help="Decimal mark of ratings. Default: point, or comma if commas cannot separate thousands."),
    ] = None,
    ids: Annotated[
        Ids | None,
        typer.Option(
            help="Keep ids as written, strip white space around them (trimmed), or also read 12.0 and 012 as 12 "
            "(numbers). Default: as written, but tables are refused if some of their ids match only in the other ways."
        ),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Terms of use to record with the dataset.")] = None,
    name: Name = None,
    k_core: KCore = 0,
    keep_untitled: KeepUntitled = False,
    keep_unseen: KeepUnseen = False,
    without: Without = None,
    by: By = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Import any table of interactions; name the columns by options.

    Case and white space around the names of columns are ignored. Titles such as NA, null and nan count as missing.
    Error messages name the line of the file.

    Example: lorarec import table log.csv --items catalogue.csv --user customer --item sku --time bought_at
    --title product_name --out data/shop

    Example: lorarec import table user_artists.dat --items artists.dat --user userID --item artistID --items-id id
    --title name --order file --out data/artists
    """
    refuse_existing(out, overwrite, DATASET)
    columns = Columns(user, item, time, rating, title, items_id)
    with _errors_with_flags(), Progress(f"Reading {interactions}"):
        options = TableFormat(separator, not no_header, quote, time_format, bad_times, order, decimal, ids)
        source = read_table(interactions, items, columns=columns, options=options, licence=licence)
    _finish(source, out, name, k_core, keep_untitled, keep_unseen, without, by, overwrite, as_json)


@import_app.command("sample")
def import_sample(
    out: Out,
    domain: Annotated[str, typer.Argument(help=f"One of {', '.join((SPECIFIC_DOMAIN, *GENERAL_DOMAINS))}.")],
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Copy a domain of the bundled MovieLens sample into a dataset folder.

    Example: lorarec import sample comedy --out data/comedy
    """
    _report_import(load_sample(domain).save(out, overwrite), as_json)


def describe(
    dataset: Folder,
    plot: Annotated[Path | None, typer.Option(help="Write a histogram of the lengths to this PNG.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a dataset holds: counts, density, lengths, title coverage, time span.

    Example: lorarec describe data/movies --plot movies.png
    """
    loaded = Dataset.load(dataset)
    figures = describe_dataset(loaded)
    if plot:
        plot_lengths(loaded, plot)
    print_figures(loaded.name, figures, figures if as_json else None)


def split(
    dataset: Folder,
    protocol: Annotated[
        Literal["leave-one-out", "global-time"],
        typer.Option(help="Last items of every user, or two moments for all."),
    ] = "leave-one-out",
    new_items: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of the items kept out of training (leave-one-out).")
    ] = 0.1,
    negatives: Annotated[int, typer.Option(min=1, help="Untouched items in every candidate set.")] = 29,
    seed: Annotated[int, typer.Option(help="Fixes the new items and the candidates.")] = 42,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Divide a dataset into training, validation and test and store the candidate sets in DATASET/split.

    Without this verb the first one that needs a split draws the default one.

    Example: lorarec split data/movies --new-items 0.2 --seed 7
    """
    loaded = Dataset.load(dataset)
    if (dataset / "split").exists() and not overwrite:
        raise LorarecError(f"{dataset / 'split'} exists already: pass --overwrite to replace it")
    options: dict[str, Any] = {"protocol": protocol, "negatives": negatives, "seed": seed}
    if protocol == "leave-one-out":
        options["new_items"] = new_items
    drawn = draw_split(loaded, **options)
    drawn.save(dataset / "split", overwrite)
    figures = {**drawn.info["counts"], "folder": str(dataset / "split")}
    print_figures(f"{loaded.name}: {protocol}", figures, drawn.info if as_json else None)


@contextmanager
def _errors_with_flags() -> Iterator[None]:
    """Replace the fields of `TableFormat` in error messages by the options of the command line."""
    names = "|".join(TableFormat.__dataclass_fields__)

    def flag(found: re.Match[str]) -> str:
        return (
            "--no-header"
            if found[1] == "header"
            else f"--{found[1].replace('_', '-')} " + re.sub(r'^"([\w-]+)"$', r"\1", found[2])
        )

    try:
        yield
    except LorarecError as error:
        message = re.sub(rf"\b({names})=(False|\"[^\"]*\"|'[^']*')", flag, str(error))
        raise LorarecError(re.sub(r"\btime_format (?=')", "--time-format ", message)) from error


def _finish(
    source: RawLog,
    out: Path,
    name: str | None,
    k_core: int,
    keep_untitled: bool,
    keep_unseen: bool,
    without: list[Path] | None,
    by: Sequence[str] | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    with Progress("Assembling the dataset"):
        dataset = assemble(
            source,
            name=name,
            keep_untitled=keep_untitled,
            keep_unseen=keep_unseen,
            without=[Dataset.load(folder) for folder in without or []],
            by=by or ["items"],
            k_core=k_core,
        ).save(out, overwrite)
    _report_import(dataset, as_json)


def _report_import(dataset: Dataset, as_json: bool) -> None:
    info = dataset.info
    rounds = {f"core round {number}": each for number, each in enumerate(info.get("core_rounds", []), start=1)}
    figures = {**info["counts"], **info["import"], "filters": info["filters"], **rounds, "folder": str(dataset.folder)}
    print_figures(dataset.name, figures, info if as_json else None)
