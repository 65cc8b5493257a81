"""What every pose prior offers."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class PosePrior(Protocol):
    """A prior over the 21 body joints that the SMPL family shares."""

    @property
    def mean(self) -> Float[Tensor, " 63"]:
        """A typical pose to start from, axis-angle in radians."""
        ...

    def residual(self, body_pose: Float[Tensor, "M 63"]) -> Float[Tensor, "M R"]:
        """Return residuals whose squares sum to twice the negative log density, up to a constant."""
        ...

    def linearise(self, body_pose: Float[Tensor, "M 63"]) -> tuple[Float[Tensor, "M R"], Float[Tensor, "M R 63"]]:
        """Return the residuals and their derivatives with respect to the pose, per radian."""
        ...
