"""Laying routes: from points, rows and free leaves to groups of rows with all their constants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fitkit.models.lbs import KinematicTree
from fitkit.models.routes import ChainRoute, CorrectiveRoute, Group, PairRoute, Route
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
        self.plan, self.free, self.skeleton = plan, free, skeleton
        self.vector = np.array(vector)
        self.owner, self.joint = plan.pair_landmark.cpu().numpy(), plan.pair_joint.cpu().numpy()
        parents = skeleton.tree.parents
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
        lifted = (self.share != 0).astype(float) @ (self.offsets != 0).any(1)
        self.shaped = (lifted + member.astype(float) @ (self.directions != 0).any(1)) > 0
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

    def cost(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return rows * columns * (columns + _PER_ENTRY) + columns**2 * _PER_SQUARE + _PER_GROUP

    patterns = patterns.astype(float)
    while len(members) > 1:
        columns = patterns @ widths
        alone, together = cost(columns, rows), columns[:, None] + columns - (patterns * widths) @ patterns.T
        gain = alone[:, None] + alone - cost(together, rows[:, None] + rows)
        gain[np.tril_indices(len(members))] = -np.inf
        first, second = np.unravel_index(gain.argmax(), gain.shape)
        if gain[first, second] <= 0:
            break
        patterns[first] = np.maximum(patterns[first], patterns[second])
        rows[first] += rows[second]
        members[first] = np.concatenate([members[first], members.pop(second)])
        patterns, rows = np.delete(patterns, second, 0), np.delete(rows, second)
    return [np.sort(points) for points in members]


class _Laid:
    """A route while its groups are laid one after the other; lists have one member per group."""

    def __init__(self, builder: RouteBuilder, row_point: np.ndarray) -> None:
        self.builder, self.row_point = builder, row_point
        self.groups: list[Group] = []
        self.rows: list[list[int]] = []
        self.twists: list[list[int]] = []
        self.parts: list[list[tuple[int, int]]] = []
        """(row, joint) of each partial entry."""
        self.chains: list[list[int]] = []
        self.levels: list[list[tuple[int, int]]] = []
        """(row, pair) of each pair entry of a level; any number per group."""

    def tensor(self, values: np.ndarray) -> Tensor:
        like = self.builder.plan.share
        tensor = torch.from_numpy(np.ascontiguousarray(values)).to(like.device)
        return tensor.to(like.dtype) if tensor.is_floating_point() else tensor

    def index(self, values: Iterable[int]) -> Int[Tensor, " _"]:
        return self.tensor(np.array(list(values), dtype=np.int64))

    def add(self, points: np.ndarray) -> None:
        """Lay the group of some points."""
        b = self.builder
        blocks = b.support()[0][points].any(0)
        count, loose = len(b.free.moving), len(b.free.joints)
        singles = [single for single, hit in zip(b.free.joints, blocks[:loose], strict=True) if hit]
        singles.sort(key=lambda single: single[0] != 0)
        spaces = [space for space, hit in zip(b.free.spaces, blocks[loose:count], strict=True) if hit]
        joints = [joint for joint, _ in singles] + [joint for space in spaces for joint in space[0]]
        shape = np.flatnonzero(blocks[count + 1 :])
        shape = shape[np.argsort(~b.displacing[shape], kind="stable")]
        rows, entries = self._sorted(points, bool(len(shape)) or b.plan.pose_directions is not None)
        columns = [first + i for _, first in singles for i in range(3)]
        if blocks[count]:
            columns += [b.free.transl + i for i in range(3)]  # type: ignore[operator]
        columns += [first + i for _, first, components in spaces for i in range(len(components))]
        columns += [b.free.shape[i][1] for i in shape]
        self.rows.append(rows)
        self.twists.append([3 * joint + axis for joint in joints for axis in range(3)])
        owners = self.row_point[rows]
        self.groups.append(
            Group(
                columns=tuple(columns),
                whole=self.tensor(b.whole[owners][:, joints].T.repeat(3, axis=0).astype(float)),
                twist_sizes=(3 * len(singles), *(3 * len(space[0]) for space in spaces)),
                spaces=tuple(components[None] for _, _, components in spaces),
                transl=bool(blocks[count]),
                places=self._partial(rows, joints),
                shape=len(shape),
                chain=self._chain(owners, shape),
                pairs=self._pairs(entries, shape) if len(shape) else None,
                correctives=self._correctives(entries, joints),
            )
        )

    def _sorted(self, points: np.ndarray, needed: bool) -> tuple[list[int], list[list[tuple[int, int]]]]:
        """Return the rows at some points, those with most pairs to differentiate first, and (row, pair) of each."""
        b = self.builder
        pairs = {p: np.flatnonzero(b.member[p] & ~b.centre).tolist() if needed else [] for p in points.tolist()}
        rows = np.flatnonzero(np.isin(self.row_point, points)).tolist()
        rows.sort(key=lambda row: (-len(pairs[self.row_point[row]]), self.row_point[row]))
        return rows, [[(row, q) for q in pairs[self.row_point[row]]] for row in rows]

    def _partial(self, rows: list[int], joints: list[int]) -> Int[Tensor, "1 _"] | None:
        """Note the joints that carry a part of a row's point; return their places in the flattened (T, R)."""
        part = self.builder.part[self.row_point[rows]][:, joints]
        found = [(i, k) for i in range(len(rows)) for k in np.flatnonzero(part[i]).tolist()]
        self.parts.append([(rows[i], joints[k]) for i, k in found])
        places = [(3 * k + axis) * len(rows) + i for i, k in found for axis in range(3)]
        return self.index(places)[None] if places else None

    def _chain(self, owners: np.ndarray, shape: np.ndarray) -> ChainRoute | None:
        """Note the joints above some points that the shape moves; return how."""
        b = self.builder
        offsets = b.offsets[..., shape[b.displacing[shape]]]
        joints = np.flatnonzero((offsets != 0).any((1, 2)) & (b.share[owners] != 0).any(0))
        self.chains.append(joints.tolist())
        if not len(joints):
            return None
        return ChainRoute(
            shares=self.tensor(b.share[owners][:, joints].T.repeat(3, axis=0)),
            offsets=self.tensor(offsets[joints].reshape(3 * len(joints), -1).T)[None],
        )

    def _pairs(self, entries: list[list[tuple[int, int]]], shape: np.ndarray) -> PairRoute | None:
        """Note the pair entries of rows, level by level; return what moves them."""
        if not any(entries):
            return None
        b = self.builder
        ranked = [[pairs[k] for pairs in entries if len(pairs) > k] for k in range(len(entries[0]))]
        many = [level for k, level in enumerate(ranked) if k == 0 or len(level) >= _MANY]
        further = [entry for level in ranked[len(many) :] for entry in level]
        levels = [*many, further] if further else many
        start = len(self.levels)
        self.levels += levels
        others = None
        if further:
            place = {entry[0]: i for i, entry in enumerate(ranked[len(many)])}
            belongs = np.array([[place[row] == i for i in range(len(place))] for row, _ in further])
            others = self.tensor(belongs.astype(float))[None]
        chosen = [[q for _, q in level] for level in levels]
        return PairRoute(
            levels=slice(start, len(self.levels)),
            others=others,
            directions=tuple(_by_axis(self.tensor(b.directions[q][..., shape])) for q in chosen),
        )

    def _correctives(self, entries: list[list[tuple[int, int]]], joints: list[int]) -> CorrectiveRoute | None:
        """Return how the pose's correctives move rows, given their pairs."""
        pose, turning = self.builder.plan.pose_directions, [joint for joint in joints if joint]
        moved = [pairs for pairs in entries if pairs]
        if pose is None or not turning or not moved:
            return None
        count = len(moved[0])
        points = [int(self.row_point[pairs[0][0]]) for pairs in moved]
        together = np.bincount(points)
        each = int(together.max()) if len(set(together[together > 0])) == 1 else 1
        features = [9 * (joint - 1) + i for joint in turning for i in range(9)]
        # Rows with fewer pairs repeat their first with no effect.
        filled = [pairs + [pairs[0]] * (count - len(pairs)) for pairs in moved]
        directions = pose[self.tensor(np.array([[q for _, q in pairs] for pairs in filled[::each]]))][..., features]
        for i, pairs in enumerate(moved[::each]):
            directions[i, len(pairs) :] = 0
        return CorrectiveRoute(
            rows=self.index(row for pairs in filled for row, _ in pairs),
            joints=self.index(int(self.builder.joint[q]) for pairs in filled for _, q in pairs),
            pairs=count,
            turning=self.index(turning),
            directions=directions.flatten(1, 2),
        )

    def route(self) -> Route:
        """Return the finished route."""
        b, parts = self.builder, list(chain(*self.parts))
        kinds = {kind: i for i, kind in enumerate(dict.fromkeys((int(self.row_point[r]), j) for r, j in parts))}
        carried = [b.member[p] & b.carried[:, joint] for p, joint in kinds]
        member, pair = np.nonzero(np.concatenate([b.member, np.array(carried, dtype=bool).reshape(-1, len(b.owner))]))
        rows = list(chain(*self.rows))
        owners = self.row_point[rows]
        points = [*owners.tolist(), *(len(b.member) + kinds[int(self.row_point[row]), joint] for row, joint in parts)]
        shares = [*b.share[owners, 0], *(b.share[self.row_point[row], joint] for row, joint in parts)]
        return Route(
            plan=b.plan,
            parents=b.skeleton.tree.above,
            parts=len(b.member) + len(kinds),
            members=(self.tensor(pair), self.tensor(member)),
            rows=self.index([*rows, *(row for row, _ in parts)]),
            points=self.index(points),
            shares=self.tensor(np.array(shares, dtype=float)),
            transl=self.tensor((~b.vector[owners]).astype(float)),
            twists=self.index(chain(*self.twists)),
            partial_joints=self.index(joint for _, joint in parts),
            chain_joints=self.index(chain(*self.chains)),
            pair_rows=self.index(row for level in self.levels for row, _ in level),
            pair_joints=self.index(int(b.joint[q]) for level in self.levels for _, q in level),
            row_sizes=tuple(map(len, self.rows)),
            twist_sizes=tuple(map(len, self.twists)),
            partial_sizes=tuple(3 * len(group) for group in self.parts),
            chain_sizes=tuple(3 * len(group) for group in self.chains),
            pair_sizes=tuple(map(len, self.levels)),
            groups=tuple(self.groups),
        )


def _by_axis(directions: Float[Tensor, "Z 3 S"]) -> tuple[Tensor, Tensor, Tensor]:
    """Return directions as (S, Z) along x, y and z."""
    x, y, z = directions.permute(1, 2, 0).contiguous().unbind(0)
    return x, y, z
