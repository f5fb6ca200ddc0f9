"""Histories in a database: filled once, appended to, each event once."""

from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import create_engine, text

from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.serving.histories import Event, Histories


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


def test_a_start_that_fails_leaves_nothing(tmp_path: Path, shop: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorarec.serving.histories._CHUNK", 7)
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
