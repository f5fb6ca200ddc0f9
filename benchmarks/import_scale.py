"""Time and peak memory of `lorarec data import table` over growing logs; both should grow with the rows.

    python benchmarks/import_scale.py [--rows 100000 1000000 10000000] [--form csv|jsonl] [--k-core 5]

Every size is imported in a process of its own; memory is the peak resident set of that process.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

IMPORT = """
import sys
from lorarec.data import Dataset
from lorarec.data.sources import read_table
log, items, out, k_core = sys.argv[1:]
Dataset.from_raw_log(read_table(log, items), k_core=int(k_core)).save(out)
"""
ROWS_AT_ONCE = 1_000_000


def main() -> None:
    """Print one line per size, and how time and memory per row compare with the size before."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--form", choices=["csv", "jsonl"], default="csv")
    parser.add_argument("--k-core", type=int, default=0)
    options = parser.parse_args()
    print("rows        seconds  peak MiB  us/row  us/row vs before  MiB above idle per million rows")
    with tempfile.TemporaryDirectory() as folder:
        idle = measure([sys.executable, "-c", "import lorarec.data.sources"])[1]
        before = None
        for rows in sorted(options.rows):
            log, items = write_log(Path(folder), rows, options.form)
            out = Path(folder) / f"dataset-{rows}"
            command = [sys.executable, "-c", IMPORT, str(log), str(items), str(out), str(options.k_core)]
            seconds, peak = measure(command)
            log.unlink()
            per_row = seconds / rows * 1e6
            ratio = f"{per_row / before:.2f}" if before else "-"
            above = (peak - idle) / (rows / 1e6)
            print(f"{rows:<11,} {seconds:>7.1f} {peak:>9.0f} {per_row:>7.2f} {ratio:>17} {above:>32.0f}", flush=True)
            before = per_row


def write_log(folder: Path, rows: int, form: str) -> tuple[Path, Path]:
    """A log of `rows` interactions of rows/10 users and a table of its items; ids look like Amazon's."""
    random = np.random.default_rng(rows)
    users, items = rows // 10, max(1000, rows // 100)
    log = folder / f"log-{rows}.{form}"
    with open(log, "wb") as stream:
        for start in range(0, rows, ROWS_AT_ONCE):
            count = min(ROWS_AT_ONCE, rows - start)
            block = pl.DataFrame(
                {
                    "user_id": random.integers(0, users, count),
                    "item_id": (items * random.random(count) ** 2).astype(np.int64),
                    "rating": random.integers(1, 6, count).astype(np.float32),
                    "timestamp": random.integers(1_300_000_000, 1_600_000_000, count),
                }
            ).with_columns(
                pl.format("A{}", pl.col("user_id").cast(pl.String).str.zfill(13)).alias("user_id"),
                pl.format("B{}", pl.col("item_id").cast(pl.String).str.zfill(9)).alias("item_id"),
            )
            if form == "csv":
                block.write_csv(stream, include_header=start == 0)
            else:
                block.write_ndjson(stream)
    names = pl.select(pl.format("B{}", pl.int_range(items).cast(pl.String).str.zfill(9))).to_series()
    catalogue = folder / f"items-{rows}.parquet"
    pl.DataFrame({"item_id": names, "title": "title of " + names}).write_parquet(catalogue)
    return log, catalogue


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds and peak MiB of one child: `wait4` tells its own usage, where getrusage tells the largest of all."""
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the import failed with status {status}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
