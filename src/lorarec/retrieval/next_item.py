"""SASRec (Kang and McAuley, ICDM 2018): causal self-attention over a history, trained to name the next item.

It reads any history, also of a user it has never met or one that has grown since it was trained.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import track
from torch import nn

from lorarec.errors import refuse_out_of_range

#: Batches are made of histories of about the same length; of so many batches the histories are sorted by length.
_SORTED_TOGETHER = 50
_PADDING = -1


@dataclass(frozen=True)
class NextItemOptions:
    """How a next-item model is made.

    Attributes:
        epochs: passes over the histories; without any there is no model.
        width: of the item vectors and of attention.
        depth: attention layers.
        longest: the latest items of a history that are read.
        negatives: items drawn uniformly for each batch, beside which a next item is to be named; the whole catalogue
            where it is not larger.
        batch: histories.
        lr: learning rate of Adam.
        dropout: in training.
        seed: of weights, batches and negatives.

    Raises:
        LorarecError: a number is out of range.
    """

    epochs: int = 20
    width: int = 64
    depth: int = 2
    longest: int = 50
    negatives: int = 512
    batch: int = 128
    lr: float = 2e-3
    dropout: float = 0.2
    seed: int = 42

    def __post_init__(self) -> None:
        refuse_out_of_range(
            self, ("width", "depth", "longest", "negatives", "batch"), ("epochs", "dropout", "seed"), ("lr",)
        )


class NextItem(nn.Module):
    """From a history to a vector whose inner products with the item vectors are the logits of the next item.

    Args:
        items: how many there are.
        width, depth, longest, dropout: as in `NextItemOptions`.
    """

    def __init__(self, items: int, width: int, depth: int, longest: int, dropout: float = 0.0) -> None:
        super().__init__()
        # Sparse gradients: a step costs as much for a million items as for a thousand.
        self.items = nn.Embedding(items, width, sparse=True)
        self.places = nn.Embedding(longest, width)
        nn.init.normal_(self.items.weight, std=width**-0.5)
        nn.init.normal_(self.places.weight, std=0.02)
        self.dropout = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(width, 1, 2 * width, dropout, batch_first=True, norm_first=True)
        self.attention = nn.TransformerEncoder(layer, depth, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, histories: torch.Tensor) -> torch.Tensor:
        """(batch, length) item numbers, oldest first, to (batch, length, width): what comes after each place."""
        length = histories.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).triu(1)
        return self.attention(self.dropout(self.items(histories) + self.places.weight[:length]), mask=causal)

    @torch.no_grad()
    def query(self, history: np.ndarray) -> np.ndarray:
        """(width,) float32: what comes after a history of one item or more; the latest places are read."""
        latest = torch.from_numpy(history[-self.places.num_embeddings :])
        return self(latest[None])[0, -1].numpy()


def fit_next_item(
    histories: list[np.ndarray], items: int, options: NextItemOptions, progress: bool = False
) -> NextItem:
    """Train on histories of item numbers in time order, with the softmax over the next item and drawn ones.

    Long histories are read in pieces, so that no interaction is lost; a history of one item says nothing.
    """
    generator = np.random.default_rng(options.seed)
    torch.manual_seed(options.seed)
    model = NextItem(items, options.width, options.depth, options.longest, options.dropout)
    rest = [value for name, value in model.named_parameters() if name != "items.weight"]
    optimizers = [torch.optim.SparseAdam([model.items.weight], options.lr), torch.optim.Adam(rest, options.lr)]
    pieces = _pieces(histories, options.longest)
    for _ in track(range(options.epochs), "Learning the next item", disable=not progress, transient=True):
        for batch in _batches(pieces, options.batch, generator):
            inputs, targets = batch[:, :-1].clamp(min=0), batch[:, 1:]
            there = targets != _PADDING
            loss = _loss(model, model(inputs)[there], targets[there], _negatives(items, options.negatives, generator))
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    return model.eval()


def _loss(model: NextItem, states: torch.Tensor, targets: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each target (n,) beside the negatives (m,), given states (n, width)."""
    true = (states * model.items(targets)).sum(1)
    others = states @ model.items(negatives).T
    others = others.masked_fill(targets[:, None] == negatives, -torch.inf)
    return (torch.logaddexp(true, others.logsumexp(1)) - true).mean()


def _negatives(items: int, count: int, generator: np.random.Generator) -> torch.Tensor:
    drawn = np.arange(items) if items <= count else generator.integers(0, items, count)
    return torch.from_numpy(drawn)


def _pieces(histories: list[np.ndarray], longest: int) -> list[np.ndarray]:
    """Pieces of two to longest + 1 items, cut from the end; the first item of a piece is the last of that before."""
    return [
        history[max(0, end - longest - 1) : end] for history in histories for end in range(len(history), 1, -longest)
    ]


def _batches(pieces: list[np.ndarray], size: int, generator: np.random.Generator) -> Iterator[torch.Tensor]:
    """(batch, longest of the batch) item numbers, filled up with -1 at the end."""
    order = generator.permutation(len(pieces))
    for start in range(0, len(order), size * _SORTED_TOGETHER):
        block = sorted(order[start : start + size * _SORTED_TOGETHER], key=lambda piece: len(pieces[piece]))
        parts = [block[begin : begin + size] for begin in range(0, len(block), size)]
        for part in generator.permutation(len(parts)):
            chosen = [torch.from_numpy(pieces[piece]) for piece in parts[part]]
            yield nn.utils.rnn.pad_sequence(chosen, batch_first=True, padding_value=_PADDING)
