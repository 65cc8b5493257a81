"""Soft shadows and ambient occlusion of vertices, from coarse depth maps of the vertices themselves."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

CELL = 0.022
"""Metres: side of a depth map's cell; near the distance of neighbouring vertices, so that surfaces have few holes."""
BIAS = 0.035
"""Metres: a vertex that lies less than this behind the front of its cell still counts as lit (slanting surfaces)."""

FAR = 15.0
"""Metres: bodies that are spread further than this do not shade each other (the maps would grow too large)."""


def visibility(
    vertices: Float[np.ndarray, "V 3"],
    normals: Float[np.ndarray, "V 3"],
    bodies: Int[np.ndarray, " V"],
    directions: Float[np.ndarray, "L 3"],
) -> Float[np.ndarray, " V"]:
    """Return the share of light that reaches each vertex from some directions, weighted by the cosine to its normal.

    Args:
        vertices: metres; all bodies of a picture together, which shade themselves and each other.
        normals: outward unit vectors.
        bodies: which body each vertex belongs to.
        directions: unit vectors towards the lights.

    Returns:
        0 (all light blocked) to 1 (none), smooth over the surface; 1 for vertices that face away from every direction.
    """
    together = np.ptp(vertices, axis=0).max() < FAR
    groups = [np.arange(len(vertices))] if together else [np.flatnonzero(bodies == i) for i in np.unique(bodies)]
    share = np.ones(len(vertices))
    for group in groups:
        share[group] = _visibility(vertices[group], normals[group], directions)
    return share


def _visibility(
    vertices: Float[np.ndarray, "V 3"], normals: Float[np.ndarray, "V 3"], directions: Float[np.ndarray, "L 3"]
) -> Float[np.ndarray, " V"]:
    """Return the same for bodies that are near each other."""
    if np.ptp(vertices, axis=0).max() >= FAR:  # no body is so large: something went wrong, and light is no matter
        return np.ones(len(vertices))
    # A little light everywhere, so that a vertex that faces away from all has a share, too.
    seen, total = np.full(len(vertices), 1e-3), np.full(len(vertices), 1e-3)
    for direction in directions:
        cosine = np.maximum(normals @ direction + 0.1, 0.0)
        seen += cosine * _front(vertices, direction)
        total += cosine
    return seen / total


def _front(vertices: Float[np.ndarray, "V 3"], direction: Float[np.ndarray, "3"]) -> Float[np.ndarray, " V"]:
    """Return 1 for the vertices that lie in front as seen from a direction, falling to 0 for those behind others."""
    right = _across(direction)
    # Contiguous rows: numpy reduces those several times faster than columns.
    across, along, towards = np.stack([right, np.cross(direction, right), direction]) @ vertices.T
    column = ((across - across.min()) / CELL).astype(np.int64)
    row = ((along - along.min()) / CELL).astype(np.int64)
    width, height = int(column.max()) + 1, int(row.max()) + 1
    index = row * width + column
    front = np.full(width * height, -np.inf)
    np.maximum.at(front, index, towards)
    behind = front[index] - towards
    return np.clip(2.0 - behind / BIAS, 0.0, 1.0)


def _across(direction: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """Return a unit vector at a right angle to another."""
    right = np.cross(direction, np.eye(3)[np.argmin(np.abs(direction))])
    return right / np.linalg.norm(right)


def cone(axis: Float[np.ndarray, "3"], angle: float, count: int) -> Float[np.ndarray, "L 3"]:
    """Return unit vectors spread evenly over a cone (a golden-angle spiral); a light of that apparent size.

    Args:
        axis: unit vector towards the middle of the light.
        angle: radians between the axis and the cone's side; pi / 2 gives a hemisphere.
        count: number of directions.
    """
    index = np.arange(count) + 0.5
    cosine = 1.0 - (1.0 - np.cos(angle)) * index / count
    sine = np.sqrt(1.0 - cosine**2)
    turn = index * np.pi * (3.0 - np.sqrt(5.0))
    right = _across(axis)
    frame = np.stack([right, np.cross(axis, right), axis])
    return np.stack([sine * np.cos(turn), sine * np.sin(turn), cosine], axis=1) @ frame
