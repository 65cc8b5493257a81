"""Limits of each joint's rotation, learned: nothing inside them, a wall beyond."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

SOFTNESS = 0.05
"""Radians beyond a limit that count as one standard deviation."""


class JointLimits:
    """Bounds on every axis of every joint's rotation vector, to be used beside a density."""

    def __init__(self, lower: Float[Tensor, " 63"], upper: Float[Tensor, " 63"], mean: Float[Tensor, " 63"]) -> None:
        """Make limits.

        Args:
            lower: least angle about each axis, radians.
            upper: greatest angle, radians.
            mean: a typical pose within them, radians.
        """
        self._mean = mean
        self._bounds = {(lower.device, lower.dtype): (lower, upper)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Tensor]) -> JointLimits:
        """Return the limits of a weights file: `lower`, `upper`, `mean`, each (63,)."""
        return cls(arrays["lower"], arrays["upper"], arrays["mean"])

    @property
    def mean(self) -> Float[Tensor, " 63"]:
        """The mean of the poses from which the limits were learned, radians."""
        return self._mean

    @property
    def bounds(self) -> tuple[Float[Tensor, " 63"], Float[Tensor, " 63"]]:
        """Least and greatest angle about each axis, radians."""
        return next(iter(self._bounds.values()))

    def residual(self, body_pose: Float[Tensor, "M 63"]) -> Float[Tensor, "M 63"]:
        """Return the excess over each limit in units of `SOFTNESS`, negative below the lower ones."""
        key = body_pose.device, body_pose.dtype
        if key not in self._bounds:
            # Once: a copy to a device at every step would make it wait.
            lower, upper = self.bounds
            self._bounds[key] = lower.to(body_pose), upper.to(body_pose)
        lower, upper = self._bounds[key]
        return ((body_pose - upper).clamp_min(0) - (lower - body_pose).clamp_min(0)) / SOFTNESS

    def linearise(self, body_pose: Float[Tensor, "M 63"]) -> tuple[Float[Tensor, "M 63"], Float[Tensor, "M 63 63"]]:
        """Return the residuals and their derivatives, which are zero within the limits."""
        residual = self.residual(body_pose)
        return residual, torch.diag_embed((residual != 0).to(residual) / SOFTNESS)
