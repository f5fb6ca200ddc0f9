"""Losses of the scores of a batch, summed over its cases."""

from collections.abc import Iterable, Sequence

import torch


def listwise(scores: Sequence[torch.Tensor], targets: Sequence[int], temperature: float = 1.0) -> torch.Tensor:
    """Return the cross-entropy of the target items over their candidate sets: -log softmax(s / temperature)[target].

    Args:
        scores: One (candidates,) tensor per case, all of one length.
        targets: Index of the target item of each case.
        temperature: Divisor of the scores.

    Returns:
        The sum over the cases, a scalar.
    """
    stacked = torch.stack(list(scores)).float() / temperature
    return torch.nn.functional.cross_entropy(stacked, torch.tensor(targets, device=stacked.device), reduction="sum")


def pointwise(scores: Sequence[torch.Tensor], targets: Sequence[int]) -> torch.Tensor:
    """Return the binary cross-entropy of each candidate by itself, yes for the target item and no for the others.

    This is the loss of TALLRec (Bao et al., RecSys 2023, Section 3).

    Args:
        scores: One (candidates,) tensor per case, the log-odds of yes, all of one length.
        targets: Index of the target item of each case.

    Returns:
        The mean over the candidates of a case, summed over the cases, a scalar.
    """
    stacked = torch.stack(list(scores)).float()
    labels = torch.nn.functional.one_hot(torch.tensor(targets, device=stacked.device), stacked.shape[1]).float()
    losses = torch.nn.functional.binary_cross_entropy_with_logits(stacked, labels, reduction="none")
    return losses.mean(1).sum()


def next_token(scores: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the language-modelling loss of the papers on the answer alone: -log p of the tokens of the true titles.

    Args:
        scores: One (1,) tensor per case, the log-likelihood of the true title and its terminator.

    Returns:
        The sum over all title tokens, a scalar.
    """
    return -torch.cat(list(scores)).float().sum()


class ProximalTerm:
    """Half the squared distance of parameters to the values that they have when this object is made.

    Added to a loss with a weight lambda it gives the proximal term lambda / 2 * ||theta - theta_0||^2, which keeps an
    adapter near its last state while it learns from new data (PESO, arXiv 2510.25093, regularizes a single evolving
    LoRA towards its last state; this is the squared distance over all of its parameters alike).

    Args:
        parameters: Parameters of a model.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self._pairs = [(parameter, parameter.detach().clone()) for parameter in parameters]

    def __call__(self) -> torch.Tensor:
        """Return half the squared distance, a scalar with gradients of the parameters."""
        halves = [
            (parameter.float() - anchor.to(parameter.device).float()).pow(2).sum() / 2
            for parameter, anchor in self._pairs
        ]
        return torch.stack(halves).sum()
