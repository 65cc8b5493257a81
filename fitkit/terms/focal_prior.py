"""A focal length near the one that the camera came with."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.chart import Chart, Linear, Linearised
from fitkit.energy import ResidualTerm, evidence
from fitkit.problem import Problem
from fitkit.scene import Scene


@dataclass(frozen=True)
class FocalPrior(ResidualTerm):
    """Squared log ratio of the focal length to the camera's own, with a steep wall beyond `limit`.

    A learned initialiser that proposes a focal length says how sure it is of it; that then stands for `deviation`.
    """

    deviation: float = 0.2
    """Log ratio that counts as one standard deviation: of photos that say nothing of their lens."""
    least: float = 0.05
    """The least deviation that an initialiser is believed."""
    limit: float = 2.0
    """Factor up and down beyond which the focal length is held back."""
    focal: Float[Tensor, "B N 1"] | None = evidence()
    """The camera's own focal length, pixels."""
    spread: Float[Tensor, "B N 1"] | None = evidence()
    """One standard deviation of each log ratio."""

    def observe(self, problem: Problem) -> FocalPrior:
        """Return the term around the focal length of the problem's camera."""
        focal, belief = problem.camera.focal_length, problem.belief
        if belief is None or belief.focal_deviation is None:
            return replace(self, focal=focal, spread=torch.full_like(focal, self.deviation))
        return replace(self, focal=focal, spread=belief.focal_deviation.to(focal).clamp_min(self.least))

    def residual(self, scene: Scene) -> Float[Tensor, "B R"]:
        """Return the standardised log ratio and its excess over the limit; zero where the focal length is fixed."""
        if "focal_length" not in scene.parameters:
            return scene.parameters["transl"].new_zeros(scene.parameters.problems, 1)
        assert self.focal is not None and self.spread is not None
        spread = self.spread.flatten(1)
        ratio = torch.log(scene.parameters["focal_length"].clamp_min(1e-3) / self.focal).flatten(1)
        excess = (ratio.abs() - math.log(self.limit)).clamp_min(0)
        return torch.cat([ratio / spread, excess / (0.1 * spread)], dim=1)

    def linearise(self, scene: Scene, chart: Chart) -> list[Linearised]:
        """Return the log ratio and its excess with their slopes in the focal length."""
        columns = chart.columns("focal_length")
        if columns is None:
            return []
        residual = self.residual(scene)
        ratio, excess = residual.unflatten(1, (2, -1)).unbind(1)
        assert self.spread is not None
        focal = scene.parameters["focal_length"].clamp_min(1e-3).flatten(1) * self.spread.flatten(1)
        slopes = (1 / focal).expand_as(ratio), (excess > 0) * ratio.sign() * 10 / focal
        each = torch.stack(slopes, dim=1)[..., None]
        if columns.stop - columns.start > 1:
            each = each * torch.eye(focal.shape[1], dtype=focal.dtype, device=focal.device)
        return [Linear(residual, each.flatten(1, 2), columns)]
