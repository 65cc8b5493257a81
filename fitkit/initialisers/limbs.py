"""Poses of arms and legs that look alike in one picture: each bone turned towards the camera or away from it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import roma
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from fitkit.chart import indices as indices_of
from fitkit.priors.base import PosePrior
from fitkit.problem import Problem, Proposal

_CHAINS = (("collar", "shoulder", "elbow", "wrist"), ("pelvis", "hip", "knee", "ankle"))
_PRIOR_VALUES = 63
"""Values of `body_pose` that pose priors judge."""
_WAYS = ((1, 1), (1, -1), (-1, 1), (-1, -1))
"""Upper and lower bone: 1 away from the camera, -1 towards it."""


@runtime_checkable
class TurnedBody(Protocol):
    """A body that knows how its joints are turned."""

    @property
    def joint_rotations(self) -> Float[Tensor, "B N J 3 3"]:
        """Return the rotation of each joint, from its own axes to world axes."""
        ...


@dataclass(frozen=True)
class LimbProposals:
    """The start, the likeliest pose of all limbs that the picture allows, and further poses of each limb alone.

    Where a joint is on the ray through its keypoint there are two places for the next at the bone's length: a
    kinematic flip (Sminchisescu & Triggs 2003), between which no local minimiser moves. For each of the four poses of
    two bones the twist of the upper one is tried around the circle, and the pose prior says which is best.
    """

    pose: str = "student"
    """Name of the pose prior that judges."""
    alternatives: int = 2
    """How many poses of each limb alone to propose, likeliest first, 0 to 4."""
    replace_start: bool = False
    """Propose nothing of the start but its trunk: for a start that knows no limbs."""
    twists: int = 8
    """Twists of the upper bone to try."""

    def __call__(self, problem: Problem) -> Proposal:
        """Return the hypotheses; each changes a limb of all bodies of a problem."""
        start, limbs = problem.start, self._limbs(problem)
        pose = start["body_pose"]
        all_best, single = pose.clone(), []
        if limbs is not None:
            poses = limbs.poses(problem.priors[self.pose], self.twists, not self.replace_start)
            for columns, ranked in zip(limbs.columns.tolist(), poses.unflatten(0, (-1, len(pose))), strict=True):
                all_best[..., columns] = ranked[..., 0, :]
                for rank in range(self.alternatives):
                    single.append(pose.clone())
                    single[-1][..., columns] = ranked[..., rank, :]
        found = [all_best, *single] if self.replace_start else [pose, all_best, *single]
        rows = torch.arange(len(pose), device=pose.device).repeat_interleave(len(found))
        together = torch.stack(found, dim=1).flatten(0, 1)
        return Proposal(start.select(rows).replace({"body_pose": together}), len(found))

    def _limbs(self, problem: Problem) -> _Limbs | None:
        """Return the limbs whose keypoints may be seen; None where there are none."""
        body, place, names = problem.model(problem.start), problem.observations.places, problem.model.joint_names
        limbs = [
            [f"{side}_{name}" if name != "pelvis" else name for name in chain]
            for chain in _CHAINS
            for side in ("left", "right")
        ]
        limbs = [limb for limb in limbs if set(limb) <= set(names) and set(limb[2:]) <= place.keys()]
        if not isinstance(body, TurnedBody) or not limbs:
            return None
        joints = problem.camera.to_camera(body.joints)
        rotations = body.joint_rotations
        if problem.camera.R_camera_world is not None:
            rotations = problem.camera.R_camera_world[..., None, :, :] @ rotations
        indices = indices_of(tuple(names.index(name) for limb in limbs for name in limb), joints)
        points = [place[name] for limb in limbs for name in limb[2:]]
        seen = (problem.observations.confidence[..., points] > 0).unflatten(-1, (-1, 2)).all(-1)
        axes = indices_of((0, 1, 2), joints)
        return _Limbs(
            problem.start["body_pose"].repeat(len(limbs), 1, 1),
            (3 * (indices.unflatten(0, (-1, 4))[:, 1:, None] - 1) + axes).flatten(1),
            _one_after_the_other(joints.index_select(2, indices).unflatten(2, (-1, 4))),
            _one_after_the_other(rotations.index_select(2, indices).unflatten(2, (-1, 4))),
            _one_after_the_other(_rays(problem, points).unflatten(2, (-1, 2))),
            _one_after_the_other(seen),
        )


def _one_after_the_other(values: Shaped[Tensor, "B N L ..."]) -> Shaped[Tensor, "M N ..."]:
    """Return the values of all problems' first limbs, then of all second limbs, and so on: M = L B."""
    return values.movedim(2, 0).flatten(0, 1)


