"""Elbows and knees that do not bend backwards."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.chart import Chart, Linearised, constant, indices
from fitkit.energy import ResidualTerm
from fitkit.scene import Scene

# Entries of body_pose (the full pose vector's 55, 58, 12, 15 less the root's three) that grow in the direction of
# hyperextension with these signs: left elbow, right elbow, left knee, right knee.
_ENTRIES = (52, 55, 9, 12)
_SIGNS = (1.0, -1.0, -1.0, -1.0)


@dataclass(frozen=True)
class Bending(ResidualTerm):
    """The published exponential penalty: sum of exp(s theta)^2 over elbows and knees (SMPLify, section 3.2)."""

    def _bent(self, scene: Scene) -> Float[Tensor, "B N 4"]:
        """Return exp(s theta) of the four joints."""
        pose = scene.parameters["body_pose"]
        angles = pose.index_select(-1, indices(_ENTRIES, pose)) * constant(_SIGNS, pose)
        # exp(5) is already far beyond any sensible bend; unclamped, one wild step would overflow.
        return torch.exp(angles.clamp_max(5.0))

    def residual(self, scene: Scene) -> Float[Tensor, "B R"]:
        """Return exp(s theta) of the four joints."""
        return self._bent(scene).flatten(1)

    def linearise(self, scene: Scene, chart: Chart) -> list[Linearised]:
        """Return exp(s theta) at its entry of the body's pose, zero at all others; its slope is s times itself."""
        pose, value = scene.parameters["body_pose"], self._bent(scene)
        place = indices(_ENTRIES, pose)
        residual = torch.zeros_like(pose).index_copy_(-1, place, value)
        slopes = torch.zeros_like(pose).index_copy_(-1, place, value * constant(_SIGNS, pose))
        return chart.leaf("body_pose", residual.flatten(1), slopes.flatten(1))
