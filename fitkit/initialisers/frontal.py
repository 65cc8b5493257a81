"""The published start: the mean pose facing the camera, its depth from the trunk's length."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.parameters import zeros
from fitkit.problem import Problem, Proposal

_TRUNK = (("left_shoulder", "left_hip"), ("right_shoulder", "right_hip"))


@dataclass(frozen=True)
class FrontalInitialiser:
    """The mean pose facing the camera, and the same from behind (SMPLify-X's start and its flip test).

    The depth is the focal length times the mean true length over the mean seen length of the trunk's sides.
    """

    flip: bool = True
    """Also propose the body turned by 180 degrees."""
    narrow: float = 0.025
    """Share of the picture's height between the shoulders below which the flip is tested: the published 25 pixels
    (which do not scale with the resolution) of 1000."""
    pose: str = "relaxed"
    """Pose prior whose mean is the pose to start from."""

    def __call__(self, problem: Problem) -> Proposal:
        """Return one or two hypotheses for each of B problems; where the flip needs no test, both are alike."""
        count = 2 if self.flip else 1
        observed = problem.observations
        problems, bodies = observed.points.shape[:2]
        start = zeros(problem.model.layout, problems, bodies, observed.points)
        orient = torch.zeros(problems, bodies, count, 3).to(observed.points)
        orient[..., 0] = math.pi
        if self.flip:
            # R Ry(180) of a half turn about x is a half turn about z.
            turned = orient.new_tensor([0.0, 0.0, math.pi])
            orient[:, :, 1] = torch.where(self._is_narrow(problem)[..., None], turned, orient[:, :, 1])
        rows = torch.arange(problems, device=orient.device).repeat_interleave(count)
        pose = start["body_pose"].clone()
        pose[..., :63] = problem.priors[self.pose].mean.to(pose)
        start = start.replace({"transl": self._translation(problem), "betas": start["betas"][:, :1], "body_pose": pose})
        start = start.select(rows).replace({"global_orient": orient.transpose(1, 2).flatten(0, 1)})
        return Proposal(start, count)

    def _is_narrow(self, problem: Problem) -> Tensor:
        place, points = problem.observations.places, problem.observations.points
        if not {"left_shoulder", "right_shoulder"} <= place.keys():
            return torch.ones(points.shape[:2], dtype=torch.bool, device=points.device)
        width = (points[..., place["left_shoulder"], :] - points[..., place["right_shoulder"], :]).norm(dim=-1)
        return width < self.narrow * problem.camera.image_size[..., 1]

    def _translation(self, problem: Problem) -> Float[Tensor, "B N 3"]:
        observed, place = problem.observations, problem.observations.places
        edges = [edge for edge in _TRUNK if set(edge) <= place.keys()]
        depth = problem.camera.focal_length[..., 0] / problem.pixels_per_metre
        if edges:
            ends = [[place[edge[end]] for edge in edges] for end in (0, 1)]
            seen = (observed.points[..., ends[0], :] - observed.points[..., ends[1], :]).norm(dim=-1).mean(-1)
            shown = (observed.confidence[..., ends[0]] * observed.confidence[..., ends[1]] > 0).all(-1)
            names = tuple(observed.landmarks[k] for k in ends[0] + ends[1])
            rest = problem.model(zeros(problem.model.layout, 1, like=seen)).landmarks(names)[0, 0]
            actual = (rest[: len(edges)] - rest[len(edges) :]).norm(dim=-1).mean()
            published = problem.camera.focal_length[..., 0] * actual / seen.clamp_min(1e-6)
            # Where the trunk is not seen the published code cannot start; the seen size stands in.
            depth = torch.where(shown & (seen > 1e-6), published, depth)
        return torch.stack([torch.zeros_like(depth), torch.zeros_like(depth), depth], dim=-1)
