"""How sure a fit is of its joints, from the normal equations at its end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.chart import Chart, DifferentiableBody
from fitkit.energy import Energy
from fitkit.scene import Scene

_RIDGE = 1e-9
"""Share of the greatest curvature that is added to all: directions that nothing determines stay finite."""


def joint_deviations(
    scene: Scene, energy: Energy, free: Sequence[str], names: tuple[str, ...]
) -> Float[Tensor, "B N J 3"]:
    """Return the standard deviation of each joint along the camera's axes, metres (Laplace approximation).

    An energy in squared standard deviations is twice a negative log posterior, whose covariance at the minimum is twice
    the inverse of the energy's curvature; the joints' derivatives carry it into space. NaN where the body has no
    derivatives in closed form.

    Args:
        scene: at the minimum.
        energy: what was minimised last.
        free: the leaves that were free.
        names: landmarks, one for each joint.
    """
    if not isinstance(scene.body, DifferentiableBody) or not free:
        shape = scene.landmarks(names).shape
        return scene.parameters["transl"].new_full(shape, torch.nan)
    chart = Chart(scene, free)
    _, curvature = energy.normal_equations(scene, chart)
    # Unit diagonal first: the free values differ in size by orders of magnitude.
    scale = curvature.diagonal(dim1=1, dim2=2).clamp_min(1e-12).rsqrt()
    normalised = curvature * scale[:, :, None] * scale[:, None, :]
    normalised = normalised + _RIDGE * torch.eye(chart.size).to(normalised)
    factor, failed = torch.linalg.cholesky_ex(normalised)
    slopes = chart.landmarks(names)
    if scene.camera.R_camera_world is not None:
        slopes = scene.camera.R_camera_world[..., None, :, :] @ slopes
    rows = (slopes * scale[:, None, None, None]).flatten(1, 3)
    half = torch.linalg.solve_triangular(factor, rows.transpose(1, 2), upper=False)
    deviations = (2 * half.square().sum(1)).sqrt().unflatten(1, slopes.shape[1:4])
    return torch.where((failed == 0)[:, None, None, None], deviations, torch.nan)
