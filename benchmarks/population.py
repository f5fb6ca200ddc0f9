"""Time of recommending to a population: users per second in one process, and on Ray with one and two workers.

First what a user costs one thread, in CPU time: finding 100 candidates, making the prompt, scoring it; how many tokens
that is, how many bytes a row of ten items takes in Parquet, and how many an interaction takes in memory. Then the
engines in turn, each worker with one thread: users per second from when all workers have finished a part to the end,
so without their start, and the whole time with it. Ratios are of users per second against one process.

    python benchmarks/population.py --users 100
    python benchmarks/population.py data/beauty --adapter adapters/mixed --index index/beauty
"""

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

# Before torch and Ray are loaded, whose processes inherit it.
os.environ["OMP_NUM_THREADS"] = "1"

import polars as pl
import ray

from lorarec.backbone import Backbone
from lorarec.data import Dataset, histories_of
from lorarec.data.columns import CANDIDATES, HISTORY, USER
from lorarec.data.sample import load_sample
from lorarec.ranking import Ranker
from lorarec.ranking.population import LocalExecutor, PopulationConfig, PopulationScorer, read_population
from lorarec.ranking.population_parts import Executor, Part, split_into_parts
from lorarec.ranking.ray_executor import RayExecutor
from lorarec.recommenders import make_evidence
from lorarec.retrieval import Index


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", type=Path, help="the bundled sample without it")
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--part-size", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        folder = arguments.dataset
        if folder is None:
            folder = Path(home) / "sample"
            load_sample().save(folder)
        dataset = Dataset.load(folder)
        config = PopulationConfig(
            folder.resolve(),
            arguments.adapter and arguments.adapter.resolve(),
            arguments.index and arguments.index.resolve(),
        )
        everyone = read_population(dataset)
        users = everyone[:: max(1, len(everyone) // arguments.users)][: arguments.users]
        cost(config, dataset, users)
        parts = split_into_parts(users, arguments.part_size)
        single = speed("one process", LocalExecutor(config, dataset), parts, Path(home) / "torch", 1)
        for workers in (1, 2):
            ray.init(
                "local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL
            )
            found = speed(
                f"ray, workers: {workers}", RayExecutor(config, workers), parts, Path(home) / str(workers), workers
            )
            ray.shutdown()
            print(f"    {found / single:.2f}x of one process", flush=True)


def cost(config: PopulationConfig, dataset: Dataset, users: list[str]) -> None:
    """Print what a user costs."""
    index = Index.load(config.index, dataset) if config.index else Index.build(dataset)
    ranker = Ranker(Backbone.from_pretrained(config.backbone.id), config.adapter)
    evidence = make_evidence(ranker.prompt, dataset)
    cases = pl.DataFrame({USER: users}).join(histories_of(dataset.interactions), on=USER, maintain_order="left")
    marks = [time.process_time()]
    pools = [[item.item_id for item in index.propose(history, config.pool)] for history in cases[HISTORY].to_list()]
    marks.append(time.process_time())
    with_pools = cases.with_columns(pl.Series(CANDIDATES, pools))
    examples = ranker.examples(with_pools, dataset.titles, evidence)
    marks.append(time.process_time())
    ranker.score_cases(with_pools, dataset.titles, evidence)
    marks.append(time.process_time())
    propose, build, whole = ((end - begin) / len(users) for begin, end in pairwise(marks))
    print(
        f"{len(users)} users of {dataset.name}, {len(index.items):,} items: CPU time of a user: candidates "
        f"{1e3 * propose:.1f} ms, prompt {1e3 * build:.1f} ms, scoring {1e3 * (whole - build):.0f} ms; "
        f"{sum(example.length for example in examples) / len(users):.0f} tokens"
    )
    rows = PopulationScorer(config, dataset).recommend(users)
    few = rows.head(len(users) // 5)
    with tempfile.TemporaryDirectory() as folder:
        sizes = []
        for name, frame in {"all": rows, "few": few}.items():
            frame.write_parquet(Path(folder) / name, compression="zstd")
            sizes.append((Path(folder) / name).stat().st_size)
    print(
        f"a row: {(sizes[0] - sizes[1]) / (len(rows) - len(few)):.0f} bytes of Parquet; an interaction: "
        f"{dataset.interactions.estimated_size() / len(dataset.interactions):.0f} bytes in memory",
        flush=True,
    )


def speed(name: str, executor: Executor, parts: Sequence[Part], out: Path, workers: int) -> float:
    """Print and return users per second."""
    out.mkdir()
    begin = time.perf_counter()
    marks = [(time.perf_counter(), count) for count in executor.run(parts, out)]
    ready, end = marks[workers - 1][0], marks[-1][0]
    rate = sum(count for _, count in marks[workers:]) / (end - ready)
    print(f"{name}: {rate:.2f} users per second; {end - begin:.1f} s with the start of the workers", flush=True)
    return rate


if __name__ == "__main__":
    main()
