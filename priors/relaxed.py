"""A pose prior from anatomy alone: a person standing at ease, each joint with its own freedom."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

# Mean and standard deviation of each joint's rotation vector, radians, of the left side (x flexion, y twist or
# sideways about the vertical, z abduction in the T-pose's axes); set by hand from what a standing, walking, sitting
# person does. The right side is the mirror image: (x, -y, -z).
_MIDDLE = {
    "spine1": ((0.06, 0.0, 0.0), (0.25, 0.15, 0.12)),
    "spine2": ((0.03, 0.0, 0.0), (0.15, 0.15, 0.10)),
    "spine3": ((0.0, 0.0, 0.0), (0.10, 0.15, 0.10)),
    "neck": ((0.05, 0.0, 0.0), (0.22, 0.25, 0.18)),
    "head": ((0.0, 0.0, 0.0), (0.22, 0.25, 0.15)),
}
_LEFT = {
    "hip": ((-0.25, 0.0, 0.03), (0.65, 0.30, 0.25)),
    "knee": ((0.45, 0.0, 0.0), (0.65, 0.12, 0.08)),
    "ankle": ((0.05, 0.0, 0.0), (0.28, 0.18, 0.15)),
    "foot": ((0.0, 0.0, 0.0), (0.12, 0.05, 0.05)),
    "collar": ((0.0, -0.05, -0.05), (0.10, 0.15, 0.15)),
    "shoulder": ((0.10, -0.30, -0.95), (0.45, 0.55, 0.55)),
    "elbow": ((-0.05, -0.65, 0.05), (0.35, 0.65, 0.25)),
    "wrist": ((0.0, 0.0, 0.0), (0.30, 0.22, 0.30)),
}
_ORDER = (
    ("hip", "left"), ("hip", "right"), ("spine1", ""), ("knee", "left"), ("knee", "right"), ("spine2", ""),
    ("ankle", "left"), ("ankle", "right"), ("spine3", ""), ("foot", "left"), ("foot", "right"), ("neck", ""),
    ("collar", "left"), ("collar", "right"), ("head", ""), ("shoulder", "left"), ("shoulder", "right"),
    ("elbow", "left"), ("elbow", "right"), ("wrist", "left"), ("wrist", "right"),
)  # fmt: skip
_MIRROR = torch.tensor([1.0, -1.0, -1.0])
_KNEES = (3, 4)
_ELBOWS = (17, 18)
_OVEREXTENSION = 0.06
"""Radians of hyperextension that count as one standard deviation."""


class RelaxedPosePrior:
    """Independent Gaussians around a relaxed stance, and a wall against knees and elbows that bend backwards."""

    def __init__(self) -> None:
        """Lay out means and deviations of all 21 joints."""
        means, deviations = [], []
        for joint, side in _ORDER:
            mean, deviation = (_LEFT if side else _MIDDLE)[joint]
            means.append(torch.tensor(mean) * (_MIRROR if side == "right" else 1.0))
            deviations.append(torch.tensor(deviation))
        self._mean = torch.cat(means)
        self._deviation = torch.cat(deviations)

    @property
    def mean(self) -> Float[Tensor, " 63"]:
        """A person standing with arms hanging a little away from the body, radians."""
        return self._mean

    def residual(self, body_pose: Float[Tensor, "M 63"]) -> Float[Tensor, "M R"]:
        """Return deviations from the relaxed stance in standard deviations, and hyperextension of elbows and knees."""
        mean, deviation = self._mean.to(body_pose), self._deviation.to(body_pose)
        joints = body_pose.unflatten(1, (21, 3))
        knees = joints[:, _KNEES, 0]
        elbows = joints[:, _ELBOWS, 1] * body_pose.new_tensor([-1.0, 1.0])
        over = torch.cat([-knees, -elbows], dim=1).clamp_min(0) / _OVEREXTENSION
        return torch.cat([(body_pose - mean) / deviation, over], dim=1)

    def linearise(self, body_pose: Float[Tensor, "M 63"]) -> tuple[Float[Tensor, "M R"], Float[Tensor, "M R 63"]]:
        """Return the residuals and their derivatives: constant but for the joints that bend backwards."""
        residual = self.residual(body_pose)
        stiffness = torch.diag(1 / self._deviation.to(body_pose)).expand(len(body_pose), -1, -1)
        bent = (residual[:, 63:] > 0).to(body_pose)
        sides = body_pose.new_tensor([-1.0, -1.0, 1.0, -1.0]) / _OVEREXTENSION
        walls = body_pose.new_zeros(len(body_pose), 4, 63)
        walls[:, range(4), [3 * _KNEES[0], 3 * _KNEES[1], 3 * _ELBOWS[0] + 1, 3 * _ELBOWS[1] + 1]] = bent * sides
        return residual, torch.cat([stiffness, walls], dim=1)
