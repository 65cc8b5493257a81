"""Normals of triangle meshes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def vertex_normals(vertices: Float[np.ndarray, "V 3"], faces: Int[np.ndarray, "F 3"]) -> Float[np.ndarray, "V 3"]:
    """Return the unit normal of each vertex: the mean of its faces' normals, weighted by their area.

    Args:
        vertices: any unit.
        faces: vertex indices, counter-clockwise as seen from outside (in a right-handed frame).

    Returns:
        Outward unit vectors; zero for vertices without a face of any area.
    """
    corners = vertices[faces]
    face_normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    index = faces.ravel()
    # bincount sums an order of magnitude faster than np.add.at.
    sums = np.stack(
        [np.bincount(index, np.repeat(face_normals[:, axis], 3), minlength=len(vertices)) for axis in range(3)], axis=1
    )
    return sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-30)


def smoothed(
    values: Float[np.ndarray, "V C"], faces: Int[np.ndarray, "F 3"], passes: int = 2
) -> Float[np.ndarray, "V C"]:
    """Return values of vertices averaged with those of their neighbours.

    Args:
        values: any.
        faces: vertex indices.
        passes: how often; each reaches one ring of faces further.
    """
    index = faces.ravel()
    count = np.bincount(index, minlength=len(values))
    alone = count == 0
    for _ in range(passes):
        means = np.repeat(values[faces].mean(1), 3, axis=0)
        sums = np.stack([np.bincount(index, mean, minlength=len(values)) for mean in means.T], axis=1)
        values = np.where(alone[:, None], values, sums / np.maximum(count, 1)[:, None])
    return values
