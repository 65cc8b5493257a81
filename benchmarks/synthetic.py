"""Synthetic people with known parameters, for benchmarks and recovery tests."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import roma
import torch
from torch import Tensor

from fitkit.camera import Camera, pinhole
from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.conventions import SMPLIFYX_118, correspondence
from fitkit.models.smpl_family import SMPLFamilyModel
from fitkit.parameters import Parameters, zeros


@dataclass(frozen=True)
class SyntheticPeople:
    """People whose parameters are known, and their noise-free keypoints."""

    parameters: Parameters
    """(B, 1, size) leaves."""
    camera: Camera
    """The camera that sees each."""
    keypoints: list[Keypoints]
    """One picture per person."""


def sample_people(
    model: SMPLFamilyModel, count: int, seed: int = 0, pose: float = 0.6, yaw: float = 0.6, size: int = 1000
) -> SyntheticPeople:
    """Return people with random shapes, poses, hands and faces, seen whole by a camera of a known focal length.

    Args:
        model: the body.
        count: how many.
        seed: of all randomness.
        pose: body joints turn by up to this many radians about each axis.
        yaw: people are turned from facing the camera by up to this many radians, and tilted by up to a sixth of it.
        size: width and height of the picture, pixels; a person fills about three quarters of it.
    """
    random = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(*shape, generator=random, dtype=torch.float64)).to(model.dtype)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64).to(model.dtype)

    start = zeros(model.layout, count, 1, model.shape.v_template)
    turn = torch.stack(
        [uniform(-yaw / 6, yaw / 6, count), uniform(-yaw, yaw, count), uniform(-yaw / 6, yaw / 6, count)]
    )
    upright = roma.rotvec_to_rotmat(start["global_orient"].new_tensor([math.pi, 0.0, 0.0]))
    orient = roma.rotmat_to_rotvec(upright @ roma.rotvec_to_rotmat(turn.T))
    leaves = {
        "global_orient": orient[:, None],
        "body_pose": uniform(-pose, pose, *start["body_pose"].shape),
        "betas": normal(*start["betas"].shape).clamp(-2.5, 2.5),
        "transl": torch.cat([uniform(-0.1, 0.1, count, 2), uniform(2.6, 3.2, count, 1)], dim=1)[:, None],
    }
    if model.hands is not None:
        for hand, name in zip(model.hands, ("left_hand_pose", "right_hand_pose"), strict=True):
            leaves[name] = 0.7 * hand.deviation * normal(*start[name].shape)
    if "jaw_pose" in start:
        leaves["jaw_pose"] = torch.cat([uniform(0.0, 0.2, count, 1), torch.zeros_like(turn.T[:, :2])], dim=1)[:, None]
    if "expression" in start:
        bounded = model.expression_bounds is not None
        some = uniform(0.0, 1.0, *start["expression"].shape) < 0.15
        leaves["expression"] = uniform(0.0, 0.7, *some.shape) * some if bounded else 0.7 * normal(*some.shape)
    parameters = start.replace(leaves)
    parameters = parameters.replace({"betas": parameters["betas"][:, :1]})
    focal = torch.full((count,), 1.3 * size, dtype=model.dtype)
    camera = pinhole(focal, torch.full((count, 2), float(size), dtype=model.dtype))
    return SyntheticPeople(parameters, camera, keypoints_of(model, parameters, camera, size))


def keypoints_of(model: SMPLFamilyModel, parameters: Parameters, camera: Camera, size: int) -> list[Keypoints]:
    """Return the noise-free keypoints of people, one picture each, with the first one's focal length."""
    found = correspondence(SMPLIFYX_118, model.landmark_names)
    names = tuple(name for name, ok in zip(SMPLIFYX_118, found.mask, strict=True) if ok)
    landmarks = tuple(model.landmark_names[i] for i in found.indices[found.mask])
    points = camera.project(model(parameters).landmarks(landmarks))[:, 0].numpy()
    focal = float(camera.intrinsics[0, 0, 0, 0])
    ones = np.ones((1, len(names)))
    return [Keypoints(names, row[None], ones, (size, size), focal_length=focal) for row in points]
