"""Visibility by a z-buffer in numpy: which face is nearest at each sample of the picture.

Rasterisation in homogeneous coordinates (Olano and Greer, "Triangle scan conversion using 2D homogeneous
coordinates", 1997): with the homogeneous pixel coordinates p_i = K x_i of a triangle's corners, the barycentric
coordinates divided by the depth are linear in the pixel, [p_0 p_1 p_2]^-1 (x, y, 1). Triangles that cross the camera
plane need no clipping.

Work goes by spans: the samples that a triangle covers on one row of the picture. Antialiasing uses several rows a pixel
with one sample each, shifted against each other (the n-rooks pattern), so that edges of every slope get many levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from fitkit.rendering.base import NEAR

ONE_ROW = np.array([0.5])
"""Sample pattern with the pixel's centre alone."""
EIGHT_ROOKS = np.array([5, 1, 11, 7, 15, 3, 13, 9]) / 16
"""Sample pattern with 8 rows a pixel; the x of the sample of each row, in pixels."""
NOTHING = np.uint64(0)
"""Key of a sample that no face covers."""
CHUNK = 2_000_000
"""Fragments handled at a time: bounds the memory when huge triangles fill a large picture."""


@dataclass(frozen=True)
class Triangles:
    """Triangles prepared for rasterisation."""

    edges: Float[np.ndarray, "F 3 3"]
    """Functions e_i (x, y, 1), non-negative inside; proportional to barycentric coordinate / depth."""
    inverse_depth: Float[np.ndarray, "F 3"]
    """1 / z at pixel (x, y), as coefficients of (x, y, 1)."""
    left: Float[np.ndarray, "2 L F"]
    """Slope and offset in y of the lines that bound a face on the left: x >= slope * y + offset, pixels."""
    right: Float[np.ndarray, "2 L F"]
    """The same on the right: x <= slope * y + offset."""
    facing: Float[np.ndarray, " F"]
    """Positive for faces seen from outside, negative for those seen from behind."""
    box: Float[np.ndarray, "F 4"]
    """x0, y0, x1, y1 in pixels, clipped to the picture; x1 < x0 for triangles that need no drawing."""
    width: int
    """Of the picture, pixels."""
    height: int
    """Of the picture, pixels."""


@dataclass(frozen=True)
class Fragments:
    """Samples covered by faces, before the depth test."""

    row: Int[np.ndarray, " S"]
    """Row of samples, of which there are `len(pattern)` a pixel."""
    column: Int[np.ndarray, " S"]
    """Column of pixels."""
    key: np.ndarray
    """(S,) uint64: 1 / z as float32 bits above, face + 1 below; the nearest fragment has the greatest key."""


