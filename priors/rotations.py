"""Derivatives of rotations: of rotation vectors, and of the six numbers from which networks make a rotation.

Where a rotation R turns by a small rotation vector w in its own axes, it becomes R exp(w). SO(3)'s right Jacobian says
how w follows from a change of R's rotation vector: exp(x + d) = exp(x) exp(J_r(x) d) to first order (Sola et al. 2018,
"A micro Lie theory for state estimation in robotics", equations 143 and 144).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

_SMALL = 1e-3
"""Squared angle below which series replace quotients of vanishing numbers."""


def right_jacobian(rotation_vectors: Float[Tensor, "*rows 3"]) -> Float[Tensor, "*rows 3 3"]:
    """Return J_r: which small rotation, in the rotation's own axes, a change of the rotation vector makes.

    J_r = I - (1 - cos a) / a^2 [x]_x + (a - sin a) / a^3 [x]_x^2.
    """
    squared = rotation_vectors.square().sum(-1)
    safe = squared.clamp_min(_SMALL)
    angle = safe.sqrt()
    half = 0.5 * torch.sinc(angle / (2 * math.pi)).square()
    first = torch.where(squared < _SMALL, 0.5 - squared / 24 + squared**2 / 720, half)
    series = 1 / 6 - squared / 120 + squared**2 / 5040 - squared**3 / 362880
    second = torch.where(squared < _SMALL, series, (angle - angle.sin()) / (safe * angle))
    return _combined(rotation_vectors, -first, second)


def right_jacobian_inverse(rotation_vectors: Float[Tensor, "*rows 3"]) -> Float[Tensor, "*rows 3 3"]:
    """Return the inverse of J_r: how the rotation vector follows a small rotation; angles below 2 pi.

    J_r^-1 = I + [x]_x / 2 + (1 / a^2 - cot(a / 2) / (2 a)) [x]_x^2.
    """
    squared = rotation_vectors.square().sum(-1)
    safe = squared.clamp_min(_SMALL)
    angle = safe.sqrt()
    quotient = 1 / safe - 1 / (2 * angle * torch.tan(angle / 2))
    series = 1 / 12 + squared / 720 + squared**2 / 30240 + squared**3 / 1209600
    second = torch.where(squared < _SMALL, series, quotient)
    return _combined(rotation_vectors, torch.full_like(squared, 0.5), second)


def rotation_vectors(rotations: Float[Tensor, "*rows 3 3"]) -> Float[Tensor, "*rows 3"]:
    """Return the rotation vectors of rotations, of angles up to pi, radians.

    By the quaternion's outer product with itself, of which the longest column is taken (Bar-Itzhack 2000): exact at all
    angles, and made of operations that `torch.func` can map and derive, other than roma's.
    """
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in rotations.unbind(-2))
    rows = [(1 + a + e + i, h - f, c - g, d - b), (h - f, 1 + a - e - i, b + d, c + g)]
    rows += [(c - g, b + d, 1 - a + e - i, f + h), (d - b, c + g, f + h, 1 - a - e + i)]
    outer = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    longest = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)
    chosen = torch.take_along_dim(outer, longest[..., None, None].expand_as(outer[..., :1, :]), dim=-2)[..., 0, :]
    real, imaginary = chosen.split([1, 3], dim=-1)
    sign = torch.where(real < 0, -1.0, 1.0).to(real)
    real, imaginary = sign * real, sign * imaginary
    squared = imaginary.square().sum(-1, keepdim=True)
    # A tiny angle is twice the quotient, whose relative error is a third of its square.
    is_tiny = squared < 1e-12 * real.square()
    sine = torch.where(is_tiny, 1.0, squared).sqrt()
    ratio = torch.where(is_tiny, 2 / torch.where(is_tiny, real, 1.0), 2 * torch.atan2(sine, real) / sine)
    return ratio * imaginary


def orthonormal(numbers: Float[Tensor, "*rows 6"]) -> Float[Tensor, "*rows 3 3"]:
    """Return the rotation whose first two columns are the two of (3, 2) numbers, made orthonormal.

    Gram and Schmidt's procedure (Zhou et al. 2019, "On the continuity of rotation representations", section 4).
    """
    first, second = numbers.unflatten(-1, (3, 2)).unbind(-1)
    x = normalize(first, dim=-1)
    y = normalize(second - (x * second).sum(-1, keepdim=True) * x, dim=-1)
    (a, b, c), (d, e, f) = x.unbind(-1), y.unbind(-1)
    # Their cross product, written out: torch's own takes ten times as long on many rows.
    z = torch.stack([b * f - c * e, c * d - a * f, a * e - b * d], dim=-1)
    return torch.stack([x, y, z], dim=-1)


def orthonormal_slopes(
    numbers: Float[Tensor, "*rows 6"], rotations: Float[Tensor, "*rows 3 3"]
) -> Float[Tensor, "*rows 3 6"]:
    """Return which small rotation, in the rotation's own axes, a change of the six numbers makes."""
    first, second = numbers.unflatten(-1, (3, 2)).unbind(-1)
    x, y, z = rotations.unbind(-1)
    length = first.norm(dim=-1, keepdim=True)
    along = (x * second).sum(-1, keepdim=True)
    rest = (second - along * x).norm(dim=-1, keepdim=True)
    zero = torch.zeros_like(x)
    about_x = torch.stack([-along / (length * rest) * z, z / rest], dim=-1)
    about_y = torch.stack([-z / length, zero], dim=-1)
    about_z = torch.stack([y / length, zero], dim=-1)
    return torch.stack([about_x, about_y, about_z], dim=-3).flatten(-2)


def first_columns_slopes(rotations: Float[Tensor, "*rows 3 3"]) -> Float[Tensor, "*rows 6 3"]:
    """Return how a rotation's first two columns, as six numbers, follow a small rotation in its own axes."""
    x, y, z = rotations.unbind(-1)
    zero = torch.zeros_like(x)
    # R [w]_x: the first column becomes w_z y - w_y z, the second w_x z - w_z x.
    first = torch.stack([zero, -z, y], dim=-1)
    second = torch.stack([z, zero, -x], dim=-1)
    return torch.stack([first, second], dim=-2).flatten(-3, -2)


def _combined(vectors: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return I + first [x]_x + second [x]_x^2."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    unit = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    return unit + first[..., None, None] * cross + second[..., None, None] * (cross @ cross)
