"""Recommenders that need no language model of their own, by the names that they have in recipes and tables."""

from collections.abc import Mapping
from typing import Any

from lorarec.errors import LorarecError
from lorarec.recommenders.baselines import BASELINES
from lorarec.recommenders.bpr_mf import BPRMF
from lorarec.recommenders.ease import EASE
from lorarec.recommenders.p5_recommender import P5
from lorarec.recommenders.recency import Recency
from lorarec.recommenders.recommender import Recommender
from lorarec.recommenders.sequential.sequential_recommenders import ESASRec, FMLPRec, GRU4Rec, SASRec
from lorarec.recommenders.sequential_rules import SequentialRules
from lorarec.recommenders.text_similarity import TextSimilarity
from lorarec.recommenders.transferable.recformer import RecFormer
from lorarec.recommenders.transferable.unisrec import UniSRec
from lorarec.recommenders.transferable.vqrec import VQRec

CONVENTIONAL: dict[str, type[Recommender[Any]]] = {
    "bpr-mf": BPRMF,
    "ease": EASE,
    "gru4rec": GRU4Rec,
    "sasrec": SASRec,
    "esasrec": ESASRec,
    "fmlp-rec": FMLPRec,
    "sequential-rules": SequentialRules,
    "recency": Recency,
    "unisrec": UniSRec,
    "vq-rec": VQRec,
    "text-similarity": TextSimilarity,
    "recformer": RecFormer,
    "p5": P5,
    **BASELINES,
}


def new_recommender(name: str, options: Mapping[str, object] | None = None) -> Recommender[Any]:
    """Return an unfitted conventional recommender by its name.

    Raises:
        LorarecError: The name or an option is unknown.
    """
    if name not in CONVENTIONAL:
        raise LorarecError(f"no recommender {name!r}: choose from {', '.join(CONVENTIONAL)}")
    return CONVENTIONAL[name].from_options(options or {})
