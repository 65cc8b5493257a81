"""Where a person stands, from how large and where in the picture the keypoints show one."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.camera import NEAREST_DEPTH
from fitkit.parameters import Parameters
from fitkit.problem import Problem

_STEADY = ("hip", "shoulder", "nose", "ear")
"""Words in the names of keypoints that move little with the pose."""
_FACTOR = 30.0
"""Times that a start may show a person too large or too small; the size seen of a few points of a face alone is off by
some ten."""


def placed(problem: Problem, start: Parameters) -> Parameters:
    """Return the parameters moved to where the seen size and the middle of the seen points put them."""
    observed, camera = problem.observations, problem.camera
    depth = camera.focal_length[..., 0] / problem.pixels_per_metre
    weights = observed.confidence
    steady = torch.tensor([any(part in name for part in _STEADY) for name in observed.names], device=weights.device)
    use_steady = (weights * steady).sum(-1, keepdim=True) > 0
    weights = torch.where(use_steady, weights * steady, weights)
    weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-9)
    points = problem.model(start).landmarks(observed.landmarks)
    middle_body = (weights[..., None] * points).sum(-2)
    middle_image = (weights[..., None] * observed.points).sum(-2)
    principal = camera.intrinsics[..., :2, 2]
    ray = (middle_image - principal) / torch.stack([camera.intrinsics[..., 0, 0], camera.intrinsics[..., 1, 1]], dim=-1)
    goal = torch.cat([ray * depth[..., None], depth[..., None]], dim=-1)
    return start.replace({"transl": start["transl"] + _to_world(problem, goal - _to_camera(problem, middle_body))})


def in_sight(problem: Problem, start: Parameters) -> Parameters:
    """Return the parameters with people placed anew who stand where the keypoints cannot come from.

    Points behind a camera are projected as if before its lens, where nothing pulls them forward, and people of a pixel
    are too small for the keypoints to pull: from there no solver finds back. Starts that are merely poor stay.
    """
    depth = _to_camera(problem, start["transl"])[..., 2]
    size = problem.camera.focal_length[..., 0] / depth.clamp_min(NEAREST_DEPTH) / problem.pixels_per_metre
    lost = (depth <= NEAREST_DEPTH) | (size > _FACTOR) | (size < 1 / _FACTOR)
    lost = lost & ((problem.observations.confidence > 0).sum(-1) > 1)
    better = placed(problem, start)
    return start.replace({"transl": torch.where(lost[..., None], better["transl"], start["transl"])})


def _to_camera(problem: Problem, points: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N 3"]:
    return problem.camera.to_camera(points[..., None, :])[..., 0, :]


def _to_world(problem: Problem, offsets: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N 3"]:
    """Return offsets in camera axes turned into the world's."""
    turn = problem.camera.R_camera_world
    return offsets if turn is None else (turn.mT @ offsets[..., None])[..., 0]
