"""Interactions and item texts: the Dataset folder, its sources, filters, splits and candidate sets."""

from lorarec.data.dataset import Dataset
from lorarec.data.evidence import Evidence
from lorarec.data.filters import k_core, remove_overlap
from lorarec.data.protocols import histories_of
from lorarec.data.splits import Split, draw_split, few_shot, global_time, leave_one_out, load_split

__all__ = [
    "Dataset",
    "Evidence",
    "Split",
    "draw_split",
    "few_shot",
    "global_time",
    "histories_of",
    "k_core",
    "leave_one_out",
    "load_split",
    "remove_overlap",
]
