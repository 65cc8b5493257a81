"""SMPL, SMPL-H, SMPL-X and the embedded body: one skinned, linearly shaped model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fitkit.body import Body
from fitkit.chart import Block, Point
from fitkit.errors import UsageError
from fitkit.models.jacobian import PosedState, RowDerivatives
from fitkit.models.lbs import KinematicTree, blend, pose_joints, rotation_matrices, skin
from fitkit.models.route_builder import FreeLeaves, RouteBuilder, Skeleton
from fitkit.models.routes import Route, between
from fitkit.models.skeletons import JOINT_NAMES, POSE_LEAVES
from fitkit.models.sparse import LandmarkPlan, SkinnedShape, fold
from fitkit.models.stature import Stature, stature
from fitkit.parameters import Layout, Leaf

_ROUTES = 32
"""How many routes a model keeps, a few megabytes each."""
_PLANS = 64
"""How many plans a model keeps, up to a megabyte each."""


@dataclass(frozen=True)
class HandSpace:
    """The space of one hand's pose: axis-angle = mean + coefficients @ components."""

    mean: Float[Tensor, " 45"]
    """Relaxed hand, radians."""
    components: Float[Tensor, "C 45"]
    """Rows span the space: principal components, or the identity for free joints."""
    deviation: Float[Tensor, " C"]
    """Standard deviation of each coefficient, which a prior divides by; ones where the file does not say."""


