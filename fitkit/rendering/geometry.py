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
