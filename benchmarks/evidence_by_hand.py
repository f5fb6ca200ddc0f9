"""Evaluate a conditional logit of title similarity and co-occurrence words, without a language model.

    python benchmarks/evidence_by_hand.py TARGET --general DOMAIN DOMAIN [--setting warm] [--limit 1000]

The weights are fitted on validation users of the general domains, and test users of TARGET are ranked with them. That
is a fair comparison with a general adapter, which learns to read the same words in the same domains. The rows `titles`
and `evidence` use one of the two features alone.
"""

import argparse
from collections.abc import Callable

import numpy as np
import polars as pl
import torch
from rich.console import Console

from lorarec.data import Cooccurrence, Dataset, Split, load_split
from lorarec.data.columns import CANDIDATES, HISTORY, USER
from lorarec.data.cooccurrence import LEVELS, NEW
from lorarec.evaluation import evaluate, evaluation_table
from lorarec.prompts import true_places
from lorarec.recommenders import SimilarityConfig, TfIdf, TrainingData

WORDS = (*LEVELS.values(), NEW, *(f"{NEW}, {word}" for word in LEVELS.values()))
MAX_HISTORY, HIDDEN = 10, 0.1  # as in training
PARTS = {"by hand: titles": slice(0, 1), "by hand: evidence": slice(1, None), "by hand: both": slice(None)}


def features(dataset: Dataset, split: Split, hidden: float = 0.0) -> Callable[[pl.DataFrame], torch.Tensor]:
    """Return a function that makes features (cases, candidates, 1 + words) of cases with equally many candidates.

    Args:
        hidden: Share of the candidates that are called new.
    """
    rng = np.random.default_rng(0)
    titles = TfIdf(SimilarityConfig(max_history=MAX_HISTORY)).fit(TrainingData(dataset, split))
    evidence = Cooccurrence(split.train, dataset.titles)

    def read(cases: pl.DataFrame) -> torch.Tensor:
        rows = cases.select(USER, HISTORY, CANDIDATES).iter_rows()
        hints = np.array(
            [
                evidence.hints(history[-MAX_HISTORY:], items, user, (rng.random(len(items)) < hidden).tolist())
                for user, history, items in rows
            ]
        )
        words = [hints == word for word in WORDS]
        return torch.tensor(np.stack([np.stack(titles.score(cases)), *words], axis=-1), dtype=torch.float64)

    return read


class LogitScorer:
    """Scores candidates by a weighted sum of features."""

    def __init__(self, read: Callable[[pl.DataFrame], torch.Tensor], part: slice, weights: torch.Tensor) -> None:
        self.read, self.part, self.weights = read, part, weights

    def score(self, cases: pl.DataFrame) -> list[np.ndarray]:
        """Return the scores of the candidates of every case."""
        return list((self.read(cases)[..., self.part] @ self.weights).numpy())


def fit(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the weights that maximize the likelihood of the target under a softmax over the candidates."""
    weights = torch.zeros(inputs.shape[-1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(inputs @ weights, targets) + 1e-4 * weights.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weights.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target")
    parser.add_argument("--general", nargs="+", required=True)
    parser.add_argument("--setting", choices=("warm", "new-item"))
    parser.add_argument("--users", type=int, default=2000, help="validation users of each general domain")
    parser.add_argument("--limit", type=int, default=1000, help="test users")
    arguments = parser.parse_args()
    inputs, targets = [], []
    for folder in arguments.general:
        dataset = Dataset.load(folder)
        split = load_split(dataset)
        cases = split.valid.sample(min(arguments.users, len(split.valid)), seed=0)
        inputs.append(features(dataset, split, HIDDEN)(cases))
        targets += true_places(cases)
    general = torch.cat(inputs)
    target = Dataset.load(arguments.target)
    split = load_split(target)
    read = features(target, split)
    rows = {}
    for name, part in PARTS.items():
        rows[name] = LogitScorer(read, part, fit(general[..., part], torch.tensor(targets)))
    settings = [arguments.setting] if arguments.setting else None
    evaluation = evaluate(target, rows, split=split, settings=settings, limit=arguments.limit, progress=True)
    for setting in evaluation.settings:
        Console().print(evaluation_table(evaluation, setting))


if __name__ == "__main__":
    main()
