"""Bodies seen from their side, on a neutral ground: what a photo cannot tell shows here."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from fitkit.viewers.overlay import DrawnBody, Style, colours_of, composite, drawable, overlay

QUARTER_TURN = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])
"""From the photo's camera to one at its right that looks to the left: the photo's camera is at this picture's left."""
DISTANCE = 12.0
"""Distance of the side camera from the bodies, in units of their extent: a long lens, little perspective."""
MARGIN = 0.1
"""Free border on each side, as a share of the bodies' extent."""
TINT = np.array([0.985, 0.99, 1.0], np.float32)
"""RGB of the backdrop's grey."""


def picture(
    image: UInt8[np.ndarray, "H W 3"],
    people: Sequence[DrawnBody],
    side: bool = True,
    keypoints: bool = True,
    style: Style | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Return the photo with bodies and keypoints drawn over it and, beside it, the bodies from the side.

    Args:
        image: RGB.
        people: bodies, in any order.
        side: whether to add the view from the side.
        keypoints: whether to draw the keypoints.
        style: size and look.
    """
    style = style or Style()
    people = drawable(people)
    front = overlay(image, people, keypoints, style)
    if not (side and people):
        return front
    return np.concatenate([front, side_view(people, front.shape[0], style)], axis=1)


def side_view(people: Sequence[DrawnBody], height: int, style: Style | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """Return the bodies turned by 90 degrees about the vertical through their middle, on a floor.

    Those who face the photo's camera face to the left.

    Args:
        people: at least one body whose numbers are finite.
        height: of the picture, pixels; its width follows from how far the bodies reach.
        style: look.
    """
    style = style or Style()
    people = drawable(people)
    turned = [np.asarray(p.vertices_camera, np.float64) @ QUARTER_TURN.T for p in people]
    low = np.min([v.min(0) for v in turned], axis=0)
    high = np.max([v.max(0) for v in turned], axis=0)
    middle, extent = (low + high) / 2, high - low
    ratio = float(np.clip(extent[0] / max(extent[1], 1e-6) * 1.1, 0.45, 1.0))
    width = max(1, round(height * ratio))
    reach = max(extent[1], extent[0] / ratio, 1e-3) * (1 + 2 * MARGIN)
    distance = DISTANCE * reach + extent[2] / 2
    focal = height / reach * distance
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    placed = [v - middle + [0, 0, distance] for v in turned]
    ground = _ground((width, height), np.concatenate(placed), high[1] - middle[1], intrinsics)
    faces = [p.faces for p in people]
    rendering = style.rasteriser.render(placed, faces, intrinsics, (width, height), colours_of(people))
    return composite(ground, rendering)


def _ground(
    size: tuple[int, int], points: Float[np.ndarray, "V 3"], floor: float, intrinsics: Float[np.ndarray, "3 3"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Return a neutral backdrop with a floor line and a soft shadow of the bodies on it.

    Args:
        size: width and height in pixels.
        points: the bodies' vertices, side camera coordinates, metres.
        floor: y of the floor, side camera coordinates, metres.
        intrinsics: of the side camera.
    """
    width, height = size
    line = intrinsics[1, 1] * floor / points[:, 2].mean() + intrinsics[1, 2]
    rows = np.arange(height, dtype=np.float32)[:, None] + 0.5
    wall = 0.955 - 0.075 * rows / height
    below = 0.83 + 0.06 * np.clip((rows - line) / max(height - line, 1.0), 0, 1)
    share = np.clip(rows - line + 0.5, 0, 1)
    # The lower a point, the darker its shadow: feet touch, hands hover.
    weight = np.exp(-(floor - points[:, 1]) / 0.18)
    columns = np.clip(intrinsics[0, 0] * points[:, 0] / points[:, 2] + intrinsics[0, 2], 0, width - 1).astype(int)
    profile = np.bincount(columns, weight, minlength=width).astype(np.float32)
    profile = cv2.GaussianBlur(profile[None], (0, 0), max(height * 0.012, 0.5))[0]
    thickness = np.exp(-(((rows - line) / (height * 0.008 + 1)) ** 2))
    shadow = thickness * profile[None] / max(float(profile.max()), 1e-9)
    grey = (wall * (1 - share) + below * share) * (1 - 0.38 * shadow)
    return np.clip(255 * grey[..., None].astype(np.float32) * TINT + 0.5, 0, 255).astype(np.uint8)
