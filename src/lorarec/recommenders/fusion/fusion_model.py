"""The learned last stage: a conditional logit over the scores of several scorers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.optimize import brentq

from lorarec.io import JsonObject
from lorarec.recommenders.fusion.candidate_scores import CandidateScores
from lorarec.recommenders.fusion.conditional_logit import choose_penalty, fit_conditional_logit, log_posterior
from lorarec.recommenders.fusion.features import FusionFeatures
from lorarec.recommenders.fusion.new_item_prior import clip_prior, log_odds_shift, lowest_new_item_prior

#: Largest constant of new items, in logits of standardised scores.
_MAX_CONSTANT = 100.0


@dataclass(frozen=True)
class FusionModel:
    """A posterior over the candidates of a case, given their scores by several scorers.

    Attributes:
        features: Features of the candidates.
        weights: Weight of each feature (features,).
        fitted_prior: Share of the fitted cases whose target item was new.
        penalty: Weight of the squared norm that cross-validation chose.
    """

    features: FusionFeatures
    weights: np.ndarray
    fitted_prior: float
    penalty: float

    @classmethod
    def fit(cls, scorers: Sequence[str], cases: CandidateScores, targets: np.ndarray, seed: int = 42) -> Self:
        """Fit the weights to cases whose target item is known.

        If (nearly) all target items are new, or none is, the likelihood has no maximum in the constant of new items.
        The constant is then such that the mean posterior of new items is the prior that is nearest to this share, see
        `clip_prior`.

        Args:
            scorers: Names of the scorers.
            cases: Scores of the candidates.
            targets: Position of the target item among the candidates of each case (cases,).
            seed: Seed of the cross-validation that chooses the penalty.
        """
        features = FusionFeatures.fit(scorers, cases)
        matrix = features.matrix(cases)
        penalised = np.append(np.ones(matrix.shape[1] - 1), 0)
        penalty = choose_penalty(matrix, cases.sizes, targets, penalised, seed)
        weights = fit_conditional_logit(matrix, cases.sizes, targets, penalty, penalised)
        fitted_prior = float(cases.new[cases.starts + targets].mean())
        if fitted_prior != clip_prior(fitted_prior):
            weights[-1] = _constant_at(clip_prior(fitted_prior), matrix, weights, cases)
        return cls(features, weights, fitted_prior, penalty)

    def as_json(self) -> JsonObject:
        """Return the model as values for JSON, from which `from_json` makes it again exactly."""
        return {
            "weights": dict(zip(self.features.names, self.weights.tolist(), strict=True)),
            "means": self.features.means.tolist(),
            "deviations": self.features.deviations.tolist(),
            "log_history_length": self.features.log_length,
            "fitted_prior": self.fitted_prior,
            "penalty": self.penalty,
        }

    @classmethod
    def from_json(cls, values: JsonObject, scorers: Sequence[str]) -> Self:
        """Return the model whose `as_json` is given.

        Raises:
            KeyError: A value is missing.
        """
        means, deviations = np.array(values["means"]), np.array(values["deviations"])
        features = FusionFeatures(tuple(scorers), means, deviations, values["log_history_length"])
        weights = np.array([values["weights"][name] for name in features.names])
        return cls(features, weights, values["fitted_prior"], values["penalty"])

    @property
    def scores_new_items(self) -> bool:
        """Whether new items were among the candidates of the fit; without them, their weights are all 0."""
        return bool(self.weights[self.features.of_new_items].any())

    def logits(self, cases: CandidateScores, prior: float) -> np.ndarray:
        """Return the logits (candidates,) with the given prior of new items."""
        shift = log_odds_shift(prior, self.fitted_prior)
        return self.features.matrix(cases) @ self.weights + np.where(cases.new, shift, 0)

    def log_posterior(self, cases: CandidateScores, prior: float) -> np.ndarray:
        """Return the log-probability (candidates,) of each candidate to be the target item of its case."""
        return log_posterior(self.logits(cases, prior), cases.sizes)

    def parts(self, cases: CandidateScores, prior: float) -> np.ndarray:
        """Return the contribution of each scorer to the logits, less its mean over the candidates of the case.

        Returns:
            Contributions (candidates, scorers + 1). The last column is that of the constant and the prior of new items.
            The sum of a row is the logit less the mean logit of the case.
        """
        products = self.features.matrix(cases) * self.weights
        sources = self.features.sources
        columns = [products[:, sources == source].sum(1) for source in range(len(self.features.scorers) + 1)]
        contributions = np.stack(columns, axis=1)
        contributions[:, -1] += np.where(cases.new, log_odds_shift(prior, self.fitted_prior), 0)
        means = np.add.reduceat(contributions, cases.starts) / cases.sizes[:, None]
        return contributions - np.repeat(means, cases.sizes, axis=0)

    def estimate_prior(self, cases: CandidateScores) -> float:
        """Estimate the prior of new items from cases without their target items; see `lowest_new_item_prior`."""
        posterior = np.exp(self.log_posterior(cases, self.fitted_prior))
        return lowest_new_item_prior(np.add.reduceat(posterior * cases.new, cases.starts), self.fitted_prior)


def _constant_at(prior: float, matrix: np.ndarray, weights: np.ndarray, cases: CandidateScores) -> float:
    """Return the constant of new items at which the mean posterior of new items is `prior`, given the other weights.

    It is the constant of `weights` if all candidates are new or none is, since it changes nothing then.
    """
    logits = matrix[:, :-1] @ weights[:-1]

    def excess(constant: float) -> float:
        posterior = np.exp(log_posterior(logits + constant * cases.new, cases.sizes))
        return float(np.add.reduceat(posterior * cases.new, cases.starts).mean()) - prior

    if excess(-_MAX_CONSTANT) > 0 or excess(_MAX_CONSTANT) < 0:
        return float(weights[-1])
    return float(brentq(excess, -_MAX_CONSTANT, _MAX_CONSTANT))
