"""Depth near where the stage began."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.chart import Chart, Linearised
from fitkit.energy import ResidualTerm, evidence
from fitkit.problem import Problem
from fitkit.scene import Scene


@dataclass(frozen=True)
class DepthAnchor(ResidualTerm):
    """Squared distance in depth from the start of the stage, absolute or relative to that depth."""

    deviation: float = 1.0
    """Metres, or share of the depth, that count as one standard deviation."""
    relative: bool = False
    """Measure as a share of the depth at the start."""
    depth: Float[Tensor, "B N"] | None = evidence()
    """Depth at the start of the stage, metres."""

    def observe(self, problem: Problem) -> DepthAnchor:
        """Return the term anchored at the problem's start."""
        return replace(self, depth=problem.start["transl"][..., 2].detach())

    def residual(self, scene: Scene) -> Float[Tensor, "B R"]:
        """Return the standardised change of depth."""
        assert self.depth is not None
        scale = self.deviation * (self.depth.abs() if self.relative else 1.0)
        return (scene.parameters["transl"][..., 2] - self.depth) / scale

    def linearise(self, scene: Scene, chart: Chart) -> list[Linearised]:
        """Return the change of depth; only the third entry of each translation has a slope."""
        assert self.depth is not None
        scale = self.deviation * (self.depth.abs() if self.relative else torch.ones_like(self.depth))
        zero = torch.zeros_like(scale)
        residual = torch.stack([zero, zero, self.residual(scene)], dim=-1).flatten(1)
        return chart.leaf("transl", residual, torch.stack([zero, zero, 1 / scale], dim=-1).flatten(1))
