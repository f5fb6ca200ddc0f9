"""The common interface of click-through models."""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Generic, TypeVar

import torch
from torch import nn

from lorarec.ctr.embeddings import EmbeddedBatch, FeatureEmbeddings
from lorarec.ctr.features import FeatureBatch, FeatureEncoder
from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.options import document_options, option


@document_options
@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of a click-through model; the last of `hidden_units` is the size of a representation.

    Raises:
        LorarecError: A number is out of range.
    """

    embedding_dim: int = option(16, "Size of every embedding.")
    hidden_units: tuple[int, ...] = option((128, 64), "Sizes of the final layers.")
    dropout: float = option(0.1, "Dropout probability after each of the final layers.")

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden_units", tuple(self.hidden_units))  # JSON has lists
        refuse_out_of_range(self, ("embedding_dim",), below_one=("dropout",))
        if not self.hidden_units or min(self.hidden_units) < 1:
            raise LorarecError(f"option hidden_units must be sizes of at least 1, got {self.hidden_units}")

    def refuse_indivisible(self, size: str, heads: str) -> None:
        """Refuse a size that the heads of an attention layer cannot share evenly.

        Args:
            size: Name of the option of the size.
            heads: Name of the option of the number of heads.

        Raises:
            LorarecError: The size is not a multiple of the number of heads.
        """
        given, number = getattr(self, size), getattr(self, heads)
        if given % number:
            raise LorarecError(f"option {size} must be a multiple of {heads}, {number}, got {given}")


Config = TypeVar("Config", bound=NetworkConfig)


class CTRNetwork(nn.Module, Generic[Config]):
    """Predict the probability of a click of a user on a target item, given the history.

    A subclass defines `hidden`: the last layer before the logit, which routers read.

    Args:
        encoder: Encoder that defines the fields.
        config: Sizes of the network, an instance of `config_class`.

    Attributes:
        config_class: Dataclass of the sizes.
    """

    config_class: ClassVar[type[NetworkConfig]] = NetworkConfig

    def __init__(self, encoder: FeatureEncoder, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embeddings = FeatureEmbeddings(encoder, config.embedding_dim)
        self.head = nn.Linear(config.hidden_units[-1], 1)

    def hidden(self, embedded: EmbeddedBatch) -> torch.Tensor:
        """Return the last hidden layer (events, hidden_units[-1])."""
        raise NotImplementedError

    def logits(self, embedded: EmbeddedBatch) -> torch.Tensor:
        """Return the log-odds of a click (events,)."""
        return self.head(self.hidden(embedded))[:, 0]

    def representation(self, batch: FeatureBatch) -> torch.Tensor:
        """Return the last hidden layer (events, hidden_units[-1])."""
        return self.hidden(self.embeddings(batch))

    def forward(self, batch: FeatureBatch) -> torch.Tensor:
        """Return the log-odds of a click (events,)."""
        return self.logits(self.embeddings(batch))

    def final_layers(self, input_size: int) -> nn.Sequential:
        """Return new final layers over an input of this size."""
        return feed_forward((input_size, *self.config.hidden_units), self.config.dropout)


def feed_forward(sizes: tuple[int, ...], dropout: float = 0.0) -> nn.Sequential:
    """Return linear layers with ReLU and dropout after each."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers)
