"""A start from the geometry of whatever trunk, head or limbs are seen: size, tilt, and several headings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.errors import UsageError
from fitkit.parameters import Parameters, zeros
from fitkit.placement import placed
from fitkit.problem import Observations, Problem, Proposal

_SIDES = ("left", "right")
_UPWARD = (
    *((f"{s}_hip", f"{s}_shoulder", 1.0) for s in _SIDES),
    *(("left_shoulder", "nose", 0.5), ("right_shoulder", "nose", 0.5)),
    *((f"{s}_knee", f"{s}_hip", 0.2) for s in _SIDES),
    *((f"{s}_ankle", f"{s}_knee", 0.2) for s in _SIDES),
    *((f"mouth_{s}", f"{s}_eye", 1.0) for s in _SIDES),
    *(("face_48", "right_eye", 1.0), ("face_54", "left_eye", 1.0)),
)
"""(lower landmark, upper landmark, weight): which way is up in an upright body."""
_SIDEWAYS = (("shoulder", 1.0), ("hip", 1.0), ("eye", 0.5), ("ear", 0.5))
"""(paired landmark, weight): which way is the subject's left."""
_TRUNK = tuple(f"{s}_{joint}" for s in _SIDES for joint in ("shoulder", "hip"))


@dataclass(frozen=True)
class GeometricInitialiser:
    """The mean pose, tilted and scaled as seen, with headings that a single view cannot tell apart.

    The shoulders' and hips' seen width against their true width gives the cosine of the heading; its sign, and
    front against back, stay open, so that each is one hypothesis. Where a detector guesses depth, the rotation that
    fits its trunk replaces the first.
    """

    hypotheses: int = 4
    """How many headings to propose: 1 (best guess), 2 (either turn), or 4 (also from behind)."""
    pose: str = "relaxed"
    """Pose prior whose mean is the pose to start from."""

    def __post_init__(self) -> None:
        """Raise `UsageError` for a number of hypotheses that there is not."""
        if self.hypotheses not in (1, 2, 4):
            raise UsageError(f"The geometric initialiser has 1, 2 or 4 hypotheses; got {self.hypotheses}.")

    def __call__(self, problem: Problem) -> Proposal:
        """Return the hypotheses for B problems, likeliest first."""
        observed, count = problem.observations, self.hypotheses
        up, left = _direction(observed, _UPWARD), _sideways(observed)
        up = torch.where(up.norm(dim=-1, keepdim=True) > 1e-6, up, up.new_tensor([0.0, -1.0]))
        heading = _heading(problem, up, left)
        headings = torch.stack([heading, -heading, math.pi - heading, heading - math.pi], dim=-1)[..., :count]
        roll = torch.atan2(up[..., 0], -up[..., 1])
        rotations = _rotation(roll[..., None].expand_as(headings), headings)
        rotations = torch.cat([_from_world(problem, rotations[..., :1, :, :]), rotations[..., 1:, :, :]], dim=-3)
        return Proposal(self._parameters(problem, rotations), count)

    def _parameters(self, problem: Problem, rotations: Float[Tensor, "B N C 3 3"]) -> Parameters:
        problems, bodies, count = rotations.shape[:3]
        start = zeros(problem.model.layout, problems * count, bodies, rotations)
        orient = roma.rotmat_to_rotvec(rotations).transpose(1, 2).flatten(0, 1)
        pose = start["body_pose"].clone()
        pose[..., :63] = problem.priors[self.pose].mean.to(pose)
        start = start.replace({"global_orient": orient, "body_pose": pose})
        start = start.replace({"betas": start["betas"][:, :1]})
        rows = torch.arange(problems, device=orient.device).repeat_interleave(count)
        return placed(problem.select(rows), start)


def _pair_weights(observed: Observations, first: str, second: str) -> Float[Tensor, "B N"] | None:
    place = observed.places
    if first not in place or second not in place:
        return None
    return observed.confidence[..., place[first]] * observed.confidence[..., place[second]]


def _direction(observed: Observations, pairs: tuple[tuple[str, str, float], ...]) -> Float[Tensor, "B N 2"]:
    """Return the weighted sum of image vectors between pairs of points, pixels; zero where none is seen."""
    total = torch.zeros_like(observed.points[..., 0, :])
    place = observed.places
    for start, end, weight in pairs:
        confidence = _pair_weights(observed, start, end)
        if confidence is not None:
            vector = observed.points[..., place[end], :] - observed.points[..., place[start], :]
            total = total + weight * confidence[..., None] * vector
    return total


def _sideways(observed: Observations) -> Float[Tensor, "B N 2"]:
    return _direction(observed, tuple((f"right_{name}", f"left_{name}", weight) for name, weight in _SIDEWAYS))


def _heading(problem: Problem, up: Float[Tensor, "B N 2"], left: Float[Tensor, "B N 2"]) -> Float[Tensor, "B N"]:
    """Return the turn about the body's axis, 0 when facing the camera to pi when seen from behind, radians."""
    observed, model = problem.observations, problem.model
    place = observed.places
    expected = torch.zeros_like(problem.pixels_per_metre)
    for name, weight in _SIDEWAYS:
        confidence = _pair_weights(observed, f"right_{name}", f"left_{name}")
        if confidence is not None:
            ends = tuple(observed.landmarks[place[f"{side}_{name}"]] for side in _SIDES)
            points = model(zeros(model.layout, 1, like=up)).landmarks(ends)[0, 0]
            expected = expected + weight * confidence * (points[0] - points[1]).norm() * problem.pixels_per_metre
    # The subject's left is on the picture's right when the subject faces the camera: a quarter turn from "up".
    across = torch.stack([-up[..., 1], up[..., 0]], dim=-1) / up.norm(dim=-1, keepdim=True)
    cosine = (left * across).sum(-1) / expected.clamp_min(1e-6)
    # The widths say little near their full length, where noise would make a heading of 20 degrees out of nothing.
    return torch.where(expected > 0, torch.acos((1.1 * cosine).clamp(-1, 1)), 0.0)


def _rotation(roll: Float[Tensor, "B N C"], heading: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C 3 3"]:
    """Return the rotation from body to camera axes: turned by the heading, stood before the camera, rolled."""
    zero = torch.zeros_like(roll)
    upright = roma.rotvec_to_rotmat(torch.stack([torch.full_like(roll, math.pi), zero, zero], dim=-1))
    turn = roma.rotvec_to_rotmat(torch.stack([zero, heading, zero], dim=-1))
    return roma.rotvec_to_rotmat(torch.stack([zero, zero, roll], dim=-1)) @ upright @ turn


def _from_world(problem: Problem, otherwise: Float[Tensor, "B N 1 3 3"]) -> Float[Tensor, "B N 1 3 3"]:
    """Return the rotation that fits the detector's trunk in space, where it gives all of it."""
    observed, model = problem.observations, problem.model
    place = observed.places
    if observed.world is None or not all(name in place for name in _TRUNK):
        return otherwise
    indices = [place[name] for name in _TRUNK]
    seen = observed.world[..., indices, :]
    rest = model(zeros(model.layout, 1, like=seen)).landmarks(tuple(observed.landmarks[k] for k in indices))
    known = torch.isfinite(seen).all(-1).all(-1) & (observed.confidence[..., indices] > 0).all(-1)
    seen = seen.nan_to_num(0.0) + torch.where(known, 0.0, 1.0)[..., None, None] * rest
    rotation, _ = roma.rigid_points_registration(rest.expand_as(seen), seen)
    return torch.where(known[..., None, None, None], rotation[..., None, :, :], otherwise)
