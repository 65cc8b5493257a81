"""People mostly stand, sit and walk upright before a level camera."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from fitkit.chart import AtPoints, Chart, Linearised, tangents
from fitkit.energy import ResidualTerm
from fitkit.robust import geman_mcclure_scaling
from fitkit.scene import Scene

_TRUNK = ("pelvis", "neck")


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

    def residual(self, scene: Scene) -> Float[Tensor, "B R"]:
        """Return the differences of unit vectors, scaled so that their squares sum to the robust energy."""
        ends = scene.camera.to_camera(scene.landmarks(_TRUNK))
        trunk = ends[..., 1, :] - ends[..., 0, :]
        offset = trunk / trunk.norm(dim=-1, keepdim=True).clamp_min(1e-6) - trunk.new_tensor([0.0, -1.0, 0.0])
        squared = offset.square().sum(-1, keepdim=True)
        scaling = geman_mcclure_scaling(squared, squared.new_tensor(self.outlier))
        return (offset * scaling / self.deviation).flatten(1)

    def linearise(self, scene: Scene, chart: Chart) -> list[Linearised]:
        """Return reweighted residuals across the trunk, as `terms.bone_directions` does."""
        ends = scene.landmarks(_TRUNK)
        rotation = scene.camera.R_camera_world
        trunk = ends[..., 1:, :] - ends[..., :1, :]
        if rotation is not None:
            trunk = trunk @ rotation.mT
        length = trunk.norm(dim=-1, keepdim=True).clamp_min(1e-6)
        unit = trunk / length
        up = unit.new_tensor([0.0, -1.0, 0.0])
        squared = (unit - up).square().sum(-1, keepdim=True)
        scaling = geman_mcclure_scaling(squared, squared.new_tensor(self.outlier)).square() / self.deviation
        across = tangents(unit) * scaling[..., None]
        slopes = across / length[..., None]
        if rotation is not None:
            slopes = slopes @ rotation[..., None, :, :]
        return [AtPoints((_TRUNK,), -across @ up, slopes)]