@dataclass(frozen=True)
class SMPLFamilyModel:
    """A body model of the SMPL family, held as tensors; see `fitkit.model_files` for opening files."""

    name: str
    """Name by which users choose it."""
    kind: str
    """Skeleton: "smpl", "smplh" or "smplx" (the embedded body has SMPL-X's)."""
    gender: str
    """neutral, female or male."""
    shape: SkinnedShape
    """Mean, directions (betas first, then expressions) and skinning."""
    tree: KinematicTree
    """Parents of the joints."""
    faces: Int[Tensor, "F 3"]
    """Triangles."""
    betas: int
    """Number of shape coefficients; the other directions of `shape` are expressions."""
    surface: Mapping[str, tuple[Int[Tensor, " _"], Float[Tensor, " _"]]] = field(repr=False)
    """Landmark name -> vertices and their weights, which sum to 1."""
    hands: tuple[HandSpace, HandSpace] | None = None
    """Left and right hand; None for SMPL."""
    expression_names: tuple[str, ...] = ()
    """Names of the expression coefficients; empty where they are unnamed components."""
    expression_bounds: tuple[float, float] | None = None
    """Range of every expression coefficient; None when unbounded."""
    face_parts: Int[Tensor, " F"] | None = None
    """Body part of each triangle; None where the file does not say."""
    file_hash: str = ""
    """SHA-256 of the file that it came from."""
    _plans: dict[tuple[str, ...], LandmarkPlan] = field(default_factory=dict, repr=False, compare=False)
    _routes: dict[tuple[tuple[Point, ...], tuple[str, ...]], Route] = field(
        default_factory=dict, repr=False, compare=False
    )

    @cached_property
    def layout(self) -> Layout:
        """Names and sizes of the parameters, in the order of the joints, then shape."""
        leaves = []
        for name, joints in POSE_LEAVES[self.kind]:
            size = 3 * joints
            if self.hands is not None and name in ("left_hand_pose", "right_hand_pose"):
                size = len(self.hands[name == "right_hand_pose"].components)
            leaves.append(Leaf(name, size))
        leaves += [Leaf("betas", self.betas, shared=True), Leaf("transl", 3)]
        expressions = self.shape.shapedirs.shape[2] - self.betas
        if expressions:
            lower, upper = self.expression_bounds or (None, None)
            leaves.append(Leaf("expression", expressions, lower=lower, upper=upper))
        return tuple(leaves)

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the J joints."""
        return JOINT_NAMES[self.kind]

    @cached_property
    def landmark_names(self) -> tuple[str, ...]:
        """Surface landmarks, then joints; a joint whose name a surface landmark has is "joint/<name>"."""
        joints = [f"joint/{name}" if name in self.surface else name for name in self.joint_names]
        return (*self.surface, *joints)

    @cached_property
    def joints_of(self) -> dict[str, range]:
        """Pose leaf -> the joints that it rotates."""
        ranges, start = {}, 0
        for name, count in POSE_LEAVES[self.kind]:
            ranges[name] = range(start, start + count)
            start += count
        return ranges

    @property
    def device(self) -> torch.device:
        """Where the model's tensors live."""
        return self.shape.v_template.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the model's tensors."""
        return self.shape.v_template.dtype

    def plan(self, names: tuple[str, ...]) -> LandmarkPlan:
        """Return how to evaluate these landmarks; folded once for each tuple of names."""
        if names not in self._plans:
            _make_room(self._plans, _PLANS)
            self._plans[names] = fold(self.shape, [self._landmark(name) for name in names])
        return self._plans[names]

    def route(self, points: tuple[Point, ...], leaves: tuple[str, ...]) -> Route:
        """Return what is constant in the derivatives of rows at points; laid once for each choice of both arguments."""
        key = points, leaves
        if key not in self._routes:
            unique = list(dict.fromkeys(points))
            ends = [(None, point) if isinstance(point, str) else point for point in unique]
            names = tuple(dict.fromkeys(name for pair in ends for name in pair if name is not None))
            numbered = [(None if a is None else names.index(a), names.index(b)) for a, b in ends]
            # Of landmarks alone the plan is theirs, so that a body has placed its points already.
            plan = self.plan(names) if all(a is None for a, _ in ends) else between(self.plan(names), numbered)
            skeleton = Skeleton(self.tree, self.shape.J_shapedirs)
            layout = RouteBuilder(plan, skeleton, self._free(leaves), [start is not None for start, _ in ends])
            place = {point: k for k, point in enumerate(unique)}
            _make_room(self._routes, _ROUTES)
            self._routes[key] = layout.build(np.array([place[point] for point in points]))
        return self._routes[key]

    def _free(self, leaves: tuple[str, ...]) -> FreeLeaves:
        """Return the columns of leaves packed side by side."""
        sizes = {leaf.name: leaf.size for leaf in self.layout}
        joints, spaces, shape, transl, column = [], [], [], None, 0
        for name in leaves:
            hand = ("left_hand_pose", "right_hand_pose").index(name) if name.endswith("_hand_pose") else None
            if hand is not None and self.hands is not None:
                spaces.append((tuple(self.joints_of[name]), column, self.hands[hand].components))
            elif name in self.joints_of:
                joints += [(joint, column + 3 * i) for i, joint in enumerate(self.joints_of[name])]
            elif name == "transl":
                transl = column
            elif name in ("betas", "expression"):
                first = self.betas if name == "expression" else 0
                shape += [(first + i, column + i) for i in range(sizes[name])]
            else:
                raise UsageError(f"The body model {self.name!r} has no leaf {name!r} to differentiate by.")
            column += sizes[name]
        return FreeLeaves(tuple(joints), tuple(spaces), transl, tuple(shape))

    def _landmark(self, name: str) -> tuple[Tensor, Tensor] | int:
        if name in self.surface:
            return self.surface[name]
        joint = name.removeprefix("joint/")
        if joint not in self.joint_names:
            raise UsageError(f"The body model {self.name!r} has no landmark {name!r}; see its landmark_names.")
        return self.joint_names.index(joint)

    @cached_property
    def _stature(self) -> Stature:
        return stature(self.shape.v_template[:, 1], self.shape.shapedirs[:, 1, : self.betas])

    def standing_height(self, betas: Float[Tensor, "*N S"]) -> tuple[Float[Tensor, "*N"], Float[Tensor, "*N S"]]:
        """Return how tall each shape stands, metres, and the derivative with respect to its coefficients."""
        return self._stature.of(betas)

    def __call__(self, parameters: Mapping[str, Tensor]) -> SMPLFamilyBody:
        """Return the bodies of (B, N, size) leaves; pose leaves that are missing are zero."""
        return SMPLFamilyBody(self, parameters)

    def axis_angles(self, parameters: Mapping[str, Tensor]) -> dict[str, Float[Tensor, "B N P"]]:
        """Return every pose leaf as axis-angle, radians: hands decoded to their 15 joints."""
        decoded = {}
        for name, joints in POSE_LEAVES[self.kind]:
            if name not in parameters:
                some = next(iter(parameters.values()))
                bodies = max(leaf.shape[1] for leaf in parameters.values())
                decoded[name] = some.new_zeros(some.shape[0], bodies, 3 * joints)
            elif self.hands is not None and name in ("left_hand_pose", "right_hand_pose"):
                hand = self.hands[name == "right_hand_pose"]
                decoded[name] = hand.mean + parameters[name] @ hand.components
            else:
                decoded[name] = parameters[name]
        return decoded


