"""The data of a fusion: what scorers learn from, and the validation cases that show what their scores are worth."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from lorarec.data import CANDIDATES, HISTORY, TARGET, USER, Split, content_hash
from lorarec.errors import LorarecError


@dataclass(frozen=True)
class FusionSplit:
    """Data on which a fusion is fitted.

    A share of the items is hidden from the scorers, which then know them as little as real new items.

    Attributes:
        split: Training and validation part that scorers learn from, without test cases.
        cases: Validation cases with hidden items among their targets and candidates, but not in their histories.
        hidden: Ids of the hidden items.
    """

    split: Split
    cases: pl.DataFrame
    hidden: pl.Series

    @property
    def hidden_targets(self) -> int:
        """Number of cases whose target is a hidden item."""
        return int(self.cases[TARGET].is_in(self.hidden.implode()).sum())


def divide_for_fusion(
    split: Split, hidden_items: float = 0.1, cases: int = 3000, new_targets: float = 0.33, seed: int = 42
) -> FusionSplit:
    """Draw hidden items and validation cases, and remove from the training part what scorers must not know.

    Args:
        split: Split of a dataset; its test cases are not read.
        hidden_items: Share of the items with training interactions that are hidden, drawn uniformly.
        cases: Maximum number of cases.
        new_targets: Maximum share of the cases whose target is hidden. It is lower if there are fewer. If too few cases
            have another target, there are fewer cases.
        seed: Seed of the draws.

    Raises:
        LorarecError: There are no validation cases, none of them is left, or no training interactions are.
    """
    if split.valid.is_empty():
        raise LorarecError("the split has no validation cases on which a fusion could be fitted: use another split")
    known = split.train[HISTORY].explode().drop_nulls().unique().sort()
    drawn = np.random.default_rng(seed).permutation(len(known))[: round(hidden_items * len(known))]
    hidden = known.gather(np.sort(drawn))
    is_hidden = pl.col(TARGET).is_in(hidden.implode())
    new, old = split.valid.filter(is_hidden), split.valid.filter(~is_hidden)
    most = round(min(cases, len(old) / (1 - new_targets) if new_targets < 1 else cases) * new_targets)
    new = new.sample(min(most, len(new)), seed=seed)
    old = old.sample(min(cases - len(new), len(old)), seed=seed)
    drawn_cases = pl.concat([old, new]).with_columns(_without(HISTORY, hidden))
    if drawn_cases.is_empty():
        raise LorarecError(
            f"no validation cases are left for a fusion: hide fewer items than {hidden_items}, or allow more new "
            f"targets than {new_targets}"
        )
    train = split.train.with_columns(_without(HISTORY, hidden)).filter(pl.col(HISTORY).list.len() > 0)
    if train.is_empty():
        raise LorarecError(
            f"no training interactions are left for a fusion: hide fewer items than {hidden_items}, or use more data"
        )
    valid = split.valid.filter(~is_hidden).with_columns(_without(HISTORY, hidden), _without(CANDIDATES, hidden))
    info = {**split.info, "settings": [], "fingerprint": content_hash(train, valid)}
    return FusionSplit(replace(split, train=train, valid=valid, test={}, info=info), drawn_cases, hidden)


def with_validation_targets(split: Split) -> Split:
    """Return a split whose training histories end with the validation targets of their users, without any cases.

    Users without a training history, such as those that a few-shot split leaves out, stay without one. Targets that
    occur in no training history are left out, so that the items with training interactions stay the same. Of a split by
    global time, the targets of a user are appended in time order.

    Args:
        split: Split of a dataset; its test cases are not read.

    Examples:
        >>> from lorarec import load_sample, load_split
        >>> split = load_split(load_sample("thriller"))
        >>> longer = with_validation_targets(split)
        >>> longer.train["history"][0].to_list() == [*split.train["history"][0], split.valid["target"][0]]
        True
    """
    known = split.train[HISTORY].explode().drop_nulls().unique()
    targets = split.valid.filter(pl.col(TARGET).is_in(known.implode())).group_by(USER, maintain_order=True).agg(TARGET)
    longer = split.train.join(targets, on=USER, how="left", maintain_order="left")
    train = longer.select(USER, pl.col(HISTORY).list.concat(pl.col(TARGET).fill_null([])))
    valid = split.valid.clear()
    info = {**split.info, "settings": [], "fingerprint": content_hash(train, valid)}
    return replace(split, train=train, valid=valid, test={}, info=info)


def _without(column: str, items: pl.Series) -> pl.Expr:
    """Return an expression for a column of lists without the given items."""
    return pl.col(column).list.filter(~pl.element().is_in(items.implode()))
