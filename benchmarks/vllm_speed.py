"""Ranking 30 candidates through vLLM against the torch engine: users per second of both in one run.

Every round ranks other users of the bundled sample, so that vLLM finds only what candidates of one user share in its
cache. The start of vLLM is not counted. Run it in an environment with vLLM (docs/howto/engines.md):

    python benchmarks/vllm_speed.py --users 32 --rounds 3
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from lorarec.backbone import Backbone
from lorarec.data import leave_one_out
from lorarec.data.sample import load_sample
from lorarec.ranking import Ranker, VllmEngine


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--users", type=int, default=32, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--readouts", nargs="+", default=["verdict", "likelihood"])
    arguments = parser.parse_args()
    data = load_sample()
    cases = leave_one_out(data, seed=0).test["warm"]
    backbone = Backbone.from_pretrained(arguments.backbone)
    with VllmEngine(backbone) as engine:
        for readout in arguments.readouts:
            rankers = [Ranker(backbone, readout=readout), Ranker(backbone, readout=readout, engine=engine)]
            rankers[1].score_examples(rankers[0].examples(cases.tail(2), data.titles))
            times = []
            for round_ in range(arguments.rounds):
                examples = rankers[0].examples(cases.slice(round_ * arguments.users, arguments.users), data.titles)
                times.append([seconds(lambda: ranker.score_examples(examples)) for ranker in rankers])  # noqa: B023
            speed = [arguments.users / statistics.median(column) for column in np.array(times).T]
            ratios = [torch / vllm for torch, vllm in times]
            print(
                f"{readout:10} torch {speed[0]:.2f} users/s, vLLM {speed[1]:.2f} users/s: "
                f"{statistics.median(ratios):.2f}x (from {min(ratios):.2f} to {max(ratios):.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
