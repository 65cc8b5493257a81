"""Derivatives of a scene with respect to the free leaves of a stage: what Gauss-Newton steps are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fitkit.camera import NEAREST_DEPTH, distort, distortion_slopes
from fitkit.scene import Scene

Point = str | tuple[str, str]
"""A landmark by name, or the vector from one landmark to another."""


@dataclass(frozen=True)
class Block:
    """Derivatives of some rows with respect to those free values of their body that move any of them."""

    rows: Int[Tensor, " R"]
    """The rows."""
    columns: tuple[int, ...]
    """Which of the body's free values, counted through all its free leaves."""
    slopes: Float[Tensor, "M C R"]
    """A line for each column, then whatever was given beside the rows' directions."""


@runtime_checkable
class DifferentiableBody(Protocol):
    """A body that knows its landmarks' derivatives in closed form."""

    def pull_back(
        self, points: tuple[Point, ...], rows: Float[Tensor, "B N R X"], leaves: tuple[str, ...]
    ) -> list[Block]:
        """Return the derivatives of rows, each a direction (world axes) at a point, with respect to leaves.

        Every row is in one block. What numbers a row has beyond its direction are handed through.
        """
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


@dataclass(frozen=True)
class Squared:
    """What linearised residuals add up to, for terms that know it without the residuals' Jacobian."""

    slope: Float[Tensor, "B C"]
    """J^T r, as in `Linear`."""
    curvature: Float[Tensor, "B C C"]
    """J^T J."""
    columns: slice
    """Which of the packed free values."""


@dataclass(frozen=True)
class Diagonal:
    """Residuals that each depend on one free value, in order."""

    residual: Float[Tensor, "B C"]
    """r, as in `Linear`."""
    slopes: Float[Tensor, "... C"]
    """Derivative of each; one for all problems, or each its own."""
    columns: slice
    """Which of the packed free values."""


@dataclass(frozen=True)
class AtPoints:
    """Residuals that depend on points of the body: C at each of P points, linearised there."""

    points: tuple[Point, ...]
    """The points."""
    residual: Float[Tensor, "B N P C"]
    """r, as in `Linear`."""
    slopes: Float[Tensor, "B N P C 3"]
    """Derivative of each with respect to its point, world axes, per metre."""
    focal: Float[Tensor, "B N P C"] | None = None
    """Derivative with respect to the focal length, per pixel; None when there is none."""


_NO_BODYS = ("focal_length", "pose_latent")
"""Leaves that the body itself does not have."""
_APART = 1e-3
"""Distance (radians, metres) over which the curvature of a term that is no sum of squares is measured."""
_Place = tuple[int, int, int]
"""First column of a leaf, number of its bodies, and size."""
Linearised = Linear | Squared | Diagonal | AtPoints
"""What a term's linearisation is made of."""


