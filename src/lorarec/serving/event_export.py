"""Events in the database of a service, for the evaluation of its answers."""

from collections.abc import Collection

import polars as pl
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from lorarec.data import ITEM, TIME, USER
from lorarec.errors import LorarecError
from lorarec.serving.database import as_url, open_reading_engine
from lorarec.serving.migrations import EVENTS, stored_id

_SCHEMA = {USER: pl.String, ITEM: pl.String, TIME: pl.Int64}


def events_since(db: str, users: Collection[str], first: int) -> pl.DataFrame:
    """Read the events of some users from a database of histories, which is not changed.

    Args:
        db: Database URL, or path of an SQLite file.
        users: Ids of the users.
        first: Time of the first event to read, in the unit of the dataset.

    Returns:
        Columns `user_id`, `item_id` and `timestamp`.

    Raises:
        LorarecError: If the database does not exist or cannot be read.
    """
    engine = open_reading_engine(as_url(db))
    # Long ids are stored as hashes.
    by_stored = {stored_id(user): user for user in users}
    query = select(EVENTS.c[USER], EVENTS.c[ITEM], EVENTS.c[TIME]).where(EVENTS.c[TIME] >= first)
    try:
        with engine.connect() as connection:
            found = connection.execution_options(yield_per=10_000).execute(query).tuples()
            rows = [(by_stored[user], item, time) for user, item, time in found if user in by_stored]
    except SQLAlchemyError as error:
        shown = engine.url.render_as_string(hide_password=True)
        raise LorarecError(f"database {shown} cannot be read: {str(error).splitlines()[0]}") from error
    finally:
        engine.dispose()
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row")
