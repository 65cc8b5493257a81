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

from fitkit.models.routes import Group, PairRoute, Route


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
    squared = rotation_vectors.square().sum(-1, keepdim=True)
    angle = squared.sqrt()
    even = torch.sinc(angle / math.pi)
    half = torch.sinc(angle / (2 * math.pi))
    # Of a tiny angle the quotient is wrong, and multiplied by its square.
    along = (1 - even) / squared.clamp_min(torch.finfo(squared.dtype).tiny)
    odd = cross_matrix(rotation_vectors * (-0.5 * half * half))
    outer = (along * rotation_vectors)[..., None] * rotation_vectors[..., None, :]
    return torch.diag_embed(even.expand(rotation_vectors.shape)) + odd + outer


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
        self.above = state.rotations[:, route.parents]
        self.above[:, 0] = torch.eye(3, dtype=rows.dtype, device=rows.device)
        self.axes = left_jacobian_transposed(state.rotation_vectors)
        self.values = rows[:, route.rows].mT.contiguous()
        directions = self.values[:, :3]
        points = (state.placed.mT @ route.gather)[:, :, route.points]
        moments = torch.linalg.cross(points, directions, dim=1)
        self.wrenches = torch.cat([moments, directions * route.shares], dim=1)
        world = self.axes @ self.above.mT
        about = torch.linalg.cross(state.positions[:, :, None].expand_as(world), world, dim=-1)
        twists = torch.cat([world, about], dim=-1)
        self.twists = twists.flatten(1, 2)
        partial = twists[:, route.partial_joints] @ self.wrenches[:, :, count:].mT[..., None]
        self.partial = partial.flatten(1)
        across = directions[:, :, route.pair_rows].mT[..., None, :] @ state.rotations[:, route.pair_joints]
        self.in_frames = across[:, :, 0].mT.contiguous()

    def of(self, group: Group) -> Float[Tensor, "M C R"]:
        """Return the derivative of a group's rows with respect to its columns, then what came beside the directions."""
        turned = self.twists[:, group.twists] @ self.wrenches[:, :, group.rows]
        turned *= group.whole
        if group.places.shape[1]:
            values = self.partial[:, 3 * group.partial.start : 3 * group.partial.stop]
            turned.flatten(1).scatter_(1, group.places.expand(len(values), -1), values)
        if group.pairs is not None and group.pairs.pose is not None:
            self._correct(turned, group.pairs)
        pieces = [turned[:, : group.single]]
        if group.transl is not None:
            pieces.append(self.values[:, :3, group.rows] * group.transl)
        pieces += [components.expand(len(turned), -1, -1) @ turned[:, twists] for twists, components in group.spaces]
        if group.shape:
            pieces.append(self._shaped(group))
        pieces.append(self.values[:, 3:, group.rows])
        return torch.cat(pieces, dim=1)

    def _shaped(self, group: Group) -> Float[Tensor, "M S R"]:
        """Return the derivative of a group's rows with respect to its shape coefficients."""
        directions = self.values[:, :3, group.rows]
        if group.chain is None:
            moved = directions.new_zeros(len(directions), group.shape, directions.shape[2])
        else:
            frames = self.above[:, group.chain.joints].mT.flatten(1, 2)
            along = frames @ directions
            along *= group.chain.shares
            moved = group.chain.offsets.expand(len(along), -1, -1) @ along
        if group.pairs is not None:
            self._gather(moved, group.pairs, self._contract(group.pairs, group.pairs.shape))
        return moved

    def _contract(self, pairs: PairRoute, directions: Float[Tensor, "3 S Z"]) -> Float[Tensor, "M S Z"]:
        """Return how far each pair entry's point moves along its row with each coefficient."""
        x, y, z = self.in_frames[:, :, pairs.entries].unsqueeze(2).unbind(1)
        return (directions[0] * x).addcmul_(directions[1], y).addcmul_(directions[2], z)

    def _gather(self, total: Tensor, pairs: PairRoute, entries: Float[Tensor, "M S Z"]) -> None:
        """Add pair entries to their rows of a total (M, S, R)."""
        own = total[:, :, : pairs.rows]
        own += entries[:, :, : pairs.rows]
        if pairs.others is not None:
            own += entries[:, :, pairs.rows :] @ pairs.others.expand(len(entries), -1, -1)

    def _correct(self, turned: Float[Tensor, "M T R"], pairs: PairRoute) -> None:
        """Add what the pose correctives contribute: they grow with R - 1 of every joint but the root."""
        assert pairs.pose is not None
        joints, count = pairs.turning, len(pairs.turning)
        # d R = [J_l d theta]_x R, one matrix for each of the three axes.
        change = (cross_matrix(self.axes[:, joints]) @ self.state.local[:, joints, None]).flatten(-2)
        features = self._contract(pairs, pairs.pose).unflatten(1, (count, 9))
        self._gather(turned[:, -3 * count :], pairs, (change @ features).flatten(1, 2))
