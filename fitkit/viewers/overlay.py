"""Bodies drawn over their photo, with the people's own keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from fitkit.keypoints.containers import Keypoints
from fitkit.rendering import Rasteriser, Rendering, choose
from fitkit.viewers.skeleton import draw_keypoints

PALETTE: tuple[tuple[float, float, float], ...] = (
    (0.60, 0.72, 0.95),  # periwinkle
    (0.98, 0.84, 0.42),  # lemon
    (0.96, 0.62, 0.82),  # orchid
    (0.56, 0.85, 0.68),  # mint
    (0.78, 0.66, 0.95),  # lilac
    (0.45, 0.82, 0.88),  # lagoon
    (0.76, 0.85, 0.45),  # lime
    (0.80, 0.82, 0.86),  # silver
)
"""sRGB of the first, second, ... person; taken in turn when there are more. None is near a hue of skin."""
UNSEEN = (0.80, 0.80, 0.82)
"""sRGB of what the photo does not show, such as the legs below its edge: guessed, and therefore paler."""


@dataclass(frozen=True)
class DrawnBody:
    """One person as a picture needs it."""

    vertices_camera: Float[np.ndarray, "V 3"]
    """Camera coordinates, metres."""
    faces: Int[np.ndarray, "F 3"]
    """Vertex indices of the triangles."""
    intrinsics: Float[np.ndarray, "3 3"]
    """Of the photo, pixels; people of one photo may differ (each may have been fitted a focal length of its own)."""
    keypoints: Keypoints | None = None
    """What the detector saw of this person (one person)."""
    colour: tuple[float, float, float] | None = None
    """sRGB in [0, 1]; None takes the next of `PALETTE`."""
    unseen: Float[np.ndarray, " V"] | None = None
    """How far each vertex is without evidence, in [0, 1] (see `unseen_share`), drawn paler; None when all are seen."""


@dataclass(frozen=True)
class Style:
    """How pictures are drawn."""

    opacity: float = 0.95
    """Of the bodies over the photo, 0 to 1."""
    max_size: int | None = 2048
    """Longest side of the drawn photo in pixels; larger photos are scaled down. None keeps every size."""
    rasteriser: Rasteriser = field(default_factory=choose)
    """Draws the bodies."""


def overlay(
    image: UInt8[np.ndarray, "H W 3"],
    people: Sequence[DrawnBody],
    keypoints: bool = False,
    style: Style | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """Return the photo with all bodies drawn over it, nearer ones in front.

    Args:
        image: RGB.
        people: bodies, in any order.
        keypoints: whether to draw what the detector saw over them.
        style: size and look.
    """
    style = style or Style()
    people = drawable(people)
    photo, scale = fit_size(image, style.max_size)
    rendering = render_people(people, scale, (photo.shape[1], photo.shape[0]), style.rasteriser)
    drawn = composite(photo, rendering, style.opacity)
    if keypoints:
        for person in people:
            if person.keypoints is not None:
                drawn = draw_keypoints(drawn, person.keypoints, scale)
    return drawn


def drawable(people: Sequence[DrawnBody]) -> list[DrawnBody]:
    """Return the people whose numbers are finite, each with the colour that its place in the full list gives it."""
    coloured = [
        person if person.colour else replace(person, colour=PALETTE[index % len(PALETTE)])
        for index, person in enumerate(people)
    ]
    return [p for p in coloured if np.isfinite(p.vertices_camera).all() and np.isfinite(p.intrinsics).all()]


def fit_size(image: UInt8[np.ndarray, "H W 3"], max_size: int | None) -> tuple[UInt8[np.ndarray, "h w 3"], float]:
    """Return a picture scaled down to a longest side, and its scale (1 when it is small enough)."""
    height, width = image.shape[:2]
    scale = 1.0 if max_size is None else min(1.0, max_size / max(height, width))
    if scale == 1.0:
        return image, 1.0
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


def render_people(
    people: Sequence[DrawnBody], scale: float, image_size: tuple[int, int], rasteriser: Rasteriser
) -> Rendering:
    """Return the bodies as the photo's camera sees them.

    Args:
        people: with intrinsics of the photo's full size.
        scale: of the drawn picture against the photo.
        image_size: of the drawn picture, width and height in pixels.
        rasteriser: draws them.
    """
    zoom = np.diag([scale, scale, 1.0])
    shared = zoom @ people[0].intrinsics if people else np.eye(3)
    # One z-buffer needs one camera: K_0^-1 K_i x is seen by camera 0 where camera i sees x, at the same depth.
    vertices = [
        np.asarray(p.vertices_camera, np.float64) @ (np.linalg.inv(shared) @ zoom @ p.intrinsics).T for p in people
    ]
    return rasteriser.render(vertices, [p.faces for p in people], shared, image_size, colours_of(people))


def colours_of(people: Sequence[DrawnBody]) -> list[np.ndarray]:
    """Return the sRGB of each body's vertices, (V, 3), paler where it is unseen."""
    painted = []
    for person in people:
        own = np.array(person.colour or PALETTE[0])
        colours = np.tile(own, (len(person.vertices_camera), 1))
        if person.unseen is not None:
            share = 0.75 * person.unseen[:, None]
            colours = colours * (1 - share) + np.array(UNSEEN) * share
        painted.append(colours)
    return painted


def composite(
    photo: UInt8[np.ndarray, "H W 3"], rendering: Rendering, opacity: float = 1.0
) -> UInt8[np.ndarray, "H W 3"]:
    """Return a rendering laid over a picture of the same size.

    Args:
        photo: RGB.
        rendering: of the same size.
        opacity: of what was rendered, 0 to 1.
    """
    drawn = photo.copy()
    rows = np.flatnonzero(rendering.alpha.any(1))
    columns = np.flatnonzero(rendering.alpha.any(0))
    if len(rows):
        # Only the part that bodies cover: a large photo with a small person costs little.
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        alpha = (opacity * rendering.alpha[part])[..., None].astype(np.float32)
        mixed = photo[part] * (1 - alpha) + 255 * rendering.colour[part] * alpha
        drawn[part] = np.clip(mixed + np.float32(0.5), 0, 255).astype(np.uint8)
    return drawn
