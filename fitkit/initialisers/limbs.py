"""Poses of arms and legs that look alike in one picture: each bone turned towards the camera or away from it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import roma
import torch
from jaxtyping import Bool, Float
from torch import Tensor

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
        start = problem.start
        pose = start["body_pose"]
        all_best, single = pose.clone(), []
        for columns, poses in self._limbs(problem):
            all_best[..., columns] = poses[..., 0, :]
            for rank in range(self.alternatives):
                changed = pose.clone()
                changed[..., columns] = poses[..., rank, :]
                single.append(changed)
        found = [all_best, *single] if self.replace_start else [pose, all_best, *single]
        rows = torch.arange(len(pose), device=pose.device).repeat_interleave(len(found))
        together = torch.stack(found, dim=1).flatten(0, 1)
        return Proposal(start.select(rows).replace({"body_pose": together}), len(found))

    def _limbs(self, problem: Problem) -> Iterator[tuple[list[int], Float[Tensor, "B N 4 9"]]]:
        """Yield each limb whose keypoints may be seen: its columns of body_pose, and its poses, likeliest first."""
        body, place, names = problem.model(problem.start), problem.observations.places, problem.model.joint_names
        if not isinstance(body, TurnedBody):
            return
        joints = problem.camera.to_camera(body.joints)
        rotations = body.joint_rotations
        if problem.camera.R_camera_world is not None:
            rotations = problem.camera.R_camera_world[..., None, :, :] @ rotations
        for chain in _CHAINS:
            for side in ("left", "right"):
                limb = tuple(f"{side}_{name}" if name != "pelvis" else name for name in chain)
                if not set(limb) <= set(names) or not set(limb[2:]) <= place.keys():
                    continue
                indices = [names.index(name) for name in limb]
                seen = _Limb(
                    problem.start["body_pose"],
                    [3 * (joint - 1) + axis for joint in indices[1:] for axis in range(3)],
                    joints[..., indices, :],
                    rotations[..., indices, :, :],
                    _rays(problem, [place[name] for name in limb[2:]]),
                    (problem.observations.confidence[..., [place[name] for name in limb[2:]]] > 0).all(-1),
                )
                yield seen.columns, seen.poses(problem.priors[self.pose], self.twists, not self.replace_start)


def _rays(problem: Problem, points: list[int]) -> Float[Tensor, "B N 2 3"]:
    """Return unit vectors from the camera through keypoints, of an ideal lens."""
    intrinsics = problem.camera.intrinsics
    flat = problem.observations.points[..., points, :] - intrinsics[..., None, :2, 2]
    flat = flat / intrinsics.diagonal(dim1=-2, dim2=-1)[..., None, :2]
    return torch.nn.functional.normalize(torch.cat([flat, torch.ones_like(flat[..., :1])], dim=-1), dim=-1)


@dataclass(frozen=True)
class _Limb:
    """One limb of all bodies: parent, upper joint, middle joint and end, in camera axes."""

    pose: Float[Tensor, "B N P"]
    columns: list[int]
    joints: Float[Tensor, "B N 4 3"]
    rotations: Float[Tensor, "B N 4 3 3"]
    rays: Float[Tensor, "B N 2 3"]
    seen: Bool[Tensor, "B N"]

    def poses(self, prior: PosePrior, twists: int, keep_ends: bool) -> Float[Tensor, "B N 4 9"]:
        """Return the rotation vectors of the three joints for each of the four ways, likeliest first."""
        candidates = self._candidates(prior, twists, keep_ends).flatten(3, 4)
        whole = self.pose[:, :, None, None].repeat(1, 1, *candidates.shape[2:4], 1)
        whole[..., self.columns] = candidates
        residual = prior.residual(whole[..., :_PRIOR_VALUES].flatten(0, 3))
        price = residual.square().sum(-1).unflatten(0, candidates.shape[:4])
        least, twist = price.min(dim=-1)
        best = candidates.gather(3, twist[..., None, None].expand(-1, -1, -1, 1, 9))[..., 0, :]
        ranked = best.gather(2, least.argsort(dim=-1)[..., None].expand(-1, -1, -1, 9))
        usable = (self.seen & torch.isfinite(ranked).flatten(2).all(-1))[..., None, None]
        return torch.where(usable, ranked, self.pose[..., None, self.columns])

    def _candidates(self, prior: PosePrior, twists: int, keep_ends: bool) -> Float[Tensor, "B N 4 T E 9"]:
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
            usual = prior.mean.to(self.pose)[self.columns[6:]]
            thirds = usual.expand(*second.shape[:4], 1, 3)
        others = torch.cat([roma.rotmat_to_rotvec(first), roma.rotmat_to_rotvec(second)], dim=-1)
        return torch.cat([others[..., None, :].expand(*thirds.shape[:-1], 6), thirds], dim=-1)

    def _directions(self, upper: Float[Tensor, "B N 1"], lower: Float[Tensor, "B N 1"]) -> Float[Tensor, "B N 4 2 3"]:
        """Return unit vectors along both bones, camera axes, for each way."""
        origin, found = self.joints[:, :, 1], []
        for ways in _WAYS:
            middle = _reach(origin, self.rays[:, :, 0], upper, ways[0])
            end = _reach(middle, self.rays[:, :, 1], lower, ways[1])
            found.append(torch.stack([(middle - origin) / upper, (end - middle) / lower], dim=2))
        return torch.stack(found, dim=2)


def _bone(
    rotation: Float[Tensor, "B N 3 3"], start: Float[Tensor, "B N 3"], end: Float[Tensor, "B N 3"]
) -> tuple[Float[Tensor, "B N 3"], Float[Tensor, "B N 1"]]:
    """Return a bone's unit vector in its joint's axes, and its length in metres."""
    vector = (rotation.mT @ (end - start)[..., None])[..., 0]
    length = vector.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    return vector / length, length


def _reach(
    origin: Float[Tensor, "B N 3"], ray: Float[Tensor, "B N 3"], length: Float[Tensor, "B N 1"], way: int
) -> Float[Tensor, "B N 3"]:
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
