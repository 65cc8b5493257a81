"""What every rasteriser takes and gives: meshes in camera coordinates in, colour, depth and body index out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

NEAR = 0.01
"""Metres: whatever lies nearer to the camera than this is not drawn."""


@dataclass(frozen=True)
class Rendering:
    """A drawn picture of some bodies, without a background."""

    colour: Float[np.ndarray, "H W 3"]
    """sRGB in [0, 1], not multiplied by alpha; 0 where alpha is 0."""
    alpha: Float[np.ndarray, "H W"]
    """Share of each pixel that bodies cover, in [0, 1]: the antialiased silhouette."""
    depth: Float[np.ndarray, "H W"]
    """z of the nearest surface at the pixel's centre, metres; inf where there is none."""
    body_index: Int[np.ndarray, "H W"]
    """Index of the nearest body at the pixel's centre; -1 where there is none."""


def empty(width: int, height: int) -> Rendering:
    """Return the picture of nothing."""
    return Rendering(
        colour=np.zeros((height, width, 3), np.float32),
        alpha=np.zeros((height, width), np.float32),
        depth=np.full((height, width), np.inf, np.float32),
        body_index=np.full((height, width), -1, np.int64),
    )


@runtime_checkable
class Rasteriser(Protocol):
    """Draws triangle meshes."""

    def render(
        self,
        vertices: Sequence[Float[np.ndarray, "_ 3"]] | Float[np.ndarray, "N V 3"],
        faces: Sequence[Int[np.ndarray, "_ 3"]] | Int[np.ndarray, "F 3"],
        intrinsics: Float[np.ndarray, "3 3"],
        image_size: tuple[int, int],
        colours: Sequence[np.ndarray] | Float[np.ndarray, "N 3"] | Float[np.ndarray, "N V 3"] | None = None,
    ) -> Rendering:
        """Return the picture of N bodies, nearer ones in front.

        Args:
            vertices: of each body, camera coordinates (x right, y down, z forward), metres; bodies may differ in size.
            faces: vertex indices of the triangles, shared by all bodies, or those of each body.
            intrinsics: pixels; the centre of the top-left pixel is (0.5, 0.5).
            image_size: width and height in pixels.
            colours: sRGB in [0, 1] of each body (3) or of its vertices (V, 3); None takes light grey.
        """
        ...


@dataclass(frozen=True)
class Soup:
    """All bodies of a picture as one list of triangles."""

    vertices: Float[np.ndarray, "V 3"]
    """Camera coordinates, metres."""
    faces: Int[np.ndarray, "F 3"]
    """Indices into `vertices`."""
    colours: Float[np.ndarray, "V 3"]
    """sRGB in [0, 1]."""
    body_of_vertex: Int[np.ndarray, " V"]
    """Which body each vertex belongs to."""
    count: int
    """Number of bodies."""

    @property
    def body_of_face(self) -> Int[np.ndarray, " F"]:
        """Which body each face belongs to."""
        return self.body_of_vertex[self.faces[:, 0]]


def gather(
    vertices: Sequence[Float[np.ndarray, "_ 3"]] | Float[np.ndarray, "N V 3"],
    faces: Sequence[Int[np.ndarray, "_ 3"]] | Int[np.ndarray, "F 3"],
    colours: Sequence[np.ndarray] | np.ndarray | None = None,
) -> Soup:
    """Return the bodies as one list of triangles; faces with a vertex that is not finite are left out.

    Arguments as in `Rasteriser.render`.
    """
    count = len(vertices)
    sizes = [len(body) for body in vertices]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    shared = isinstance(faces, np.ndarray) and faces.ndim == 2
    each = [faces] * count if shared else list(faces)
    if len(each) != count:
        raise ValueError(f"{count} bodies need {count} arrays of faces, or one for all; got {len(each)}.")
    painted = [(0.8, 0.8, 0.8)] * count if colours is None else list(colours)
    if len(painted) != count:
        raise ValueError(f"{count} bodies need {count} colours; got {len(painted)}.")
    if count == 0:
        empty = np.zeros((0, 3))
        return Soup(empty, np.zeros((0, 3), np.int64), empty.astype(np.float32), np.zeros(0, np.int64), 0)
    points = np.concatenate([np.asarray(body, dtype=np.float64).reshape(-1, 3) for body in vertices])
    corners = np.concatenate(
        [np.asarray(own, np.int64).reshape(-1, 3) + start for own, start in zip(each, starts, strict=False)]
    )
    shades = [
        np.broadcast_to(np.asarray(paint, np.float32), (size, 3)) for paint, size in zip(painted, sizes, strict=True)
    ]
    finite = np.isfinite(points).all(1)
    stand_in = points[finite].mean(0) if finite.any() else np.zeros(3)
    return Soup(
        vertices=np.where(finite[:, None], points, stand_in),
        faces=corners[finite[corners].all(1)],
        colours=np.concatenate(shades),
        body_of_vertex=np.repeat(np.arange(count), sizes),
        count=count,
    )
