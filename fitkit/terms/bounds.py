"""Parameters within the range that their model gives them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.chart import Chart, Linearised
from fitkit.energy import ResidualTerm
from fitkit.scene import Scene


@dataclass(frozen=True)
class Bounds(ResidualTerm):
    """Squared excess of every bounded leaf (named expressions lie in 0 to 1) over its bounds."""

    margin: float = 0.05
    """Excess that counts as one standard deviation."""

    def residual(self, scene: Scene) -> Float[Tensor, "B R"]:
        """Return the excess of all bounded entries."""
        excess = [scene.parameters["transl"].new_zeros(scene.parameters.problems, 1)]
        for leaf in scene.model.layout:
            if leaf.name not in scene.parameters:
                continue
            value = scene.parameters[leaf.name].flatten(1)
            if leaf.lower is not None:
                excess.append((leaf.lower - value).clamp_min(0))
            if leaf.upper is not None:
                excess.append((value - leaf.upper).clamp_min(0))
        return torch.cat(excess, dim=1) / self.margin

    def linearise(self, scene: Scene, chart: Chart) -> list[Linearised]:
        """Return the excess of each bounded leaf; slopes are one beyond a bound and zero within."""
        linear = []
        for leaf in scene.model.layout:
            if leaf.name not in scene.parameters or (leaf.lower is None and leaf.upper is None):
                continue
            value = scene.parameters[leaf.name].flatten(1)
            inside = value.clamp(leaf.lower, leaf.upper)
            linear += chart.leaf(leaf.name, (value - inside) / self.margin, (value != inside).to(value) / self.margin)
        return linear
