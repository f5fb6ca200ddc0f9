"""Common steps of transferable recommenders: options, general domains, and pre-training.

UniSRec and VQ-Rec encode histories with the Transformer of our SASRec; their logits are cosines divided by a
temperature (Hou et al., KDD 2022, section 2.2; Hou et al., WWW 2023, section 2.3). The Transformer reads vectors of
length 1, as in our SASRec, where the papers apply a layer norm.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize

from lorarec.data import HISTORY
from lorarec.errors import LorarecError, refuse_out_of_range
from lorarec.options import document_options, option
from lorarec.recommenders.cache import cached_tensors
from lorarec.recommenders.interactions import known_items
from lorarec.recommenders.recommender import Requirement
from lorarec.recommenders.recommender_config import RecommenderConfig
from lorarec.recommenders.sequential.config import NextItemConfig
from lorarec.recommenders.sequential.next_item_model import ItemEmbeddings, NextItemModel
from lorarec.recommenders.sequential.sasrec_encoder import SASRecEncoder
from lorarec.recommenders.sequential.trainer import Loss, train_next_item
from lorarec.recommenders.text_embeddings import text_source
from lorarec.recommenders.training_data import TrainingData


@document_options
@dataclass(frozen=True)
class PretrainConfig(RecommenderConfig):
    """Options of a recommender that is pre-trained on the general domains.

    Pre-training has a seed of its own, so that fits with other seeds share the pre-trained weights.
    """

    pretrain_epochs: int = option(
        20, "Number of passes over the histories of the general domains; 0 for no pre-training, which needs none."
    )
    pretrain_learning_rate: float = option(1e-3, "Learning rate of Adam in pre-training.")
    pretrain_seed: int = option(42, "Seed of pre-training.")
    epochs: int = option(30, "Maximum number of passes over the target's histories; 0 for no fine-tuning.")
    patience: int = option(3, "Number of epochs without a better validation NDCG@10 after which training stops.")
    learning_rate: float = option(1e-3, "Learning rate of Adam in fine-tuning.")
    hidden_size: int = option(64, "Size of the item vectors.")
    num_layers: int = option(2, "Number of layers of the encoder of histories.")
    max_history: int = option(50, "Number of items of a history that are read, the latest.")
    batch_size: int = option(128, "Number of histories per step.")
    dropout: float = option(0.2, "Dropout probability in training.")
    temperature: float = option(0.07, "Temperature that cosines are divided by.")

    #: Names of the options that pre-training does not depend on.
    fine_tuning: ClassVar[tuple[str, ...]] = ("epochs", "patience", "learning_rate")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one = ("patience", "hidden_size", "num_layers", "max_history", "batch_size")
        not_negative = ("pretrain_epochs", "pretrain_seed", "epochs")
        positive = ("pretrain_learning_rate", "learning_rate", "temperature")
        refuse_out_of_range(self, at_least_one, not_negative, positive, ("dropout",))


@document_options
@dataclass(frozen=True)
class TransferConfig(PretrainConfig):
    """Options of a recommender whose histories the Transformer of SASRec encodes."""

    text_encoder: str | None = option(
        None,
        "Sentence-transformers folder or hub id that embeds titles; lsa for latent semantic analysis of their words; "
        "None for the backbone's averaged states.",
    )
    freeze_encoder: bool = option(
        True, "Fine-tune the item vectors only, not the Transformer, as in the papers, if it was pre-trained."
    )
    negatives: int = option(
        512, "Maximum number of negatives: items of the batch in pre-training, of the catalogue in fine-tuning."
    )

    fine_tuning: ClassVar[tuple[str, ...]] = (*PretrainConfig.fine_tuning, "freeze_encoder")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_out_of_range(self, ("negatives",), (), ())


class CosineSequenceEncoder(SASRecEncoder):
    """SASRec's Transformer whose inner products with vectors of length 1 are cosines divided by a temperature."""

    def __init__(self, config: TransferConfig) -> None:
        super().__init__(config.hidden_size, config.max_history, config.num_layers, config.dropout)
        self.temperature = config.temperature

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """See `SequenceEncoder.forward`."""
        return normalize(super().forward(states), dim=-1) / self.temperature


def needed_domains(config: PretrainConfig) -> frozenset[Requirement]:
    """Return the requirement of general domains, if there is pre-training."""
    return frozenset({"general"}) if config.pretrain_epochs else frozenset()


def with_domains(data: TrainingData, config: PretrainConfig) -> TrainingData:
    """Return data with the domains of pre-training: the target alone, if there is no pre-training and no other domain.

    Means and standard deviations of texts, and the codes of VQ-Rec, are then those of the target's own titles.

    Raises:
        LorarecError: There is pre-training, and the data have no general domain.
    """
    if data.general:
        return data
    if config.pretrain_epochs:
        raise LorarecError(
            f"{data.dataset.name}: pre-training needs general domains: set general in TrainingData or the recipe, or "
            "pretrain_epochs=0"
        )
    return replace(data, general=[(data.dataset, data.split)])


def general_histories(data: TrainingData) -> tuple[list[str], list[np.ndarray]]:
    """Return the titles of all items of the general domains, and training histories as positions in these titles."""
    titles: list[str] = []
    histories: list[np.ndarray] = []
    for dataset, split in data.general:
        index = {item: len(titles) + position for position, item in enumerate(dataset.titles)}
        titles += dataset.titles.values()
        histories += known_items(split.train[HISTORY], index)
    return titles, histories


def pretrain(
    items: ItemEmbeddings, histories: list[np.ndarray], config: TransferConfig, loss: Loss, progress: bool
) -> NextItemModel:
    """Train item embeddings and a new Transformer on the histories of all general domains, mixed in every batch."""
    model = NextItemModel(items, CosineSequenceEncoder(config))
    steps = next_item_config(config, config.pretrain_epochs, config.pretrain_learning_rate)
    return train_next_item(model, histories, steps, loss, config.pretrain_seed, progress=progress)


def in_batch_negatives(targets: torch.Tensor, at_most: int, generator: np.random.Generator) -> torch.Tensor:
    """Return the different items among the targets of a batch; `at_most` of them, drawn, if there are more."""
    items = targets.unique()
    return items[torch.from_numpy(generator.permutation(len(items))[:at_most])]


def pretrained_weights(
    data: TrainingData, name: str, config: PretrainConfig, train: Callable[[], nn.Module]
) -> dict[str, torch.Tensor]:
    """Return pre-trained weights, which fits with the same general domains, embeddings of texts and options share.

    Raises:
        LorarecError: The data have neither backbone nor text encoder, or cached weights cannot be read.
    """
    options = {key: value for key, value in asdict(config).items() if key not in config.fine_tuning}
    key = {
        **text_source(data, options.pop("text_encoder", None)),
        "general": [[dataset.fingerprint, split.fingerprint] for dataset, split in data.general],
        "options": options,
    }
    return cached_tensors(data.cache_dir, name, key, lambda: train().state_dict())


def next_item_config(config: TransferConfig, epochs: int, learning_rate: float) -> NextItemConfig:
    """Return the options of a training of the next-item model."""
    return NextItemConfig(
        epochs=epochs,
        learning_rate=learning_rate,
        patience=config.patience,
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        max_history=config.max_history,
        negatives=config.negatives,
        batch_size=config.batch_size,
        dropout=config.dropout,
    )
