"""A standing height near the one that the user knows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.chart import Chart, Linear, Linearised
from fitkit.energy import ResidualTerm, evidence
from fitkit.problem import Problem
from fitkit.scene import Scene


@dataclass(frozen=True)
class Height(ResidualTerm):
    """Squared distance of the standing height of the body's own shape from the known one, or from an expected one.

    With the height, the picture's scale tells the depth. A prior on the shape coefficients is one on the height, too;
    `mean` adds another for models whose coefficients say less about size.
    """

    known: float = 0.01
    """Metres that count as one standard deviation of a height that the user gives."""
    mean: float | None = None
    """Height expected of people whose height is not given, metres; None to expect nothing."""
    deviation: float = 0.1
    """Metres that count as one standard deviation of that."""
    target: Float[Tensor, "B N"] | None = evidence()
    """The height of each body, metres."""
    precision: Float[Tensor, "B N"] | None = evidence()
    """One over the standard deviation of that, per metre; zero where nothing is expected."""

    def observe(self, problem: Problem) -> Height:
        """Return the term with the heights that the problem knows."""
        given = problem.heights
        if given is None:
            given = problem.start["transl"].new_full(problem.start["transl"].shape[:2], torch.nan)
        known = given.isfinite()
        otherwise = 0.0 if self.mean is None else 1 / self.deviation
        precision = torch.full_like(given, otherwise).masked_fill(known, 1 / self.known)
        return replace(self, target=torch.where(known, given, self.mean or 0.0), precision=precision)

    def residual(self, scene: Scene) -> Float[Tensor, "B R"]:
        """Return the standardised difference of each body's height."""
        assert self.target is not None and self.precision is not None
        heights, _ = scene.model.standing_height(scene.parameters["betas"])
        return (heights - self.target) * self.precision

    def linearise(self, scene: Scene, chart: Chart) -> list[Linearised]:
        """Return the differences with their slopes in the shape coefficients."""
        columns = chart.columns("betas")
        if columns is None:
            return []
        assert self.precision is not None
        _, slopes = scene.model.standing_height(scene.parameters["betas"])
        each = slopes.expand(-1, self.precision.shape[1], -1) * self.precision[..., None]
        if slopes.shape[1] > 1:
            # Each body's height depends on its own coefficients alone.
            own = torch.eye(slopes.shape[1], dtype=each.dtype, device=each.device)
            each = (each[:, :, None, :] * own[..., None]).flatten(2)
        return [Linear(self.residual(scene), each, columns)]
