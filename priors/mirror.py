"""Poses seen in a mirror: sides swapped, each rotation reflected in the body's plane of symmetry."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_PAIRS = ((0, 1), (3, 4), (6, 7), (9, 10), (12, 13), (15, 16), (17, 18), (19, 20))
"""Left and right hip, knee, ankle, foot, collar, shoulder, elbow, wrist among the 21 body joints."""
_REFLECTION = (1.0, -1.0, -1.0)


def mirrored(values: Float[Tensor, "*rows 63"]) -> Float[Tensor, "*rows 63"]:
    """Return body poses, or matrices whose rows act on them, of the mirrored person.

    Being its own inverse and orthonormal, the map serves rows of a matrix as it serves poses:
    mirrored(A) @ pose == A @ mirrored(pose).

    Args:
        values: axis-angle of the 21 body joints, radians, along the last dimension.
    """
    order = list(range(21))
    for left, right in _PAIRS:
        order[left], order[right] = right, left
    reflection = torch.tensor(_REFLECTION, dtype=values.dtype, device=values.device)
    return (values.unflatten(-1, (21, 3))[..., order, :] * reflection).flatten(-2)
