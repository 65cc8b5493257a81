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
"""Share of its own curvature that is added to each free value: directions that nothing determines stay finite."""
_ROUNDING = 16.0
"""Least ridge in units of the precision in which the curvature was summed: below it, its own errors may be negative."""


def joint_deviations(
    scene: Scene, energy: Energy, free: Sequence[str], names: tuple[str, ...]
) -> Float[Tensor, "B N J 3"]:
    """Return the standard deviation of each joint along the camera's axes, metres (Laplace approximation).

    An energy in squared standard deviations is twice a negative log posterior, whose covariance at the minimum is twice
    the inverse of the energy's curvature; the joints' derivatives carry it into space. NaN where the body has no
    derivatives in closed form.

    The curvature is taken in the scene's precision and factorised in double: eigenvalues of unseen directions are
    a millionth of the others, which single precision does not resolve. This happens once, after the last iteration.

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
    slopes = chart.landmarks(names)
    if scene.camera.R_camera_world is not None:
        slopes = scene.camera.R_camera_world[..., None, :, :] @ slopes
    ridge = max(_RIDGE, _ROUNDING * torch.finfo(curvature.dtype).eps)
    deviations = _deviations(_in_double(curvature), _in_double(slopes.flatten(1, 3)), ridge)
    return deviations.unflatten(1, slopes.shape[1:4]).to(slopes)


def _in_double(tensor: Tensor) -> Tensor:
    """Return a tensor in double precision, on the CPU where its device knows none."""
    return tensor.to("cpu", torch.float64) if tensor.device.type == "mps" else tensor.double()


def _deviations(curvature: Float[Tensor, "B D D"], rows: Float[Tensor, "B R D"], ridge: float) -> Float[Tensor, "B R"]:
    """Return the standard deviation of linear functions, given by rows, of what an energy's curvature determines."""
    # Unit diagonal first: the free values differ in size by orders of magnitude.
    scale = curvature.diagonal(dim1=1, dim2=2).clamp_min(1e-12).rsqrt()
    normalised = curvature * scale[:, :, None] * scale[:, None, :]
    normalised.diagonal(dim1=1, dim2=2).add_(ridge)
    factor, failed = torch.linalg.cholesky_ex(normalised)
    half = torch.linalg.solve_triangular(factor, (rows * scale[:, None, :]).mT, upper=False)
    return torch.where((failed == 0)[:, None], (2 * half.square().sum(1)).sqrt(), torch.nan)
