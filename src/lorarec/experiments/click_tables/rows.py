"""The rows of RecLoRA's tables: those of the main table, and the points of the analyses."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lorarec.ctr import MODELS
from lorarec.personal import PersonalizationConfig

CTR_BERT, OWN, SHARED = "ctr-bert", "reclora", "rella"
LORA = "lora"
#: What is put before the seed in the name of a LoRA blended with its recommender; that row comes with the LoRA's.
BLENDED = "-blended"
#: What a LoRA of the main table changes of RecLoRA's options.
LORAS: dict[str, dict[str, Any]] = {
    "tallrec": {"num_meta_loras": 1, "retrieval": "recent"},
    SHARED: {"num_meta_loras": 1},
    OWN: {},
}
#: Rows of the main table that are done; blended ones come with theirs.
MAIN = (*MODELS, CTR_BERT, *LORAS)
#: The main table, in its order.
ORDER = (*MODELS, CTR_BERT, *(name + kind for name in LORAS for kind in ("", BLENDED)))
#: Analysis -> (the option that it changes, its values).
_VARIED: dict[str, tuple[str, Sequence[int]]] = {
    "size": ("num_meta_loras", (1, 2, 4, 8, 16)),
    "id-history": ("ctr_max_history", (10, 20, 40, 60)),
    "text-history": ("max_history", (5, 10, 15, 20)),
}
SAMPLES, LEFT_OUT = "samples", "left out"
ANALYSES = (*_VARIED, SAMPLES, LEFT_OUT)
_SMALLEST_SAMPLE = 512


@dataclass(frozen=True)
class ClickRow:
    """One model with one seed.

    Attributes:
        name: of its files.
        kind: a conventional recommender, `ctr-bert` or `lora`.
        changed: options of `personalize` that are not RecLoRA's defaults here.
        few: the conventional recommender sees the sample only.
    """

    name: str
    kind: str
    seed: int
    changed: dict[str, Any] = field(default_factory=dict)
    few: bool = False

    @property
    def blended_name(self) -> str:
        """Of the row that is this LoRA blended with its recommender."""
        before, dash, seed = self.name.rpartition("-seed")
        return f"{before}{BLENDED}{dash}{seed}" if dash else self.name + BLENDED


def main_row(kind: str, seed: int) -> ClickRow:
    """A row of the main table, one of `MAIN`."""
    name = f"{kind}-seed{seed}"
    return ClickRow(name, LORA, seed, LORAS[kind]) if kind in LORAS else ClickRow(name, kind, seed)


def analysed(analyses: Sequence[str], seed: int, default: PersonalizationConfig) -> dict[str, dict[str, ClickRow]]:
    """Analysis -> point -> its row; RecLoRA's own row is a point of each, and one meta-LoRA is ReLLa.

    Args:
        analyses: of `ANALYSES`.
        default: options of RecLoRA's own row.
    """
    own, shared = main_row(OWN, seed), main_row(SHARED, seed)
    smaller = [_SMALLEST_SAMPLE << step for step in range(20) if _SMALLEST_SAMPLE << step < default.samples]
    varied = _VARIED | {SAMPLES: ("samples", smaller)}
    found: dict[str, dict[str, ClickRow]] = {}
    for analysis in analyses:
        if analysis == LEFT_OUT:
            found[analysis] = {
                "nothing": own,
                "personal LoRA": shared,
                "retriever": ClickRow("no-retriever", LORA, seed, {"retrieval": "recent", "ctr_retrieval": "recent"}),
                "Few2Many": ClickRow("no-few2many", LORA, seed, few=True),
            }
            continue
        option, values = varied[analysis]
        usual = getattr(default, option)
        special = {usual: own} | ({1: shared} if option == "num_meta_loras" and usual != 1 else {})
        found[analysis] = {
            str(value): special.get(value, ClickRow(f"{analysis}-{value}", LORA, seed, {option: value}))
            for value in sorted({*values, usual})
        }
    return found
