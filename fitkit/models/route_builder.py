"""Laying routes: from points, rows and free leaves to groups of rows with all their constants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.models.lbs import KinematicTree
from fitkit.models.routes import ChainRoute, Directions, Group, PairRoute, Route
from fitkit.models.sparse import LandmarkPlan

_PER_ENTRY, _PER_SQUARE, _PER_GROUP = 50.0, 60.0, 5e5
"""What an entry of a group's Jacobian, an entry of its curvature and one more group cost, in multiplications."""
_MANY = 24
"""Rows that must have a second pair, or a third, for these to be added at once."""


@dataclass(frozen=True)
class FreeLeaves:
    """The leaves to differentiate by, as columns side by side."""

    joints: tuple[tuple[int, int], ...] = ()
    """(joint, its first column) of each joint whose rotation vector is free as it is."""
    spaces: tuple[tuple[tuple[int, ...], int, Float[Tensor, "_ _"]], ...] = ()
    """(joints, first column, components) of joints turned together: rotation vectors are coefficients @ components."""
    transl: int | None = None
    """First column of the translation."""
    shape: tuple[tuple[int, int], ...] = ()
    """(coefficient, its column) of shape and expression."""

    @property
    def moving(self) -> list[tuple[int, ...]]:
        """The joints that turn together: one by one, then each space's."""
        return [(joint,) for joint, _ in self.joints] + [space[0] for space in self.spaces]


@dataclass(frozen=True)
class Skeleton:
    """What of a body model a route is laid by."""

    tree: KinematicTree
    """Parents of the joints."""
    J_shapedirs: Float[Tensor, "J 3 S"]
    """Change of the joints with each coefficient, metres."""


class RouteBuilder:
    """Lays the route of rows at a plan's points."""

    def __init__(self, plan: LandmarkPlan, skeleton: Skeleton, free: FreeLeaves, vector: Sequence[bool]) -> None:
        """Find out what moves each point; `vector` says which points are vectors, which no translation moves."""
        self.plan, self.free = plan, free
        self.vector = np.array(vector)
        self.owner, self.joint = plan.pair_landmark.cpu().numpy(), plan.pair_joint.cpu().numpy()
        parents = skeleton.tree.parents
        self.parents = np.array(parents)
        self.below = _below(parents)
        offsets = skeleton.J_shapedirs.cpu().numpy()
        above = np.concatenate([np.zeros_like(offsets[:1]), offsets[[max(parent, 0) for parent in parents[1:]]]])
        self.coefficients = np.array([coefficient for coefficient, _ in free.shape], dtype=int)
        self.offsets = (offsets - above)[..., self.coefficients]
        self.displacing = (self.offsets != 0).any((0, 1))
        self.directions = plan.directions.cpu().numpy()[..., self.coefficients]
        self._survey()

    def _survey(self) -> None:
        """Find which joints carry each point wholly, partly or not at all, and which coefficients move it."""
        plan = self.plan
        member = np.arange(plan.landmarks)[:, None] == self.owner
        carried = self.below[self.joint]
        fixed = plan.directions.abs().sum((1, 2)) + plan.template.abs().sum(1)
        if plan.pose_directions is not None:
            fixed = fixed + plan.pose_directions.abs().sum((1, 2))
        # A pair that is its joint's own centre is not moved by turning that joint.
        self.centre = (fixed == 0).cpu().numpy()
        live = carried & ~(self.centre[:, None] & np.eye(len(self.below), dtype=bool)[self.joint])
        count, moved = member.astype(float) @ carried, member.astype(float) @ live
        self.member, self.carried = member, carried
        self.whole = (moved > 0) & (count == member.sum(1, keepdims=True))
        self.part = (moved > 0) & ~self.whole
        self.share = member @ (plan.share.cpu().numpy()[:, None] * carried)
        self.share[np.abs(self.share) < 1e-12] = 0
        chain = (self.share != 0).astype(float) @ (self.offsets != 0).any(1)
        self.shaped = (chain + member.astype(float) @ (self.directions != 0).any(1)) > 0
        turning = [(self.whole | self.part)[:, list(joints)].any(1) for joints in self.free.moving]
        if plan.pose_directions is not None:
            turning = [hit | (min(j) > 0) for hit, j in zip(turning, self.free.moving, strict=True)]
        self.turned = np.array(turning, dtype=bool).reshape(len(turning), plan.landmarks).T

    def support(self) -> tuple[np.ndarray, np.ndarray]:
        """Return which blocks of columns move each point, bool (P, blocks), and how wide each block is."""
        widths = [3] * len(self.free.joints) + [len(components) for _, _, components in self.free.spaces]
        transl = ~self.vector[:, None] & (self.free.transl is not None)
        widths += [3] + [1] * len(self.coefficients)
        return np.concatenate([self.turned, transl, self.shaped], axis=1), np.array(widths)

    def build(self, row_point: np.ndarray) -> Route:
        """Return the route of rows, given the point of each."""
        support, widths = self.support()
        counts = np.bincount(row_point, minlength=len(support))
        laid = _Laid(self, row_point)
        for points in cluster(support, widths, counts):
            laid.add(points)
        return laid.route()


