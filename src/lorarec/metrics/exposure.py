"""Properties of recommended lists: how much of a catalogue they show, how evenly, and how little known it is."""

import numpy as np

from lorarec.errors import LorarecError


def coverage(exposure: np.ndarray) -> float:
    """Return the share of the items of a catalogue that at least one list shows.

    Args:
        exposure: Number of lists that show each item of the catalogue (items,).

    Raises:
        LorarecError: There are no items.

    Examples:
        >>> import numpy as np
        >>> from lorarec.metrics import coverage, gini_index
        >>> exposure = np.array([3, 1, 0, 0])
        >>> coverage(exposure), round(gini_index(exposure), 3)
        (0.5, 0.625)
    """
    return float(np.count_nonzero(_checked(exposure)) / len(exposure))


def gini_index(exposure: np.ndarray) -> float:
    """Return the Gini index of exposure: 0 if all items are shown equally often, near 1 if one item alone is shown.

    With the exposures x_1 <= ... <= x_n it is sum_i (2i - n - 1) x_i / (n sum_i x_i), as in Fleder and Hosanagar,
    Management Science 2009. Items that no list shows count with exposure 0.

    Args:
        exposure: Number of lists that show each item of the catalogue (items,), not all 0.

    Raises:
        LorarecError: There are no items, or no item is shown.
    """
    rising = np.sort(_checked(exposure))
    items, total = len(rising), rising.sum()
    if not total:
        raise LorarecError("no item is shown: a Gini index of exposure needs at least one")
    return float((2 * np.arange(1, items + 1) - items - 1) @ rising / (items * total))


def self_information(choosers: np.ndarray, users: int) -> np.ndarray:
    """Return the self-information of items in bits (items,): -log2 of the share of users who chose each.

    Its mean over recommended items is their novelty (Zhou et al., PNAS 2010). Items that nobody chose count as if one
    user had, as in RecTools' mean inverse user frequency, so they are as novel as the rarest known item.

    Args:
        choosers: Number of users who chose each item (items,).
        users: Number of users.

    Raises:
        LorarecError: There are no users.
    """
    if users < 1:
        raise LorarecError(f"novelty needs at least one user, got {users}")
    return np.log2(users) - np.log2(np.maximum(choosers, 1))


def _checked(exposure: np.ndarray) -> np.ndarray:
    if len(exposure) == 0:
        raise LorarecError("no items: properties of lists need a catalogue")
    return np.asarray(exposure, dtype=np.float64)
