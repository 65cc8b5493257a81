"""A small software z-buffer in numpy: which triangle is seen at which pixel."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Hits:
    """What an orthographic camera sees."""

    face: NDArray
    """(H, W) triangle index, -1 for background."""
    bary: NDArray
    """(H, W, 3) barycentric coordinates in that triangle."""

    def interpolate(self, corners: NDArray) -> NDArray:
        """Image (H, W, D) of an attribute given at the corners (F, 3, D); zero on the background."""
        seen = np.einsum("hwk,hwkd->hwd", self.bary, corners[self.face])
        return np.where((self.face >= 0)[..., None], seen, 0.0)


def rasterise(points: NDArray, faces: NDArray, size: tuple[int, int], chunk: int = 4_000_000) -> Hits:
    """Nearest triangles per pixel.

    Args:
        points: (V, 3) pixels x, pixels y, depth (smaller is nearer); the first pixel's centre is (0.5, 0.5).
        faces: (F, 3) int.
        size: (width, height).
        chunk: pairs of triangle and pixel tested at once.
    """
    width, height = size
    corners = points[faces]
    low = np.clip(np.ceil(corners[..., :2].min(axis=1) - 0.5), 0, [width, height]).astype(int)
    high = np.clip(np.ceil(corners[..., :2].max(axis=1) - 0.5), 0, [width, height]).astype(int)
    extent = np.maximum(high - low, 0)
    counts = extent[:, 0] * extent[:, 1]
    depth, face = np.full(width * height, np.inf), np.full(width * height, -1)
    bary = np.zeros((width * height, 3))
    todo = np.flatnonzero(counts)
    for part in np.split(todo, np.searchsorted(np.cumsum(counts[todo]), np.arange(chunk, counts.sum(), chunk))):
        if len(part):
            _test_pairs(part, counts, extent, low, corners, width, (depth, face, bary))
    return Hits(face.reshape(height, width), bary.reshape(height, width, 3))


def _test_pairs(part, counts, extent, low, corners, width, buffers) -> None:
    """Test the bounding-box pixels of some triangles and keep the nearest hits in the buffers."""
    depth, face, bary = buffers
    owner = np.repeat(part, counts[part])
    step = np.arange(len(owner)) - np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
    x, y = low[owner, 0] + step % extent[owner, 0], low[owner, 1] + step // extent[owner, 0]
    a, b, c = (corners[owner, k, :2] for k in range(3))
    p = np.stack([x, y], axis=1) + 0.5
    area = _cross(b - a, c - a)
    weights = np.stack([_cross(b - p, c - p), _cross(c - p, a - p), _cross(a - p, b - p)], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = weights / area[:, None]
    inside = (np.abs(area) > 1e-12) & (weights >= -1e-9).all(axis=1)
    owner, weights, pixel = owner[inside], weights[inside], (y * width + x)[inside]
    z = (weights * corners[owner, :, 2]).sum(axis=1)
    order = np.lexsort((z, pixel))
    first = order[np.r_[True, np.diff(pixel[order]) > 0]] if len(order) else order
    first = first[z[first] < depth[pixel[first]]]
    depth[pixel[first]], face[pixel[first]], bary[pixel[first]] = z[first], owner[first], weights[first]


def _cross(a: NDArray, b: NDArray) -> NDArray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def vertex_normals(vertices: NDArray, faces: NDArray) -> NDArray:
    """Unit normals (V, 3), area-weighted."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normals = np.zeros_like(vertices)
    cross = np.cross(b - a, c - a)
    for k in range(3):
        np.add.at(normals, faces[:, k], cross)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def shade(
    vertices: NDArray, faces: NDArray, colours: NDArray, points: NDArray, size: tuple[int, int]
) -> tuple[NDArray, Hits]:
    """A lit picture (H, W, 3) in [0, 1] on a grey background, and its hits.

    Args:
        vertices: (V, 3) metres, in the camera's turned frame: x right, y up, z towards the camera.
        faces: (F, 3) int.
        colours: (F, 3, 3) RGB at the face corners.
        points: (V, 3) the same vertices in pixels, see `rasterise`.
        size: (width, height).
    """
    hits = rasterise(points, faces, size)
    normal = hits.interpolate(vertex_normals(vertices, faces)[faces])
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    key = np.array([0.35, 0.55, 0.75]) / np.linalg.norm([0.35, 0.55, 0.75])
    fill = np.array([-0.6, 0.1, 0.8]) / np.linalg.norm([-0.6, 0.1, 0.8])
    light = 0.30 + 0.55 * np.maximum(normal @ key, 0) + 0.25 * np.maximum(normal @ fill, 0)
    image = hits.interpolate(colours) * light[..., None]
    return np.clip(np.where((hits.face >= 0)[..., None], image, 0.62), 0, 1), hits
