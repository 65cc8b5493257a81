"""A rasteriser in numpy: needs no graphics driver and draws the same picture on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int

from fitkit.rendering import zbuffer
from fitkit.rendering.base import Rendering, Soup, empty, gather
from fitkit.rendering.geometry import smoothed, vertex_normals
from fitkit.rendering.shading import Lighting

CREASE = 0.004
"""Bend of 1 / z across three pixels, relative to 1 / z, above which a pixel counts as an edge within a body."""
CONTRAST = 0.10
"""The same for brightness in [0, 1]."""


@dataclass(frozen=True)
class SoftwareRasteriser:
    """Z-buffer, smooth shading, eight samples a pixel along edges."""

    lighting: Lighting = field(default_factory=Lighting)
    """Lights and their shadows."""

    def render(
        self,
        vertices: Sequence[Float[np.ndarray, "_ 3"]] | Float[np.ndarray, "N V 3"],
        faces: Sequence[Int[np.ndarray, "_ 3"]] | Int[np.ndarray, "F 3"],
        intrinsics: Float[np.ndarray, "3 3"],
        image_size: tuple[int, int],
        colours: Sequence[np.ndarray] | np.ndarray | None = None,
    ) -> Rendering:
        """Return the picture of the bodies; see `fitkit.rendering.base.Rasteriser`."""
        soup = gather(vertices, faces, colours)
        x0, y0, x1, y1 = zbuffer.window(soup.vertices, intrinsics, image_size)
        whole = empty(*image_size)
        if x1 <= x0 or not len(soup.faces):
            return whole
        # The work is proportional to the part of the picture that the bodies fill, not to the whole.
        shifted = np.array(intrinsics, np.float64) - [[0, 0, x0], [0, 0, y0], [0, 0, 0]]
        part = self._render(soup, shifted, (x1 - x0, y1 - y0))
        for name in ("colour", "alpha", "depth", "body_index"):
            getattr(whole, name)[y0:y1, x0:x1] = getattr(part, name)
        return whole

    def _render(self, soup: Soup, intrinsics: Float[np.ndarray, "3 3"], image_size: tuple[int, int]) -> Rendering:
        """Return the picture of a soup of triangles."""
        triangles = zbuffer.prepare(soup.vertices, soup.faces, intrinsics, image_size)
        centre = zbuffer.nearest_faces(triangles)
        face, nearness = zbuffer.face_of(centre), zbuffer.nearness_of(centre)
        body = np.where(face >= 0, soup.body_of_face[face], -1)
        painter = _Painter.of(soup, triangles, self.lighting)

        colour = np.zeros((*centre.shape, 3), np.float32)
        alpha = (face >= 0).astype(np.float32)
        covered = np.nonzero(face >= 0)
        colour[covered] = painter.paint(face[covered], covered[1] + 0.5, covered[0] + 0.5)
        edge = _edges(body, nearness, colour)
        samples = zbuffer.face_of(zbuffer.nearest_faces_at(triangles, edge))
        colour[edge], alpha[edge] = painter.paint_samples(samples, np.nonzero(edge))
        with np.errstate(divide="ignore"):
            depth = np.where(face >= 0, 1 / nearness, np.float32(np.inf))
        return Rendering(colour=colour, alpha=alpha, depth=depth, body_index=body)


@dataclass(frozen=True)
class _Painter:
    """Shades points of a soup's faces."""

    soup: Soup
    triangles: zbuffer.Triangles
    lighting: Lighting
    attributes: Float[np.ndarray, "V 11"]
    """Per vertex: position, normal, colour, share of key and of ambient light."""

    @classmethod
    def of(cls, soup: Soup, triangles: zbuffer.Triangles, lighting: Lighting) -> _Painter:
        normals = vertex_normals(soup.vertices, soup.faces)
        light = smoothed(lighting.vertex_light(soup.vertices, normals, soup.body_of_vertex), soup.faces)
        columns = [soup.vertices, normals, soup.colours, light]
        return cls(soup, triangles, lighting, np.concatenate(columns, axis=1).astype(np.float32))

    def paint(
        self, face: Int[np.ndarray, " S"], x: Float[np.ndarray, " S"], y: Float[np.ndarray, " S"]
    ) -> Float[np.ndarray, "S 3"]:
        """Return the sRGB colour of the points of faces that are seen at pixels (x, y)."""
        weights = zbuffer.barycentric(self.triangles, face, x, y).astype(np.float32)
        corners = self.soup.faces[face]
        mixed = self.attributes[corners[:, 0]] * weights[:, :1]
        mixed += self.attributes[corners[:, 1]] * weights[:, 1:2]
        mixed += self.attributes[corners[:, 2]] * weights[:, 2:]
        points, normals, colours, light = mixed[:, :3], mixed[:, 3:6], mixed[:, 6:9], mixed[:, 9:]
        # A surface seen from behind (an open mesh) is lit as if it had two sides.
        length = np.maximum(np.linalg.norm(normals, axis=1), np.float32(1e-9))
        away = self.triangles.facing[face] < 0
        normals = normals * (np.where(away, -1, 1) / length).astype(np.float32)[:, None]
        return self.lighting.shade(points, normals, colours, light)

    def paint_samples(
        self, samples: Int[np.ndarray, "E R"], pixels: tuple[np.ndarray, ...]
    ) -> tuple[Float[np.ndarray, "E 3"], Float[np.ndarray, " E"]]:
        """Return the mean colour of the covered samples of some pixels, and the share of samples covered.

        Args:
            samples: face seen at each sample, -1 where none.
            pixels: rows and columns of the E pixels.
        """
        count, rows = samples.shape
        slot, row = np.nonzero(samples >= 0)
        face = samples[slot, row]
        # A face's samples within one pixel look alike: shade their mean position once.
        label = slot * np.int64(len(self.soup.faces) + 1) + face
        _, first, group, size = np.unique(label, return_index=True, return_inverse=True, return_counts=True)
        x = np.bincount(group, zbuffer.EIGHT_ROOKS[row], minlength=len(first)) / size + pixels[1][slot[first]]
        y = np.bincount(group, (row + 0.5) / rows, minlength=len(first)) / size + pixels[0][slot[first]]
        shades = self.paint(face[first], x, y) * size[:, None]
        owner = slot[first]
        covered = np.bincount(owner, size, minlength=count)
        total = np.stack([np.bincount(owner, shades[:, c], minlength=count) for c in range(3)], axis=1)
        return total / np.maximum(covered, 1)[:, None], covered / rows


def _edges(
    body: Int[np.ndarray, "H W"], nearness: Float[np.ndarray, "H W"], colour: Float[np.ndarray, "H W 3"]
) -> Bool[np.ndarray, "H W"]:
    """Return the pixels to be antialiased: beside another body or the background, at jumps of depth or of colour."""
    if not (body >= 0).any():
        return np.zeros(body.shape, bool)
    square = np.ones((3, 3), np.uint8)
    label = (body + 1).astype(np.int16)
    edge = cv2.dilate(label, square) != cv2.erode(label, square)
    # A plane's 1 / z is linear in the picture, whatever its slant: only folds and jumps bend it.
    jump = _bend(nearness) > CREASE * nearness
    # Fine detail (lids, lips, nails) whose depth hardly differs.
    jump |= _bend(cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY)) > CONTRAST
    return edge | cv2.dilate((jump & (body >= 0)).astype(np.uint8), square).astype(bool)


def _bend(values: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """Return how far each value is from its neighbours' mean, times four."""
    return np.abs(cv2.Laplacian(values, cv2.CV_32F, ksize=1, borderType=cv2.BORDER_REPLICATE))
