"""All recommenders by the names that they have in recipes and tables."""

from typing import Any

from lorarec.experiments.language_models import (
    EntropyMixture,
    GeneralAdapter,
    GridMixture,
    SecondRound,
    SpecificAdapter,
    TALLRec,
    ZeroShot,
)
from lorarec.recommenders import (
    BASELINES,
    BPRMF,
    P5,
    FMLPRec,
    GRU4Rec,
    RecFormer,
    Recommender,
    SASRec,
    TextSimilarity,
    UniSRec,
    VQRec,
)

RECOMMENDERS: dict[str, type[Recommender[Any]]] = {
    "bpr-mf": BPRMF,
    "gru4rec": GRU4Rec,
    "sasrec": SASRec,
    "fmlp-rec": FMLPRec,
    "unisrec": UniSRec,
    "vq-rec": VQRec,
    "text-similarity": TextSimilarity,
    "zero-shot": ZeroShot,
    "recformer": RecFormer,
    "p5": P5,
    "tallrec": TALLRec,
    "general": GeneralAdapter,
    "specific": SpecificAdapter,
    "second-round": SecondRound,
    "mixture-grid": GridMixture,
    "mixture-entropy": EntropyMixture,
    **BASELINES,
}
