"""Robust losses of squared residuals.

Each takes the squared norm of a residual and the scale beyond which a residual counts as an outlier, and returns a loss
in the square's own unit that equals the square where residuals are small: losses of one scale or another weigh good
observations alike, and a weight keeps its meaning when the loss is exchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


def geman_mcclure(squared: Float[Tensor, "..."], scale: float | Tensor) -> Float[Tensor, "..."]:
    """Return the Geman-McClure loss, which never exceeds scale^2: far outliers do not pull at all.

    rho(r^2) = s^2 r^2 / (s^2 + r^2); Geman & McClure (1987), scaled as in SMPLify (Bogo et al. 2016, eq. 2).

    Args:
        squared: squared norm of each residual, any shape, not negative.
        scale: s > 0, in the residual's unit; a tensor broadcasts.

    Returns:
        The losses, in the unit of `squared`.
    """
    square = scale * scale
    return square * (squared / (squared + square))


def welsch(squared: Float[Tensor, "..."], scale: float | Tensor) -> Float[Tensor, "..."]:
    """Return the Welsch (Leclerc) loss: nearer to the square than Geman-McClure's, and outliers are let go sooner.

    rho(r^2) = s^2 (1 - exp(-r^2 / s^2)), at most s^2; Dennis & Welsch (1978).

    Args:
        squared: squared norm of each residual, any shape, not negative.
        scale: s > 0, in the residual's unit; a tensor broadcasts.

    Returns:
        The losses, in the unit of `squared`.
    """
    square = scale * scale
    return -square * torch.expm1(-squared / square)


def cauchy(squared: Float[Tensor, "..."], scale: float | Tensor) -> Float[Tensor, "..."]:
    """Return the Cauchy (Lorentzian) loss, which grows with the residual's logarithm: outliers pull less, but do.

    rho(r^2) = s^2 log(1 + r^2 / s^2); Black & Anandan (1996).

    Args:
        squared: squared norm of each residual, any shape, not negative.
        scale: s > 0, in the residual's unit; a tensor broadcasts.

    Returns:
        The losses, in the unit of `squared`.
    """
    square = scale * scale
    return square * torch.log1p(squared / square)


def huber(squared: Float[Tensor, "..."], scale: float | Tensor) -> Float[Tensor, "..."]:
    """Return the Huber loss, convex: quadratic up to the scale, then linear, so that all outliers pull alike.

    rho(r^2) = r^2 where r <= s, else 2 s r - s^2; Huber (1964), times two.

    Args:
        squared: squared norm of each residual, any shape, not negative.
        scale: s > 0, in the residual's unit; a tensor broadcasts.

    Returns:
        The losses, in the unit of `squared`.
    """
    square = scale * scale
    ratio = squared / square
    # The root's slope is infinite at 0, and `where` would turn that into NaN although it chooses the other branch.
    linear = square * (2 * ratio.clamp(min=1.0).sqrt() - 1)
    return torch.where(ratio <= 1, squared, linear)


def pseudo_huber(squared: Float[Tensor, "..."], scale: float | Tensor) -> Float[Tensor, "..."]:
    """Return the pseudo-Huber (Charbonnier) loss: Huber's with all derivatives continuous.

    rho(r^2) = 2 s^2 (sqrt(1 + r^2 / s^2) - 1); Charbonnier et al. (1994).

    Args:
        squared: squared norm of each residual, any shape, not negative.
        scale: s > 0, in the residual's unit; a tensor broadcasts.

    Returns:
        The losses, in the unit of `squared`.
    """
    root = (1 + squared / (scale * scale)).sqrt()
    # squared / (1 + root) is s^2 (root - 1) without the difference of nearly equal numbers.
    return 2 * (squared / (1 + root))


def geman_mcclure_scaling(squared: Float[Tensor, "..."], scale: float | Tensor) -> Float[Tensor, "..."]:
    """Return the factor by which a residual is multiplied so that its square is its Geman-McClure loss.

    s / sqrt(s^2 + r^2): smooth at zero, unlike the root of the loss over the squared residual.

    Args:
        squared: squared norm of each residual, any shape, not negative.
        scale: s > 0, in the residual's unit; a tensor broadcasts.

    Returns:
        Factors in (0, 1].
    """
    return torch.rsqrt(1 + squared / (scale * scale))


def welsch_scaling(squared: Float[Tensor, "..."], scale: float | Tensor) -> Float[Tensor, "..."]:
    """Return the factor by which a residual is multiplied so that its square is its Welsch loss.

    Args:
        squared: squared norm of each residual, any shape, not negative.
        scale: s > 0, in the residual's unit; a tensor broadcasts.

    Returns:
        Factors in (0, 1].
    """
    ratio = squared / (scale * scale)
    # Where the ratio is nothing, its quotient is the series' beginning.
    some = ratio.clamp_min(_TINY)
    return torch.where(ratio > _TINY, -torch.expm1(-some) / some, 1 - 0.5 * ratio).sqrt()


_TINY = 1e-9


@dataclass(frozen=True)
class RobustLoss:
    """A robust loss as terms need it; each function takes squared residuals and the scale."""

    value: Callable[[Tensor, Tensor], Tensor]
    """The loss."""
    scaling: Callable[[Tensor, Tensor], Tensor]
    """Factor of a residual whose square is then its loss."""
    root_slope: Callable[[Tensor, Tensor], Tensor]
    """Root of the loss's slope with respect to the square: a residual times it has the loss's gradient, and a
    curvature that never underestimates the loss's (iteratively reweighted least squares)."""


def _welsch_root_slope(squared: Tensor, scale: Tensor) -> Tensor:
    return torch.exp(-0.5 * squared / (scale * scale))


ROBUST_LOSSES = {
    "geman_mcclure": RobustLoss(
        geman_mcclure, geman_mcclure_scaling, lambda squared, scale: geman_mcclure_scaling(squared, scale).square()
    ),
    "welsch": RobustLoss(welsch, welsch_scaling, _welsch_root_slope),
}
"""Losses that a recipe can name."""
