"""The conditional logit (McFadden, 1974): a softmax over the candidates of a case, linear in their features."""

import numpy as np
from scipy.optimize import minimize

from lorarec.errors import LorarecError

#: Penalties that `choose_penalty` compares.
PENALTIES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
FOLDS = 5
#: Largest slope of the objective at a minimum, in units of the feature's largest absolute value if that is above 1.
_MAX_SLOPE = 1e-3


def log_posterior(logits: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the log-softmax of the logits over the candidates of each case.

    Args:
        logits: Logits (candidates,) of all cases, one case after the other.
        sizes: Number of candidates of each case (cases,), at least 1.

    Returns:
        Log-probabilities (candidates,); those of each case sum to 1 after `exp`.
    """
    starts = np.cumsum(sizes) - sizes
    shifted = logits - np.repeat(np.maximum.reduceat(logits, starts), sizes)
    return shifted - np.repeat(np.log(np.add.reduceat(np.exp(shifted), starts)), sizes)


def fit_conditional_logit(
    features: np.ndarray, sizes: np.ndarray, targets: np.ndarray, penalty: float, penalised: np.ndarray | None = None
) -> np.ndarray:
    """Return the weights that minimise the mean negative log-likelihood plus penalty / 2 times their squared norm.

    The objective is convex, so the result does not depend on a starting point.

    Args:
        features: Features (candidates, features) of all cases, one case after the other.
        sizes: Number of candidates of each case (cases,).
        targets: Position of the chosen candidate among those of its case (cases,).
        penalty: Weight of the squared norm.
        penalised: Mask of the weights in the norm (features,); all if None.

    Returns:
        Weights (features,).

    Raises:
        LorarecError: A feature is NaN or infinite, or the minimum was not found.

    Examples:
        >>> import numpy as np
        >>> features = np.array([[1.0], [0.0], [0.0], [1.0], [1.0], [0.0]])
        >>> weights = fit_conditional_logit(features, np.array([2, 2, 2]), np.array([0, 1, 1]), penalty=0.0)
        >>> weights.round(3).tolist()  # two of three cases chose the candidate with the feature
        [0.693]
    """
    _refuse_non_finite(features)
    starts = np.cumsum(sizes) - sizes
    chosen = features[starts + targets].mean(0)
    penalties = penalty * (np.ones(features.shape[1]) if penalised is None else penalised)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        log_p = log_posterior(features @ weights, sizes)
        gradient = (np.exp(log_p) @ features) / len(sizes) - chosen + penalties * weights
        return -log_p[starts + targets].mean() + float(penalties @ weights**2) / 2, gradient

    start = np.zeros(features.shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000, "ftol": 1e-12})
    # L-BFGS-B also reports a failure where rounding ends the line search at the minimum, so the gradient is the test.
    if not (np.abs(found.jac) <= _MAX_SLOPE * np.maximum(np.abs(features).max(0), 1)).all():
        raise LorarecError(
            f"the weights of a conditional logit with penalty {penalty} were not found in {found.nit} steps: leave out "
            "features with extreme values, or use a larger penalty"
        )
    return found.x


def _refuse_non_finite(features: np.ndarray) -> None:
    finite = np.isfinite(features)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise LorarecError(
            f"feature {column} of candidate {row} is {features[row, column]}: give finite features to a conditional "
            "logit"
        )


def choose_penalty(
    features: np.ndarray, sizes: np.ndarray, targets: np.ndarray, penalised: np.ndarray, seed: int
) -> float:
    """Return the penalty of `PENALTIES` with the lowest log-loss in cross-validation over the cases.

    Each case is held out once. A single case leaves none to learn from, so it gets the largest penalty.

    Args:
        features, sizes, targets, penalised: As for `fit_conditional_logit`.
        seed: Seed of the division into `FOLDS` folds, or one for each case if there are fewer.
    """
    if len(sizes) == 1:
        return PENALTIES[-1]
    folds = np.random.default_rng(seed).permutation(len(sizes)) % FOLDS
    losses = dict.fromkeys(PENALTIES, 0.0)
    for fold in range(min(FOLDS, len(sizes))):
        held_out = folds == fold
        rows = np.repeat(held_out, sizes)
        for penalty in PENALTIES:
            weights = fit_conditional_logit(features[~rows], sizes[~held_out], targets[~held_out], penalty, penalised)
            log_p = log_posterior(features[rows] @ weights, sizes[held_out])
            starts = np.cumsum(sizes[held_out]) - sizes[held_out]
            losses[penalty] -= log_p[starts + targets[held_out]].sum()
    return min(losses, key=losses.__getitem__)
