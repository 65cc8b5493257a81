"""People mostly stand, sit and walk upright before a level camera."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.chart import AtPoints, Chart, Linearised, constant, tangents
from fitkit.energy import ResidualTerm
from fitkit.robust import geman_mcclure_scaling
from fitkit.scene import Scene

_TRUNK = ("pelvis", "neck")
_UP = (0.0, -1.0, 0.0)


@dataclass(frozen=True)
class Upright(ResidualTerm):
    """Robust difference of unit vectors between the trunk and the picture's upward direction.

    One view of a trunk hardly tells leaning towards the camera from a different size; without legs in the picture
    nothing else does. Robust, so that people who lie pay a fixed price only.
    """

    deviation: float = 0.3
    """Length of the difference of unit vectors (about radians) that counts as one standard deviation."""
    outlier: float = 0.8
    """Difference beyond which the trunk is hardly pulled any more."""

    def _measured(self, scene: Scene) -> tuple[Float[Tensor, "B N 1"], Float[Tensor, "B N 3"], Float[Tensor, "B N 3"]]:
        """Return the trunk's length, its unit vector in camera axes, and how far this is from upward."""
        return scene.shared("trunk", lambda: self._measure(scene))

    def _measure(self, scene: Scene) -> tuple[Float[Tensor, "B N 1"], Float[Tensor, "B N 3"], Float[Tensor, "B N 3"]]:
        ends = scene.camera.to_camera(scene.landmarks(_TRUNK))
        trunk = ends[..., 1, :] - ends[..., 0, :]
        length = torch.linalg.vector_norm(trunk, dim=-1, keepdim=True).clamp_min(1e-6)
        unit = trunk / length
        return length, unit, unit - constant(_UP, unit)

    def residual(self, scene: Scene) -> Float[Tensor, "B R"]:
        """Return the differences of unit vectors, scaled so that their squares sum to the robust energy."""
        offset = self._measured(scene)[2]
        scaling = geman_mcclure_scaling(offset.square().sum(-1, keepdim=True), self.outlier)
        return (offset * scaling / self.deviation).flatten(1)

    def linearise(self, scene: Scene, chart: Chart) -> list[Linearised]:
        """Return reweighted residuals across the trunk, as `terms.bone_directions` does."""
        length, unit, offset = self._measured(scene)
        scaling = geman_mcclure_scaling(offset.square().sum(-1, keepdim=True), self.outlier).square() / self.deviation
        across = tangents(unit)[..., None, :, :] * scaling[..., None, None]
        slopes = across / length[..., None, None]
        if scene.camera.R_camera_world is not None:
            slopes = slopes @ scene.camera.R_camera_world[..., None, :, :]
        return [AtPoints((_TRUNK,), -across @ constant(_UP, unit), slopes)]