def _below(parents: Sequence[int]) -> np.ndarray:
    """Return True where joint (row) is, or lies below, joint (column)."""
    below = np.eye(len(parents), dtype=bool)
    for joint in range(1, len(parents)):
        below[joint] |= below[parents[joint]]
    return below


def cluster(support: np.ndarray, widths: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """Return groups of the points that have rows, merged for as long as that makes J^T J cheaper.

    Args:
        support: bool (P, blocks), which blocks of columns move a point.
        widths: (blocks,) columns of each.
        counts: (P,) rows at each point.
    """
    used = np.flatnonzero(counts)
    patterns, owner = np.unique(support[used], axis=0, return_inverse=True)
    members = [used[owner.reshape(-1) == k] for k in range(len(patterns))]
    rows = np.array([counts[points].sum() for points in members], dtype=float)

    def cost(pattern: np.ndarray, rows: np.ndarray) -> np.ndarray:
        columns = pattern @ widths
        return rows * columns * (columns + _PER_ENTRY) + columns**2 * _PER_SQUARE + _PER_GROUP

    while len(members) > 1:
        alone = cost(patterns, rows)
        merged = cost(patterns[:, None] | patterns, rows[:, None] + rows)
        gain = np.triu(alone[:, None] + alone - merged, 1) + np.tril(np.full(merged.shape, -np.inf))
        first, second = np.unravel_index(gain.argmax(), gain.shape)
        if gain[first, second] <= 0:
            break
        patterns[first] |= patterns[second]
        rows[first] += rows[second]
        members[first] = np.concatenate([members[first], members.pop(second)])
        patterns, rows = np.delete(patterns, second, 0), np.delete(rows, second)
    return [np.sort(points) for points in members]


class _Laid:
    """A route while its groups are laid one after the other."""

    def __init__(self, builder: RouteBuilder, row_point: np.ndarray) -> None:
        self.builder, self.row_point = builder, row_point
        self.rows: list[int] = []
        self.parts: list[tuple[int, int]] = []
        """(row, joint) of each partial entry."""
        self.pairs: list[tuple[int, int]] = []
        """(sorted row, pair) of each pair entry."""
        self.groups: list[Group] = []

    def tensor(self, values: np.ndarray) -> Tensor:
        like = self.builder.plan.share
        tensor = torch.from_numpy(np.ascontiguousarray(values)).to(like.device)
        return tensor.to(like.dtype) if tensor.is_floating_point() else tensor

    def add(self, points: np.ndarray) -> None:
        """Lay the group of some points."""
        b = self.builder
        support, _ = b.support()
        blocks = support[points].any(0)
        count = len(b.free.moving)
        singles = [b.free.joints[i] for i in np.flatnonzero(blocks[: len(b.free.joints)])]
        singles.sort(key=lambda single: single[0] != 0)
        spaces = [s for s, hit in zip(b.free.spaces, blocks[len(b.free.joints) : count], strict=True) if hit]
        joints = [joint for joint, _ in singles] + [joint for space in spaces for joint in space[0]]
        shape = np.flatnonzero(blocks[count + 1 :])
        shape = shape[np.argsort(~b.displacing[shape], kind="stable")]
        rows, entries = self._sorted(points, bool(len(shape)) or b.plan.pose_directions is not None)
        owners = self.row_point[rows]
        columns = [first + i for _, first in singles for i in range(3)]
        if blocks[count]:
            columns += [b.free.transl + i for i in range(3)]  # type: ignore[operator]
        columns += [first + i for _, first, components in spaces for i in range(len(components))]
        columns += [b.free.shape[i][1] for i in shape]
        start = len(self.rows)
        self.rows += rows
        partial, places = self._partial(rows, joints)
        self.groups.append(
            Group(
                rows=slice(start, start + len(rows)),
                columns=tuple(columns),
                twists=self.tensor(np.array([3 * joint + i for joint in joints for i in range(3)], dtype=int)),
                whole=self.tensor(b.whole[owners][:, joints].T.repeat(3, axis=0).astype(float)),
                single=3 * len(singles),
                spaces=_segments(spaces, 3 * len(singles)),
                transl=self.tensor((~b.vector[owners]).astype(float)) if blocks[count] else None,
                partial=partial,
                places=self.tensor(places)[None],
                shape=len(shape),
                chain=self._chain(owners, shape),
                pairs=self._pairs(start, entries, joints, shape),
            )
        )

    def _sorted(self, points: np.ndarray, shaped: bool) -> tuple[list[int], list[list[int]]]:
        """Return the rows at some points, those with most pairs to differentiate first, and the pairs of each."""
        b = self.builder
        pairs = {p: np.flatnonzero(b.member[p] & ~b.centre).tolist() if shaped else [] for p in points.tolist()}
        rows = np.flatnonzero(np.isin(self.row_point, points)).tolist()
        rows.sort(key=lambda row: -len(pairs[self.row_point[row]]))
        return rows, [pairs[self.row_point[row]] for row in rows]

    def _partial(self, rows: list[int], joints: list[int]) -> tuple[slice, np.ndarray]:
        start, places = len(self.parts), []
        for i, row in enumerate(rows):
            for k, joint in enumerate(joints):
                if self.builder.part[self.row_point[row], joint]:
                    self.parts.append((row, joint))
                    places += [(3 * k + axis) * len(rows) + i for axis in range(3)]
        return slice(start, len(self.parts)), np.array(places, dtype=int)

    def _chain(self, owners: np.ndarray, shape: np.ndarray) -> ChainRoute | None:
        b = self.builder
        offsets = b.offsets[..., shape[b.displacing[shape]]]
        joints = np.flatnonzero((offsets != 0).any((1, 2)) & (b.share[owners] != 0).any(0))
        if not len(joints):
            return None
        return ChainRoute(
            joints=self.tensor(joints),
            shares=self.tensor(b.share[owners][:, joints].T.repeat(3, axis=0)),
            offsets=self.tensor(offsets[joints].reshape(3 * len(joints), -1).T)[None],
        )

    def _pairs(self, start: int, entries: list[list[int]], joints: list[int], shape: np.ndarray) -> PairRoute | None:
        if not any(entries):
            return None
        b, first = self.builder, len(self.pairs)
        ranked = [
            [(row, pairs[k]) for row, pairs in enumerate(entries) if len(pairs) > k] for k in range(len(entries[0]))
        ]
        many = [level for k, level in enumerate(ranked) if k == 0 or len(level) >= _MANY]
        further = [entry for level in ranked[len(many) :] for entry in level]
        others = np.zeros((len(further), len({row for row, _ in further})))
        others[np.arange(len(further)), [row for row, _ in further]] = 1
        listed = [entry for level in ranked for entry in level]
        self.pairs += [(start + row, q) for row, q in listed]
        chosen = [q for _, q in listed]
        levels = tuple(len(level) for level in many)
        pose, turning = None, [joint for joint in joints if joint]
        if b.plan.pose_directions is not None and turning:
            features = [9 * (joint - 1) + i for joint in turning for i in range(9)]
            pose = _levels(b.plan.pose_directions[chosen][:, :, features], levels)
        return PairRoute(
            entries=slice(first, len(self.pairs)),
            levels=levels,
            others=self.tensor(others)[None] if further else None,
            shape=_levels(self.tensor(b.directions[chosen][..., shape]), levels),
            pose=pose,
            turning=self.tensor(np.array(turning, dtype=int)),
        )

    def route(self) -> Route:
        """Return the finished route."""
        b = self.builder
        kinds: dict[tuple[int, int], int] = {}
        for row, joint in self.parts:
            kinds.setdefault((int(self.row_point[row]), joint), len(kinds))
        parts = [(b.member[p] & b.carried[:, joint]) for p, joint in kinds]
        member, pair = np.nonzero(np.concatenate([b.member, np.array(parts, dtype=bool).reshape(-1, len(b.owner))]))
        owners = self.row_point[self.rows]
        points = [*owners, *(len(b.member) + kinds[int(self.row_point[r]), j] for r, j in self.parts)]
        shares = [*b.share[owners, 0], *(b.share[self.row_point[row], joint] for row, joint in self.parts)]
        pairs = np.array(self.pairs, dtype=int).reshape(-1, 2)
        return Route(
            plan=b.plan,
            parents=self.tensor(np.maximum(b.parents, 0)),
            parts=len(b.member) + len(kinds),
            members=(self.tensor(pair), self.tensor(member)),
            rows=self.tensor(np.array([*self.rows, *(row for row, _ in self.parts)], dtype=int)),
            points=self.tensor(np.array(points, dtype=int)),
            shares=self.tensor(np.array(shares, dtype=float)),
            partial_joints=self.tensor(np.array([joint for _, joint in self.parts], dtype=int)),
            pair_rows=self.tensor(np.array(self.rows, dtype=int)[pairs[:, 0]]),
            pair_joints=self.tensor(b.joint[pairs[:, 1]]),
            groups=tuple(self.groups),
        )


def _segments(
    spaces: list[tuple[tuple[int, ...], int, Tensor]], start: int
) -> tuple[tuple[slice, Float[Tensor, "1 C P"]], ...]:
    """Return the twists of each space, which follow each other, and its components."""
    found = []
    for joints, _, components in spaces:
        found.append((slice(start, start + 3 * len(joints)), components[None]))
        start += 3 * len(joints)
    return tuple(found)


def _levels(directions: Float[Tensor, "Z 3 S"], levels: tuple[int, ...]) -> Directions:
    """Return directions by level and axis."""
    sizes = [*levels, len(directions) - sum(levels)]
    pieces = [part.permute(1, 2, 0).contiguous() for part in directions.split(sizes)]
    return tuple((axes[0], axes[1], axes[2]) for axes in pieces if axes.shape[2])
