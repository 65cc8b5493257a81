"""Containers for what a detector saw in a picture."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from fitkit.errors import InputError

FARTHEST = 1e9
"""Pixels from the origin beyond which a point is none: in single precision its square would overflow."""


@dataclass(frozen=True)
class Keypoints:
    """The 2D keypoints of the P people of one picture, all in one convention of K names."""

    names: tuple[str, ...]
    """K keypoint names (see `fitkit.keypoints.conventions`), each unique."""
    points: np.ndarray
    """(P, K, 2) float64, pixels of the upright picture; the top-left pixel's centre is (0.5, 0.5)."""
    confidence: np.ndarray
    """(P, K) float64 in [0, 1]; 0 marks a point that was not seen."""
    image_size: tuple[int, int] | None = None
    """(width, height) of the upright picture in pixels; None when the file does not record it."""
    scores: np.ndarray | None = None
    """(P,) confidence that each is a person, in [0, 1]."""
    boxes: np.ndarray | None = None
    """(P, 4) x0, y0, x1, y1 of each person in pixels."""
    world: np.ndarray | None = None
    """(P, K, 3) metres, camera axes (x right, y down, z forward), any origin; NaN where unknown."""
    masks: np.ndarray | None = None
    """(P, H, W) bool: pixels that belong to each person."""
    genders: tuple[str | None, ...] = ()
    """One of "neutral", "female", "male" or None for each person; empty when the source does not say."""
    focal_length: float | None = None
    """Focal length in pixels as the picture records it (EXIF); None when it does not."""
    intrinsics: np.ndarray | None = None
    """(3, 3) K of the camera in pixels, where it is known; wins over every other guess of the focal length."""
    source: str | None = None
    """Name of the picture or keypoint file."""
    metadata: dict[str, object] = field(default_factory=dict)
    """Whatever else the source records (never used by the fit)."""

    def __post_init__(self) -> None:
        """Check the shapes and make unusable points unseen, so that nothing later has to."""
        points = np.array(self.points, dtype=np.float64)
        confidence = np.array(self.confidence, dtype=np.float64)
        count = len(self.names)
        if points.ndim != 3 or points.shape[1:] != (count, 2) or confidence.shape != points.shape[:2]:
            raise InputError(
                f"Keypoints need points (P, {count}, 2) and confidence (P, {count}); "
                f"got {tuple(points.shape)} and {tuple(confidence.shape)}."
            )
        if len(set(self.names)) != count:
            raise InputError("Keypoint names must be unique.")
        unusable = ~(np.abs(points) <= FARTHEST).all(-1) | ~np.isfinite(confidence)
        confidence = np.where(unusable, 0.0, np.clip(confidence, 0.0, 1.0))
        points = np.where(unusable[..., None], 0.0, points)
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "confidence", confidence)

    def __len__(self) -> int:
        """Return the number of people."""
        return len(self.points)

    def select(self, people: np.ndarray | list[int]) -> Keypoints:
        """Return the keypoints of some of the people, in the order given."""
        index = np.asarray(people, dtype=int)

        def take(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[index]

        return replace(
            self,
            points=self.points[index],
            confidence=self.confidence[index],
            scores=take(self.scores),
            boxes=take(self.boxes),
            world=take(self.world),
            masks=take(self.masks),
            genders=tuple(self.genders[i] for i in index) if self.genders else (),
        )
