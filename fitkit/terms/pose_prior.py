"""How plausible the body's pose is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from fitkit.chart import Chart, Linear, Linearised, Squared
from fitkit.energy import ResidualTerm, evidence
from fitkit.errors import UsageError
from fitkit.priors.base import PosePrior, SquaredPosePrior
from fitkit.problem import Problem
from fitkit.registry import did_you_mean
from fitkit.scene import Scene

SHARED_JOINTS = 63
"""Values of `body_pose` that all models of the family have in common (SMPL adds two hand joints)."""


@dataclass(frozen=True)
class PosePriorTerm(ResidualTerm):
    """Squared deviations of a pose prior: twice its negative log density, up to a constant."""

    prior: str = "relaxed"
    """Name of the prior."""
    loaded: PosePrior | None = evidence()
    """The prior itself."""

    def observe(self, problem: Problem) -> PosePriorTerm:
        """Return the term with its prior."""
        if self.prior not in problem.priors:
            hint = did_you_mean(self.prior, problem.priors)
            raise UsageError(f"No pose prior {self.prior!r}.{hint} Known: {', '.join(problem.priors) or 'none'}.")
        return replace(self, loaded=problem.priors[self.prior])

    def residual(self, scene: Scene) -> Float[Tensor, "B R"]:
        """Return the prior's residuals of all bodies."""
        assert self.loaded is not None
        pose = scene.parameters["body_pose"]
        shared = self.loaded.residual(pose[..., :SHARED_JOINTS].flatten(0, 1))
        return shared.unflatten(0, pose.shape[:2]).flatten(1)

    def linearise(self, scene: Scene, chart: Chart) -> list[Linearised]:
        """Return the prior's residuals and their Jacobian, or the products of these, body by body."""
        columns = chart.columns("body_pose")
        if columns is None:
            return []
        assert self.loaded is not None
        pose = scene.parameters["body_pose"]
        shared = pose[..., :SHARED_JOINTS].flatten(0, 1)
        kind: type[Linear | Squared] = Linear
        if isinstance(self.loaded, SquaredPosePrior):
            kind, found = Squared, self.loaded.squared(shared)
        else:
            found = self.loaded.linearise(shared)
        firsts, seconds = (part.unflatten(0, pose.shape[:2]).unbind(1) for part in found)
        starts = range(columns.start, columns.stop, pose.shape[2])
        return [
            kind(first, second, slice(start, start + SHARED_JOINTS))
            for first, second, start in zip(firsts, seconds, starts, strict=True)
        ]
