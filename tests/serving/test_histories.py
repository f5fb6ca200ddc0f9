"""Histories in a database: filled once, appended to, each event once, exported and deleted."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import create_engine, text

from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.serving.histories import Event, EventConflict, Histories, StoredEvent
from lorarec.serving.migrations import stored_id

#: A user id as long as requests allow, whose characters take four bytes each and do not repeat.
LONG = "".join(chr(0x1F300 + number) for number in range(500))


def opened(tmp_path: Path, shop: Dataset) -> Histories:
    histories = Histories(f"sqlite:///{tmp_path / 'h.db'}")
    histories.fill(shop)
    return histories


def test_first_histories_are_the_datasets(tmp_path: Path, shop: Dataset) -> None:
    histories = opened(tmp_path, shop)
    for user in ("u00", "u19"):
        assert histories.history(user, 100) == shop.interactions.filter(user_id=user)["item_id"].to_list()
    assert histories.history("u00", 2) == shop.interactions.filter(user_id="u00")["item_id"].to_list()[-2:]
    assert histories.history("nobody", 5) == []


def test_a_second_start_keeps_what_was_stored(tmp_path: Path, shop: Dataset) -> None:
    first = opened(tmp_path, shop)
    first.append([Event("u00", "x29")])
    first.close()
    second = opened(tmp_path, shop)
    assert second.history("u00", 100)[-1] == "x29"
    assert len(second.history("u00", 100)) == 7


def test_events_stand_in_time_order(tmp_path: Path, shop: Dataset) -> None:
    histories = opened(tmp_path, shop)
    assert histories.append([Event("a", "x01", 50), Event("a", "x02", 40), Event("a", "x03", 50)]) == 3
    assert histories.history("a", 9) == ["x02", "x01", "x03"]


def test_events_without_a_time_are_the_latest_whatever_the_dataset_counts(tmp_path: Path, shop: Dataset) -> None:
    histories = opened(tmp_path, shop)
    histories.append([Event("a", "x01", 2**62), Event("a", "x02"), Event("a", "x03")])
    histories.append([Event("a", "x04")])
    assert histories.history("a", 9) == ["x01", "x02", "x03", "x04"]


def test_an_event_sent_twice_is_stored_once(tmp_path: Path, shop: Dataset) -> None:
    histories = opened(tmp_path, shop)
    click = Event("a", "x01", 1, "click")
    assert histories.append([click, click]) == 1
    assert histories.append([click, Event("a", "x02", 2, "other")]) == 1
    assert histories.append([Event("b", "x01", 1, "click")]) == 1
    assert histories.history("a", 9) == ["x01", "x02"]


@pytest.mark.parametrize(
    "other", [Event("a", "x02", None, "click"), Event("a", "x02", 1, "click"), Event("a", "x01", 2, "click")]
)
def test_another_event_with_the_same_id_is_refused(tmp_path: Path, shop: Dataset, other: Event) -> None:
    histories = opened(tmp_path, shop)
    click = Event("a", "x01", 1, "click")
    histories.append([click])
    with pytest.raises(EventConflict) as refused:
        histories.append([Event("a", "x05"), click, other])
    assert (refused.value.index, refused.value.stored) == (2, StoredEvent("x01", 1, "click"))
    with pytest.raises(EventConflict):  # both in one request
        histories.append([Event("b", "x01", 1, "click"), Event("b", other.item_id, other.timestamp, "click")])
    assert (histories.history("a", 9), histories.history("b", 9)) == (["x01"], [])
    assert histories.append([Event("a", "x01", None, "click")]) == 0  # a time that the client does not know
    assert histories.append([Event("c", other.item_id, other.timestamp, "click")]) == 1


def test_long_ids_are_stored_as_hashes(tmp_path: Path, shop: Dataset) -> None:
    histories = opened(tmp_path, shop)
    digest = f"sha256:{hashlib.sha256(LONG.encode()).hexdigest()}"
    users = [LONG, LONG[:-1], digest, "a" * 256, "a" * 257]
    assert len({stored_id(user) for user in users}) == len(users)
    for number, user in enumerate(users):
        event = Event(user, f"x{number:02}", number, LONG)
        assert [histories.append([event]), histories.append([event])] == [1, 0]
    for number, user in enumerate(users):
        assert histories.events(user) == [StoredEvent(f"x{number:02}", number, digest)]
        assert histories.user_history(user, 9).user == user
    assert histories.deleted() == set()


def test_events_sent_to_two_replicas_at_once_are_stored_once(tmp_path: Path, shop: Dataset) -> None:
    """Batches that overlap, in other orders, on connections of their own."""
    replicas = [opened(tmp_path, shop) for _ in range(2)]
    events = [Event(f"u{number % 3:02}", "x29", number, f"e{number}") for number in range(30)]
    start = threading.Barrier(8)

    def send(number: int) -> int:
        start.wait()
        own = events[number : number + 20] if number % 2 else events[::-1]
        return sum(replicas[number % 2].append(own[place : place + 10]) for place in range(0, len(own), 5))

    with ThreadPoolExecutor(8) as threads:
        stored = sum(threads.map(send, range(8)))
    assert stored == len(events)
    for user in ("u00", "u01", "u02"):
        of_user = [event.event_id for event in events if event.user_id == user]
        assert [event.event_id for event in replicas[0].events(user) if event.event_id] == of_user


def test_all_of_a_user_is_exported_and_deleted(tmp_path: Path, shop: Dataset) -> None:
    histories = opened(tmp_path, shop)
    histories.append([Event("u00", "x29", 99, "click"), Event("u01", "x29", 99, "click")])
    rows = shop.interactions.filter(user_id="u00").select("item_id", "timestamp").rows()
    assert histories.events("u00") == [*(StoredEvent(*row, None) for row in rows), StoredEvent("x29", 99, "click")]
    assert histories.delete("u00") == 7
    assert (histories.events("u00"), histories.delete("u00"), len(histories.events("u01"))) == ([], 0, 7)
    assert histories.deleted() == {"u00"}
    histories.append([Event("u00", "x01", 5, "click")])  # the user comes back as a new one
    assert histories.events("u00") == [StoredEvent("x01", 5, "click")]
    assert histories.delete("u00") == 1
    assert b"u00" not in (tmp_path / "h.db").read_bytes()


def test_sql_in_ids_is_text(tmp_path: Path, shop: Dataset) -> None:
    histories = opened(tmp_path, shop)
    user = "x'; DROP TABLE lorarec_events; --"
    assert histories.history(user, 9) == []
    histories.append([Event(user, "x01", 1, "' OR 1=1 --")])
    assert histories.history(user, 9) == ["x01"]
    assert histories.history("' OR '1'='1", 9) == []
    assert histories.history("%", 9) == []


def test_histories_of_another_dataset_are_refused(tmp_path: Path, shop: Dataset) -> None:
    opened(tmp_path, shop)
    other = Dataset.from_frames("other", pl.DataFrame(shop.interactions[:9]), shop.items)
    with pytest.raises(LorarecError, match=r"another dataset .* give another database \(option db\)"):
        opened(tmp_path, other)
    changed = shop.interactions.with_columns(timestamp=pl.col("timestamp") + (pl.col("timestamp") == 7))
    one_row = Dataset.from_frames("changed", changed, shop.items)
    with pytest.raises(
        LorarecError, match=r"lacks 1 of its interactions, such as that of user 'u01' with item .* at 7:"
    ):
        opened(tmp_path, one_row)


def grown(shop: Dataset, *rows: tuple[str, str, int]) -> Dataset:
    """Return the dataset with further interactions, and items where they are new."""
    added = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")
    interactions = pl.concat([shop.interactions.select("user_id", "item_id", "timestamp"), added])
    new = added.select("item_id", title="item_id").unique().filter(~pl.col("item_id").is_in(shop.items["item_id"]))
    return Dataset.from_frames("grown", interactions, pl.concat([shop.items, new]))


def test_a_dataset_that_has_grown_adds_its_interactions(tmp_path: Path, shop: Dataset) -> None:
    histories = opened(tmp_path, shop)
    first = histories.history("u00", 9)
    histories.append([Event("u00", "x29", 200, "click"), Event("u00", "x28", 300)])
    # One interaction that is an event already, one that is twice in the dataset, a new user and a new item.
    rows = [("u00", "x29", 200), ("u00", "x01", 250), ("u00", "x01", 250), ("u99", "new", 1), (LONG, "x01", 1)]
    larger = grown(shop, *rows)
    for _ in range(2):
        histories = opened(tmp_path, larger)
        assert histories.history("u00", 99) == [*first, "x29", "x01", "x01", "x28"]
        assert (histories.history("u99", 9), histories.history(LONG, 9)) == (["new"], ["x01"])
    assert opened(tmp_path, shop).history("u99", 9) == ["new"]  # a replica that still has the former dataset
    assert opened(tmp_path, grown(shop, *rows, ("u98", "x02", 2))).history("u98", 9) == ["x02"]


def test_a_deleted_user_does_not_come_back_with_the_dataset(tmp_path: Path, shop: Dataset) -> None:
    histories = opened(tmp_path, shop)
    histories.delete("u00")
    assert opened(tmp_path, grown(shop, ("u01", "x29", 500))).history("u01", 1) == ["x29"]
    assert histories.events("u00") == []
    without = shop.interactions.filter(pl.col("user_id") != "u00")
    assert opened(tmp_path, Dataset.from_frames("shop", without, shop.items)).events("u00") == []


def test_a_start_that_fails_leaves_nothing(tmp_path: Path, shop: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorarec.serving.dataset_rows._CHUNK", 7)
    url = f"sqlite:///{tmp_path / 'h.db'}"
    opened(tmp_path, shop).close()
    with create_engine(url).begin() as connection:
        connection.execute(text("DELETE FROM lorarec_source"))
        connection.execute(text("DELETE FROM lorarec_events"))
        # The hundredth row cannot be stored.
        stop = "BEFORE INSERT ON lorarec_events WHEN NEW.timestamp = 99 BEGIN SELECT RAISE(ABORT, 'stop'); END"
        connection.execute(text(f"CREATE TRIGGER stop {stop}"))
    with pytest.raises(LorarecError, match="cannot be used"):
        opened(tmp_path, shop)
    with create_engine(url).connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM lorarec_events")) == 0


@pytest.mark.parametrize("url", ["nonsense", "nodatabase://x", "postgresql+nodriver://x"])
def test_bad_urls_are_reported_in_one_line(url: str) -> None:
    with pytest.raises(LorarecError, match="option db is not a usable database URL"):
        Histories(url)


def test_unreachable_database_is_named_without_its_password(shop: Dataset) -> None:
    with pytest.raises(LorarecError, match="cannot be used") as error:
        Histories("postgresql://me:secret@127.0.0.1:9/none").fill(shop)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)
