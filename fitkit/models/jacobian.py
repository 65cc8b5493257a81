"""Derivatives of skinned landmarks in closed form.

A joint's rotation vector turns everything below the joint about the joint: a landmark made of pairs q moves by
w x sum_q (y_q - share_q t_j) over the pairs below joint j, where y_q is the pair's contribution to the landmark and w
the small rotation in world axes, w = R_parent(j) J_l(theta_j) d theta_j with SO(3)'s left Jacobian J_l.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fitkit.models.lbs import KinematicTree
from fitkit.models.sparse import LandmarkPlan


def left_jacobian(rotation_vectors: Float[Tensor, "M J 3"]) -> Float[Tensor, "M J 3 3"]:
    """Return SO(3)'s left Jacobian: exp(theta + d) = exp(J_l d) exp(theta) to first order (Sola et al. 2018, 145)."""
    squared = rotation_vectors.square().sum(-1)[..., None, None]
    # Below a hundredth of a radian the series is exact to double precision where the closed forms cancel.
    small = squared < 1e-4
    safe = torch.where(small, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    first = torch.where(small, 0.5 - squared / 24 + squared.square() / 720, (1 - angle.cos()) / safe)
    second = torch.where(small, 1 / 6 - squared / 120 + squared.square() / 5040, (angle - angle.sin()) / (safe * angle))
    cross = cross_matrix(rotation_vectors)
    return torch.eye(3).to(cross) + first * cross + second * (cross @ cross)


def cross_matrix(vectors: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3 3"]:
    """Return the matrices that take the cross product with vectors from the left."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def descendants(tree: KinematicTree) -> Float[Tensor, "J J"]:
    """Return 1 where joint (row) is, or lies below, joint (column)."""
    count = len(tree.parents)
    below = torch.eye(count)
    for joint in range(1, count):
        below[joint] += below[tree.parents[joint]]
    return below


@dataclass(frozen=True)
class PosedState:
    """What derivatives need of a posed body."""

    rotations: Float[Tensor, "M J 3 3"]
    """Global rotations."""
    positions: Float[Tensor, "M J 3"]
    """Joint positions without the body's translation, metres."""
    local: Float[Tensor, "M J 3 3"]
    """Rotations relative to the parents."""
    rotation_vectors: Float[Tensor, "M J 3"]
    """The same as axis-angle, radians."""
    points: Float[Tensor, "M Q 3"]
    """Each pair's point in its joint's frame."""
    placed: Float[Tensor, "M Q 3"]
    """Each pair's contribution to its landmark."""


@dataclass(frozen=True)
class Reach:
    """Which joints move which pairs: E entries, one for each pair and joint at or above the pair's joint."""

    pair: Int[Tensor, " E"]
    """Pair of each entry."""
    joint: Int[Tensor, " E"]
    """Joint of each entry."""


def reach(plan: LandmarkPlan, tree: KinematicTree, joints: Int[Tensor, " F"]) -> Reach:
    """Return the entries of the joints that are free."""
    below = descendants(tree).to(plan.pair_joint.device)
    chosen = torch.zeros(len(tree.parents), device=below.device)
    chosen[joints] = 1
    pair, joint = (below[plan.pair_joint] * chosen).nonzero(as_tuple=True)
    return Reach(pair, joint)


def rotation_jacobian(
    plan: LandmarkPlan, state: PosedState, tree: KinematicTree, joints: Int[Tensor, " F"]
) -> Float[Tensor, "M K 3 F*3"]:
    """Return the derivative of landmarks with respect to the rotation vectors of some joints, metres per radian."""
    entries = reach(plan, tree, joints)
    lever = state.placed[:, entries.pair] - plan.share[entries.pair, None] * state.positions[:, entries.joint]
    axes = left_jacobian(state.rotation_vectors[:, joints])
    parents = torch.tensor([max(parent, 0) for parent in tree.parents], device=joints.device)[joints]
    turned = state.rotations[:, parents] @ axes
    axes = torch.where((joints == 0)[:, None, None], axes, turned)
    place = torch.zeros(len(tree.parents), dtype=torch.long, device=joints.device)
    place[joints] = torch.arange(len(joints), device=joints.device)
    column = place[entries.joint]
    rows, free = len(lever), len(joints)
    flat = lever.new_zeros(rows, plan.landmarks * free, 3)
    flat = flat.index_add(1, plan.pair_landmark[entries.pair] * free + column, lever)
    levers = flat.unflatten(1, (plan.landmarks, free))
    # Column c of a joint's block is axis_c x lever.
    moved = -cross_matrix(levers) @ axes[:, None]
    return moved.permute(0, 1, 3, 2, 4).flatten(3)


def shape_jacobian(
    plan: LandmarkPlan, state: PosedState, tree: KinematicTree, J_shapedirs: Float[Tensor, "J 3 S"]
) -> Float[Tensor, "M K 3 S"]:
    """Return the derivative of landmarks with respect to shape coefficients, metres per unit.

    The directions of `plan` and `J_shapedirs` must be cut to the coefficients asked for.
    """
    parents = [max(parent, 0) for parent in tree.parents]
    offsets = J_shapedirs - torch.cat([torch.zeros_like(J_shapedirs[:1]), J_shapedirs[parents[1:]]])
    rotations = state.rotations
    moved = torch.cat([offsets[:1].expand(len(rotations), -1, -1, -1), rotations[:, parents[1:]] @ offsets[1:]], dim=1)
    below = descendants(tree).to(moved)
    joints = (below @ moved.flatten(2)).unflatten(2, moved.shape[2:])
    pairs = rotations[:, plan.pair_joint] @ plan.directions
    pairs = pairs + plan.share[:, None, None] * joints[:, plan.pair_joint]
    return plan.gathered(pairs)


def corrective_jacobian(plan: LandmarkPlan, state: PosedState, joints: Int[Tensor, " F"]) -> Float[Tensor, "M K 3 F*3"]:
    """Return what the pose correctives add to `rotation_jacobian`: they grow with R - 1 of every joint but the root."""
    assert plan.pose_directions is not None
    rows, free = len(state.points), len(joints)
    total = state.points.new_zeros(rows, plan.landmarks, 3, free, 3)
    moving = joints > 0
    own = joints[moving]
    # d R = [J_l d theta]_x R, one matrix for each of the three axes.
    axes = left_jacobian(state.rotation_vectors[:, own]).transpose(-1, -2)
    change = (cross_matrix(axes) @ state.local[:, own, None]).flatten(-2)
    directions = plan.pose_directions.unflatten(-1, (-1, 9))[:, :, own - 1]
    in_frame = torch.einsum("qdjr,mjcr->mqdjc", directions, change)
    turned = torch.einsum("mqed,mqdjc->mqejc", state.rotations[:, plan.pair_joint], in_frame)
    total[:, :, :, moving] = plan.gathered(turned)
    return total.flatten(3)
