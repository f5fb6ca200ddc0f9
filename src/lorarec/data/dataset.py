"""The dataset: interactions and item texts in one canonical form, and the folder in which they are stored.

A dataset folder contains `interactions.parquet`, `items.parquet`, `dataset.json` and, if there are users,
`users.parquet`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

import polars as pl

from lorarec.data.appending import AppendMixin
from lorarec.data.column_tables import Table
from lorarec.data.columns import ITEM, TIME, TITLE, USER
from lorarec.data.dataset_hub import PushToHubMixin, dataset_folder
from lorarec.data.filters import k_core as core_of
from lorarec.data.filters import remove_overlap
from lorarec.data.hashing import content_hash
from lorarec.data.raw_log import RawLog, clean_tables
from lorarec.data.sources.frames import (
    FrameOptions,
    arrow_table,
    hf_table,
    pandas_table,
    polars_table,
    to_pandas,
    two_tables,
)
from lorarec.data.sources.table import Columns, raw_log, refuse_unseen_without_items
from lorarec.data.split import Split
from lorarec.data.tables import BadTimes, Decimal, Ids, Order, TableFormat
from lorarec.data.validation import canonical_tables, read_parquet
from lorarec.errors import LorarecError
from lorarec.io import FolderKind, JsonObject, new_folder, read_json, write_json

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Dataset(AppendMixin, PushToHubMixin):
    """Interactions of users with items, and the texts of the items.

    Attributes:
        name: A short name.
        interactions: The columns user_id (text), item_id (text), timestamp (whole seconds, or any whole number that
            grows with time) and rating (float32 or null), sorted by user and time. Interactions of a user at the same
            time are in the order of the source.
        items: The columns item_id, title and further texts; one row per item, sorted by item_id. Every title is
            non-empty, and every item of `interactions` has a row.
        users: The column user_id and further columns, or None.
        info: Contents of `dataset.json`: name, source, licence, counts, filters, fingerprint.
        folder: Path of the folder that the dataset was loaded from or saved to, or None.

    Examples:
        >>> from lorarec import Dataset, load_sample
        >>> films = load_sample("action")
        >>> films.info["counts"]
        {'users': 604, 'items': 1535, 'interactions': 46567}
        >>> films.titles["1210"]
        'Star Wars: Episode VI - Return of the Jedi (1983)'
    """

    name: str
    interactions: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame | None = None
    info: JsonObject = field(default_factory=dict)
    folder: Path | None = None

    @classmethod
    def from_frames(
        cls,
        name: str,
        interactions: pl.DataFrame,
        items: pl.DataFrame,
        users: pl.DataFrame | None = None,
        info: JsonObject | None = None,
    ) -> Self:
        """Make a dataset from frames that have the column names and types of a dataset already.

        Nothing is cleaned; `from_polars` and `from_pandas` do that for data in other columns and types.

        Args:
            name: A short name.
            interactions: The columns user_id, item_id, timestamp (whole numbers) and, if known, rating.
            items: The columns item_id, title and further texts.
            users: The column user_id and further columns; users without interactions are dropped.
            info: Entries of `dataset.json` that are known already: source, licence, filters.

        Raises:
            LorarecError: A column is missing, a value is null, a title is empty, an item is unknown, or an item or a
                user has several rows.
        """
        interactions, items, users = canonical_tables(interactions, items, users, name)
        if users is not None:
            users = users.join(interactions.select(USER).unique(), on=USER, how="semi").sort(USER)
        counts = {"users": interactions[USER].n_unique(), "items": items.height, "interactions": interactions.height}
        known = {"source": None, "licence": None, "filters": [], **(info or {})}
        known |= {"name": name, "counts": counts, "fingerprint": content_hash(interactions, items)}
        return cls(name, interactions, items, users, known)

    @classmethod
    def from_raw_log(
        cls,
        raw_log: RawLog,
        *,
        name: str | None = None,
        keep_untitled: bool = False,
        keep_unseen: bool = False,
        without: Sequence["Dataset"] = (),
        by: Sequence[str] = ("items",),
        k_core: int = 0,
    ) -> "Dataset":
        """Make a dataset from a raw log; what is dropped is counted in `info["import"]`.

        Args:
            raw_log: The raw log.
            name: A name for the dataset instead of that of the source.
            keep_untitled: Name items without a title by their id instead of dropping them with their interactions.
            keep_unseen: Keep titled items that nobody interacted with (until a k-core drops them).
            without: Datasets whose users, items, interactions or titles are removed (see `remove_overlap`).
            by: Parts that are compared with these datasets: any of "users", "items", "interactions" and "titles".
            k_core: Minimum number of interactions of a user and of an item, applied last; 0 or 1 filters nothing.

        Raises:
            LorarecError: Nothing is left.
        """
        name = name or raw_log.name
        rows, items, report = clean_tables(raw_log, name, keep_untitled, keep_unseen)
        info = {"source": raw_log.origin, "licence": raw_log.licence}
        dataset: Dataset = cls.from_frames(name, rows, items, raw_log.users, info)
        for other, part in product(without, by):
            dataset = remove_overlap(dataset, other, part)
        if k_core > 1:
            dataset = core_of(dataset, k_core)
        lengths = dataset.interactions.group_by(USER).len()["len"]
        report["users_below_three_interactions"] = int((lengths < 3).sum())
        return replace(dataset, info={**dataset.info, "import": report})

    @classmethod
    def from_polars(
        cls,
        log: pl.DataFrame | pl.LazyFrame | Table,
        items: pl.DataFrame | pl.LazyFrame | Table | None = None,
        *,
        user: str = USER,
        item: str = ITEM,
        time: str = TIME,
        title: str = TITLE,
        rating: str | None = None,
        items_id: str | None = None,
        name: str = "dataset",
        licence: str | None = None,
        time_format: str | None = None,
        bad_times: BadTimes = "refuse",
        order: Order = "time",
        decimal: Decimal | None = None,
        ids: Ids | None = None,
        keep_untitled: bool = False,
        keep_unseen: bool = False,
        k_core: int = 0,
    ) -> "Dataset":
        """Make a Dataset from data frames of polars, with the checks and the cleaning of an import from files.

        Ids become text. Times may be dates, datetimes, text or numbers in any unit since 1970, and become whole
        seconds; those of one second stay in their order. HTML is removed from titles. Exact duplicates, and items
        without a title, are dropped and counted in `info["import"]`.

        Args:
            log: The interactions, one a row, in columns of any order and name; further columns are ignored.
            items: The items with their titles; further columns are stored as text. Without it the titles are read from
                the log.
            user: The column of user ids.
            item: The column of item ids, in both frames.
            time: The column of times, or of positions (0, 1, 2).
            title: The column of titles, in `items` or else in the log.
            rating: The column of ratings; if None, a column `rating` is used if there is one.
            items_id: The column of item ids in `items`; if None, it is `item` as well.
            name: A name for the dataset.
            licence: The terms of use to record.
            time_format: The format of times that are text, as for `datetime.strptime`, such as "%d.%m.%Y".
            bad_times: Treatment of rows whose time is missing, unreadable or far from the others: "refuse" the
                log, "drop" and count the rows, or "keep" times that are only far from the others.
            order: "time", or "file" for a log without times that is in order.
            decimal: The decimal mark of ratings that are text: "point" or "comma".
            ids: "trimmed" strips white space around ids, "numbers" also reads 12.0 and 012 as 12, and "as-written"
                changes nothing. If None, nothing is changed and frames whose ids match only in one of these ways are
                refused.
            keep_untitled: Name items without a title by their id instead of dropping them.
            keep_unseen: Keep titled items of `items` that nobody interacted with.
            k_core: Drop users and items with fewer interactions than this, in rounds until none is left.

        Raises:
            LorarecError: A column is missing, a value cannot be read (the message names its column and row), or nothing
                is left.

        Examples:
            >>> import polars as pl
            >>> from lorarec import Dataset
            >>> log = pl.DataFrame({"customer": [1, 1], "sku": ["b7", "a3"], "at": ["2024-05-01 10:00", "2024-05-02"]})
            >>> names = pl.DataFrame({"sku": ["a3", "b7"], "name": ["Desk lamp", "Chair"]})
            >>> shop = Dataset.from_polars(log, names, user="customer", item="sku", time="at", title="name")
            >>> shop.interactions.select("user_id", "item_id", "timestamp").rows()
            [('1', 'b7', 1714557600), ('1', 'a3', 1714608000)]
            >>> shop.titles
            {'a3': 'Desk lamp', 'b7': 'Chair'}
        """
        refuse_unseen_without_items(keep_unseen, items)
        log_table, items_table = two_tables(polars_table, log, items)
        columns = Columns(user, item, time, rating, title, items_id)
        options = TableFormat(time_format=time_format, bad_times=bad_times, order=order, decimal=decimal, ids=ids)
        origin = log_table.kind
        raw = raw_log(log_table, items_table, columns, options, name=name, origin=origin, licence=licence)
        return cls.from_raw_log(raw, keep_untitled=keep_untitled, keep_unseen=keep_unseen, k_core=k_core)

    @classmethod
    def from_pandas(
        cls, log: "pd.DataFrame", items: "pd.DataFrame | None" = None, **options: Unpack[FrameOptions]
    ) -> "Dataset":
        """Make a Dataset from data frames of pandas.

        The options, checks and errors are those of `from_polars`. pyarrow is not needed.

        Examples:
            >>> import pandas as pd
            >>> from lorarec import Dataset
            >>> times = pd.to_datetime(["2024-05-01", "2024-05-02"])
            >>> log = pd.DataFrame({"customer": [1, 1], "sku": ["b7", "a3"], "at": times})
            >>> names = pd.DataFrame({"sku": ["a3", "b7"], "name": ["Desk lamp", "Chair"]})
            >>> shop = Dataset.from_pandas(log, names, user="customer", item="sku", time="at", title="name")
            >>> shop.interactions["timestamp"].to_list()
            [1714521600, 1714608000]
        """
        return cls.from_polars(*two_tables(pandas_table, log, items), **options)

    @classmethod
    def from_arrow(cls, log: Any, items: Any = None, **options: Unpack[FrameOptions]) -> "Dataset":
        """Make a Dataset from tables of Arrow.

        The options, checks and errors are those of `from_polars`. Besides tables and record batches of pyarrow, any
        object with an Arrow stream (`__arrow_c_stream__`) is read, such as a relation of DuckDB.

        Examples:
            >>> import pyarrow as pa
            >>> from lorarec import Dataset
            >>> log = pa.table({"user_id": [1, 1], "item_id": [7, 8], "timestamp": [0, 1], "title": ["Chair", "Lamp"]})
            >>> Dataset.from_arrow(log).titles
            {'7': 'Chair', '8': 'Lamp'}
        """
        return cls.from_polars(*two_tables(arrow_table, log, items), **options)

    @classmethod
    def from_hf(cls, log: Any, items: Any = None, **options: Unpack[FrameOptions]) -> "Dataset":
        """Make a Dataset from a `datasets.Dataset` or `datasets.DatasetDict` of Hugging Face.

        The options, checks and errors are those of `from_polars`. The splits of a DatasetDict are read one after the
        other, as one log; `lorarec.load_split` makes a split that suits recommendation. The labels of a ClassLabel are
        read by their names.

        Examples:
            >>> import datasets
            >>> from lorarec import Dataset
            >>> rows = {"user_id": [1, 1], "item_id": [7, 8], "timestamp": [0, 1], "title": ["Chair", "Lamp"]}
            >>> Dataset.from_hf(datasets.Dataset.from_dict(rows)).titles
            {'7': 'Chair', '8': 'Lamp'}
        """
        return cls.from_polars(*two_tables(hf_table, log, items), **options)

    def to_polars(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the interactions and the items as data frames of polars.

        Returns:
            The interactions with the columns user_id and item_id (text), timestamp (whole seconds since 1970, or
            positions) and rating (Float32, null if unknown), sorted by user and time; and the items with the columns
            item_id, title and further texts, one row for each. `Dataset.from_frames` makes the same dataset of them.

        Examples:
            >>> from lorarec import load_sample
            >>> log, items = load_sample("action").to_polars()
            >>> log.columns, items.columns
            (['user_id', 'item_id', 'timestamp', 'rating'], ['item_id', 'title', 'genres'])
        """
        return self.interactions, self.items

    def to_pandas(self) -> "tuple[pd.DataFrame, pd.DataFrame]":
        """Return the interactions and the items as data frames of pandas, in the columns of `to_polars`.

        A rating that is unknown is NaN. pyarrow is not needed.

        Examples:
            >>> from lorarec import load_sample
            >>> log, items = load_sample("action").to_pandas()
            >>> log.dtypes["timestamp"], len(items)
            (dtype('int64'), 1535)
        """
        return to_pandas(self.interactions), to_pandas(self.items)

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Load a dataset folder, or a dataset of the Hugging Face hub, which is downloaded into the hub's cache.

        Args:
            folder: Path of a dataset folder, or `hub:owner/name` or `hub:owner/name@revision`.

        Raises:
            LorarecError: A file is missing or unreadable, does not agree with dataset.json, or cannot be downloaded.

        Examples:
            >>> from tempfile import TemporaryDirectory
            >>> from lorarec import Dataset
            >>> from lorarec import load_sample
            >>> with TemporaryDirectory() as folder:
            ...     saved = load_sample("action").save(f"{folder}/action")
            ...     Dataset.load(f"{folder}/action").name
            'sample-action'
        """
        folder = dataset_folder(folder)
        if not folder.is_dir():
            raise LorarecError(f"{folder} is not a dataset folder: make one with `lorarec data import`")
        if not (folder / "dataset.json").is_file():
            raise LorarecError(f"{folder} has no dataset.json: make a dataset folder with `lorarec data import`")
        info = read_json(folder / "dataset.json")
        if not isinstance(info, dict) or not {"name", "counts", "fingerprint"} <= info.keys():
            raise LorarecError(f"{folder / 'dataset.json'} lacks name, counts or fingerprint: import the dataset again")
        has_users = (folder / "users.parquet").is_file()
        interactions, items, users = canonical_tables(
            read_parquet(folder / "interactions.parquet"),
            read_parquet(folder / "items.parquet"),
            read_parquet(folder / "users.parquet") if has_users else None,
            folder,
        )
        counts = {"items": items.height, "interactions": interactions.height}
        if counts != {key: info["counts"].get(key) for key in counts}:
            raise LorarecError(f"{folder}: dataset.json does not belong to these tables: import the dataset again")
        return cls(info["name"], interactions, items, users, info, folder)

    def save(self, out: str | Path, overwrite: bool = False, split: Split | None = None) -> Self:
        """Write a dataset folder, completely or not at all, and return the dataset with its folder.

        Args:
            out: Path of the folder to write.
            overwrite: Whether a dataset folder at that path is replaced.
            split: Split to store with the dataset, which `load_split` then returns.

        Raises:
            LorarecError: The folder exists already or cannot be written.
        """
        tables = {"interactions": self.interactions, "items": self.items, "users": self.users}
        with new_folder(out, overwrite, FolderKind.DATASET) as folder:
            for name, table in tables.items():
                if table is not None:
                    table.write_parquet(folder / f"{name}.parquet", compression="zstd")
            if split is not None:
                split.write(folder / "split")
            write_json(folder / "dataset.json", self.info)
        return replace(self, folder=Path(out))

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the content of interactions and items: 16 hexadecimal digits."""
        return str(self.info["fingerprint"])

    @cached_property
    def titles(self) -> dict[str, str]:
        """The title of each item by its id."""
        return dict(zip(self.items[ITEM].to_list(), self.items[TITLE].to_list(), strict=True))

    def history(self, user: str) -> list[str]:
        """Return the ids of the items that a user interacted with, in time order.

        Raises:
            LorarecError: The dataset has no such user.

        Examples:
            >>> from lorarec import load_sample
            >>> load_sample("action").history("1")[:3]
            ['1210', '2628', '2826']
        """
        history = self.interactions.filter(pl.col(USER) == user)[ITEM].to_list()
        if not history:
            known = ", ".join(self.interactions[USER].unique(maintain_order=True).head(3).to_list())
            raise LorarecError(f"user {user} is not in dataset {self.name}: its users are like {known}")
        return history

    def subset(self, interactions: pl.DataFrame, *, filter_note: str, name: str | None = None) -> Self:
        """Return a dataset of some of the interactions, without the items and users that have none.

        Args:
            interactions: Rows of `interactions`.
            filter_note: A note about the filter, which is added to `info["filters"]`.
            name: Another name for the dataset.
        """
        items = self.items.join(interactions.select(ITEM).unique(), on=ITEM, how="semi")
        info = {**self.info, "filters": [*self.info.get("filters", []), filter_note]}
        return self.from_frames(name or self.name, interactions, items, self.users, info)
