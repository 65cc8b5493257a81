"""Body poses to train on: motion capture, completed, mirrored, with limbs of different frames, and perturbed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fitkit.priors.mirror import mirrored
from fitkit.training.motion_capture import Poses

_LIMBS = ((12, 15, 17, 19), (13, 16, 18, 20), (0, 3, 6, 9), (1, 4, 7, 10), (11, 14))
"""Left arm, right arm, left leg, right leg, neck and head, among the 21 body joints."""
_MIXTURES = ((0,), (1,), (0, 1), (2,), (3,), (2, 3), (4,), (0, 3))
"""Which limbs may come from another frame."""


@dataclass(frozen=True)
class PoseSource:
    """Complete poses with sampling weights, and how they are varied."""

    poses: Float[Tensor, "F 63"]
    """Axis-angle, radians."""
    orientations: Float[Tensor, "F 3"]
    """Of the pelvis, y up, axis-angle."""
    weight: Float[Tensor, " F"]
    """Sampling weights."""
    lower: Float[Tensor, " 63"]
    """Least angle that a perturbed or mixed pose may reach, radians."""
    upper: Float[Tensor, " 63"]
    """Greatest angle."""
    mixed: float = 0.2
    """Share of poses with limbs of another frame."""
    perturbed: float = 0.35
    """Share of poses with noise in every joint."""
    noise: float = 0.1
    """Greatest standard deviation of that noise, radians."""

    def sample(
        self, count: int, random: torch.Generator, varied: bool = True
    ) -> tuple[Float[Tensor, "M 63"], Float[Tensor, "M 3"]]:
        """Return poses and the pelvis' orientations, half of them mirrored."""
        rows = self._rows(count, random)
        pose, orientation = self.poses[rows], self.orientations[rows]
        if varied:
            pose = self._perturbed(self._mixed(pose, random), random)
        mirror = torch.rand(count, 1, generator=random) < 0.5
        reflected = orientation * orientation.new_tensor([1.0, -1.0, -1.0])
        return torch.where(mirror, mirrored(pose), pose), torch.where(mirror, reflected, orientation)

    def _rows(self, count: int, random: torch.Generator) -> Int[Tensor, " M"]:
        return torch.multinomial(self.weight, count, replacement=True, generator=random)

    def _mixed(self, pose: Float[Tensor, "M 63"], random: torch.Generator) -> Float[Tensor, "M 63"]:
        other = self.poses[self._rows(len(pose), random)]
        masks = torch.zeros(len(_MIXTURES), 21, dtype=torch.bool)
        for number, limbs in enumerate(_MIXTURES):
            masks[number, [joint for limb in limbs for joint in _LIMBS[limb]]] = True
        chosen = masks[torch.randint(len(_MIXTURES), (len(pose),), generator=random)]
        chosen &= torch.rand(len(pose), 1, generator=random) < self.mixed
        return torch.where(chosen.repeat_interleave(3, dim=1), other, pose)

    def _perturbed(self, pose: Float[Tensor, "M 63"], random: torch.Generator) -> Float[Tensor, "M 63"]:
        size = self.noise * torch.rand(len(pose), 1, generator=random)
        size = size * (torch.rand(len(pose), 1, generator=random) < self.perturbed)
        moved = pose + size * torch.randn(pose.shape, generator=random)
        # The frames themselves may lie beyond the limits; noise takes none of them further out.
        low, high = torch.minimum(pose, self.lower), torch.maximum(pose, self.upper)
        return torch.minimum(torch.maximum(moved, low), high)


def pose_source(
    poses: Poses, limits: tuple[Float[Tensor, " 63"], Float[Tensor, " 63"]], random: torch.Generator
) -> PoseSource:
    """Return the frames as a source, joints that were not captured drawn from what goes with the others."""
    lower, upper = (bound.float() for bound in limits)
    filled = _completed(poses.body_pose.float(), poses.weight.float(), random)
    return PoseSource(filled, poses.orientation.float(), poses.weight.float(), lower, upper)


def _completed(pose: Float[Tensor, "F 63"], weight: Float[Tensor, " F"], random: torch.Generator) -> Tensor:
    """Return poses whose missing entries are drawn from the normal density given the others."""
    complete = torch.isfinite(pose).all(1)
    if bool(complete.all()):
        return pose
    known = pose[complete].double()
    share = (weight[complete] / weight[complete].sum()).double()[:, None]
    mean = (share * known).sum(0)
    covariance = (share * (known - mean)).T @ (known - mean) + 1e-4 * torch.eye(63, dtype=torch.double)
    filled = pose.clone()
    patterns, kind = torch.isfinite(pose).unique(dim=0, return_inverse=True)
    for number, seen in enumerate(patterns):
        if bool(seen.all()):
            continue
        rows = kind == number
        inner = covariance[seen][:, seen]
        regression = torch.linalg.solve(inner, covariance[seen][:, ~seen]).T
        spread = torch.linalg.cholesky(covariance[~seen][:, ~seen] - regression @ covariance[seen][:, ~seen])
        expected = mean[~seen] + (pose[rows][:, seen].double() - mean[seen]) @ regression.T
        noise = torch.randn(expected.shape, generator=random, dtype=torch.double) @ spread.T
        filled[rows.nonzero(), (~seen).nonzero()[:, 0]] = (expected + noise).float()
    return filled


def headings(orientation: Float[Tensor, "M 3"], tilt: float, random: torch.Generator) -> Float[Tensor, "M 3 3"]:
    """Return rotations from body to camera axes: people before the camera, facing anywhere.

    Half keep how the pelvis was tilted in the capture, half are upright; the camera looks up or down, and rolls.

    Args:
        orientation: of the pelvis, y up, axis-angle.
        tilt: standard deviation of the camera's pitch, radians.
        random: what to draw from.
    """
    count = len(orientation)
    kept = roma.rotvec_to_rotmat(orientation)
    upright = torch.rand(count, 1, 1, generator=random) < 0.5
    stood = torch.where(upright, torch.eye(3), kept)
    yaw = 2 * math.pi * torch.rand(count, generator=random)
    # Mostly a camera held level, some far from it.
    steep = torch.where(torch.rand(count, generator=random) < 0.3, 2 * tilt, tilt)
    pitch = steep * torch.randn(count, generator=random)
    roll = 0.08 * torch.randn(count, generator=random)
    anyhow = torch.rand(count, generator=random) < 0.04
    roll = torch.where(anyhow, yaw - math.pi, roll)
    facing = roma.rotvec_to_rotmat(torch.tensor([math.pi, 0.0, 0.0]))
    zero = torch.zeros(count)
    turn = roma.rotvec_to_rotmat(torch.stack([zero, yaw, zero], dim=-1))
    pitched = roma.rotvec_to_rotmat(torch.stack([pitch, zero, zero], dim=-1))
    rolled = roma.rotvec_to_rotmat(torch.stack([zero, zero, roll], dim=-1))
    return rolled @ pitched @ facing @ turn @ stood
