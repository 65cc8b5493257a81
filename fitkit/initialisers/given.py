"""A start that the user gives: what a regression network predicted, or an earlier fit."""

from __future__ import annotations

from dataclasses import dataclass

from fitkit.parameters import Parameters
from fitkit.problem import Problem, Proposal


@dataclass(frozen=True)
class GivenInitialiser:
    """One hypothesis per problem: parameters that are known already."""

    parameters: Parameters
    """Leaves (B, N, size), for the very problems that are to be fitted."""

    def __call__(self, problem: Problem) -> Proposal:
        """Return the given parameters."""
        return Proposal(self.parameters)
