"""What is constant in the derivatives of residual rows: which free values move which rows, and through what.

A row is a direction at a point; a point is a landmark, or the vector from one landmark to another. A hand's points are
moved by a fifth of the joints and a face's by few others, so rows are sorted into groups that share their columns:
within a group everything is dense, and columns that move none of its rows are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from fitkit.models.sparse import LandmarkPlan

Directions = tuple[tuple[Float[Tensor, "_ _"], Float[Tensor, "_ _"], Float[Tensor, "_ _"]], ...]
"""Change of points along x, y and z, each (coefficients, entries): one for each level, then one for the rest."""


@dataclass(frozen=True)
class ChainRoute:
    """How the shape moves a group's rows by moving the joints above them."""

    shares: Float[Tensor, "F R"]
    """Share of the row's point at or below each, three times."""
    offsets: Float[Tensor, "1 _ F"]
    """Change of the joints' places with the first of the group's coefficients; the others do not move joints."""


@dataclass(frozen=True)
class PairRoute:
    """How the shape moves a group's rows by changing their points in the joints' frames."""

    levels: slice
    """Which levels of the route's pair entries: the first pair of each row that has any (they are the group's first
    rows), the second pairs, and so on while they are many, then all others."""
    others: Float[Tensor, "1 _ _"] | None
    """1 where one of the others belongs to a row; None when there are none."""
    directions: Directions
    """Change of the entries' points."""


@dataclass(frozen=True)
class CorrectiveRoute:
    """How the pose's correctives move a group's first R' rows: those whose points are no joint's own centre."""

    rows: Int[Tensor, " _"]
    """Row, as given, of each row's pairs; all rows are given as many pairs as the one with most."""
    joints: Int[Tensor, " _"]
    """Joint of each."""
    pairs: int
    """n, how many pairs a row is given."""
    turning: Int[Tensor, " F"]
    """Joints whose rotations are features: all of the group's but the root."""
    directions: Float[Tensor, "P _ _"]
    """Change of the pairs' points with the features; rows at one point follow each other, as many at each of the P."""


@dataclass(frozen=True)
class Group:
    """Rows that depend on the same columns."""

    columns: tuple[int, ...]
    """The columns: joints one by one, translation, spaces, shape."""
    whole: Float[Tensor, "T R"]
    """1 where the joint of a twist carries the whole of a row's point along."""
    twist_sizes: tuple[int, ...]
    """How many of the twists are columns themselves, and how many belong to each space."""
    spaces: tuple[Float[Tensor, "1 _ _"], ...]
    """Components of each space, which mix its twists."""
    transl: bool
    """Whether the translation is among the columns."""
    places: Int[Tensor, "1 _"] | None
    """Places of the partial entries in the flattened (T, R); None when there are none."""
    shape: int
    """How many coefficients move the rows."""
    chain: ChainRoute | None
    """None when the shape moves no joint above the rows."""
    pairs: PairRoute | None
    """None when the rows' points stay as they are in the joints' frames."""
    correctives: CorrectiveRoute | None
    """None when no pose corrective moves the rows."""


@dataclass(frozen=True)
class Route:
    """All that is constant in the derivatives of R rows at P points.

    A joint that shares the skin of a point with joints above it carries a part of it only: such a joint and row are a
    partial entry. Any other joint carries the whole point, or nothing.
    """

    plan: LandmarkPlan
    """The points."""
    parents: Int[Tensor, " J"]
    """Parent of each joint; the root's is itself."""
    parts: int
    """G: how many points, and parts of points that some joint carries, there are."""
    members: tuple[Int[Tensor, " L"], Int[Tensor, " L"]]
    """Pairs, and the point or part to which each belongs."""
    rows: Int[Tensor, " X"]
    """Row, as given, of each sorted row (the first R), then of each partial entry."""
    points: Int[Tensor, " X"]
    """Point or part of each."""
    shares: Float[Tensor, " X"]
    """Share of the point that is carried: 1 for a landmark, 0 for a vector, less in part."""
    transl: Float[Tensor, " R"]
    """1 where a sorted row moves with the body: at landmarks, not at vectors."""
    twists: Int[Tensor, " T"]
    """Twists that move each group, three for each joint: the root if it does, joints one by one, each space's."""
    partial_joints: Int[Tensor, " E"]
    """Joint of each partial entry."""
    chain_joints: Int[Tensor, " F"]
    """Joints above each group's points that the shape moves."""
    pair_rows: Int[Tensor, " Z"]
    """Row, as given, of each pair entry."""
    pair_joints: Int[Tensor, " Z"]
    """Joint of each pair entry."""
    row_sizes: tuple[int, ...]
    """How many rows each group has; what follows likewise."""
    twist_sizes: tuple[int, ...]
    """Twists of each group."""
    partial_sizes: tuple[int, ...]
    """Partial entries of each group, times three."""
    chain_sizes: tuple[int, ...]
    """Chain joints of each group, times three."""
    pair_sizes: tuple[int, ...]
    """Pair entries of each level of each group."""
    groups: tuple[Group, ...]
    """The groups, one after the other."""


def between(plan: LandmarkPlan, ends: Sequence[tuple[int | None, int]]) -> LandmarkPlan:
    """Return the plan of points made of a plan's landmarks: of each two the second, less the first if there is one."""
    owner, joint = plan.pair_landmark.tolist(), plan.pair_joint.tolist()
    pairs_of: dict[int, list[int]] = {}
    for q, k in enumerate(owner):
        pairs_of.setdefault(k, []).append(q)
    members: dict[tuple[int, int], int] = {}
    source, sign, target = [], [], []
    for k, (start, end) in enumerate(ends):
        for factor, landmark in ((1.0, end), (-1.0, start)):
            for q in () if landmark is None else pairs_of[landmark]:
                target.append(members.setdefault((k, joint[q]), len(members)))
                source.append(q)
                sign.append(factor)
    index, signs = plan.pair_joint.new_tensor(target), plan.share.new_tensor(sign)

    def merged(values: Tensor) -> Tensor:
        taken = values[source] * signs.reshape(-1, *[1] * (values.ndim - 1))
        return taken.new_zeros(len(members), *values.shape[1:]).index_add(0, index, taken)

    return LandmarkPlan(
        landmarks=len(ends),
        pair_landmark=index.new_tensor([k for k, _ in members]),
        pair_joint=index.new_tensor([j for _, j in members]),
        share=merged(plan.share),
        template=merged(plan.template),
        directions=merged(plan.directions),
        pose_directions=None if plan.pose_directions is None else merged(plan.pose_directions),
    )
