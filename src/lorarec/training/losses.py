"""Losses over the scores of a batch, summed over its cases."""

from collections.abc import Sequence

import torch


def listwise(scores: Sequence[torch.Tensor], targets: Sequence[int], temperature: float = 1.0) -> torch.Tensor:
    """Cross-entropy of the true item under the softmax over its candidate set: -log softmax(s / temperature)[target].

    Args:
        scores: one (candidates,) tensor per case, all of one length.
        targets: index of the true candidate of each case.

    Returns:
        The sum over the cases, a scalar.
    """
    stacked = torch.stack(list(scores)).float() / temperature
    return torch.nn.functional.cross_entropy(stacked, torch.tensor(targets, device=stacked.device), reduction="sum")


def next_token(scores: Sequence[torch.Tensor]) -> torch.Tensor:
    """The papers' language-modelling loss on the answer alone: minus the log-likelihood of the true titles.

    Args:
        scores: one (1,) tensor per case, the log-likelihood of the true title and its terminator.

    Returns:
        The sum over all title tokens, a scalar.
    """
    return -torch.cat(list(scores)).float().sum()
