"""Regions of interest: rotated squares of a picture, cut out at a network's input size."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np


@dataclass(frozen=True)
class Region:
    """A rotated square of a picture; its own coordinates run from (0, 0), top left, to (1, 1)."""

    centre: tuple[float, float]
    """x, y in pixels of the picture."""
    side: float
    """Width and height in pixels of the picture."""
    rotation: float = 0.0
    """Radians by which the square's upward axis is turned clockwise from the picture's upward axis."""
    mirrored: bool = False
    """Whether the square's own x axis runs from right to left."""

    @property
    def axes(self) -> np.ndarray:
        """Return (2, 2): columns are the square's x and y axes in the picture, unit length."""
        c, s = np.cos(self.rotation), np.sin(self.rotation)
        flip = -1.0 if self.mirrored else 1.0
        return np.array([[flip * c, -s], [flip * s, c]])

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Return points (..., 2) of the square in pixels of the picture."""
        return np.asarray(self.centre) + (points - 0.5) @ self.axes.T * self.side

    def from_picture(self, points: np.ndarray) -> np.ndarray:
        """Return points (..., 2) of the picture in coordinates of the square."""
        return (points - np.asarray(self.centre)) @ self.axes / self.side + 0.5

    def turn(self, vectors: np.ndarray) -> np.ndarray:
        """Return vectors (..., 3) of the square's axes in the picture's axes; z, depth, is shared."""
        return np.concatenate([vectors[..., :2] @ self.axes.T, vectors[..., 2:]], axis=-1)

    def scaled(self, factor: float) -> Region:
        """Return the region about the same centre with another size."""
        return replace(self, side=self.side * factor)

    def mirror(self) -> Region:
        """Return the same square seen in a mirror."""
        return replace(self, mirrored=not self.mirrored)

    @classmethod
    def along(cls, start: np.ndarray, end: np.ndarray, side: float, centre: np.ndarray | None = None) -> Region:
        """Return a region whose upward axis runs from one point to another.

        Args:
            start: (2,) pixels.
            end: (2,) pixels.
            side: width and height in pixels.
            centre: (2,) pixels; the start where not given.
        """
        middle = start if centre is None else centre
        dx, dy = float(end[0] - start[0]), float(end[1] - start[1])
        return cls((float(middle[0]), float(middle[1])), float(side), float(np.arctan2(dx, -dy)))


class Picture:
    """A picture with its halved copies, from which regions are cut without aliasing."""

    def __init__(self, pixels: np.ndarray) -> None:
        """Hold a picture.

        Args:
            pixels: (H, W, 3) uint8 RGB.
        """
        self._levels = [pixels]
        self.height, self.width = pixels.shape[:2]

    @property
    def pixels(self) -> np.ndarray:
        """Return (H, W, 3) uint8 RGB at full size."""
        return self._levels[0]

    @property
    def whole(self) -> Region:
        """Return the smallest upright square that holds the picture."""
        return Region((self.width / 2.0, self.height / 2.0), float(max(self.width, self.height)))

    def cut(self, region: Region, size: int, *, replicate: bool = False) -> np.ndarray:
        """Return (size, size, 3) uint8: a region's pixels, black (or the border's, repeated) outside the picture.

        Args:
            region: where.
            size: width and height of the result in pixels.
            replicate: repeat the border outside the picture.
        """
        level = self._level(region.side / size)
        pixels = self._levels[level]
        # Pixel centres lie at half integers in our coordinates and at integers in OpenCV's.
        corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        shape = np.array([self.width / pixels.shape[1], self.height / pixels.shape[0]])
        source = (region.to_picture(corners) / shape - 0.5).astype(np.float32)
        target = (corners * size - 0.5).astype(np.float32)
        return cv2.warpAffine(
            pixels,
            cv2.getAffineTransform(source, target),
            (size, size),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE if replicate else cv2.BORDER_CONSTANT,
        )

    def _level(self, shrink: float) -> int:
        """Return the smallest copy that still holds every pixel of a cut shrunk by a factor."""
        level = 0
        while shrink >= 2.0 and min(self._levels[level].shape[:2]) >= 2:
            shrink /= 2.0
            level += 1
            if level == len(self._levels):
                height, width = self._levels[-1].shape[:2]
                half = (max(width // 2, 1), max(height // 2, 1))
                self._levels.append(cv2.resize(self._levels[-1], half, interpolation=cv2.INTER_AREA))
        return level
