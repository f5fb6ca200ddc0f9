"""The trainer of all next-item models. A trained model encodes any history, also of unknown users."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from lorarec.io import track
from lorarec.recommenders.early_stopping import CHECKED_CASES, EarlyStopping, refuse_divergence
from lorarec.recommenders.sequential.config import NextItemConfig
from lorarec.recommenders.sequential.next_item_model import PADDING, IdEmbeddings, NextItemModel
from lorarec.recommenders.sequential.registry import SEQUENCE_ENCODERS
from lorarec.scoring import evaluation_mode

#: Loss of a model on a batch of pieces of histories (batch, length), padded by `NextItemModel.pad`, with a generator
#: of random numbers.
Loss = Callable[[NextItemModel, torch.Tensor, np.random.Generator], torch.Tensor]

#: Number of batches whose histories are sorted by length together, so that histories of a batch have similar lengths.
_SORTED_TOGETHER = 50


def fit_next_item(
    histories: list[np.ndarray],
    items: int,
    config: NextItemConfig,
    seed: int = 42,
    *,
    valid: Callable[[NextItemModel], float] | None = None,
    progress: bool = False,
) -> NextItemModel:
    """Train a model with an embedding per item; see `train_next_item`."""
    model = new_next_item(items, config, seed)
    loss = sampled_softmax(items, config.negatives, config.in_batch_share)
    return train_next_item(model, histories, config, loss, seed, valid=valid, progress=progress)


def continue_next_item(
    model: NextItemModel,
    numbers: np.ndarray,
    histories: list[np.ndarray],
    config: NextItemConfig,
    seed: int = 42,
    *,
    valid: Callable[[NextItemModel], float] | None = None,
    progress: bool = False,
) -> NextItemModel:
    """Train a copy of a model with an embedding per item further, for a catalogue that has grown.

    Items that the model knows keep their embeddings, all others begin with those of `new_next_item`. The optimizer
    begins anew.

    Args:
        model: Trained model.
        numbers: Number in `model` of each item (items,), -1 for new items.
        histories: Histories to learn from, in the new numbers.
        config: Options of the model, with the number of epochs of this training.
        seed: Seed of the embeddings of new items, of dropout, batches and negatives.
        valid: Metric that chooses the epoch; see `train_next_item`.
        progress: Whether to show a progress bar.
    """
    grown = new_next_item(len(numbers), config, seed)
    grown.sequence.load_state_dict(model.sequence.state_dict())
    is_known = torch.from_numpy(numbers >= 0)
    with torch.no_grad():
        grown.items.all()[is_known] = model.items.all()[torch.from_numpy(numbers)[is_known]]
    loss = sampled_softmax(len(numbers), config.negatives, config.in_batch_share)
    return train_next_item(grown, histories, config, loss, seed, valid=valid, progress=progress)


def new_next_item(items: int, config: NextItemConfig, seed: int = 42) -> NextItemModel:
    """Return an untrained model with an embedding per item, initialised by the seed."""
    torch.manual_seed(seed)
    embeddings = IdEmbeddings(items, config.hidden_size)
    encoder = SEQUENCE_ENCODERS[config.encoder]
    sequence = encoder(config.hidden_size, config.max_history, config.num_layers, config.dropout)
    return NextItemModel(embeddings, sequence)


def train_next_item(
    model: NextItemModel,
    histories: list[np.ndarray],
    config: NextItemConfig,
    loss: Loss,
    seed: int = 42,
    *,
    valid: Callable[[NextItemModel], float] | None = None,
    progress: bool = False,
) -> NextItemModel:
    """Train a model on histories of item numbers in time order.

    Long histories are read in pieces, so that every interaction is used. Histories of one item are not used.

    Args:
        loss: Loss function, such as `sampled_softmax` returns.
        seed: Seed of dropout, batches and negatives.
        valid: Metric of the model, higher is better, computed after each epoch; the weights of the best epoch are
            restored. If it is None, the model has the weights of the last epoch.
        progress: Whether to show a progress bar.

    Raises:
        LorarecError: The training diverges.
    """
    generator = np.random.default_rng(seed)
    torch.manual_seed(seed)
    optimizers = _optimizers(model, config.learning_rate)
    stopping = EarlyStopping(model, config.patience)
    for _ in track(range(config.epochs), "Learning the next item", progress):
        model.train()
        pieces = list(_pieces(histories, config, model.sequence.causal, generator))
        for batch in batches_by_length([len(piece) for piece in pieces], config.batch_size, generator):
            loss(model, model.pad([pieces[place] for place in batch]), generator).backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        refuse_divergence(model, "next-item model", _scores(model, pieces[:CHECKED_CASES]))
        if valid is not None:
            with evaluation_mode(model):
                metric = valid(model)
            if stopping.step(metric):
                break
    stopping.restore()
    return model.eval()


@torch.no_grad()
def _scores(model: NextItemModel, pieces: list[np.ndarray]) -> torch.Tensor:
    """Return the scores (pieces, pieces) of the last items of pieces after the items before the last of each."""
    if not pieces:
        return torch.empty(0)
    with evaluation_mode(model):
        queries = model.queries([piece[:-1] for piece in pieces])
        return queries @ model.items(torch.tensor([piece[-1] for piece in pieces])).T


def sampled_softmax(items: int, negatives: int, in_batch_share: float = 0.0) -> Loss:
    """Return the cross-entropy of the next item in the softmax over it and drawn negatives.

    Args:
        items: Number of items; negatives are drawn among the first `items` items of the model.
        negatives: Number of negatives of a batch; all items are taken if there are not more.
        in_batch_share: Share of the negatives that are drawn from the next items of the batch, which are drawn in
            proportion to their popularity (mixed negative sampling, Yang et al., WWW 2020); the others are drawn
            uniformly.
    """
    in_batch = round(in_batch_share * negatives)

    def loss(model: NextItemModel, batch: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        drawn = np.arange(items) if items <= negatives else generator.integers(0, items, negatives - in_batch)
        states = model(batch[:, :-1])
        targets = batch[:, -states.shape[1] :]
        present = targets != PADDING
        others = torch.from_numpy(drawn)
        if in_batch and items > negatives:
            next_items = targets[present]
            others = torch.cat([others, next_items[generator.integers(0, len(next_items), in_batch)]])
        return sampled_softmax_loss(model, states[present], targets[present], others)

    return loss


def sampled_softmax_loss(
    model: NextItemModel,
    states: torch.Tensor,
    targets: torch.Tensor,
    negatives: torch.Tensor,
    extra_negatives: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean cross-entropy of targets among negatives; a negative that equals the target is left out.

    Args:
        states: Encoded histories (n, hidden_size).
        targets: Next items (n,).
        negatives: Other items (m,).
        extra_negatives: Vectors (k, hidden_size) of further negatives.
    """
    positive = (states * model.items(targets)).sum(1)
    negative = states @ model.items(negatives).T
    negative = negative.masked_fill(targets[:, None] == negatives, -torch.inf)
    if extra_negatives is not None:
        negative = torch.cat([negative, states @ extra_negatives.T], 1)
    return (torch.logaddexp(positive, negative.logsumexp(1)) - positive).mean()


