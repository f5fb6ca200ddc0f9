"""A real Ray cluster of two workers: the rows of one process, one per user, and none lost with a worker."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event

import polars as pl
import psutil
import pytest
from polars.testing import assert_frame_equal

pytest.importorskip("ray.data", reason="Ray is not installed: pip install 'lorarec[ray]'")

from lorarec.data import Dataset
from lorarec.errors import LorarecError
from lorarec.ranking.population import PopulationConfig, read_population
from lorarec.ranking.population_parts import recommend_to_folder
from lorarec.ranking.ray_executor import RayExecutor

on_the_cluster = pytest.mark.usefixtures("ray_cluster")


@on_the_cluster
def test_two_workers_give_what_one_process_gives(
    config: PopulationConfig, shop: Dataset, expected: pl.DataFrame, tmp_path: Path
) -> None:
    figures = recommend_to_folder(RayExecutor(config, 2), read_population(shop), tmp_path / "out", 40)
    assert figures == {"users": 161, "parts": 5, "parts_before": 0}
    assert_frame_equal(pl.read_parquet(tmp_path / "out" / "part-*.parquet"), expected, abs_tol=1e-5)


def _kill_a_busy_worker(stop: Event) -> str | None:
    """The title of the killed actor, one under this process; a busy one has the method's name in it."""
    while not stop.is_set():
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # it ended in between
                title = " ".join(process.cmdline())
                if title.startswith("ray::MapWorker") and "submit" in title:
                    process.kill()
                    return title
        time.sleep(0.005)
    return None


@on_the_cluster
def test_killed_worker_loses_no_user(
    config: PopulationConfig, shop: Dataset, expected: pl.DataFrame, tmp_path: Path
) -> None:
    stop = Event()
    with ThreadPoolExecutor() as pool:
        killed = pool.submit(_kill_a_busy_worker, stop)
        try:
            recommend_to_folder(RayExecutor(config, 2), read_population(shop), tmp_path / "out", 10)
        finally:
            stop.set()
    assert killed.result()
    found = pl.read_parquet(tmp_path / "out" / "part-*.parquet")
    assert found["user_id"].to_list() == read_population(shop)
    assert_frame_equal(found, expected, abs_tol=1e-5)
    assert len(list((tmp_path / "out").iterdir())) == 17 + 1


@on_the_cluster
def test_errors_of_a_worker_are_reported_in_one_line(config: PopulationConfig, tmp_path: Path) -> None:
    with pytest.raises(LorarecError, match=f"^adapter {tmp_path}/none does not exist: give a PEFT folder$"):
        RayExecutor(replace(config, adapter=tmp_path / "none")).identity()
    with pytest.raises(LorarecError, match="workers=1000: the cluster has room for"):
        RayExecutor(config, 1000)