class Chart:
    """The free leaves of a stage as D columns, and derivatives of a scene with respect to them."""

    def __init__(self, scene: Scene, free: Sequence[str]) -> None:
        """Lay the free leaves out in the order in which they are packed.

        A pose latent moves the body through the pose that it is decoded to: within, that pose has columns of its own
        behind all others, for the terms to use; what `normal_equations` and `landmarks` return is with respect to the
        free leaves alone.
        """
        self.scene = scene
        self.free = tuple(free)
        if "pose_latent" in self.free and scene.decoder is not None:
            self.free += ("body_pose",)
        self._layout: dict[str, _Place] = {}
        start = 0
        for name in self.free:
            _, bodies, size = scene.parameters[name].shape
            self._layout[name] = (start, bodies, size)
            start += bodies * size
        self.size = start

    def columns(self, leaf: str) -> slice | None:
        """Return the columns of a leaf; None when it is not free."""
        if leaf not in self._layout:
            return None
        start, bodies, size = self._layout[leaf]
        return slice(start, start + bodies * size)

    def leaf(self, name: str, residual: Float[Tensor, "B R"], slopes: Float[Tensor, "... R"]) -> list[Linearised]:
        """Return residuals that each depend on one entry of a leaf, in order, with slopes (R,) or (B, R)."""
        columns = self.columns(name)
        return [] if columns is None else [Diagonal(residual, slopes, columns)]

    def pixels(
        self, names: tuple[str, ...], residual: Float[Tensor, "B N K 2"], scaling: Float[Tensor, "B N K"]
    ) -> list[Linearised]:
        """Return residuals that are scaled pixels of landmarks."""
        camera = self.scene.camera
        points = camera.to_camera(self.scene.landmarks(names))
        depth = points[..., 2:].clamp_min(NEAREST_DEPTH)
        flat = points[..., :2] / depth
        # d K (x / z) = K (dx - (x / z) dz) / z; a clamped depth does not change.
        moving = (flat * (points[..., 2:] > NEAREST_DEPTH))[..., None]
        block = camera.intrinsics[..., None, :2, :2]
        if camera.distortion is not None:
            block = block @ distortion_slopes(flat, camera.distortion)
            flat = distort(flat, camera.distortion)
        through = torch.cat([block.expand(*flat.shape, 2), -block @ moving], dim=-1)
        through = through * (scaling[..., None] / depth)[..., None]
        if camera.R_camera_world is not None:
            through = through @ camera.R_camera_world[..., None, :, :]
        focal = None
        if "focal_length" in self._layout:
            # K scales with the focal length, the centre stays.
            focal = flat @ camera.intrinsics[..., :2, :2].mT * (scaling / camera.focal_length)[..., None]
        return [AtPoints(names, residual, through, focal)]

    def landmarks(self, names: tuple[str, ...]) -> Float[Tensor, "B N K 3 D"]:
        """Return the derivative of landmarks in world axes, metres per unit of each free value: dense, hence slow."""
        points = self.scene.landmarks(names)
        problems, bodies, count = points.shape[:3]
        directions = torch.eye(3, dtype=points.dtype, device=points.device).repeat(count, 1)
        jacobian = points.new_zeros(problems, bodies, 3 * count, self.size)
        rows = directions.expand(problems, bodies, -1, -1)
        for block in self._blocks(tuple(name for name in names for _ in range(3)), rows):
            places = _places(block.columns, self._own, (), bodies)
            slopes = block.slopes.unflatten(0, (problems, bodies))
            for n in range(bodies):
                columns = torch.tensor(places[n], dtype=torch.long, device=points.device)
                jacobian[:, n, block.rows[:, None], columns] = slopes[:, n].mT
        return self._through_latents(jacobian.flatten(1, 2)).unflatten(1, (bodies, count, 3))

    def _blocks(self, points: tuple[Point, ...], rows: Float[Tensor, "B N R X"]) -> list[Block]:
        body = self.scene.body
        if not isinstance(body, DifferentiableBody):
            raise TypeError(f"The body model {self.scene.model.name!r} has no closed-form Jacobian; use L-BFGS.")
        return body.pull_back(points, rows, tuple(name for name in self.free if name not in _NO_BODYS))

    @property
    def _own(self) -> tuple[_Place, ...]:
        """Where the body's own leaves lie."""
        return tuple(place for name, place in self._layout.items() if name not in _NO_BODYS)

    def gradient(self, energy: Callable[[Scene], Tensor]) -> tuple[Float[Tensor, " B"], Float[Tensor, "B D"]]:
        """Return an energy of a scene and its gradient by autograd."""
        with torch.enable_grad():
            values = self.scene.parameters.pack(self.free).detach().requires_grad_(True)
            result = energy(self._moved(values))
            if not result.requires_grad:
                return result, torch.zeros_like(values)
            (slope,) = torch.autograd.grad(result.sum(), values)
        return result.detach(), slope

    def bend(
        self, energy: Callable[[Scene], Tensor], gradient: Float[Tensor, "B D"], direction: Float[Tensor, "B D"]
    ) -> Float[Tensor, " B"]:
        """Return an energy's second derivative along unit vectors, by the difference of gradients a little apart."""
        moved = self._moved(self.scene.parameters.pack(self.free) + _APART * direction)
        there = Chart(moved, self.free).gradient(energy)[1]
        return ((there - gradient) * direction).sum(-1) / _APART

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

    def normal_equations(
        self, weighted: Iterable[tuple[float, Linearised]]
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D D"]]:
        """Return the gradient and the Gauss-Newton curvature of a weighted sum of squared residuals.

        The residual is one more column of the Jacobian: the last line of J^T J is then the gradient.
        """
        size = self.size
        like = self.scene.parameters["transl"]
        total = like.new_zeros(len(like), size + 1, size + 1)
        points: list[tuple[float, AtPoints]] = []
        diagonals: list[tuple[float, Diagonal]] = []
        for weight, part in weighted:
            if isinstance(part, AtPoints):
                points.append((weight, part))
            elif isinstance(part, Diagonal):
                diagonals.append((weight, part))
            elif isinstance(part, Squared):
                total[:, size, part.columns].add_(part.slope, alpha=2 * weight)
                total[:, part.columns, part.columns].add_(part.curvature, alpha=2 * weight)
            else:
                residual = (2 * weight) * part.residual[:, None]
                total[:, size, part.columns].add_(torch.bmm(residual, part.jacobian)[:, 0])
                total[:, part.columns, part.columns].add_(torch.bmm(part.jacobian.mT, part.jacobian), alpha=2 * weight)
        if diagonals:
            self._add_diagonals(total, diagonals)
        if points:
            self._add_points(total, points)
        curvature = self._through_latents(total[:, :size, :size])
        gradient = self._through_latents(total[:, size:, :size])[:, 0]
        return gradient, self._through_latents(curvature.mT)

    def _through_latents(self, rows: Float[Tensor, "B R W"]) -> Float[Tensor, "B R D"]:
        """Return derivatives with respect to the free leaves, of rows that have them for decoded poses, too."""
        decoder = self.scene.decoder
        if decoder is None or "pose_latent" not in self._layout:
            return rows
        latent = self.scene.parameters["pose_latent"]
        slopes = self.scene.shared("latent slopes", lambda: decoder.decode_linearised(latent.flatten(0, 1))[1])
        slopes = slopes.unflatten(0, latent.shape[:2])
        first, bodies, size = self._layout["pose_latent"]
        pose, _, width = self._layout["body_pose"]
        moved = rows[:, :, :pose].clone()
        for n in range(bodies):
            decoded = rows[:, :, pose + n * width : pose + n * width + slopes.shape[2]]
            moved[:, :, first + n * size : first + (n + 1) * size] += decoded @ slopes[:, n]
        return moved

    def _add_diagonals(self, total: Float[Tensor, "B W W"], weighted: list[tuple[float, Diagonal]]) -> None:
        """Add the normal equations of residuals that each depend on one free value, all terms' together."""
        numbers = []
        for weight, part in weighted:
            scaled = (2 * weight) * part.slopes
            numbers += [part.residual * scaled, (part.slopes * scaled).expand_as(part.residual)]
        columns = tuple((part.columns.start, part.columns.stop) for _, part in weighted)
        index = _lines(columns, self.size + 1, total.device).expand(len(total), -1)
        total.flatten(1).scatter_add_(1, index, torch.cat(numbers, dim=1))

    def _add_points(self, total: Float[Tensor, "B W W"], weighted: list[tuple[float, AtPoints]]) -> None:
        """Add the normal equations of residuals at points, all terms' together."""
        focal = self._layout.get("focal_length")
        beside = ((self.size, 1, 1), focal) if focal else ((self.size, 1, 1),)
        rows: list[Tensor] = []
        points: list[Point] = []
        for weight, part in weighted:
            numbers = [part.slopes, part.residual[..., None]]
            if focal:
                numbers.append((torch.zeros_like(part.residual) if part.focal is None else part.focal)[..., None])
            rows.append((torch.cat(numbers, dim=-1) * (2 * weight) ** 0.5).flatten(2, 3))
            points += [point for point in part.points for _ in range(part.residual.shape[3])]
        joined = torch.cat(rows, dim=2) if len(rows) > 1 else rows[0]
        flat = total.flatten(1)
        for block in self._blocks(tuple(points), joined):
            square = torch.bmm(block.slopes, block.slopes.mT).reshape(len(flat), -1)
            index = _squares(block.columns, self._own, beside, joined.shape[1], self.size + 1, square.device)
            flat.scatter_add_(1, index.expand(len(flat), -1), square)


def constant(values: tuple[float, ...], like: Tensor) -> Float[Tensor, " _"]:
    """Return numbers as a tensor beside another and of its type; made once, for no step to wait for."""
    return _constant(values, like.dtype, like.device)


@lru_cache(maxsize=1024)
def _constant(values: tuple[float, ...] | tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)


def indices(places: tuple[int, ...], like: Tensor) -> Int[Tensor, " _"]:
    """Return an index as a tensor beside another; made once, as `constant` is."""
    return _constant(places, torch.long, like.device)


def tangents(units: Float[Tensor, "... 3"]) -> Float[Tensor, "... 2 3"]:
    """Return two unit vectors across each: x and y in the mirror that takes z to the vector, or to its opposite."""
    sign = torch.copysign(torch.ones_like(units[..., 2:]), units[..., 2:])
    mirror = torch.cat([units[..., :2], units[..., 2:] + sign], dim=-1)
    scaled = units[..., :2] / mirror[..., 2:].abs()
    return torch.eye(2, 3, dtype=units.dtype, device=units.device) - scaled[..., None] * mirror[..., None, :]


@lru_cache(maxsize=256)
def _places(
    columns: tuple[int, ...], leaves: tuple[_Place, ...], beside: tuple[_Place, ...], bodies: int
) -> list[list[int]]:
    """Return the packed columns of each body's own columns, and of what is beside them."""
    found = []
    for n in range(bodies):
        all_own = [start + (n * size if count > 1 else 0) + i for start, count, size in leaves for i in range(size)]
        further = [start + (n if count > 1 else 0) for start, count, _ in beside]
        found.append([all_own[column] for column in columns] + further)
    return found


@lru_cache(maxsize=256)
def _lines(columns: tuple[tuple[int, int], ...], width: int, device: torch.device) -> Int[Tensor, " _"]:
    """Return where the last line, then the diagonal, of each range of columns lie in a flattened square matrix."""
    places: list[int] = []
    for start, stop in columns:
        places += [*range((width - 1) * width + start, (width - 1) * width + stop)]
        places += [column * (width + 1) for column in range(start, stop)]
    return torch.tensor(places, dtype=torch.long, device=device)


@lru_cache(maxsize=256)
def _squares(
    columns: tuple[int, ...],
    leaves: tuple[_Place, ...],
    beside: tuple[_Place, ...],
    bodies: int,
    width: int,
    device: torch.device,
) -> Int[Tensor, " _"]:
    """Return where the products of any two columns lie in a flattened square matrix of some width."""
    places = torch.tensor(_places(columns, leaves, beside, bodies), dtype=torch.long, device=device)
    return (places[:, :, None] * width + places[:, None, :]).flatten()
