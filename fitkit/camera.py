"""Pinhole cameras in OpenCV's convention, and how their intrinsics are found."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fitkit.errors import InputError, UsageError

DEFAULT_FIELD_OF_VIEW = math.radians(45.0)
"""Field of view along the longer side, radians, where nothing else is known: a focal length of 1.2 max(W, H),
a mild telephoto, which errs less on photos of people (mostly zoomed or cropped) than a phone's 70 degrees."""
GUESSED = "default"
"""Where a focal length comes from of which nothing is known."""
WIDEST, LONGEST = 0.1, 200.0
"""Shortest and longest focal length over the picture's longer side: fields of view of 157 and 0.3 degrees. Predictors
of weak perspective say 5000 px of crops of 224; beyond that only a mistaken unit goes."""
FARTHEST_CENTRE = 20.0
"""How far from the origin a principal point may lie, in longer sides of the picture: crops lie beside it."""
NEAREST_DEPTH = 0.05
"""Metres; points nearer than this, or behind the camera, are projected as if they stood there."""


@dataclass(frozen=True)
class Camera:
    """One pinhole camera per body: axes x right, y down, z forward; metres to pixels."""

    intrinsics: Float[Tensor, "B N 3 3"]
    """K, pixels; the top-left pixel's centre is (0.5, 0.5)."""
    image_size: Float[Tensor, "B N 2"]
    """Width and height in pixels."""
    R_camera_world: Float[Tensor, "B N 3 3"] | None = None
    """Rotation from world to camera axes; None when the world is the camera's frame."""
    t_camera_world: Float[Tensor, "B N 3"] | None = None
    """The world's origin in camera axes, metres; None for zero."""
    distortion: Float[Tensor, "B N 5"] | None = None
    """Brown-Conrady k1 k2 p1 p2 k3, as in OpenCV; None for an ideal lens."""

    def to_camera(self, points_world: Float[Tensor, "B N K 3"]) -> Float[Tensor, "B N K 3"]:
        """Return world points in this camera's axes, metres."""
        points = points_world
        if self.R_camera_world is not None:
            points = points @ self.R_camera_world.transpose(-1, -2)
        if self.t_camera_world is not None:
            points = points + self.t_camera_world[..., None, :]
        return points

    def project(self, points_world: Float[Tensor, "B N K 3"]) -> Float[Tensor, "B N K 2"]:
        """Return the pixels of world points (metres); depth is clamped at `NEAREST_DEPTH`."""
        points = self.to_camera(points_world)
        flat = points[..., :2] / points[..., 2:].clamp_min(NEAREST_DEPTH)
        if self.distortion is not None:
            flat = distort(flat, self.distortion)
        return flat @ self.intrinsics[..., :2, :2].transpose(-1, -2) + self.intrinsics[..., None, :2, 2]

    @property
    def focal_length(self) -> Float[Tensor, "B N 1"]:
        """Horizontal focal length in pixels."""
        return self.intrinsics[..., 0, :1]

    def with_focal_length(self, focal_length: Float[Tensor, "B N 1"]) -> Camera:
        """Return the camera with another focal length (pixels) and the same pixel aspect and centre."""
        ratio = focal_length / self.focal_length
        scale = torch.cat([ratio, ratio, torch.ones_like(ratio)], dim=-1)
        # Only the upper-left 2x2 block scales with the focal length; the centre (third column) stays.
        block = torch.cat([self.intrinsics[..., :2] * scale[..., None], self.intrinsics[..., 2:]], dim=-1)
        return replace(self, intrinsics=block)

    def select(self, rows: Int[Tensor, " M"]) -> Camera:
        """Return the cameras of some of the problems."""

        def take(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[rows]

        return Camera(
            self.intrinsics[rows],
            self.image_size[rows],
            take(self.R_camera_world),
            take(self.t_camera_world),
            take(self.distortion),
        )


def distort(flat: Float[Tensor, "B N K 2"], distortion: Float[Tensor, "B N 5"]) -> Float[Tensor, "B N K 2"]:
    """Return normalised image points moved by lens distortion (OpenCV's calib3d model, five coefficients)."""
    k1, k2, p1, p2, k3 = distortion[..., None, :].unbind(-1)
    x, y = flat.unbind(-1)
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    x_new = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    y_new = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return torch.stack([x_new, y_new], dim=-1)


def distortion_slopes(flat: Float[Tensor, "B N K 2"], distortion: Float[Tensor, "B N 5"]) -> Float[Tensor, "B N K 2 2"]:
    """Return the derivative of `distort` with respect to the normalised image points."""
    k1, k2, p1, p2, k3 = distortion[..., None, :].unbind(-1)
    x, y = flat.unbind(-1)
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    steeper = 2 * (k1 + r2 * (2 * k2 + 3 * r2 * k3))
    mixed = steeper * x * y + 2 * p1 * x + 2 * p2 * y
    x_by_x = radial + steeper * x * x + 2 * p1 * y + 6 * p2 * x
    y_by_y = radial + steeper * y * y + 6 * p1 * y + 2 * p2 * x
    return torch.stack([x_by_x, mixed, mixed, y_by_y], dim=-1).unflatten(-1, (2, 2))


def focal_from_field_of_view(field_of_view: float, extent: float) -> float:
    """Return the focal length in pixels for a field of view (radians) over an extent of pixels."""
    if not 0 < field_of_view < math.pi:
        raise UsageError(f"A field of view lies between 0 and 180 degrees; got {math.degrees(field_of_view):g}.")
    return extent / (2 * math.tan(field_of_view / 2))


def choose_focal(
    image_size: tuple[float, float],
    focal: float | None = None,
    field_of_view: float | None = None,
    exif_focal: float | None = None,
) -> tuple[float, str]:
    """Return a photo's focal length in pixels and where it comes from: "given", "field of view", "EXIF" or "default".

    Arguments: (width, height) in pixels; a focal length in pixels; a field of view along the longer side in
    radians; the focal length in pixels that the picture's EXIF data record. The first that is known wins.
    """
    longer = max(image_size)
    if focal is not None:
        if not (math.isfinite(focal) and focal > 0):
            raise UsageError(f"A focal length is a positive number of pixels; got {focal:g}.")
        if not WIDEST * longer <= focal <= LONGEST * longer:
            raise InputError(
                f"A focal length of {focal:g} px is none of a picture of {image_size[0]:g} x {image_size[1]:g} px; "
                f"expected {WIDEST * longer:g} to {LONGEST * longer:g}. Is it in millimetres, or of another resolution?"
            )
        return float(focal), "given"
    if field_of_view is not None:
        return focal_from_field_of_view(field_of_view, longer), "field of view"
    if exif_focal is not None and math.isfinite(exif_focal) and exif_focal > 0:
        return float(exif_focal), "EXIF"
    return focal_from_field_of_view(DEFAULT_FIELD_OF_VIEW, longer), GUESSED


def check_centre(image_size: tuple[float, float], x: float, y: float) -> None:
    """Raise `InputError` for a principal point (pixels) that is none of such a picture, nor of one it was cut from."""
    farthest = FARTHEST_CENTRE * max(image_size)
    if not max(abs(x), abs(y)) <= farthest:
        raise InputError(
            f"A principal point at {x:g}, {y:g} px is none of a picture of {image_size[0]:g} x {image_size[1]:g} px, "
            f"nor of one that it was cut from; expected at most {farthest:g} px. Is it of another resolution?"
        )


def pinhole(focal: Float[Tensor, " B"], image_size: Float[Tensor, "B 2"]) -> Camera:
    """Return cameras of square pixels, focal lengths in pixels, looking through the pictures' centres; N = 1."""
    intrinsics = torch.zeros(*focal.shape, 1, 3, 3, dtype=focal.dtype, device=focal.device)
    intrinsics[:, 0, 0, 0] = focal
    intrinsics[:, 0, 1, 1] = focal
    intrinsics[:, 0, :2, 2] = image_size / 2
    intrinsics[:, 0, 2, 2] = 1
    return Camera(intrinsics, image_size[:, None])
