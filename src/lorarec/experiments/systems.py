"""Every system by its name in recipes and tables."""

from collections.abc import Callable

from lorarec.experiments.language_models import (
    general,
    mixture_entropy,
    mixture_grid,
    second_round,
    specific,
    tallrec,
    zero_shot,
)
from lorarec.recommenders import Scorer, bpr, fmlp, gru4rec, p5, recformer, sasrec, unisrec, vqrec

#: Learns from material and returns what scores candidate sets. Options are keyword arguments.
System = Callable[..., Scorer]

SYSTEMS: dict[str, System] = {
    "bpr-mf": bpr,
    "gru4rec": gru4rec,
    "sasrec": sasrec,
    "fmlp-rec": fmlp,
    "unisrec": unisrec,
    "vq-rec": vqrec,
    "zero-shot": zero_shot,
    "recformer": recformer,
    "p5": p5,
    "tallrec": tallrec,
    "general": general,
    "specific": specific,
    "second-round": second_round,
    "mixture-grid": mixture_grid,
    "mixture-entropy": mixture_entropy,
}

#: Systems that draw nothing, so that every seed would say the same.
SEEDLESS = frozenset({"zero-shot"})
