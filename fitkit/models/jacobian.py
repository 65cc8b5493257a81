"""Derivatives of skinned landmarks in closed form, row by row: a row is a direction at a point.

A joint's rotation vector turns everything below the joint about the joint. A point y of which the share s is below the
joint at t moves by w x (y - s t) for a small rotation w in world axes, so along a direction a it moves by

    a . (w x (y - s t)) = (w, t x w) . (y x a, s a),

a twist times a wrench (Featherstone 2008, Rigid Body Dynamics Algorithms, section 2.10): all joints and all rows are
one product, whose inner dimension is six. The twists of joint j are w = R_parent(j) J_l(theta_j) e for the three axes
e, with SO(3)'s left Jacobian J_l. Points are never differentiated in space, only along rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.models.routes import Directions, Group, PairRoute, Route


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
    placed: Float[Tensor, "M Q 3"]
    """Contribution of each of the route's pairs to its point, metres."""


def left_jacobian_transposed(rotation_vectors: Float[Tensor, "M J 3"]) -> Float[Tensor, "M J 3 3"]:
    """Return the transpose of SO(3)'s left Jacobian: exp(theta + d) = exp(J_l d) exp(theta) to first order.

    J_l^T = sin(a) / a I - (1 - cos(a)) / a^2 [theta]_x + (1 - sin(a) / a) n n^T (Sola et al. 2018, equation 145).
    """
    angle = torch.linalg.vector_norm(rotation_vectors, dim=-1, keepdim=True)
    even = torch.sinc(angle / math.pi)
    odd = torch.sinc(angle / (2 * math.pi)).square() * (-0.5 * rotation_vectors)
    # Of a tiny angle the quotient is wrong, and multiplied by its square.
    along = (1 - even) / angle.square().clamp_min(torch.finfo(angle.dtype).tiny) * rotation_vectors
    outer = (along[..., None] * rotation_vectors[..., None, :]).flatten(2)
    x, y, z = odd.split(1, dim=-1)
    rest = torch.cat([even, -z, y, z, even, -x, -y, x, even], dim=-1)
    return (outer + rest).unflatten(2, (3, 3))


def cross_matrix(vectors: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3 3"]:
    """Return the matrices that take the cross product with vectors from the left."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


class RowDerivatives:
    """The derivatives of rows at a posed body's points, group by group."""

    def __init__(self, route: Route, state: PosedState, rows: Float[Tensor, "M R X"]) -> None:
        """Prepare what the groups share.

        Args:
            route: of these rows.
            state: the posed body.
            rows: direction of each row, world axes; what follows it is handed through beside the derivatives.
        """
        self.state, count = state, len(route.rows) - len(route.partial_joints)
        above = state.rotations.index_select(1, route.parents)
        above[:, 0] = torch.eye(3, dtype=rows.dtype, device=rows.device)
        self.into_above = above.mT.contiguous()
        self.axes = left_jacobian_transposed(state.rotation_vectors)
        self.values = rows.index_select(1, route.rows).mT.contiguous()
        self.wrenches = self._wrenches(route)
        world = self.axes @ self.into_above
        about = torch.linalg.cross(state.positions[:, :, None].expand_as(world), world, dim=-1)
        twists = torch.cat([world, about], dim=-1)
        self.twists = twists.flatten(1, 2)
        partial = twists.index_select(1, route.partial_joints) @ self.wrenches[:, :, count:].mT[..., None]
        self.partial = partial.flatten(1)
        frames = state.rotations.index_select(1, route.pair_joints)
        along = rows[..., None, :3].index_select(1, route.pair_rows) @ frames
        self.in_frames = along.mT.permute(0, 2, 3, 1).contiguous().unbind(1)

    def _wrenches(self, route: Route) -> Float[Tensor, "M 6 X"]:
        """Return the wrench of each sorted row, then of each partial entry, about the body's own origin."""
        pairs, owners = route.members
        placed = self.state.placed.transpose(0, 1)
        parts = placed.new_zeros(route.parts, *placed.shape[1:])
        parts.index_add_(0, owners, placed.index_select(0, pairs))
        points = parts.permute(1, 2, 0).index_select(2, route.points)
        directions = self.values[:, :3]
        return torch.cat([torch.linalg.cross(points, directions, dim=1), directions * route.shares], dim=1)

    def of(self, group: Group) -> Float[Tensor, "M C R"]:
        """Return the derivative of a group's rows with respect to its columns, then what came beside the directions."""
        directions = self.values[:, :3, group.rows]
        turned = self.twists.index_select(1, group.twists) @ self.wrenches[:, :, group.rows]
        turned *= group.whole
        if group.places.shape[1]:
            values = self.partial[:, 3 * group.partial.start : 3 * group.partial.stop]
            turned.flatten(1).scatter_(1, group.places.expand_as(values), values)
        if group.pairs is not None and group.pairs.pose is not None:
            self._correct(turned, group.pairs)
        pieces = [turned[:, : group.single]]
        if group.transl is not None:
            pieces.append(directions * group.transl)
        pieces += [components @ turned[:, twists] for twists, components in group.spaces]
        if group.shape:
            pieces.append(self._shaped(group, directions))
        pieces.append(self.values[:, 3:, group.rows])
        return torch.cat(pieces, dim=1)

    def _shaped(self, group: Group, directions: Float[Tensor, "M 3 R"]) -> Float[Tensor, "M S R"]:
        """Return the derivative of a group's rows with respect to its shape coefficients."""
        if group.chain is None:
            moved = directions.new_zeros(len(directions), group.shape, directions.shape[2])
        else:
            frames = self.into_above.index_select(1, group.chain.joints).flatten(1, 2)
            along = frames @ directions
            along *= group.chain.shares
            moved = group.chain.offsets @ along
            still = group.shape - moved.shape[1]
            moved = torch.nn.functional.pad(moved, (0, 0, 0, still)) if still else moved
        if group.pairs is not None:
            self._add_pairs(moved, group.pairs, group.pairs.shape)
        return moved

    def _add_pairs(self, total: Float[Tensor, "M S R"], pairs: PairRoute, directions: Directions) -> None:
        """Add how far each row's pairs move along it with each of some coefficients."""
        x, y, z = (axis[..., pairs.entries] for axis in self.in_frames)
        start = 0
        for rows, (dx, dy, dz) in zip(pairs.levels, directions, strict=False):
            part = slice(start, start + rows)
            total[..., :rows].addcmul_(dx, x[..., part]).addcmul_(dy, y[..., part]).addcmul_(dz, z[..., part])
            start += rows
        if pairs.others is not None:
            dx, dy, dz = directions[-1]
            rest = (dx * x[..., start:]).addcmul_(dy, y[..., start:]).addcmul_(dz, z[..., start:])
            total[..., : pairs.others.shape[2]] += rest @ pairs.others

    def _correct(self, turned: Float[Tensor, "M T R"], pairs: PairRoute) -> None:
        """Add what the pose correctives contribute: they grow with R - 1 of every joint but the root."""
        assert pairs.pose is not None
        joints, count = pairs.turning, len(pairs.turning)
        # d R = [J_l d theta]_x R, one matrix for each of the three axes.
        change = (cross_matrix(self.axes[:, joints]) @ self.state.local[:, joints, None]).flatten(-2)
        features = turned.new_zeros(len(turned), 9 * count, turned.shape[2])
        self._add_pairs(features, pairs, pairs.pose)
        turned[:, -3 * count :] += (change @ features.unflatten(1, (count, 9))).flatten(1, 2)
