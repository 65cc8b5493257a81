"""Linear blend skinning as pure functions; M is any number of bodies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

_TOGETHER = 4
"""Bodies skinned at once on a CPU: the transforms of all their vertices stay in its cache."""


@dataclass(frozen=True)
class KinematicLevel:
    """The joints at one depth of the kinematic tree."""

    joints: Int[Tensor, " L"]
    """Joint indices."""
    parents: Int[Tensor, " L"]
    """For each, its parent's place within the level above."""


@dataclass(frozen=True)
class KinematicTree:
    """Parents of J joints, and the joints sorted by depth so that a level is posed in one operation."""

    parents: tuple[int, ...]
    """Parent of each joint; -1 for the root, which is joint 0."""
    levels: tuple[KinematicLevel, ...]
    """The levels below the root, top down."""
    order: Int[Tensor, " J"]
    """For each joint, its place when root and levels are laid one after the other."""

    @cached_property
    def above(self) -> Int[Tensor, " J"]:
        """Parent of each joint; the root's is itself."""
        return torch.tensor([max(parent, 0) for parent in self.parents], device=self.order.device)


def kinematic_tree(parents: Sequence[int], device: torch.device | None = None) -> KinematicTree:
    """Return the tree of joints whose parents come before them; the root is joint 0 with parent -1."""
    above, levels, laid = [0], [], [0]
    while True:
        joints = [j for j, parent in enumerate(parents) if j > 0 and parent in above]
        if not joints:
            break
        places = [above.index(parents[j]) for j in joints]
        levels.append(KinematicLevel(torch.tensor(joints, device=device), torch.tensor(places, device=device)))
        laid += joints
        above = joints
    order = torch.empty(len(laid), dtype=torch.long)
    order[torch.tensor(laid)] = torch.arange(len(laid))
    return KinematicTree(tuple(parents), tuple(levels), order.to(device))


def rotation_matrices(rotation_vectors: Float[Tensor, "M J 3"]) -> Float[Tensor, "M J 3 3"]:
    """Return rotation matrices of rotation vectors in radians: roma's, in a third of its operations.

    R = cos(a) I + sin(a) / a [theta]_x + (1 - cos(a)) / a^2 theta theta^T (Rodrigues). roma goes by quaternions; of a
    single body the time is all in starting operations, and every evaluation asks for these.
    """
    squared = rotation_vectors.square().sum(-1, keepdim=True)
    # The root's slope is infinite at 0.
    angle = squared.clamp_min(torch.finfo(squared.dtype).tiny).sqrt()
    sine = torch.sinc(angle / math.pi) * rotation_vectors
    bend = 0.5 * torch.sinc(angle / (2 * math.pi)).square()
    cosine = 1 - bend * squared
    outer = ((bend * rotation_vectors)[..., None] * rotation_vectors[..., None, :]).flatten(-2)
    x, y, z = sine.split_with_sizes((1, 1, 1), dim=-1)
    rest = torch.cat([cosine, -z, y, z, cosine, -x, -y, x, cosine], dim=-1)
    return (outer + rest).view(*rotation_vectors.shape, 3)


def pose_joints(
    rotations: Float[Tensor, "M J 3 3"], joints_rest: Float[Tensor, "M J 3"], tree: KinematicTree
) -> tuple[Float[Tensor, "M J 3 3"], Float[Tensor, "M J 3"]]:
    """Return every joint's global rotation and position (metres) from rotations relative to the parents."""
    offsets = joints_rest - joints_rest.index_select(1, tree.above)
    offsets = torch.cat([joints_rest[:, :1], offsets[:, 1:]], dim=1)
    # Rows 0 0 0 1 below, so that a level is one product.
    last = torch.eye(4, dtype=offsets.dtype, device=offsets.device)[3]
    local = torch.cat([rotations, offsets[..., None]], dim=-1)
    local = torch.cat([local, last.expand(*local.shape[:2], 1, 4)], dim=-2)
    above = local[:, :1]
    laid = [above]
    for level in tree.levels:
        above = above.index_select(1, level.parents) @ local.index_select(1, level.joints)
        laid.append(above)
    posed = torch.cat(laid, dim=1).index_select(1, tree.order)
    return posed[..., :3, :3], posed[..., :3, 3]


def blend(
    template: Float[Tensor, "P 3"], directions: Float[Tensor, "P 3 S"], coefficients: Float[Tensor, "M S"]
) -> Float[Tensor, "M P 3"]:
    """Return points moved along their linear directions, metres."""
    points, _, components = directions.shape
    moved = torch.addmm(template.reshape(1, -1), coefficients, directions.reshape(points * 3, components).T)
    return moved.view(coefficients.shape[0], points, 3)


def skin(
    points: Float[Tensor, "M V 3"],
    weights: Float[Tensor, "V J"],
    rotations: Float[Tensor, "M J 3 3"],
    positions: Float[Tensor, "M J 3"],
    joints_rest: Float[Tensor, "M J 3"],
) -> Float[Tensor, "M V 3"]:
    """Return the rest-pose points moved by their weighted joints, metres (Loper et al. 2015, equation 2)."""
    offsets = positions - (rotations @ joints_rest[..., None])[..., 0]
    transforms = torch.cat([rotations, offsets[..., None]], dim=-1).flatten(2).mT
    together = _TOGETHER if points.device.type == "cpu" else len(points)
    pieces = zip(points.split(together), transforms.split(together), strict=True)
    return torch.cat([_carried(some, of_joints @ weights.T) for some, of_joints in pieces])


def _carried(points: Float[Tensor, "M V 3"], transforms: Float[Tensor, "M 12 V"]) -> Float[Tensor, "M V 3"]:
    """Return points moved by a transform each: one coordinate of all points after another."""
    by_x, by_y, by_z, moved = transforms.unflatten(1, (3, 4)).unbind(2)
    x, y, z = points.mT[:, None].unbind(2)
    return torch.addcmul(moved, by_x, x).addcmul_(by_y, y).addcmul_(by_z, z).mT
