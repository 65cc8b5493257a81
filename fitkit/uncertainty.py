"""How sure a fit is of its joints and its focal length, from the normal equations at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.chart import Chart, DifferentiableBody
from fitkit.energy import Energy
from fitkit.scene import Scene

_RIDGE = 1e-9
"""Share of its own curvature that is added to each free value: directions that nothing determines stay finite."""
_RAISED = (1.0, 16.0, 256.0)
"""Times that ridge, or the precision in which the curvature was summed, if that is more: its errors may be negative,
and then more is added, to the rows concerned."""


@dataclass(frozen=True)
class Deviations:
    """Standard deviations of what a fit has found; NaN where they are not known."""

    joints: Float[Tensor, "B N J 3"]
    """Of each joint along the camera's axes, metres."""
    log_focal: Float[Tensor, "B N"] | None = None
    """Of the logarithm of the focal length; None where it was not free."""


def deviations(scene: Scene, energy: Energy, free: Sequence[str], names: tuple[str, ...]) -> Deviations:
    """Return how sure a fit is of its joints and its focal length (Laplace approximation).

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
        return Deviations(scene.parameters["transl"].new_full(shape, torch.nan))
    chart = Chart(scene, free)
    _, curvature = energy.normal_equations(scene, chart)
    slopes = chart.landmarks(names)
    if scene.camera.R_camera_world is not None:
        slopes = scene.camera.R_camera_world[..., None, :, :] @ slopes
    ridge = max(_RIDGE, torch.finfo(curvature.dtype).eps)
    rows = slopes.flatten(1, 3)
    focal = chart.columns("focal_length")
    if focal is not None:
        own = torch.eye(rows.shape[2], dtype=rows.dtype, device=rows.device)[focal]
        rows = torch.cat([rows, own / scene.parameters["focal_length"].flatten(1)[..., None]], dim=1)
    found = _deviations(_in_double(curvature), _in_double(rows), ridge).to(slopes)
    joints = found[:, : slopes.shape[1:4].numel()].unflatten(1, slopes.shape[1:4])
    return Deviations(joints, None if focal is None else found[:, slopes.shape[1:4].numel() :])


def _in_double(tensor: Tensor) -> Tensor:
    """Return a tensor in double precision, on the CPU where its device knows none."""
    return tensor.to("cpu", torch.float64) if tensor.device.type == "mps" else tensor.double()


def _deviations(curvature: Float[Tensor, "B D D"], rows: Float[Tensor, "B R D"], ridge: float) -> Float[Tensor, "B R"]:
    """Return the standard deviation of linear functions, given by rows, of what an energy's curvature determines."""
    # Unit diagonal first: the free values differ in size by orders of magnitude.
    scale = curvature.diagonal(dim1=1, dim2=2).clamp_min(1e-12).rsqrt()
    normalised = curvature * scale[:, :, None] * scale[:, None, :]
    identity = torch.eye(curvature.shape[1]).to(curvature)
    factor, failed = torch.linalg.cholesky_ex(normalised + ridge * _RAISED[0] * identity)
    for times in _RAISED[1:]:
        if not bool(failed.any()):
            break
        again, still = torch.linalg.cholesky_ex(normalised + ridge * times * identity)
        factor = torch.where((failed > 0)[:, None, None], again, factor)
        failed = torch.where(failed > 0, still, failed)
    half = torch.linalg.solve_triangular(factor, (rows * scale[:, None, :]).mT, upper=False)
    return torch.where((failed == 0)[:, None], (2 * half.square().sum(1)).sqrt(), torch.nan)
