"""The face contour: 17 points for each of `smplx`'s 79 head yaws.

On the near side it is the line of the jaw, points fixed to the skin. On the side turned away from the camera it is
the silhouette of the cheek: where rays from the middle of the face leave the projected patch of skin inside
MediaPipe's face oval (which keeps ears and neck out); their polar angles are spread between the ear and the chin as
in the frontal view.
"""

import numpy as np
from numpy.typing import NDArray

from bake.surface import SurfacePoints
from fitkit.keypoints.face_mesh import FACE_MESH_468, FACE_OVAL

OVAL = tuple(FACE_MESH_468.index(name) for name in FACE_OVAL)
"""Indices of MediaPipe's face oval among the 468, all the way round."""

YAWS = tuple(-float(k) for k in range(40)) + tuple(float(k) for k in range(1, 40))
"""Degrees about y of the head in rows 0 to 78 of `smplx`'s table, which looks its row up by the negative angle."""

CHIN = 0.004
"""Metres from the middle within which a contour point stays on the chin."""


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


def dynamic_contour(template: NDArray, faces: NDArray, patch: NDArray, jaw: SurfacePoints) -> SurfacePoints:
    """The 79 x 17 table, row by row.

    Args:
        template: (V, 3) T-posed mean body.
        faces: (F, 3).
        patch: (F,) bool, see `face_patch`.
        jaw: the 17 points of the jaw line, right ear to left ear.
    """
    index = np.flatnonzero(patch)
    line = jaw.on(template, faces)
    centre = np.array([0.0, line[[0, 16], 1].mean(), line[[0, 16], 2].mean() + 0.04])
    angle = np.arctan2(line[:, 0], centre[1] - line[:, 1])
    end = np.where(line[:, 0] > 0, angle[16], angle[0])
    share = (angle - angle[8]) / (end - angle[8])
    face, bary = np.tile(jaw.face, (len(YAWS), 1)), np.tile(jaw.bary, (len(YAWS), 1, 1))
    for row, yaw in enumerate(np.radians(YAWS)):
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        flat = (template - centre) @ turn.T
        across = flat[np.unique(faces[index]), 0]
        start = np.array([(across.min() + across.max()) / 2, 0.0])
        chin = turn @ (line[8] - centre)
        middle = np.arctan2(chin[0] - start[0], -chin[1])
        turned = middle + share * (end - middle)
        for k in np.flatnonzero((line[:, 0] * yaw >= 0) & (np.abs(line[:, 0]) > CHIN)):
            direction = np.array([np.sin(turned[k]), -np.cos(turned[k])])
            local, bary[row, k] = leave_point(flat[:, :2], faces[index], start, direction)
            face[row, k] = index[local]
    return SurfacePoints(face.reshape(-1), bary.reshape(-1, 3))
