"""Points on triangles: nearest ones, and rows of weights from them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SurfacePoints:
    """Points tied to a mesh."""

    face: NDArray
    """(K,) triangle."""
    bary: NDArray
    """(K, 3) barycentric coordinates."""

    def on(self, vertices: NDArray, faces: NDArray) -> NDArray:
        """Positions (K, 3) on a body (V, 3)."""
        return np.einsum("kc,kcd->kd", self.bary, vertices[faces[self.face]])

    def row(self, k: int, faces: NDArray) -> tuple[NDArray, NDArray]:
        """Landmark row of point `k`."""
        return faces[self.face[k]], self.bary[k]


def snap(points: NDArray, vertices: NDArray, faces: NDArray, allowed: NDArray) -> tuple[SurfacePoints, NDArray]:
    """Nearest points (K) on the allowed triangles (F,) bool, and their distances (K,) in metres."""
    import trimesh

    index = np.flatnonzero(allowed)
    mesh = trimesh.Trimesh(vertices, faces[index], process=False)
    nearest, distance, local = trimesh.proximity.closest_point_naive(mesh, points)
    bary = trimesh.triangles.points_to_barycentric(mesh.triangles[local], nearest)
    bary = np.clip(bary, 0.0, 1.0)
    return SurfacePoints(index[local], bary / bary.sum(axis=1, keepdims=True)), distance
