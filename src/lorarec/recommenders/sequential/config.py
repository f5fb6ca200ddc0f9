"""Options of next-item models and of the recommenders that use them."""

from dataclasses import dataclass
from typing import Literal

from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.options import document_options, option
from lorarec.recommenders.recommender_config import RecommenderConfig, fixed

#: Number of passes of an update over the histories that have changed.
UPDATE_EPOCHS = 8

EncoderName = Literal["sasrec", "esasrec", "gru4rec", "fmlp"]


@document_options
@dataclass(frozen=True)
class NextItemConfig(RecommenderConfig):
    """Options of a next-item model with an embedding per item."""

    encoder: EncoderName = option("sasrec", "Encoder of histories.")
    epochs: int = option(20, "Maximum number of passes over the histories.")
    patience: int = option(3, "Number of epochs without a better validation NDCG@10 after which training stops.")
    hidden_size: int = option(64, "Size of the item vectors.")
    num_layers: int = option(2, "Number of layers of the encoder.")
    max_history: int = option(50, "Number of items of a history that are read, the latest.")
    prefixes: int | None = option(
        None,
        "Number of next items learned per history and epoch; all if None or if the encoder is causal.",
    )
    negatives: int = option(512, "Number of items drawn as negatives of a batch; at most the whole catalogue.")
    in_batch_share: float = option(
        0.0, "Share of the negatives that are drawn from the next items of the batch; the others are drawn uniformly."
    )
    batch_size: int = option(128, "Number of histories per step.")
    learning_rate: float = option(2e-3, "Learning rate of Adam.")
    dropout: float = option(0.2, "Dropout probability in training.")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one = ("hidden_size", "num_layers", "max_history", "negatives", "batch_size", "patience", "prefixes")
        refuse_out_of_range(self, at_least_one, ("epochs",), ("learning_rate",), ("dropout",))
        if not 0 <= self.in_batch_share <= 1:
            raise LorarecError(f"option in_batch_share must be between 0 and 1, got {self.in_batch_share}")


@document_options
@dataclass(frozen=True)
class SASRecConfig(NextItemConfig):
    """Options of `SASRec`."""

    encoder: EncoderName = fixed("sasrec")
    prefixes: int | None = fixed(None)


@document_options
@dataclass(frozen=True)
class ESASRecConfig(NextItemConfig):
    """Options of `ESASRec`."""

    encoder: EncoderName = fixed("esasrec")
    in_batch_share: float = option(
        0.5, "Share of the negatives that are drawn from the next items of the batch; the others are drawn uniformly."
    )
    prefixes: int | None = fixed(None)


@document_options
@dataclass(frozen=True)
class GRU4RecConfig(NextItemConfig):
    """Options of `GRU4Rec`."""

    encoder: EncoderName = fixed("gru4rec")
    num_layers: int = option(1, "Number of recurrent layers.")
    prefixes: int | None = fixed(None)


@document_options
@dataclass(frozen=True)
class FMLPRecConfig(NextItemConfig):
    """Options of `FMLPRec`."""

    encoder: EncoderName = fixed("fmlp")
