"""Rows of RecLoRA's tables: those of the main table and those of the analyses."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lorarec.ctr import MODELS
from lorarec.io import JsonObject
from lorarec.personal import PersonalizationConfig

CTR_BERT, RECLORA, SHARED = "ctr-bert", "reclora", "rella"
LORA = "lora"
#: Suffix, before the seed, of the name of a LoRA blended with its recommender; that row is made with the LoRA's.
BLENDED = "-blended"
#: Options in which each LoRA of the main table differs from RecLoRA.
LORAS: dict[str, JsonObject] = {
    "tallrec": {"num_meta_loras": 1, "retrieval": "recent"},
    SHARED: {"num_meta_loras": 1},
    RECLORA: {},
}
#: Rows of the main table that are fitted; blended rows are made with theirs.
MAIN = (*MODELS, CTR_BERT, *LORAS)
#: Rows in the order of the main table.
ORDER = (*MODELS, CTR_BERT, *(name + kind for name in LORAS for kind in ("", BLENDED)))
#: Option that each analysis varies, and its values.
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
    """A row: one model with one seed.

    Attributes:
        name: Name of the row and of its files.
        kind: Kind of the model: a click-through model, `ctr-bert` or a LoRA.
        seed: Seed of the fit.
        changed: Options of `personalize` in which the row differs from RecLoRA.
        few: Whether the click-through model trains on the sample only.
    """

    name: str
    kind: str
    seed: int
    changed: JsonObject = field(default_factory=dict)
    few: bool = False

    @property
    def blended_name(self) -> str:
        """Name of the row that is this LoRA blended with its recommender."""
        before, dash, seed = self.name.rpartition("-seed")
        return f"{before}{BLENDED}{dash}{seed}" if dash else self.name + BLENDED


def main_row(kind: str, seed: int) -> ClickRow:
    """Return a row of the main table, one of `MAIN`."""
    name = f"{kind}-seed{seed}"
    return ClickRow(name, LORA, seed, LORAS[kind]) if kind in LORAS else ClickRow(name, kind, seed)


def analysis_rows(analyses: Sequence[str], seed: int, default: PersonalizationConfig) -> dict[str, dict[str, ClickRow]]:
    """Return rows by analysis and point; RecLoRA's own row is a point of each, and one meta-LoRA is ReLLa.

    Args:
        analyses: Names of `ANALYSES`.
        seed: Seed of all rows.
        default: Options of RecLoRA's own row.
    """
    own, shared = main_row(RECLORA, seed), main_row(SHARED, seed)
    smaller = [_SMALLEST_SAMPLE << step for step in range(20) if _SMALLEST_SAMPLE << step < default.samples]
    varied = _VARIED | {SAMPLES: ("samples", smaller)}
    rows: dict[str, dict[str, ClickRow]] = {}
    for analysis in analyses:
        if analysis == LEFT_OUT:
            rows[analysis] = {
                "nothing": own,
                "personal LoRA": shared,
                "retriever": ClickRow("no-retriever", LORA, seed, {"retrieval": "recent", "ctr_retrieval": "recent"}),
                "Few2Many": ClickRow("no-few2many", LORA, seed, few=True),
            }
            continue
        option, values = varied[analysis]
        default_value = getattr(default, option)
        special = {default_value: own} | ({1: shared} if option == "num_meta_loras" and default_value != 1 else {})
        rows[analysis] = {
            str(value): special.get(value, ClickRow(f"{analysis}-{value}", LORA, seed, {option: value}))
            for value in sorted({*values, default_value})
        }
    return rows
