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


@runtime_checkable
class SquaredPosePrior(PosePrior, Protocol):
    """A prior that knows the products of its residuals' derivatives, without the derivatives."""

    def squared(self, body_pose: Float[Tensor, "M 63"]) -> tuple[Float[Tensor, "M 63"], Float[Tensor, "M 63 63"]]:
        """Return J^T r and J^T J of the residuals r and their derivatives J that `linearise` returns."""
        ...


@runtime_checkable
class LatentPosePrior(PosePrior, Protocol):
    """A prior that has a latent space, whose vectors are normal: |z|^2 is twice their negative log density."""

    @property
    def latents(self) -> int:
        """Length of a latent vector."""
        ...

    def encode(self, body_pose: Float[Tensor, "M 63"]) -> Float[Tensor, "M L"]:
        """Return the likeliest latent vectors of poses."""
        ...

    def decode(self, latent: Float[Tensor, "M L"]) -> Float[Tensor, "M 63"]:
        """Return the poses of latent vectors, axis-angle, radians."""
        ...

    def decode_linearised(self, latent: Float[Tensor, "M L"]) -> tuple[Float[Tensor, "M 63"], Float[Tensor, "M 63 L"]]:
        """Return the poses of latent vectors and their derivatives, radians per unit."""
        ...