def window(
    vertices: Float[np.ndarray, "V 3"], intrinsics: Float[np.ndarray, "3 3"], image_size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Return x0, y0, x1, y1 in pixels: a part of the picture outside of which none of the vertices' faces is seen.

    The whole picture when a vertex lies behind the camera plane; empty (0, 0, 0, 0) when nothing is in view.
    """
    width, height = image_size
    points = vertices @ np.asarray(intrinsics, np.float64).T
    if not len(points) or points[:, 2].max() <= NEAR:
        return 0, 0, 0, 0
    if points[:, 2].min() <= NEAR:
        return 0, 0, width, height
    pixels = points[:, :2] / points[:, 2:]
    low = np.clip(pixels.min(0) - 2, 0, image_size).astype(int)
    high = np.clip(pixels.max(0) + 3, 0, image_size).astype(int)
    return (int(low[0]), int(low[1]), int(high[0]), int(high[1])) if (high > low).all() else (0, 0, 0, 0)


def prepare(
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    intrinsics: Float[np.ndarray, "3 3"],
    image_size: tuple[int, int],
) -> Triangles:
    """Return the triangles as seen by a camera.

    Args:
        vertices: camera coordinates, metres.
        faces: vertex indices.
        intrinsics: pixels.
        image_size: width and height in pixels.
    """
    width, height = image_size
    points = vertices @ np.asarray(intrinsics, np.float64).T
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        pixels = points[:, :2] / points[:, 2:]
    corners = points[faces]
    p0, p1, p2 = corners[:, 0], corners[:, 1], corners[:, 2]
    edges = np.stack([np.cross(p1, p2), np.cross(p2, p0), np.cross(p0, p1)], axis=1)
    determinant = np.einsum("fi,fi->f", p0, edges[:, 0])
    # Only multiplied by the sign, so that the functions of a shared edge are exact opposites: no cracks.
    edges *= np.sign(determinant)[:, None, None]
    depth = corners[..., 2]
    ahead = depth.min(1) > NEAR
    low, high = pixels[faces].min(1), pixels[faces].max(1)
    # Across the camera plane the projected corners say nothing about the extent.
    low[~ahead], high[~ahead] = -np.inf, np.inf
    box = np.concatenate([np.maximum(low, 0.0), np.minimum(high, [width, height])], axis=1)
    drawn = (depth.max(1) > NEAR) & (np.abs(determinant) > 1e-30) & (box[:, 2] >= box[:, 0]) & (box[:, 3] >= box[:, 1])
    box[~drawn] = [1.0, 1.0, 0.0, 0.0]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inverse_depth = edges.sum(1) / np.abs(determinant)[:, None]
    lines = edges.transpose(1, 2, 0)
    if not ahead.all():
        # 1 / z < 1 / NEAR is one more line, needed only where the camera plane is near.
        near = np.array([0, 0, 1 / NEAR])[:, None] - inverse_depth.T
        lines = np.concatenate([lines, near[None]])
    left, right = _bounds(lines)
    return Triangles(edges, inverse_depth, left, right, -np.sign(determinant), box, width, height)


def rasterise(
    triangles: Triangles, chosen: Int[np.ndarray, " G"], pattern: Float[np.ndarray, " R"]
) -> Iterator[Fragments]:
    """Yield the samples that the chosen triangles cover, some at a time.

    Args:
        triangles: as seen by the camera.
        chosen: indices of the faces to draw.
        pattern: x of the sample on each row of a pixel, in (0, 1) pixels.
    """
    rows = len(pattern)
    box = triangles.box[chosen]
    first = np.maximum(np.ceil(box[:, 1] * rows - 0.5), 0).astype(np.int64)
    last = np.minimum(np.floor(box[:, 3] * rows - 0.5), triangles.height * rows - 1).astype(np.int64)
    counts = np.where(box[:, 2] >= box[:, 0], np.maximum(last - first + 1, 0), 0)
    face = np.repeat(chosen, counts)
    row = np.arange(len(face)) - np.repeat(np.cumsum(counts) - counts - first, counts)
    y = (row + 0.5) / rows
    shift = pattern[row % rows]
    start, stop = np.zeros(len(y)), np.full(len(y), triangles.width - 1.0)
    for (slope, offset), (slope_right, offset_right) in zip(
        triangles.left[:, :, chosen].swapaxes(0, 1), triangles.right[:, :, chosen].swapaxes(0, 1), strict=True
    ):
        np.maximum(start, np.repeat(slope, counts) * y + np.repeat(offset, counts) - shift, out=start)
        np.minimum(stop, np.repeat(slope_right, counts) * y + np.repeat(offset_right, counts) - shift, out=stop)
    start = np.ceil(start)
    lengths = (np.floor(stop) - start + 1).clip(min=0).astype(np.int64)
    kept = lengths > 0
    face, row, y, shift, start, lengths = (a[kept] for a in (face, row, y, shift, start, lengths))
    slope, across, offset = triangles.inverse_depth[face].T
    base = offset + across * y + slope * shift
    ends = np.cumsum(lengths)
    for span in _chunks(ends):
        repeats = lengths[span]
        total = int(repeats.sum())
        begin = start[span].astype(np.int64) - (ends[span] - lengths[span]) + (ends[span][0] - lengths[span][0])
        column = np.arange(total) + np.repeat(begin, repeats)
        nearness = np.repeat(base[span], repeats) + np.repeat(slope[span], repeats) * column
        bits = np.clip(nearness, 0.0, 1 / NEAR).astype(np.float32).view(np.uint32).astype(np.uint64)
        key = (bits << np.uint64(32)) | np.repeat(face[span].astype(np.uint64) + np.uint64(1), repeats)
        yield Fragments(np.repeat(row[span], repeats), column, key)


def _bounds(lines: Float[np.ndarray, "L 3 F"]) -> tuple[Float[np.ndarray, "2 L F"], Float[np.ndarray, "2 L F"]]:
    """Return the half planes a x + b y + c >= 0 as bounds of x on the left and on the right; see `Triangles`."""
    a, b, c = lines[:, 0], lines[:, 1], lines[:, 2]
    # A line along a row bounds nothing or everything: tilt it imperceptibly.
    a = np.where(a == 0, 1e-12 * (np.abs(b) + np.abs(c)) + 1e-300, a)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        slope, offset = -b / a, -c / a
    left = np.stack([np.where(a > 0, slope, 0.0), np.where(a > 0, offset, -np.inf)])
    right = np.stack([np.where(a < 0, slope, 0.0), np.where(a < 0, offset, np.inf)])
    return left, right


def _chunks(ends: Int[np.ndarray, " S"]) -> Iterator[slice]:
    """Yield slices of the spans, each of about CHUNK fragments at most."""
    begin = 0
    while begin < len(ends):
        done = ends[begin - 1] if begin else 0
        end = max(int(np.searchsorted(ends, done + CHUNK, side="right")), begin + 1)
        yield slice(begin, end)
        begin = end


def nearest_faces(triangles: Triangles) -> np.ndarray:
    """Return the key (H, W) uint64 of the nearest face at each pixel's centre."""
    buffer = np.zeros(triangles.height * triangles.width, np.uint64)
    for part in rasterise(triangles, np.arange(len(triangles.edges)), ONE_ROW):
        np.maximum.at(buffer, part.row * triangles.width + part.column, part.key)
    return buffer.reshape(triangles.height, triangles.width)


def nearest_faces_at(
    triangles: Triangles, pixels: Bool[np.ndarray, "H W"], pattern: Float[np.ndarray, " R"] = EIGHT_ROOKS
) -> np.ndarray:
    """Return the key (E, R) uint64 of the nearest face at each sample of the E chosen pixels (row by row).

    Args:
        triangles: as seen by the camera.
        pixels: True for the pixels to sample.
        pattern: as in `rasterise`.
    """
    rows = len(pattern)
    slot = np.cumsum(pixels.ravel()).astype(np.int64) - 1
    count = int(slot[-1]) + 1 if slot.size else 0
    slot[~pixels.ravel()] = -1
    buffer = np.zeros(count * rows, np.uint64)
    for part in rasterise(triangles, _touching(triangles, pixels), pattern):
        own = slot[(part.row // rows) * triangles.width + part.column]
        inside = own >= 0
        np.maximum.at(buffer, own[inside] * rows + part.row[inside] % rows, part.key[inside])
    return buffer.reshape(count, rows)


def _touching(triangles: Triangles, pixels: Bool[np.ndarray, "H W"]) -> Int[np.ndarray, " G"]:
    """Return the indices of the triangles whose box touches one of the chosen pixels (by a table of sums)."""
    sums = np.zeros((triangles.height + 1, triangles.width + 1), np.int32)
    np.cumsum(pixels, axis=0, out=sums[1:, 1:], dtype=np.int32)
    np.cumsum(sums[1:, 1:], axis=1, out=sums[1:, 1:])
    drawn = triangles.box[:, 2] >= triangles.box[:, 0]
    index = np.where(drawn[:, None], triangles.box, 0.0).astype(np.int64)
    x0, y0 = index[:, 0], index[:, 1]
    x1, y1 = np.minimum(index[:, 2] + 1, triangles.width), np.minimum(index[:, 3] + 1, triangles.height)
    inside = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return np.flatnonzero(drawn & (inside > 0))


def face_of(key: np.ndarray) -> Int[np.ndarray, "*shape"]:
    """Return the face of each key; -1 for samples that no face covers."""
    return (key & np.uint64(0xFFFFFFFF)).astype(np.int64) - 1


def nearness_of(key: np.ndarray) -> Float[np.ndarray, "*shape"]:
    """Return 1 / z of each key as float32; 0 for samples that no face covers."""
    return (key >> np.uint64(32)).astype(np.uint32).view(np.float32)


def barycentric(
    triangles: Triangles, face: Int[np.ndarray, " S"], x: Float[np.ndarray, " S"], y: Float[np.ndarray, " S"]
) -> Float[np.ndarray, "S 3"]:
    """Return the barycentric coordinates (corrected for perspective) of the surface points seen at pixels (x, y)."""
    edges = triangles.edges[face]
    weights = edges[..., 0] * x[:, None] + edges[..., 1] * y[:, None] + edges[..., 2]
    weights = np.maximum(weights, 0.0)
    return weights / np.maximum(weights.sum(1, keepdims=True), 1e-300)
