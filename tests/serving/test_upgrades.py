"""Databases of earlier versions, and what the service answers from them."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.serving.histories import Histories
from lorarec.serving.migrations import MIGRATIONS
from lorarec.serving.service import Service

#: The tables of 0.1, in the words of its SQLite.
SCHEMA_0 = """
CREATE TABLE lorarec_events (
    id INTEGER NOT NULL, user_id VARCHAR NOT NULL, item_id VARCHAR NOT NULL, timestamp BIGINT NOT NULL,
    event_id VARCHAR, PRIMARY KEY (id), UNIQUE (user_id, event_id)
);
CREATE INDEX lorarec_events_of_user ON lorarec_events (user_id, timestamp, id);
CREATE TABLE lorarec_source ("only" INTEGER NOT NULL, dataset VARCHAR NOT NULL, PRIMARY KEY ("only"));
"""
#: The tables that 0.2.0 had in addition.
SCHEMA_2 = """
CREATE TABLE lorarec_schema ("only" INTEGER NOT NULL, version INTEGER NOT NULL, PRIMARY KEY ("only"));
CREATE TABLE lorarec_probe (moment BIGINT NOT NULL);
INSERT INTO lorarec_schema VALUES (1, 2);
"""
LONG = "u" * 500


def write(path: Path, dataset: Dataset, schema: int) -> None:
    """Write a database with the interactions of a dataset and four events, as an earlier version did."""
    events = [("u01", "x29", 500, "click"), ("u01", "x28", 600, None), ("later", "x03", 700, None)]
    rows = [(user, item, time, None) for user, item, time, _ in dataset.interactions.rows()]
    with sqlite3.connect(path) as connection:
        connection.executescript(SCHEMA_0 + (SCHEMA_2 if schema == 2 else ""))
        connection.execute("INSERT INTO lorarec_source VALUES (1, ?)", (dataset.fingerprint,))
        connection.executemany(
            "INSERT INTO lorarec_events (user_id, item_id, timestamp, event_id) VALUES (?, ?, ?, ?)",
            [*rows, *events, (LONG, "x04", 800, LONG)],
        )
    connection.close()


@pytest.mark.parametrize("schema", [0, 2])
def test_a_database_of_an_earlier_version_is_served(
    make_service: Callable[..., Service], shop: Dataset, play: Any, tmp_path: Path, schema: int
) -> None:
    write(tmp_path / "histories.db", shop, schema)
    own = {user: shop.interactions.filter(user_id=user)["item_id"].to_list() for user in shop.interactions["user_id"]}
    expected = own | {"u01": [*own["u01"], "x29", "x28"], "later": ["x03"], LONG: ["x04"]}

    async def scenario(client: httpx2.AsyncClient) -> None:
        for user, items in expected.items():
            answer = await client.get("/v1/history", params={"user_id": user, "limit": 100})
            assert [item["item_id"] for item in answer.json()["items"]] == items[::-1]
        again = [("u01", "x29", 500, "click"), (LONG, "x04", 800, LONG), ("u01", "x01", 900, "new")]
        events = [dict(zip(("user_id", "item_id", "timestamp", "event_id"), event, strict=True)) for event in again]
        assert (await client.post("/v1/events", json={"events": events})).json() == {"stored": 1, "known": 2}
        ranked = await client.post("/v1/rank", json={"user_id": LONG, "candidates": ["x01"], "adapter": "general"})
        assert ranked.status_code == 200

    play(make_service(), scenario)
    with sqlite3.connect(tmp_path / "histories.db") as connection:
        assert connection.execute("SELECT count(*) FROM lorarec_events").fetchone() == (120 + 5,)
        assert connection.execute("SELECT version FROM lorarec_schema").fetchone() == (len(MIGRATIONS),)
        assert connection.execute("SELECT last_id FROM lorarec_source").fetchone() == (120,)
    connection.close()


def test_new_tables_equal_upgraded_ones(shop: Dataset, tmp_path: Path) -> None:
    write(tmp_path / "old.db", shop, 0)
    tables = {}
    for name in ("old", "new"):
        histories = Histories(f"sqlite:///{tmp_path / f'{name}.db'}")
        histories.fill(shop)
        histories.close()
        with sqlite3.connect(tmp_path / f"{name}.db") as connection:
            names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master ORDER BY name")]
            tables[name] = {each: connection.execute(f"PRAGMA table_info({each})").fetchall() for each in names}
        connection.close()
    assert tables["old"] == tables["new"]


def test_a_dataset_that_had_grown_before_the_upgrade_is_refused(shop: Dataset, tmp_path: Path) -> None:
    """Earlier versions did not record which interactions came from the dataset."""
    write(tmp_path / "h.db", shop, 2)
    other = Dataset.from_frames("other", shop.interactions[:-1], shop.items)
    for dataset, message in ((other, "start once with the former one"), (shop, None), (other, "lacks 1 of its")):
        histories = Histories(f"sqlite:///{tmp_path / 'h.db'}")
        if message is None:
            histories.fill(dataset)
        else:
            with pytest.raises(LorarecError, match=message):
                histories.fill(dataset)
        histories.close()
