"""Poses seen in a mirror: sides swapped, each rotation reflected in the body's plane of symmetry."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

_PAIRS = ((0, 1), (3, 4), (6, 7), (9, 10), (12, 13), (15, 16), (17, 18), (19, 20))
"""Left and right hip, knee, ankle, foot, collar, shoulder, elbow, wrist among the 21 body joints."""
_REFLECTION = (1.0, -1.0, -1.0)
OTHER_SIDE = tuple(dict([*_PAIRS, *(pair[::-1] for pair in _PAIRS)]).get(joint, joint) for joint in range(21))
"""For each of the 21 body joints, the one that a mirror shows in its place."""


def mirrored(values: Float[Tensor, "*rows 63"]) -> Float[Tensor, "*rows 63"]:
    """Return body poses, or matrices whose rows act on them, of the mirrored person.

    Being its own inverse and orthonormal, the map serves rows of a matrix as it serves poses:
    mirrored(A) @ pose == A @ mirrored(pose).

    Args:
        values: axis-angle of the 21 body joints, radians, along the last dimension.
    """
    reflection = torch.tensor(_REFLECTION, dtype=values.dtype, device=values.device)
    return (values.unflatten(-1, (21, 3))[..., OTHER_SIDE, :] * reflection).flatten(-2)


@lru_cache
def mirrored_columns() -> tuple[Float[Tensor, "126 63"], Float[Tensor, "126 63"]]:
    """Return orthonormal bases of what a mirror leaves alone and of what it turns round.

    They span the poses given as the first two columns of 21 rotations, six numbers a joint, row by row.
    """
    reflection = torch.tensor([-1.0, 1.0, 1.0])
    signs = (reflection[:, None] * reflection[:2]).flatten()
    even: list[Tensor] = []
    odd: list[Tensor] = []
    numbers = torch.eye(126).unflatten(0, (21, 6))
    for joint in range(21):
        if OTHER_SIDE[joint] == joint:
            for sign, row in zip(signs, numbers[joint], strict=True):
                (even if sign > 0 else odd).append(row)
    for left, right in _PAIRS:
        for sign, one, other in zip(signs, numbers[left], numbers[right], strict=True):
            even.append((one + sign * other) * 0.5**0.5)
            odd.append((one - sign * other) * 0.5**0.5)
    return torch.stack(even, 1), torch.stack(odd, 1)
