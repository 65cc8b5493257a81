"""A Gaussian on one parameter leaf: shape, expression, jaw, eyes."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from fitkit.chart import Chart, Linearised, constant
from fitkit.energy import ResidualTerm
from fitkit.errors import UsageError
from fitkit.models.skeletons import LEAVES
from fitkit.registry import did_you_mean
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

    def __post_init__(self) -> None:
        """Raise `UsageError` for a leaf that no model has, or a deviation that is not positive."""
        if self.leaf not in LEAVES:
            hint = did_you_mean(self.leaf, LEAVES)
            raise UsageError(f"No model has a leaf {self.leaf!r}.{hint} Known: {', '.join(LEAVES)}.")
        if not all(value > 0 for value in self.deviation):
            raise UsageError(f"The deviation of a prior on {self.leaf} must be positive; got {list(self.deviation)}.")

    def residual(self, scene: Scene) -> Float[Tensor, "B R"]:
        """Return the standardised entries."""
        if self.leaf not in scene.parameters:
            return scene.parameters["transl"].new_zeros(scene.parameters.problems, 1)
        value = scene.parameters[self.leaf]
        return ((value - constant(self.mean, value)) / constant(self.deviation, value)).flatten(1)

    def linearise(self, scene: Scene, chart: Chart) -> list[Linearised]:
        """Return the standardised entries and their constant slopes."""
        if self.leaf not in scene.parameters:
            return []
        value = scene.parameters[self.leaf]
        slopes = (1 / constant(self.deviation, value)).expand(value.shape[1:]).flatten()
        return chart.leaf(self.leaf, self.residual(scene), slopes)
