"""What transferable systems share: texts of items, pre-training on the general domains, fine-tuning on the target.

UniSRec and VQ-Rec read histories with the Transformer of our SASRec; their logits are cosines over a temperature (Hou
et al., KDD 2022, Section 2.2; Hou et al., WWW 2023, Section 2.3). The vectors that it reads have length 1, which
SASRec's have as well; the papers put a layer norm there.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import polars as pl
import torch
from torch import nn
from torch.nn.functional import normalize

from lorarec.backbone import mean_states
from lorarec.data import HISTORY, content_hash
from lorarec.errors import refuse_out_of_range
from lorarec.recommenders.cache import cached_tensors
from lorarec.recommenders.dot_product import DotProductScorer
from lorarec.recommenders.sequential.model import ItemEmbeddings, NextItemModel
from lorarec.recommenders.sequential.next_item import next_item_scorer
from lorarec.recommenders.sequential.sasrec import SASRec
from lorarec.recommenders.sequential.trainer import Loss, NextItemConfig, sampled_softmax, train_next_item
from lorarec.recommenders.training_data import TrainingData, places


@dataclass(frozen=True)
class PretrainConfig:
    """How a system is made that pre-trains on the general domains.

    Attributes:
        pretrain_epochs: passes over the histories of the general domains.
        pretrain_lr: learning rate of Adam in them.
        pretrain_seed: of pre-training; not that of the material, so that all seeds share what was pre-trained.
        epochs: at most so many passes over the target's histories; 0 leaves the model as it was pre-trained.
        patience: epochs without a better validation figure after which fine-tuning stops.
        lr: learning rate of Adam in fine-tuning.
        width: of the item vectors.
        depth: layers that read a history.
        longest: the latest items of a history that are read.
        batch: histories.
        dropout: in training.
        temperature: by which cosines are divided.

    Raises:
        LorarecError: a number is out of range.
    """

    pretrain_epochs: int = 20
    pretrain_lr: float = 1e-3
    pretrain_seed: int = 42
    epochs: int = 30
    patience: int = 3
    lr: float = 1e-3
    width: int = 64
    depth: int = 2
    longest: int = 50
    batch: int = 128
    dropout: float = 0.2
    temperature: float = 0.07

    #: Options that pre-training does not depend on.
    fine_tuning: ClassVar[tuple[str, ...]] = ("epochs", "patience", "lr")

    def __post_init__(self) -> None:
        at_least_one = ("patience", "width", "depth", "longest", "batch")
        not_negative = ("pretrain_epochs", "pretrain_seed", "epochs", "dropout")
        refuse_out_of_range(self, at_least_one, not_negative, ("pretrain_lr", "lr", "temperature"))


@dataclass(frozen=True)
class TransferConfig(PretrainConfig):
    """How a system is made whose histories our SASRec reads, besides `PretrainConfig`.

    Attributes:
        fixed: the Transformer keeps its pre-trained weights, and item vectors alone are tuned, as in the papers.
        negatives: of a batch at most: of its own items in pre-training, of the target's catalogue in fine-tuning.

    Raises:
        LorarecError: a number is out of range.
    """

    fixed: bool = True
    negatives: int = 512

    fine_tuning: ClassVar[tuple[str, ...]] = (*PretrainConfig.fine_tuning, "fixed")

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_out_of_range(self, ("negatives",), (), ())


class CosineSequenceEncoder(SASRec):
    """SASRec whose inner products with vectors of length 1 are cosines over a temperature."""

    def __init__(self, options: TransferConfig) -> None:
        super().__init__(options.width, options.longest, options.depth, options.dropout)
        self.temperature = options.temperature

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return normalize(super().forward(states), dim=-1) / self.temperature


def read_texts(material: TrainingData, titles: Sequence[str]) -> torch.Tensor:
    """(titles, hidden): the backbone's last hidden states, averaged over each title; read once with a folder."""
    backbone = material.backbone
    assert backbone is not None, "the system asks for it with Material.need"

    def read() -> dict[str, torch.Tensor]:
        return {"texts": torch.from_numpy(mean_states(backbone, titles, progress=material.progress))}

    of = {"backbone": backbone.fingerprint, "titles": content_hash(pl.DataFrame({"title": titles}))}
    return cached_tensors(material, "texts", of, read)["texts"]


def general_log(material: TrainingData) -> tuple[list[str], list[np.ndarray]]:
    """Titles of all items of the general domains, and their training histories as places among them."""
    titles: list[str] = []
    histories: list[np.ndarray] = []
    for dataset, split in material.general:
        row = {item: len(titles) + place for place, item in enumerate(dataset.titles)}
        titles += dataset.titles.values()
        histories += places(split.train[HISTORY], row)
    return titles, histories


def pretrain(
    items: ItemEmbeddings, histories: list[np.ndarray], options: TransferConfig, loss: Loss, bar: bool
) -> NextItemModel:
    """Item vectors and a fresh Transformer trained on the histories of all general domains, mixed in every batch."""
    steps = _steps(options, options.pretrain_epochs, options.pretrain_lr, options.pretrain_seed)
    return train_next_item(NextItemModel(items, CosineSequenceEncoder(options)), histories, steps, loss, progress=bar)


def batch_items(targets: torch.Tensor, at_most: int, generator: np.random.Generator) -> torch.Tensor:
    """The different items among a batch's targets, of all its domains; so many of them drawn where there are more."""
    found = targets.unique()
    return found[torch.from_numpy(generator.permutation(len(found))[:at_most])]


def pretrained(
    material: TrainingData, name: str, options: PretrainConfig, learn: Callable[[], nn.Module]
) -> dict[str, torch.Tensor]:
    """The weights that pre-training gives, the same for all that ask with the same data, backbone and options.

    Raises:
        LorarecError: no general domain, no backbone, or what is kept cannot be read.
    """
    material.need("general")
    material.need("backbone")
    of = {
        "backbone": material.backbone.fingerprint if material.backbone else None,
        "general": [[dataset.fingerprint, split.fingerprint] for dataset, split in material.general],
        "options": {key: value for key, value in asdict(options).items() if key not in options.fine_tuning},
    }
    return cached_tensors(material, name, of, lambda: learn().state_dict())


def fine_tune(material: TrainingData, model: NextItemModel, options: TransferConfig, about: str) -> DotProductScorer:
    """Tune a pre-trained model on the target's training histories and score all of the target's items.

    The softmax is over the catalogue, so an item that nobody chose is never pushed away for that.

    Args:
        model: its items are numbered as in `TrainingData.whole`.
        about: one line for reports.
    """

    def valid(model: NextItemModel) -> float:
        return material.figure(next_item_scorer(material.whole, model, ""))

    model.sequence.requires_grad_(not options.fixed)
    loss = sampled_softmax(len(material.catalogue), options.negatives)
    steps = _steps(options, options.epochs, options.lr, material.seed)
    train_next_item(model, material.histories, steps, loss, valid, material.progress)
    return next_item_scorer(material.whole, model, about)


def _steps(options: TransferConfig, epochs: int, lr: float, seed: int) -> NextItemConfig:
    shared = ("patience", "width", "depth", "longest", "negatives", "batch", "dropout")
    return NextItemConfig(epochs=epochs, lr=lr, seed=seed, **{name: getattr(options, name) for name in shared})
