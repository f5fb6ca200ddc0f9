"""SASRec, GRU4Rec and FMLP-Rec: what follows the history, from item ids alone.

Sources: Kang and McAuley, ICDM 2018; Hidasi et al., ICLR 2016; Zhou et al., WWW 2022. All three learn by the softmax
over the next item and items drawn uniformly, in place of their papers' losses (cross-entropy with one negative, TOP1
and BPR, BPR), which makes them stronger.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import torch

from lorarec.data import HISTORY
from lorarec.recommenders.dot_product import DotProductScorer
from lorarec.recommenders.options import takes
from lorarec.recommenders.sequential.model import NextItemModel
from lorarec.recommenders.sequential.trainer import NextItemConfig, fit_next_item
from lorarec.recommenders.training_data import TrainingData, places


@takes(NextItemConfig, "sequence", "prefixes")
def sasrec(material: TrainingData, **options: Any) -> DotProductScorer:
    """SASRec on item ids; options of `NextItemConfig`."""
    return _fit(material, NextItemConfig(sequence="sasrec", seed=material.seed, **options))


@takes(NextItemConfig, "sequence", "prefixes")
def gru4rec(material: TrainingData, **options: Any) -> DotProductScorer:
    """GRU4Rec on item ids; options of `NextItemConfig`."""
    return _fit(material, NextItemConfig(sequence="gru4rec", seed=material.seed, **{"depth": 1, **options}))


@takes(NextItemConfig, "sequence")
def fmlp(material: TrainingData, **options: Any) -> DotProductScorer:
    """FMLP-Rec on item ids; options of `NextItemConfig`."""
    return _fit(material, NextItemConfig(sequence="fmlp", seed=material.seed, **options))


def _fit(material: TrainingData, options: NextItemConfig) -> DotProductScorer:
    def valid(model: NextItemModel) -> float:
        return material.figure(next_item_scorer(material.row, model, ""))

    items = len(material.catalogue)
    model = fit_next_item(material.histories, items, options, valid, material.progress)
    return next_item_scorer(material.row, model, f"{options.sequence} on item ids, width {options.width}")


def next_item_scorer(row: dict[str, int], model: NextItemModel, about: str) -> DotProductScorer:
    """Scores of a trained model; histories of which it knows no item score all items alike.

    Args:
        row: item id -> its number in the model.
    """

    return history_scorer(row, model.items.all(), model.queries, about)


def history_scorer(
    row: dict[str, int],
    vectors: torch.Tensor,
    read: Callable[[list[np.ndarray]], torch.Tensor],
    about: str,
) -> DotProductScorer:
    """Scores by what is read in a history; histories of which no item is known score all items alike.

    Args:
        row: item id -> its place among the vectors.
        vectors: (items, width).
        read: from histories of one place or more to (histories, width).
    """

    def queries(cases: pl.DataFrame) -> torch.Tensor:
        histories = places(cases[HISTORY], row)
        found = torch.zeros(len(histories), vectors.shape[1])
        some = [place for place, history in enumerate(histories) if len(history)]
        if some:
            found[some] = read([histories[place] for place in some])
        return found

    return DotProductScorer(row, vectors, queries, about)
