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

from fitkit.models.routes import CorrectiveRoute, Group, PairRoute, Route


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
    x, y, z = odd.split_with_sizes((1, 1, 1), dim=-1)
    rest = torch.cat([even, -z, y, z, even, -x, -y, x, even], dim=-1)
    return (outer + rest).view(*rotation_vectors.shape, 3)


def cross_matrix(vectors: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3 3"]:
    """Return the matrices that take the cross product with vectors from the left."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


class RowDerivatives:
    """The derivatives of rows at a posed body's points, group by group."""

    def __init__(self, route: Route, state: PosedState, rows: Float[Tensor, "M R X"]) -> None:
        """Prepare all groups together: what is small starts slowly, whatever its size.

        Args:
            route: of these rows.
            state: the posed body.
            rows: direction of each row, world axes; what follows it is handed through beside the derivatives.
        """
        self.route, self.state, self.rows = route, state, rows
        above = state.rotations.index_select(1, route.parents)
        above[:, 0] = torch.eye(3, dtype=rows.dtype, device=rows.device)
        into_above = above.mT
        self.axes = left_jacobian_transposed(state.rotation_vectors)
        values = rows.index_select(1, route.rows).mT.contiguous()
        own = values[..., : sum(route.row_sizes)]
        directions = own[:, :3]
        self.directions = directions.split_with_sizes(route.row_sizes, dim=2)
        self.moved = (directions * route.transl).split_with_sizes(route.row_sizes, dim=2)
        self.beside = own[:, 3:].split_with_sizes(route.row_sizes, dim=2)
        *self.wrenches, carried = _wrenches(route, state, values[:, :3]).split_with_sizes(
            [*route.row_sizes, len(route.partial_joints)], dim=2
        )
        twists = _twists(self.axes @ into_above, state.positions)
        self.twists = twists.flatten(1, 2).index_select(1, route.twists).split_with_sizes(route.twist_sizes, dim=1)
        partial = twists.index_select(1, route.partial_joints) @ carried.mT[..., None]
        self.partial = partial.flatten(1).split_with_sizes(route.partial_sizes, dim=1)
        self.frames = (
            into_above.index_select(1, route.chain_joints).flatten(1, 2).split_with_sizes(route.chain_sizes, dim=1)
        )
        frames = state.rotations.index_select(1, route.pair_joints)
        along = rows[..., None, :3].index_select(1, route.pair_rows) @ frames
        x, y, z = along.permute(3, 0, 2, 1).contiguous().unbind(0)
        self.in_frames = [axis.split_with_sizes(route.pair_sizes, dim=2) for axis in (x, y, z)]

    def of(self, number: int) -> Float[Tensor, "M C R"]:
        """Return the derivative of a group's rows with respect to its columns, then what came beside the directions."""
        group = self.route.groups[number]
        turned = torch.bmm(self.twists[number], self.wrenches[number])
        turned *= group.whole
        if group.places is not None:
            turned.flatten(1).scatter_(1, group.places.expand(len(turned), -1), self.partial[number])
        if group.correctives is not None:
            self._correct(turned, group.correctives)
        single, *spaces = turned.split_with_sizes(group.twist_sizes, dim=1)
        pieces = [single]
        if group.transl:
            pieces.append(self.moved[number])
        for components, twists in zip(group.spaces, spaces, strict=True):
            pieces.append(torch.bmm(components.expand(len(turned), -1, -1), twists))
        if group.shape:
            pieces.append(self._shaped(number, group))
        return torch.cat([*pieces, self.beside[number]], dim=1)

    def _shaped(self, number: int, group: Group) -> Float[Tensor, "M S R"]:
        """Return the derivative of a group's rows with respect to its shape coefficients."""
        directions = self.directions[number]
        if group.chain is None:
            moved = directions.new_zeros(len(directions), group.shape, directions.shape[2])
        else:
            along = torch.bmm(self.frames[number], directions)
            along *= group.chain.shares
            moved = torch.bmm(group.chain.offsets.expand(len(along), -1, -1), along)
            still = group.shape - moved.shape[1]
            moved = torch.nn.functional.pad(moved, (0, 0, 0, still)) if still else moved
        if group.pairs is not None:
            self._add_pairs(moved, group.pairs)
        return moved

    def _add_pairs(self, total: Float[Tensor, "M S R"], pairs: PairRoute) -> None:
        """Add how far each row's pairs move along it with each coefficient."""
        levels = zip(pairs.directions, *(axis[pairs.levels] for axis in self.in_frames), strict=True)
        last = len(pairs.directions) - (pairs.others is not None)
        for level, ((dx, dy, dz), x, y, z) in enumerate(levels):
            if level < last:
                total[..., : x.shape[2]].addcmul_(dx, x).addcmul_(dy, y).addcmul_(dz, z)
            else:
                rest = (dx * x).addcmul_(dy, y).addcmul_(dz, z)
                others = pairs.others.expand(len(total), -1, -1)  # type: ignore[union-attr]
                total[..., : others.shape[2]] += torch.bmm(rest, others)

    def _correct(self, turned: Float[Tensor, "M T R"], route: CorrectiveRoute) -> None:
        """Add what the pose's correctives contribute: they grow with R - 1 of every joint but the root."""
        count, features = len(turned), len(route.turning)
        # d R = [J_l d theta]_x R, one matrix for each of the three axes.
        axes = cross_matrix(self.axes.index_select(1, route.turning))
        change = (axes @ self.state.local.index_select(1, route.turning)[:, :, None]).reshape(-1, 3, 9)
        along = self.rows[..., None, :3].index_select(1, route.rows) @ self.state.rotations.index_select(
            1, route.joints
        )
        along = along.reshape(count, -1, 3 * route.pairs).transpose(0, 1)
        # (P, rows at a point times M, 3 n) by (P, 3 n, 9 F); a row's M bodies follow each other in both.
        each = along.reshape(len(route.directions), -1, 3 * route.pairs) @ route.directions
        moved = torch.bmm(change, each.view(-1, count * features, 9).permute(1, 2, 0))
        turned[:, -3 * features :, : moved.shape[2]] += moved.unflatten(0, (count, features)).flatten(1, 2)


def _wrenches(route: Route, state: PosedState, directions: Float[Tensor, "M 3 X"]) -> Float[Tensor, "M 6 X"]:
    """Return the wrench of each sorted row, then of each partial entry, about the body's own origin."""
    pairs, owners = route.members
    placed = state.placed.transpose(0, 1)
    parts = placed.new_zeros(route.parts, *placed.shape[1:])
    parts.index_add_(0, owners, placed.index_select(0, pairs))
    points = parts.permute(1, 2, 0).index_select(2, route.points)
    return torch.cat([torch.linalg.cross(points, directions, dim=1), directions * route.shares], dim=1)


def _twists(axes: Float[Tensor, "M J 3 3"], positions: Float[Tensor, "M J 3"]) -> Float[Tensor, "M J 3 6"]:
    """Return the twist of each joint about each of its axes, given in rows, about the body's own origin."""
    about = torch.linalg.cross(positions[:, :, None].expand_as(axes), axes, dim=-1)
    return torch.cat([axes, about], dim=-1)
