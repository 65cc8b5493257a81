"""From motion capture's ideal T-pose to the T-pose of a body model's template.

In the data, zero rotations mean arms along X, legs along -Y, every joint's frame along the world's. A template's own
bones point elsewhere: its thighs outward, its shins back. So that posed bones point
where the data's do, global rotations are multiplied from the right by the constant rotation that takes the template's
bone to the ideal one; locally, R'_j = A_parent(j)^T R_j A_j.
"""

from __future__ import annotations

import numpy as np
import roma
import torch
from numpy.typing import NDArray
from torch import Tensor

BONES = {1: (4, "-y"), 2: (5, "-y"), 4: (7, "-y"), 5: (8, "-y")}
BONES |= {16: (18, "+x"), 17: (19, "-x"), 18: (20, "+x"), 19: (21, "-x")}
"""Joint -> (the joint at the end of its bone, the ideal direction): hips, knees, shoulders, elbows.

Not the spine, whose bones the sources know too coarsely (an upright person keeps the template's own curve), nor neck
and collars, which `motion_capture` centres per source.
"""
FEET = {7: 10, 8: 11}
"""Ankle -> toe joint: flat on the ground in both rests, so that only their turn about the vertical is taken out."""
AXES = {"+x": (1.0, 0, 0), "-x": (-1.0, 0, 0), "-y": (0, -1.0, 0), "+z": (0, 0, 1.0)}


def between(start: NDArray, end: NDArray) -> NDArray:
    """Return the smallest rotation (3, 3) that takes one direction to the other."""
    a, b = start / np.linalg.norm(start), end / np.linalg.norm(end)
    axis = np.cross(a, b)
    sine = np.linalg.norm(axis)
    angle = np.arctan2(sine, a @ b)
    rotvec = axis / sine * angle if sine > 1e-9 else np.zeros(3)
    return roma.rotvec_to_rotmat(torch.from_numpy(rotvec)).numpy()


def alignment(joints_rest: NDArray) -> NDArray:
    """Return A (22, 3, 3), which takes each joint's template bone to the ideal one.

    Args:
        joints_rest: the template's joints (at least 22, 3), metres.
    """
    aligned = np.tile(np.eye(3), (22, 1, 1))
    for joint, (end, axis) in BONES.items():
        aligned[joint] = between(joints_rest[end] - joints_rest[joint], np.array(AXES[axis]))
    for ankle, toe in FEET.items():
        forward = (joints_rest[toe] - joints_rest[ankle]) * [1, 0, 1]
        aligned[ankle] = aligned[toe] = between(forward, np.array(AXES["+z"]))
    return aligned


def rereferenced(rotations: Tensor, parents: NDArray, aligned: Tensor) -> Tensor:
    """Return local rotations (N, 22, 3, 3) for the template.

    Args:
        rotations: local rotations against the ideal T-pose (N, 22, 3, 3).
        parents: parent of each joint, -1 for the root.
        aligned: A_j, (22, 3, 3) or one for each frame (N, 22, 3, 3).
    """
    above = aligned[..., parents, :, :].clone()
    above[..., 0, :, :] = torch.eye(3, dtype=aligned.dtype)
    return above.mT @ rotations @ aligned