def _rays(problem: Problem, points: list[int]) -> Float[Tensor, "B N P 3"]:
    """Return unit vectors from the camera through keypoints, of an ideal lens."""
    intrinsics = problem.camera.intrinsics
    flat = problem.observations.points[..., points, :] - intrinsics[..., None, :2, 2]
    flat = flat / intrinsics.diagonal(dim1=-2, dim2=-1)[..., None, :2]
    return torch.nn.functional.normalize(torch.cat([flat, torch.ones_like(flat[..., :1])], dim=-1), dim=-1)


@dataclass(frozen=True)
class _Limbs:
    """L limbs of all bodies, one limb after the other: parent, upper joint, middle joint and end, in camera axes."""

    pose: Float[Tensor, "M N P"]
    columns: Int[Tensor, "L 9"]
    """Columns of body_pose of each limb's joints."""
    joints: Float[Tensor, "M N 4 3"]
    rotations: Float[Tensor, "M N 4 3 3"]
    rays: Float[Tensor, "M N 2 3"]
    seen: Bool[Tensor, "M N"]

    @property
    def _each_columns(self) -> Int[Tensor, "M 1 9"]:
        return self.columns.repeat_interleave(len(self.pose) // len(self.columns), 0)[:, None]

    def poses(self, prior: PosePrior, twists: int, keep_ends: bool) -> Float[Tensor, "M N 4 9"]:
        """Return the rotation vectors of the three joints for each of the four ways, likeliest first."""
        candidates = self._candidates(prior, twists, keep_ends).flatten(3, 4)
        columns = self._each_columns
        places = columns[:, :, None, None].expand_as(candidates)
        whole = self.pose[:, :, None, None].repeat(1, 1, *candidates.shape[2:4], 1).scatter_(-1, places, candidates)
        residual = prior.residual(whole[..., :_PRIOR_VALUES].flatten(0, 3))
        price = residual.square().sum(-1).unflatten(0, candidates.shape[:4])
        least, twist = price.min(dim=-1)
        best = candidates.gather(3, twist[..., None, None].expand(-1, -1, -1, 1, 9))[..., 0, :]
        ranked = best.gather(2, least.argsort(dim=-1)[..., None].expand(-1, -1, -1, 9))
        usable = (self.seen & torch.isfinite(ranked).flatten(2).all(-1))[..., None, None]
        unchanged = self.pose.gather(-1, columns.expand(-1, self.pose.shape[1], -1))
        return torch.where(usable, ranked, unchanged[..., None, :])

    def _candidates(self, prior: PosePrior, twists: int, keep_ends: bool) -> Float[Tensor, "M N 4 T E 9"]:
        """Return rotation vectors for each way, twist of the upper bone and orientation of hand or foot."""
        parent, upper, middle, end = self.rotations.unbind(2)
        upper_bone, upper_length = _bone(upper, self.joints[:, :, 1], self.joints[:, :, 2])
        lower_bone, lower_length = _bone(middle, self.joints[:, :, 2], self.joints[:, :, 3])
        directions = self._directions(upper_length, lower_length)
        within = (parent.mT[:, :, None, None] @ directions[..., None])[..., 0]
        angles = torch.arange(twists, device=self.pose.device, dtype=self.pose.dtype) * (2 * math.pi / twists)
        twist = roma.rotvec_to_rotmat(angles[:, None] * upper_bone[:, :, None])
        first = _turn(upper_bone[:, :, None], within[..., 0, :])[:, :, :, None] @ twist[:, :, None]
        lower = (first.mT @ within[:, :, :, None, 1, :, None])[..., 0]
        second = _turn(lower_bone[:, :, None, None], lower)
        if keep_ends:
            # Keypoints of a hand or foot hold its orientation, or that of its mirror image in depth: both are flat.
            mirror = _mirror(self.rays[:, :, 1]) @ end @ _mirror(end.new_tensor([0.0, 1.0, 0.0]))
            ends = torch.stack([end, mirror], dim=2)[:, :, None, None]
            third = (parent[:, :, None, None] @ first @ second).mT[..., None, :, :] @ ends
            thirds = roma.rotmat_to_rotvec(third)
        else:
            usual = prior.mean.to(self.pose)[self._each_columns[..., 6:]]
            thirds = usual[:, :, None, None, None].expand(*second.shape[:4], 1, 3)
        others = torch.cat([roma.rotmat_to_rotvec(first), roma.rotmat_to_rotvec(second)], dim=-1)
        return torch.cat([others[..., None, :].expand(*thirds.shape[:-1], 6), thirds], dim=-1)

    def _directions(self, upper: Float[Tensor, "M N 1"], lower: Float[Tensor, "M N 1"]) -> Float[Tensor, "M N 4 2 3"]:
        """Return unit vectors along both bones, camera axes, for each way."""
        origin, found = self.joints[:, :, 1], []
        for ways in _WAYS:
            middle = _reach(origin, self.rays[:, :, 0], upper, ways[0])
            end = _reach(middle, self.rays[:, :, 1], lower, ways[1])
            found.append(torch.stack([(middle - origin) / upper, (end - middle) / lower], dim=2))
        return torch.stack(found, dim=2)


def _bone(
    rotation: Float[Tensor, "M N 3 3"], start: Float[Tensor, "M N 3"], end: Float[Tensor, "M N 3"]
) -> tuple[Float[Tensor, "M N 3"], Float[Tensor, "M N 1"]]:
    """Return a bone's unit vector in its joint's axes, and its length in metres."""
    vector = (rotation.mT @ (end - start)[..., None])[..., 0]
    length = vector.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    return vector / length, length


def _reach(
    origin: Float[Tensor, "M N 3"], ray: Float[Tensor, "M N 3"], length: Float[Tensor, "M N 1"], way: int
) -> Float[Tensor, "M N 3"]:
    """Return the point at a distance from the origin that is on a ray, far (1) or near (-1), or else nearest to it."""
    along = (origin * ray).sum(-1, keepdim=True)
    spare = along.square() - origin.square().sum(-1, keepdim=True) + length.square()
    offset = (along + way * spare.clamp_min(0).sqrt()) * ray - origin
    return origin + length * torch.nn.functional.normalize(offset, dim=-1, eps=1e-9)


def _turn(start: Float[Tensor, "*#rows 3"], end: Float[Tensor, "*rows 3"]) -> Float[Tensor, "*rows 3 3"]:
    """Return the shortest rotation between unit vectors."""
    start = start.expand(end.shape)
    both = start + end
    # Two half turns, about the start and about the middle; opposite vectors have no middle, and stay.
    middle = torch.nn.functional.normalize(both, dim=-1, eps=1e-6)
    half = 2 * middle[..., :, None] * middle[..., None, :]
    first = 2 * start[..., :, None] * start[..., None, :]
    identity = torch.eye(3, dtype=end.dtype, device=end.device)
    return torch.where((both.norm(dim=-1) > 1e-3)[..., None, None], (half - identity) @ (first - identity), identity)


def _mirror(normal: Float[Tensor, "*rows 3"]) -> Float[Tensor, "*rows 3 3"]:
    """Return the reflection in the plane across a unit vector."""
    identity = torch.eye(3, dtype=normal.dtype, device=normal.device)
    return identity - 2 * normal[..., :, None] * normal[..., None, :]
