"""How tall bodies stand: from sole to crown of the shape at rest, piecewise linear in its coefficients."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

_FARTHEST_SHAPE = 8.0
"""Norm of the coefficients up to which heights are exact: 20 normal ones have one of 4.5, and of 8 once in 10^6."""


@dataclass(frozen=True)
class Stature:
    """The few vertices that are the highest or the lowest of any likely shape."""

    highest: Float[Tensor, " P"]
    """Height of the vertices that may be the highest, mean shape, metres."""
    highest_slopes: Float[Tensor, "P S"]
    """Its change with each coefficient."""
    lowest: Float[Tensor, " Q"]
    """Height of the vertices that may be the lowest."""
    lowest_slopes: Float[Tensor, "Q S"]
    """Its change with each coefficient."""

    def of(self, betas: Float[Tensor, "*N S"]) -> tuple[Float[Tensor, "*N"], Float[Tensor, "*N S"]]:
        """Return the standing height of each shape in metres, and its derivative with respect to the coefficients."""
        top, crown = (betas @ self.highest_slopes.T + self.highest).max(-1)
        bottom, sole = (betas @ self.lowest_slopes.T + self.lowest).min(-1)
        return top - bottom, self.highest_slopes[crown] - self.lowest_slopes[sole]


def stature(upward: Float[Tensor, " V"], slopes: Float[Tensor, "V S"]) -> Stature:
    """Return the stature of a shape space.

    Args:
        upward: height of each vertex of the mean shape at rest, metres.
        slopes: change of each with each shape coefficient.
    """
    highest, lowest = _rivals(upward, slopes), _rivals(-upward, slopes)
    return Stature(upward[highest], slopes[highest], upward[lowest], slopes[lowest])


def _rivals(upward: Float[Tensor, " V"], slopes: Float[Tensor, "V S"]) -> Tensor:
    """Return which vertices can be above the mean shape's highest, by the Cauchy-Schwarz inequality."""
    top = upward.argmax()
    return ((slopes - slopes[top]).norm(dim=-1) * _FARTHEST_SHAPE >= upward[top] - upward).nonzero()[:, 0]
