"""How plausible the hands' poses are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.chart import Chart, Linearised
from fitkit.energy import ResidualTerm
from fitkit.scene import Scene

_LEAVES = ("left_hand_pose", "right_hand_pose")


@dataclass(frozen=True)
class HandPrior(ResidualTerm):
    """Squared hand coefficients about the mean hand, in the deviations that the model's file gives them."""

    standardised: bool = True
    """Divide each coefficient by its deviation; off, the published |m|^2."""

    def residual(self, scene: Scene) -> Float[Tensor, "B R"]:
        """Return the coefficients of both hands; nothing where the model has no hands."""
        hands = getattr(scene.model, "hands", None)
        if hands is None or not all(leaf in scene.parameters for leaf in _LEAVES):
            return scene.parameters["transl"].new_zeros(scene.parameters.problems, 1)
        values = [scene.parameters[leaf] for leaf in _LEAVES]
        if self.standardised:
            values = [value / hand.deviation for value, hand in zip(values, hands, strict=True)]
        return torch.cat(values, dim=-1).flatten(1)

    def linearise(self, scene: Scene, chart: Chart) -> list[Linearised]:
        """Return the coefficients and their constant slopes."""
        hands = getattr(scene.model, "hands", None)
        linear = []
        for hand, name in zip(hands or (), _LEAVES, strict=False):
            value = scene.parameters[name]
            slopes = 1 / hand.deviation if self.standardised else torch.ones_like(hand.deviation)
            slopes = slopes.expand(value.shape[1:]).flatten()
            linear += chart.leaf(name, value.flatten(1) * slopes, slopes)
        return linear
