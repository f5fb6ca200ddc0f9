"""Known items that are hidden from all scorers, so that the fusion sees what the scores of new items are worth."""

from dataclasses import replace

import numpy as np
import polars as pl

from lorarec.data import CANDIDATES, HISTORY, TARGET, Split, content_hash
from lorarec.errors import LorarecError


def hide_items(split: Split, share: float, seed: int) -> tuple[Split, pl.Series]:
    """Remove a share of the items with training interactions from the training and the validation part.

    The result has no test cases. Scorers that learn from it know the hidden items as little as real new ones.

    Args:
        split: Split of a dataset; its test cases are not read.
        share: Share of the items, drawn uniformly.
        seed: Seed of the draw.

    Returns:
        The split without the hidden items, and their ids.

    Raises:
        LorarecError: No training interactions are left.
    """
    known = split.train[HISTORY].explode().drop_nulls().unique().sort()
    count = round(share * len(known))
    drawn = np.random.default_rng(seed).permutation(len(known))[:count]
    hidden = known.gather(np.sort(drawn))
    train = split.train.with_columns(without(HISTORY, hidden)).filter(pl.col(HISTORY).list.len() > 0)
    if train.is_empty():
        raise LorarecError(f"no training interactions are left when a share of {share} of the items is hidden")
    valid = split.valid.filter(~pl.col(TARGET).is_in(hidden.implode()))
    valid = valid.with_columns(without(HISTORY, hidden), without(CANDIDATES, hidden))
    info = {**split.info, "settings": [], "fingerprint": content_hash(train, valid)}
    info["hidden_items"] = {"share": share, "seed": seed, "of": split.fingerprint}
    return replace(split, train=train, valid=valid, test={}, info=info), hidden


def without(column: str, items: pl.Series) -> pl.Expr:
    """Return an expression for a column of lists without the given items."""
    return pl.col(column).list.filter(~pl.element().is_in(items.implode()))


def fusion_cases(split: Split, hidden: pl.Series, count: int, new_share: float, seed: int) -> pl.DataFrame:
    """Draw validation cases on which the fusion is fitted; hidden items are removed from their histories alone.

    Args:
        split: Split of the dataset, with the hidden items.
        hidden: Ids of the hidden items.
        count: Maximum number of cases.
        new_share: Maximum share of the cases whose target is a hidden item. It is lower if there are fewer.
        seed: Seed of the draw.
    """
    is_hidden = pl.col(TARGET).is_in(hidden.implode())
    new, known = split.valid.filter(is_hidden), split.valid.filter(~is_hidden)
    new = new.sample(min(round(count * new_share), len(new)), seed=seed)
    known = known.sample(min(count - len(new), len(known)), seed=seed)
    return pl.concat([known, new]).with_columns(without(HISTORY, hidden))