def _optimizers(model: NextItemModel, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Return Adam, and SparseAdam if there are embeddings with sparse gradients."""
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding) and module.sparse]
    sparse = [table.weight for table in tables]
    sparse_ids = {id(weight) for weight in sparse}
    dense = [weight for weight in model.parameters() if weight.requires_grad and id(weight) not in sparse_ids]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(dense, learning_rate)]
    return [torch.optim.SparseAdam(sparse, learning_rate), *optimizers] if sparse else optimizers


def _pieces(
    histories: list[np.ndarray], config: NextItemConfig, causal: bool, generator: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield pieces of two to max_history + 1 items.

    A causal model learns from every item of a piece but the first, which is the last of the piece before it. Other
    models learn from the last item only, so there is a piece for every item but the first, or for some drawn ones.
    """
    for history in histories:
        if causal:
            lasts = np.arange(len(history) - 1, 0, -config.max_history)
        else:
            lasts = next_item_positions(len(history), config.prefixes, generator)
        for last in lasts:
            yield history[max(0, last - config.max_history) : last + 1]


def next_item_positions(length: int, prefixes: int | None, generator: np.random.Generator) -> np.ndarray:
    """Return the positions of a history that have a predecessor; at most `prefixes` of them, drawn, if it is set."""
    positions = np.arange(length - 1, 0, -1)
    if prefixes is None or len(positions) <= prefixes:
        return positions
    return generator.choice(positions, prefixes, replace=False)


def batches_by_length(lengths: Sequence[int], size: int, generator: np.random.Generator) -> Iterator[list[int]]:
    """Yield random batches of positions in `lengths`, each position once; lengths within a batch are similar."""
    order = generator.permutation(len(lengths)).tolist()
    for start in range(0, len(order), size * _SORTED_TOGETHER):
        block = sorted(order[start : start + size * _SORTED_TOGETHER], key=lambda place: lengths[place])
        parts = [block[begin : begin + size] for begin in range(0, len(block), size)]
        for part in generator.permutation(len(parts)):
            yield parts[part]
