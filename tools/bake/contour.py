"""The face contour: 17 points for each of `smplx`'s 79 head yaws.

On the side turned away from the camera the visible contour is the silhouette of the cheek, on the near side the line of the jaw.
Both are the outer edge of the same patch of skin: the face inside MediaPipe's face oval. So for every yaw the contour is where rays
from the middle of the face, one per polar angle, leave the projected patch.
"""

import numpy as np
from numpy.typing import NDArray

from bake.surface import SurfacePoints

OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
"""MediaPipe's face oval, from the forehead clockwise as the subject's left side comes first."""

YAWS = tuple(-float(k) for k in range(40)) + tuple(float(k) for k in range(1, 40))
"""Degrees about y of the head in rows 0 to 78 of `smplx`'s table, which looks its row up by the negative angle."""


def face_patch(template: NDArray, faces: NDArray, skin: NDArray, oval: NDArray) -> NDArray:
    """Faces (F,) bool of the skin inside the oval (36, 3), on a cylinder about the head's vertical axis."""
    axis = np.array([0.0, oval[:, 2].min() - 0.02])

    def unroll(points: NDArray) -> NDArray:
        return np.stack([np.arctan2(points[:, 0] - axis[0], points[:, 2] - axis[1]), points[:, 1] * 8.0], axis=1)

    centroids = template[faces].mean(axis=1)
    near = skin & (np.linalg.norm(centroids - oval.mean(axis=0), axis=1) < 0.2) & (centroids[:, 2] > axis[1])
    return near & inside_polygon(unroll(centroids), unroll(oval))


def inside_polygon(points: NDArray, polygon: NDArray) -> NDArray:
    """(K,) bool by the even-odd rule."""
    start, end = polygon, np.roll(polygon, -1, axis=0)
    x, y = points[:, :1], points[:, 1:]
    spans = (start[:, 1] > y) != (end[:, 1] > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = start[:, 0] + (y - start[:, 1]) / (end[:, 1] - start[:, 1]) * (end[:, 0] - start[:, 0])
    return ((spans & (x < crossing)).sum(axis=1) % 2).astype(bool)


def leave_point(flat: NDArray, patch: NDArray, centre: NDArray, direction: NDArray) -> tuple[int, NDArray]:
    """Face and barycentric coordinates where a ray in the plane leaves the projected patch last.

    Args:
        flat: (V, 2) projected vertices.
        patch: (P, 3) triangles.
        centre: (2,) start of the ray.
        direction: (2,) unit vector.
    """
    normal = np.array([-direction[1], direction[0]])
    corners = flat[patch] - centre
    across, along = corners @ normal, corners @ direction
    best, answer = -np.inf, (0, np.zeros(3))
    for i, j in ((0, 1), (1, 2), (2, 0)):
        gap = across[:, i] - across[:, j]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = across[:, i] / gap
        reach = np.where((share >= 0) & (share <= 1), along[:, i] + share * (along[:, j] - along[:, i]), -np.inf)
        k = int(np.nanargmax(reach))
        if reach[k] > best:
            bary = np.zeros(3)
            bary[i], bary[j] = 1 - share[k], share[k]
            best, answer = float(reach[k]), (k, bary)
    return answer


def dynamic_contour(template: NDArray, faces: NDArray, patch: NDArray, jaw: NDArray) -> SurfacePoints:
    """The 79 x 17 table, flattened row by row; `jaw` (17, 3) are the frontal contour's landmarks, right ear to left ear."""
    index = np.flatnonzero(patch)
    centre = np.array([0.0, jaw[[0, 16], 1].mean(), jaw[[0, 16], 2].mean() + 0.04])
    angles = np.arctan2(jaw[:, 1] - centre[1], jaw[:, 0])
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rows = []
    for yaw in np.radians(YAWS):
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        flat = (template - centre) @ turn.T
        middle = flat[np.unique(faces[index]), 0]
        start = np.array([(middle.min() + middle.max()) / 2, 0.0])
        rows += [leave_point(flat[:, :2], faces[index], start, direction) for direction in directions]
    return SurfacePoints(index[[k for k, _ in rows]], np.array([b for _, b in rows]))
