"""Derivatives of a scene with respect to the free leaves of a stage: what Gauss-Newton steps are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.camera import NEAREST_DEPTH
from fitkit.scene import Scene


@runtime_checkable
class DifferentiableBody(Protocol):
    """A body that knows its landmarks' derivatives in closed form."""

    def landmark_jacobian(
        self, names: Sequence[str], leaves: Sequence[str]
    ) -> Mapping[str, Float[Tensor, "B N K 3 S"]]:
        """Return the derivative of each landmark with respect to each leaf of its own body."""
        ...


@dataclass(frozen=True)
class Linear:
    """Residuals linearised about a point: energy's gradient is 2 J^T r, and 2 J^T J stands for its curvature."""

    residual: Float[Tensor, "B R"]
    """r; for a robust energy weighted so that the gradient is exact."""
    jacobian: Float[Tensor, "B R C"]
    """J, for the columns given."""
    columns: slice
    """Which of the packed free values the jacobian's columns are."""


class Chart:
    """The free leaves of a stage as D columns, and derivatives of a scene with respect to them."""

    def __init__(self, scene: Scene, free: Sequence[str]) -> None:
        """Lay the free leaves out in the order in which they are packed."""
        self.scene = scene
        self.free = tuple(free)
        self._columns: dict[str, slice] = {}
        start = 0
        for name in self.free:
            width = scene.parameters[name].shape[1] * scene.parameters[name].shape[2]
            self._columns[name] = slice(start, start + width)
            start += width
        self.size = start

    def columns(self, leaf: str) -> slice | None:
        """Return the columns of a leaf; None when it is not free."""
        return self._columns.get(leaf)

    def leaf(self, name: str, residual: Float[Tensor, "B R"], slopes: Float[Tensor, "... R"]) -> list[Linear]:
        """Return residuals that each depend on one entry of a leaf, in order: slopes are the derivatives, (R,) or (B, R)."""
        columns = self.columns(name)
        if columns is None:
            return []
        return [Linear(residual, torch.diag_embed(slopes.expand(residual.shape)), columns)]

    def gradient(self, energy: Callable[[Scene], Tensor]) -> tuple[Float[Tensor, " B"], Float[Tensor, "B D"]]:
        """Return an energy of a scene and its gradient by autograd."""
        with torch.enable_grad():
            values = self.scene.parameters.pack(self.free).detach().requires_grad_(True)
            result = energy(self._moved(values))
            if not result.requires_grad:
                return result, torch.zeros_like(values)
            (slope,) = torch.autograd.grad(result.sum(), values)
        return result.detach(), slope

    def jacobian(self, residual: Callable[[Scene], Tensor]) -> Linear:
        """Return residuals of a scene and their Jacobian by autograd: one backward pass for all of them, batched."""
        with torch.enable_grad():
            values = self.scene.parameters.pack(self.free).detach().requires_grad_(True)
            result = residual(self._moved(values))
            count = result.shape[1]
            if not result.requires_grad:
                return Linear(result, values.new_zeros(len(values), count, self.size), slice(0, self.size))
            each = torch.eye(count).to(result)[:, None].expand(-1, len(values), -1)
            (slopes,) = torch.autograd.grad(result, values, each, is_grads_batched=True)
        return Linear(result.detach(), slopes.transpose(0, 1), slice(0, self.size))

    def _moved(self, values: Float[Tensor, "B D"]) -> Scene:
        return self.scene.with_parameters(self.scene.parameters.unpack(self.free, values))

    def landmarks(self, names: tuple[str, ...]) -> Float[Tensor, "B N K 3 D"]:
        """Return the derivative of landmarks in world axes, metres per unit of each free value."""
        return self.scene.shared(("landmark jacobian", names, self.free), lambda: self._landmarks(names))

    def _landmarks(self, names: tuple[str, ...]) -> Float[Tensor, "B N K 3 D"]:
        body = self.scene.body
        if not isinstance(body, DifferentiableBody):
            raise TypeError(f"The body model {self.scene.model.name!r} has no closed-form Jacobian; use L-BFGS.")
        leaves = [name for name in self.free if name != "focal_length"]
        blocks = body.landmark_jacobian(names, leaves)
        points = self.scene.landmarks(names)
        problems, bodies, count = points.shape[:3]
        jacobian = points.new_zeros(problems, bodies, count, 3, self.size)
        for name, block in blocks.items():
            columns, size = self._columns[name], block.shape[-1]
            if self.scene.parameters[name].shape[1] == 1:
                jacobian[..., columns] = block
                continue
            for n in range(bodies):
                first = columns.start + n * size
                jacobian[:, n, ..., first : first + size] = block[:, n]
        return jacobian

    def projected(self, names: tuple[str, ...]) -> Float[Tensor, "B N K 2 D"]:
        """Return the derivative of the landmarks' pixels."""
        return self.scene.shared(("projected jacobian", names, self.free), lambda: self._projected(names))

    def _projected(self, names: tuple[str, ...]) -> Float[Tensor, "B N K 2 D"]:
        camera = self.scene.camera
        if camera.distortion is not None:
            raise TypeError("Lens distortion has no closed-form Jacobian here; use L-BFGS, or undistort the keypoints.")
        points = camera.to_camera(self.scene.landmarks(names))
        depth = points[..., 2:].clamp_min(NEAREST_DEPTH)
        flat = points[..., :2] / depth
        # d(x / z) = (dx - (x / z) dz) / z; a clamped depth does not change.
        moving = (points[..., 2:] > NEAREST_DEPTH).to(flat)
        through = torch.cat([torch.eye(2).to(flat).expand(*flat.shape, 2), -(flat * moving)[..., None]], dim=-1)
        through = camera.intrinsics[..., None, :2, :2] @ (through / depth[..., None])
        if camera.R_camera_world is not None:
            through = through @ camera.R_camera_world[..., None, :, :]
        jacobian = through @ self.landmarks(names)
        columns = self.columns("focal_length")
        if columns is not None:
            # K scales with the focal length, the centre stays.
            pixels = (camera.intrinsics[..., None, :2, :2] @ flat[..., None])[..., 0] / camera.focal_length[..., None, :]
            if self.scene.parameters["focal_length"].shape[1] == 1:
                jacobian[..., columns] = pixels[..., None]
            else:
                for n in range(points.shape[1]):
                    jacobian[:, n, ..., columns.start + n] = pixels[:, n]
        return jacobian
