"""The prior probability that the target item of a case is a new one."""

import numpy as np
from scipy.optimize import brentq

#: The prior is kept this far from 0 and 1, so that neither kind of item is ever excluded.
MARGIN = 1e-4
#: Half of the 95% quantile of the chi-squared distribution with one degree of freedom.
_LOG_LIKELIHOOD_DROP = 1.92


def clip_prior(prior: float) -> float:
    """Return the prior, moved into [`MARGIN`, 1 - `MARGIN`]."""
    return min(max(prior, MARGIN), 1 - MARGIN)


def log_odds_shift(prior: float, fitted_prior: float) -> float:
    """Return what must be added to the logits of new items so that their prior changes from one value to another.

    Args:
        prior: Prior probability that the target item is a new one.
        fitted_prior: The prior of the cases on which the logits were fitted.
    """
    new, fitted = clip_prior(prior), clip_prior(fitted_prior)
    return float(np.log(new / (1 - new)) - np.log(fitted / (1 - fitted)))


def estimate_new_item_prior(new_mass: np.ndarray, fitted_prior: float) -> float:
    """Estimate from unlabelled cases how often the target item is a new one (Saerens et al., 2002, section 2.2).

    The class of a case says whether its target item is new. The posterior of a class shifts with its prior. The
    estimate is the maximum of the likelihood, where the mean posterior equals the prior. The EM algorithm of the paper
    converges to it, but needs tens of thousands of steps where the cases say little; the slope of the log-likelihood
    falls with the prior, so its zero is found directly. The estimate is right if new items score as they did when the
    model was fitted, whatever their share is.

    Args:
        new_mass: Posterior probability (cases,) that the target item is new, under `fitted_prior`.
        fitted_prior: The prior of the cases on which the model was fitted.

    Returns:
        Prior, between `MARGIN` and 1 - `MARGIN`.

    Examples:
        >>> import numpy as np
        >>> new_mass = np.array([0.9, 0.9, 0.9, 0.1])
        >>> round(estimate_new_item_prior(new_mass, fitted_prior=0.5), 3)
        0.812
    """
    new, known = _likelihoods(new_mass, fitted_prior)

    def slope(prior: float) -> float:
        """Return the slope of the log-likelihood."""
        return float(((new - known) / (prior * new + (1 - prior) * known)).sum())

    if slope(MARGIN) <= 0:
        return MARGIN
    return 1 - MARGIN if slope(1 - MARGIN) >= 0 else float(brentq(slope, MARGIN, 1 - MARGIN))


def lowest_new_item_prior(new_mass: np.ndarray, fitted_prior: float) -> float:
    """Return the lower limit of the 95% likelihood interval around `estimate_new_item_prior`.

    Where known targets are harder to predict than in the fit, the maximum of the likelihood takes some of them for new
    items. The lower limit raises new items only as far as the cases demand it, and less the fewer cases there are.

    Args:
        new_mass: Posterior probability (cases,) that the target item is new, under `fitted_prior`.
        fitted_prior: The prior of the cases on which the model was fitted.

    Returns:
        Prior, between `MARGIN` and 1 - `MARGIN`.

    Examples:
        >>> import numpy as np
        >>> new_mass = np.array([0.9, 0.9, 0.9, 0.1])
        >>> round(lowest_new_item_prior(new_mass, fitted_prior=0.5), 3)
        0.222
    """
    best = estimate_new_item_prior(new_mass, fitted_prior)
    new, known = _likelihoods(new_mass, fitted_prior)

    def excess(prior: float) -> float:
        """Return the log-likelihood less that of the limit."""
        ratio = (prior * new + (1 - prior) * known) / (best * new + (1 - best) * known)
        return float(np.log(ratio).sum()) + _LOG_LIKELIHOOD_DROP

    return MARGIN if excess(MARGIN) >= 0 else float(brentq(excess, MARGIN, best))


def _likelihoods(new_mass: np.ndarray, fitted_prior: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the likelihood of each case if its target item is new, and if it is known, up to a common factor."""
    fitted = clip_prior(fitted_prior)
    return new_mass / fitted, (1 - new_mass) / (1 - fitted)
