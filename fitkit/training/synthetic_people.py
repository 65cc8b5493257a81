"""People whose parameters are known, before cameras of any focal length: what an initialiser is trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.keypoints.conventions import correspondence
from fitkit.models.smpl_family import SMPLFamilyModel
from fitkit.parameters import Parameters, zeros
from fitkit.regression.crop import VOCABULARY
from fitkit.training.pose_source import PoseSource, headings

LONGER_SIDE = 1000.0
"""Pixels of every picture's longer side."""
_FIELDS_OF_VIEW = (28.0, 92.0)
_ASPECTS = (1.0, 1.0, 0.75, 1.33, 0.67, 1.5, 0.56, 1.78)
_NEAREST = 0.25


@dataclass(frozen=True)
class SyntheticPeople:
    """M people, and where a perfect detector would see them."""

    parameters: Parameters
    """Leaves (M, 1, size) in camera axes."""
    rotations: Float[Tensor, "M 22 3 3"]
    """Of the pelvis in camera axes, and of the body's joints relative to their parents."""
    joint_rotations: Float[Tensor, "M 22 3 3"]
    """Of all of them in camera axes."""
    intrinsics: Float[Tensor, "M 3 3"]
    """K, pixels."""
    image_size: Float[Tensor, "M 2"]
    """Width and height, pixels."""
    points: Float[Tensor, "M V 2"]
    """Pixels of all points of the network's vocabulary."""
    root: Float[Tensor, "M 3"]
    """The pelvis joint in camera axes, metres."""


@dataclass(frozen=True)
class Population:
    """How people and cameras are drawn."""

    model: SMPLFamilyModel
    """The body, single precision."""
    source: PoseSource
    """The poses."""
    tilt: float = 0.25
    """Standard deviation of the camera's pitch, radians; thrice in ten draws twice as much."""
    varied: bool = True
    """Whether poses are mixed and perturbed."""

    def sample(self, count: int, random: torch.Generator) -> SyntheticPeople:
        """Return that many people, each in a picture of its own."""
        pose, orientation = self.source.sample(count, random, self.varied)
        rotation = headings(orientation, self.tilt, random)
        leaves = self._shape(count, random) | {
            "body_pose": pose[:, None],
            "global_orient": roma.rotmat_to_rotvec(rotation)[:, None],
        }
        parameters = zeros(self.model.layout, count, 1, self.model.shape.v_template).replace(leaves)
        body = self.model(parameters)
        landmarks = landmarks_of(self.model)
        unique = tuple(dict.fromkeys(landmarks))
        points = body.landmarks(unique)[:, 0][:, [unique.index(name) for name in landmarks]]
        intrinsics, image_size = _cameras(count, random)
        transl = _places(points, intrinsics, image_size, random)
        placed = points + transl[:, None]
        flat = placed[..., :2] / placed[..., 2:].clamp_min(0.05)
        pixels = flat * intrinsics[:, None, 0, :1] + intrinsics[:, None, :2, 2]
        local = roma.rotvec_to_rotmat(pose.unflatten(1, (21, 3)))
        return SyntheticPeople(
            parameters.replace({"transl": transl[:, None]}),
            torch.cat([rotation[:, None], local], dim=1),
            body.joint_rotations[:, 0, :22],
            intrinsics,
            image_size,
            pixels,
            body.joints[:, 0, 0] + transl,
        )

    def _shape(self, count: int, random: torch.Generator) -> dict[str, Tensor]:
        """Return shapes, hands and faces."""
        sizes = {leaf.name: leaf.size for leaf in self.model.layout}

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=random)

        leaves = {"betas": normal(count, 1, sizes["betas"]).clamp(-3, 3)}
        for hand, name in zip(self.model.hands or (), ("left_hand_pose", "right_hand_pose"), strict=False):
            # Some hands are nearly at rest, some far from it.
            leaves[name] = 1.2 * uniform(count, 1, 1) * hand.deviation * normal(count, 1, sizes[name])
        opened = 0.35 * uniform(count, 1, 1) * (uniform(count, 1, 1) < 0.4)
        leaves["jaw_pose"] = torch.cat([opened, 0.02 * normal(count, 1, 2)], dim=-1)
        some = uniform(count, 1, sizes["expression"])
        leaves["expression"] = 0.8 * uniform(*some.shape) * (some < 0.15)
        return leaves


def standard_hands(people: SyntheticPeople, model: SMPLFamilyModel) -> Float[Tensor, "M H"]:
    """Return the left, then the right hand's coefficients, each in its own deviations."""
    assert model.hands is not None, "the body that a network is trained with has hands"
    sides = zip(("left_hand_pose", "right_hand_pose"), model.hands, strict=True)
    return torch.cat([people.parameters[name][:, 0] / hand.deviation for name, hand in sides], dim=1)


def landmarks_of(model: SMPLFamilyModel) -> list[str]:
    """Return the body's landmark for each name of the network's vocabulary, whatever else is seen."""
    found = [correspondence([name], model.landmark_names) for name in VOCABULARY]
    assert all(one.mask[0] for one in found), "the embedded body has every point of the vocabulary"
    return [model.landmark_names[int(one.indices[0])] for one in found]


def _cameras(count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return intrinsics (M, 3, 3) and picture sizes (M, 2), pixels."""
    low, high = _FIELDS_OF_VIEW
    angle = torch.deg2rad(low + (high - low) * torch.rand(count, generator=random))
    aspect = torch.tensor(_ASPECTS)[torch.randint(len(_ASPECTS), (count,), generator=random)]
    size = (torch.stack([aspect.clamp_max(1), (1 / aspect).clamp_max(1)], dim=-1) * LONGER_SIDE).round()
    intrinsics = torch.zeros(count, 3, 3)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = LONGER_SIDE / (2 * torch.tan(angle / 2))
    intrinsics[:, :2, 2] = size / 2
    intrinsics[:, 2, 2] = 1
    return intrinsics, size


def _places(
    points: Float[Tensor, "M V 3"],
    intrinsics: Float[Tensor, "M 3 3"],
    image_size: Float[Tensor, "M 2"],
    random: torch.Generator,
) -> Float[Tensor, "M 3"]:
    """Return translations that put people anywhere in their pictures, most of them whole, at any size."""
    count = len(points)
    low, high = points.amin(1), points.amax(1)
    extent = (high - low)[:, :2].amax(-1)
    kind = torch.rand(count, generator=random)
    share = torch.rand(count, generator=random)
    usual = 0.3 + 0.65 * share
    small = torch.exp(math.log(0.05) + (math.log(0.3) - math.log(0.05)) * share)
    apparent = torch.where(kind < 0.12, small, torch.where(kind > 0.88, 0.95 + 0.9 * share, usual))
    pixels = apparent * image_size.amin(-1)
    focal = intrinsics[:, 0, 0]
    # No part of a body reaches the camera.
    depth = torch.maximum(focal * extent / pixels, _NEAREST - low[:, 2])
    free = (image_size - pixels[:, None]).clamp_min(0) / 2
    beyond = (pixels[:, None] - image_size).clamp_min(0) / 2
    offset = (2 * torch.rand(count, 2, generator=random) - 1) * (free + 0.7 * beyond)
    middle = (low + high)[:, :2] / 2
    return torch.cat([offset / focal[:, None] * depth[:, None] - middle, depth[:, None]], dim=-1)