class SMPLFamilyBody(Body):
    """Bodies of an `SMPLFamilyModel`: each quantity is computed on first use and kept."""

    def __init__(self, model: SMPLFamilyModel, parameters: Mapping[str, Tensor]) -> None:
        """Hold the model and (B, N, size) leaves."""
        self._model = model
        self._parameters = parameters
        self._problems = next(iter(parameters.values())).shape[0]
        self._bodies = max(leaf.shape[1] for leaf in parameters.values())
        self._placed_last: tuple[LandmarkPlan, Tensor] | None = None

    def _rows(self, leaf: Tensor) -> Float[Tensor, "M S"]:
        return leaf.expand(-1, self._bodies, -1).reshape(self._problems * self._bodies, -1)

    def _stacked(self, values: Float[Tensor, "M ..."]) -> Float[Tensor, "B N ..."]:
        return values.reshape(self._problems, self._bodies, *values.shape[1:])

    @cached_property
    def _shape(self) -> Float[Tensor, "M S"]:
        missing = self._model.shape.shapedirs.shape[2] - self._model.betas
        pieces = [self._rows(self._parameters["betas"])]
        if missing:
            expression = self._parameters.get("expression")
            pieces.append(
                pieces[0].new_zeros(len(pieces[0]), missing) if expression is None else self._rows(expression)
            )
        return torch.cat(pieces, dim=1)

    @cached_property
    def _rotation_vectors(self) -> Float[Tensor, "M J 3"]:
        poses = self._model.axis_angles(self._parameters)
        pose = torch.cat([self._rows(poses[name]) for name, _ in POSE_LEAVES[self._model.kind]], dim=1)
        return pose.unflatten(1, (-1, 3))

    @cached_property
    def _rotations(self) -> Float[Tensor, "M J 3 3"]:
        return rotation_matrices(self._rotation_vectors)

    @cached_property
    def _joints_rest(self) -> Float[Tensor, "M J 3"]:
        return blend(self._model.shape.J_template, self._model.shape.J_shapedirs, self._shape)

    @cached_property
    def _posed(self) -> tuple[Float[Tensor, "M J 3 3"], Float[Tensor, "M J 3"]]:
        return pose_joints(self._rotations, self._joints_rest, self._model.tree)

    @cached_property
    def _pose_feature(self) -> Float[Tensor, "M R"] | None:
        if self._model.shape.posedirs is None:
            return None
        identity = torch.eye(3, dtype=self._rotations.dtype, device=self._rotations.device)
        return (self._rotations[:, 1:] - identity).flatten(1)

    @cached_property
    def joint_rotations(self) -> Float[Tensor, "B N J 3 3"]:
        """Global rotation of each joint: from its own axes to world axes."""
        return self._stacked(self._posed[0])

    @cached_property
    def joints(self) -> Float[Tensor, "B N J 3"]:
        """Joint centres in world axes, metres."""
        return self._stacked(self._posed[1]) + self._parameters["transl"][..., None, :]

    def landmarks(self, names: Sequence[str]) -> Float[Tensor, "B N K 3"]:
        """Return named surface points and joints in world axes, metres, without skinning the mesh."""
        plan = self._model.plan(tuple(names))
        return self._stacked(plan.gathered(self._placed(plan))) + self._parameters["transl"][..., None, :]

    def _placed(self, plan: LandmarkPlan) -> Float[Tensor, "M Q 3"]:
        """Return the contribution of each of a plan's pairs to its point, metres; the last plan's are kept."""
        if self._placed_last is None or self._placed_last[0] is not plan:
            self._placed_last = plan, plan.placed(plan.points(self._shape, self._pose_feature), *self._posed)
        return self._placed_last[1]

    def pull_back(
        self, points: tuple[Point, ...], rows: Float[Tensor, "B N R X"], leaves: tuple[str, ...]
    ) -> list[Block]:
        """Return the derivatives of rows, which are directions at points, as `chart.DifferentiableBody` says."""
        route = self._model.route(points, leaves)
        state = PosedState(*self._posed, self._rotations, self._rotation_vectors, self._placed(route.plan))
        derivatives = RowDerivatives(route, state, rows.flatten(0, 1))
        rows_of = route.rows.split_with_sizes([*route.row_sizes, len(route.partial_joints)])
        return [
            Block(rows_of[number], group.columns, derivatives.of(number)) for number, group in enumerate(route.groups)
        ]

    @cached_property
    def vertices(self) -> Float[Tensor, "B N V 3"]:
        """All vertices in world axes, metres."""
        shape = self._model.shape
        points = blend(shape.v_template, shape.shapedirs, self._shape)
        if shape.posedirs is not None and self._pose_feature is not None:
            points = points + blend(torch.zeros_like(shape.v_template), shape.posedirs, self._pose_feature)
        posed = skin(points, shape.weights, *self._posed, self._joints_rest)
        return self._stacked(posed) + self._parameters["transl"][..., None, :]


def _make_room(kept: dict[Any, Any], most: int) -> None:
    """Drop the oldest of what is kept: a stream of people shows ever new sets of keypoints."""
    while len(kept) >= most:
        del kept[next(iter(kept))]
