"""A start from a network that has learned how keypoints come about."""

from __future__ import annotations

from dataclasses import dataclass

from fitkit.errors import UsageError
from fitkit.problem import Problem, Proposal


@dataclass(frozen=True)
class NetworkInitialiser:
    """What a trained network proposes, with how sure it is."""

    weights: str = "keypoints"
    """Name of the trained network."""
    hypotheses: int = 1
    """How many poses to propose: the network's mean, then its likeliest alternatives."""

    def __call__(self, problem: Problem) -> Proposal:
        """Return the hypotheses for B problems, the mean first."""
        if self.weights not in problem.regressors:
            known = ", ".join(problem.regressors) or "none"
            raise UsageError(f"No trained initialiser {self.weights!r} has been loaded; known: {known}.")
        return problem.regressors[self.weights](problem, self.hypotheses)
