"""A Gaussian on one parameter leaf: shape, expression, jaw, eyes."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from fitkit.chart import Chart, Linearised
from fitkit.energy import ResidualTerm
from fitkit.scene import Scene


@dataclass(frozen=True)
class LeafPrior(ResidualTerm):
    """Squared distance of a leaf from its mean in standard deviations; nothing where the model lacks the leaf."""

    leaf: str = "betas"
    """Name of the leaf."""
    mean: tuple[float, ...] = (0.0,)
    """One value for all entries, or one each."""
    deviation: tuple[float, ...] = (1.0,)
    """One value for all entries, or one each."""

    def residual(self, scene: Scene) -> Float[Tensor, "B R"]:
        """Return the standardised entries."""
        if self.leaf not in scene.parameters:
            return scene.parameters["transl"].new_zeros(scene.parameters.problems, 1)
        value = scene.parameters[self.leaf]
        return ((value - value.new_tensor(self.mean)) / value.new_tensor(self.deviation)).flatten(1)

    def linearise(self, scene: Scene, chart: Chart) -> list[Linearised]:
        """Return the standardised entries and their constant slopes."""
        if self.leaf not in scene.parameters:
            return []
        value = scene.parameters[self.leaf]
        slopes = (1 / value.new_tensor(self.deviation)).expand(value.shape[1:]).flatten()
        return chart.leaf(self.leaf, self.residual(scene), slopes)
