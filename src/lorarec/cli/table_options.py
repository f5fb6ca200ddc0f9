"""Options of the commands that read a table of interactions: names of columns, and the format of values and files."""

from dataclasses import dataclass

from lorarec.data import BadTimes, Columns, Decimal, Ids, Order, Quote, TableFormat
from lorarec.options import option

TEXT, VALUES = "Format of text files", "Times, ratings and ids"
COLUMNS, FORMAT = Columns(), TableFormat()
BAD_TIMES_HELP = (
    "Times that are missing, unreadable or far from the others: refuse the log, drop and count their rows, or keep "
    "those that are only far from the others."
)


@dataclass(frozen=True)
class TableOptions:
    """Names of the columns of a table, and its format."""

    user: str = option(COLUMNS.user, "Column of user ids.")
    item: str = option(COLUMNS.item, "Column of item ids, in both tables.")
    items_id: str | None = option(None, "Column of item ids in --items, if its name differs from --item.")
    time: str = option(
        COLUMNS.time,
        "Column of times: seconds, milliseconds, microseconds or nanoseconds since 1970, 20231114, ISO 8601 text (UTC "
        "if it names no zone), or positions (0, 1, 2).",
    )
    rating: str | None = option(None, "Column of ratings; by default `rating`, if there is one.")
    title: str = option(COLUMNS.title, "Column of item titles.")
    time_format: str | None = option(
        None, "Format of times in other text, as for strptime: %d.%m.%Y reads 14.11.2023.", VALUES
    )
    bad_times: BadTimes = option(FORMAT.bad_times, BAD_TIMES_HELP, VALUES)
    order: Order = option(
        FORMAT.order, "Order interactions by time or, for logs without times, by their place in the file.", VALUES
    )
    decimal: Decimal | None = option(
        None, "Decimal mark of ratings. Default: point, or comma if commas cannot separate thousands.", VALUES
    )
    ids: Ids | None = option(
        None,
        "Keep ids as written, strip white space around them (trimmed), or also read 12.0 and 012 as 12 (numbers). "
        "Default: as written, but tables are refused if some of their ids match only in the other ways.",
        VALUES,
    )
    separator: str | None = option(
        None,
        "The character, or several, between fields (\\t for a tab). Default: a comma for .csv, a tab for .tsv, and "
        "detected from the content of other text.",
        TEXT,
    )
    quote: Quote | None = option(
        None,
        "The quotes around fields. Default: none if fields are separated by tabs or several characters, otherwise "
        "double, but quoted fields that span lines which look like rows are refused; double allows them.",
        TEXT,
    )
    no_header: bool = option(False, "The text has no header; its columns are named column_1, column_2, ...", TEXT)

    @property
    def columns(self) -> Columns:
        """Names of the columns."""
        return Columns(self.user, self.item, self.time, self.rating, self.title, self.items_id)

    @property
    def format(self) -> TableFormat:
        """Format of the table and of its values."""
        return TableFormat(
            self.separator,
            not self.no_header,
            self.quote,
            self.time_format,
            self.bad_times,
            self.order,
            self.decimal,
            self.ids,
        )
