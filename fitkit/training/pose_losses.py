"""What the training of the pose autoencoder minimises: errors in rotation and in space, and divergence from normal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.priors.mirror import OTHER_SIDE, mirrored_columns
from fitkit.priors.rotations import orthonormal
from fitkit.training.motion_capture import Poses

PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)
"""Of the 22 joints that the SMPL family shares."""
SOFT_ANGLE, SOFT_DISTANCE = 0.02, 0.005
"""Radians and metres below which errors count by their squares, and above which they count by themselves."""


@dataclass(frozen=True)
class Skeleton:
    """Offsets of the joints from their parents in the template."""

    offsets: Float[Tensor, "22 3"]
    """Metres; zero for the pelvis."""

    @classmethod
    def of(cls, joints_rest: Float[Tensor, "J 3"]) -> Skeleton:
        """Return the skeleton of a template's joints, of which the first 22 are used."""
        joints = joints_rest[:22]
        offsets = joints - joints[list(PARENTS)]
        return cls(torch.cat([torch.zeros_like(offsets[:1]), offsets[1:]]))

    def positions(self, rotations: Float[Tensor, "M 21 3 3"]) -> Float[Tensor, "M 21 3"]:
        """Return joint positions from the pelvis, which does not turn, metres."""
        unit = torch.eye(3, dtype=rotations.dtype, device=rotations.device).expand(len(rotations), 3, 3)
        turned, placed = [unit], [torch.zeros_like(unit[:, 0])]
        for joint in range(1, 22):
            parent = PARENTS[joint]
            placed.append(placed[parent] + turned[parent] @ self.offsets[joint])
            turned.append(turned[parent] @ rotations[:, joint - 1])
        return torch.stack(placed[1:], dim=1)


def squared_chords(one: Float[Tensor, "*rows 3 3"], other: Float[Tensor, "*rows 3 3"]) -> Float[Tensor, "*rows"]:
    """Return squared distances between rotation matrices: twice the squared angle, for small ones."""
    return (one - other).square().sum((-1, -2))


def rotation_error(
    found: Float[Tensor, "M 21 3 3"], truth: Float[Tensor, "M 21 3 3"], captured: Float[Tensor, "M 21"]
) -> Float[Tensor, ""]:
    """Return the mean angle over the captured joints, about, radians."""
    angle = (0.5 * squared_chords(found, truth) + SOFT_ANGLE**2).sqrt()
    return (angle * captured).sum() / captured.sum()


def joint_error(found: Float[Tensor, "M 21 3"], truth: Float[Tensor, "M 21 3"]) -> Float[Tensor, ""]:
    """Return the mean distance of joints, about, metres."""
    return ((found - truth).square().sum(-1) + SOFT_DISTANCE**2).sqrt().mean()


def divergence(mean: Float[Tensor, "M L"], log_variance: Float[Tensor, "M L"]) -> Float[Tensor, ""]:
    """Return the mean Kullback-Leibler divergence of the posteriors from the standard normal, nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean()


class NormalShape:
    """How far a batch of latent vectors is from a sample of the standard normal: sliced Wasserstein distances.

    Kolouri et al. 2018, "Sliced Wasserstein auto-encoders": along each axis, along random directions, and in length.
    """

    def __init__(self, batch: int, latents: int, generator: torch.Generator) -> None:
        """Lay out the quantiles that a batch of this size should have."""
        share = (torch.arange(batch) + 0.5) / batch
        normal = torch.distributions.Normal(0.0, 1.0).icdf(share)
        lengths = torch.randn(100_000, latents, generator=generator).norm(dim=1).sort().values
        radial = lengths[(share * len(lengths)).long()]
        self._target = torch.cat([normal.expand(2 * latents, -1), radial[None]])
        self._latents, self._generator = latents, generator

    def __call__(self, latent: Float[Tensor, "M L"]) -> Float[Tensor, ""]:
        """Return the mean squared distance over axes and directions, plus that of lengths."""
        directions = torch.randn(self._latents, self._latents, generator=self._generator)
        turned = latent @ (directions / directions.norm(dim=0)).to(latent)
        lengths = (latent.square().sum(1, keepdim=True) + 1e-6).sqrt()
        values = torch.cat([latent, turned, lengths], dim=1).T.contiguous().sort(dim=1).values
        squared = (values - self._target.to(values)).square().mean(1)
        return squared[:-1].mean() + squared[-1]


def chord_lengths(rotations: Float[Tensor, "M 21 3 3"]) -> Float[Tensor, "M 21"]:
    """Return 2 sin(a / 2), up to a factor, of each rotation's angle a."""
    trace = rotations.diagonal(dim1=-1, dim2=-2).sum(-1)
    return (3 - trace).clamp_min(1e-4).sqrt()


