"""Every system by its name in recipes and tables."""

from collections.abc import Callable

from lorarec.evaluation.result import Scorer
from lorarec.systems.adapters import general, mixture_entropy, mixture_grid, second_round, specific, zero_shot
from lorarec.systems.bpr import bpr
from lorarec.systems.next_item import fmlp, gru4rec, sasrec

#: Learns from material and returns what scores candidate sets. Options are keyword arguments.
System = Callable[..., Scorer]

SYSTEMS: dict[str, System] = {
    "bpr-mf": bpr,
    "gru4rec": gru4rec,
    "sasrec": sasrec,
    "fmlp-rec": fmlp,
    "zero-shot": zero_shot,
    "general": general,
    "specific": specific,
    "second-round": second_round,
    "mixture-grid": mixture_grid,
    "mixture-entropy": mixture_entropy,
}
