"""Options of the fusion."""

from dataclasses import dataclass
from typing import Literal

from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.options import document_options, option
from lorarec.recommenders.recommender_config import RecommenderConfig

#: Panel of the command line's help.
FIT = "Fit"


@document_options
@dataclass(frozen=True)
class FusionConfig(RecommenderConfig):
    """Options of the learned last stage.

    Raises:
        LorarecError: If a value is of the wrong type or out of range.

    Examples:
        >>> from lorarec import FusionConfig
        >>> FusionConfig(new_item_prior=0.05).new_item_prior
        0.05
    """

    hidden_items: float = option(
        0.1,
        "Share of the known items that are hidden from all recommenders while the fusion is fitted, so that it learns "
        "what the scores of new items are worth.",
        FIT,
    )
    cases: int = option(3000, "Maximum number of validation cases on which the fusion is fitted.", FIT)
    new_targets: float = option(0.33, "Maximum share of these cases whose target item is a hidden one.", FIT)
    pool: int = option(
        100,
        "Number of candidates that an index proposes when the fusion for whole catalogues is fitted; 0 for none.",
        FIT,
    )
    hold_out_validation: bool = option(
        False,
        "Do not let the recommenders learn from the targets of the validation cases once the fusion is fitted, so that "
        "they can be compared with others that know the training part alone.",
        FIT,
    )
    new_item_prior: float | Literal["auto"] = option(
        "auto",
        "Probability that the target item is a new one. `auto` estimates it without labels from the cases that are "
        "ranked together if there are at least 100; for fewer cases, candidates of an index and whole catalogues it is "
        "the share of new items in the catalogue.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_out_of_range(self, ("cases",), ("pool",), ())
        if not 0 <= self.hidden_items < 1:
            raise LorarecError(f"option hidden_items must be at least 0 and below 1, got {self.hidden_items}")
        if not 0 <= self.new_targets <= 1:
            raise LorarecError(f"option new_targets must be between 0 and 1, got {self.new_targets}")
        if self.new_item_prior != "auto" and not 0 <= self.new_item_prior <= 1:
            raise LorarecError(f"option new_item_prior must be auto or between 0 and 1, got {self.new_item_prior}")