class Likeness:
    """How far decoded samples are from the data in means and deviations of angles, means and covariances of poses."""

    def __init__(self, rotations: Float[Tensor, "M 21 3 3"], captured: Float[Tensor, "M 21"]) -> None:
        """Measure the data.

        Args:
            rotations: of frames drawn by their weights.
            captured: 1 for joints whose angles count, 0 for others.
        """
        self._order = list(OTHER_SIDE)
        self._bases = mirrored_columns()
        lengths, counts = chord_lengths(rotations), captured
        lengths = torch.cat([lengths, lengths[:, self._order]])
        counts = torch.cat([counts, counts[:, self._order]])
        # Joints that nobody captured: as they were drawn.
        counts = torch.where(counts.sum(0) > 0, counts, 1.0)
        self._mean = (lengths * counts).sum(0) / counts.sum(0)
        variance = ((lengths - self._mean).square() * counts).sum(0) / counts.sum(0)
        self._deviation = variance.sqrt().clamp_min(1e-3)
        parts = self._parts(rotations)
        self._centre = parts[0].mean(0)
        self._covariances = self._covariances_of(parts)

    def __call__(self, rotations: Float[Tensor, "M 21 3 3"]) -> Float[Tensor, ""]:
        """Return the sum of squared relative differences."""
        lengths = chord_lengths(rotations)
        both = torch.cat([lengths, lengths[:, self._order]])
        loss = ((both.mean(0) - self._mean) / self._deviation).square().sum()
        loss = loss + (both.std(0) / self._deviation).log().square().sum()
        parts = self._parts(rotations)
        for found, target in zip(self._covariances_of(parts), self._covariances, strict=True):
            loss = loss + 5 * (found - target).square().sum() / target.square().sum()
        shift = parts[0].mean(0) - self._centre
        return loss + 5 * shift.square().sum() / self._covariances[0].trace()

    def _parts(self, rotations: Tensor) -> tuple[Tensor, Tensor]:
        numbers = rotations[..., :2].flatten(1)
        return numbers @ self._bases[0], numbers @ self._bases[1]

    def _covariances_of(self, parts: tuple[Tensor, Tensor]) -> list[Tensor]:
        even, odd = parts[0] - self._centre, parts[1]
        return [part.T @ part / len(part) for part in (even, odd)]


def _joints(*numbers: int) -> Tensor:
    mask = torch.zeros(21, dtype=torch.bool)
    mask[[number - 1 for number in numbers]] = True
    return mask


_LEGS, _ARMS, _HEAD = _joints(1, 2, 4, 5, 7, 8, 10, 11), _joints(13, 14, 16, 17, 18, 19, 20, 21), _joints(12, 15)
_LEFT_ARM, _RIGHT_ARM = _joints(13, 16, 18, 20), _joints(14, 17, 19, 21)
LIMBS = torch.stack([_LEGS, _LEGS, _ARMS, _ARMS, _LEFT_ARM, _RIGHT_ARM, _HEAD, _ARMS | _HEAD])
"""Sets of joints, (8, 21), that may be taken from another frame, the commoner ones twice."""


def captured_joints(poses: Poses) -> Float[Tensor, "N 21"]:
    """Return 1 for joints that were captured, 0 for those that are missing."""
    return (~poses.body_pose.isnan()).unflatten(1, (21, 3)).all(dim=-1).float()


def decoded(even: Tensor, odd: Tensor) -> Float[Tensor, "M 21 3 3"]:
    """Return the rotations of a decoder's outputs, in single precision whatever the network's."""
    columns = mirrored_columns()
    numbers = even.float() @ columns[0].T + odd.float() @ columns[1].T
    return orthonormal(numbers.unflatten(1, (21, 6)))


def usual_step(fraction: float, warm: float = 0.02) -> float:
    """Return the factor on the learning rate after a share of the steps: up linearly, down along a cosine."""
    return min(1.0, fraction / warm) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * fraction)))
