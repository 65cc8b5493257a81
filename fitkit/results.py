"""One person's fit as plain numbers: what users hold, save and load."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fitkit.version import __version__

GUESSES = ("guessed", "default")
"""Sources of focal lengths that are guesses."""
MESH_FORMATS = ("glb", "obj", "ply")
FORMATS = ("npz", *MESH_FORMATS)


@dataclass(frozen=True)
class PinholeCamera:
    """The camera of one photo: OpenCV axes (x right, y down, z forward), metres to pixels."""

    intrinsics: np.ndarray
    """(3, 3) K in pixels; the top-left pixel's centre is (0.5, 0.5)."""
    image_size: tuple[int, int]
    """(width, height) in pixels."""
    focal_source: str = "given"
    """Where the focal length comes from: given, field of view, EXIF, refined (the fit found it, from perspective),
    guessed (from the keypoints, but not to 15 %), default (nothing told it)."""
    focal_deviation: float | None = None
    """Standard deviation of the focal length in pixels, where the fit looked for it."""

    @property
    def focal_length(self) -> float:
        """Focal length in pixels."""
        return float(self.intrinsics[0, 0])

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return the pixels (..., 2) of points (..., 3) in camera axes, metres."""
        image = points @ self.intrinsics.T
        return image[..., :2] / image[..., 2:]


@dataclass(frozen=True)
class FitResult:
    """The body of one person in one photo, in the camera's axes (x right, y down, z forward), metres and radians."""

    params: dict[str, np.ndarray]
    """Every parameter decoded: global_orient (3,), body_pose (63,), left_hand_pose and right_hand_pose (45,) as
    axis-angle, jaw_pose, leye_pose, reye_pose (3,), betas (S,), expression (E,), transl (3,); smplx's names."""
    vertices: np.ndarray
    """(V, 3) float32 skinned mesh, metres; (0, 3) where no mesh was asked for, and no faces then."""
    faces: np.ndarray
    """(F, 3) int32 triangles."""
    joints: np.ndarray
    """(J, 3) float32 joint centres, metres."""
    joint_names: tuple[str, ...]
    """Names of the J joints."""
    camera: PinholeCamera
    """The camera that sees the person."""
    status: str
    """How the solver ended: converged, stalled (also a good end), max_iterations, line_search_failed, non_finite."""
    energies: dict[str, float]
    """Weighted energy of each term at the end."""
    reprojection: dict[str, float]
    """Median distance in pixels between confident keypoints and body, for each part seen (body, feet, face, ...)."""
    height_px: float
    """Apparent height in pixels of the upright person: pixels per metre times the body's own height."""
    seen: dict[str, bool]
    """For each body part whether keypoints show it; unseen parts are what the priors expect."""
    joint_deviation: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    """(J, 3) standard deviation of each joint along the camera's axes, metres: as far as the energy's own assumptions
    hold; the third, in depth, is the largest. NaN where it is not known."""
    names: tuple[str, ...] = ()
    """K keypoint names."""
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    """(K, 2) the keypoints that were fitted, pixels."""
    confidence: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(K,) their confidences."""
    model: str = "anny"
    """Name of the body model."""
    gender: str = "neutral"
    """Gender of the body model."""
    model_hash: str = ""
    """SHA-256 of the model's file."""
    recipe: str = "default"
    """Name of the recipe."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The whole recipe, defaults filled in."""
    iterations: int = 0
    """Solver iterations over all stages."""
    image: str | None = None
    """The photo, or the keypoint file."""
    person: int = 0
    """Index of the person in the photo."""
    version: str = __version__
    """Version of fitkit."""

    @property
    def reprojection_px(self) -> float:
        """Median distance in pixels of confident body keypoints, or of feet or face where no others are."""
        for part in ("body", "feet", "face"):
            if part in self.reprojection:
                return self.reprojection[part]
        return next(iter(self.reprojection.values()), float("nan"))

    @property
    def reprojection_relative(self) -> float:
        """`reprojection_px` as a share of the person's apparent height."""
        return self.reprojection_px / self.height_px

    @property
    def summary(self) -> str:
        """One line for a terminal."""
        unseen = [part.replace("_", " ") for part, shown in self.seen.items() if not shown]
        hidden = f", unseen: {', '.join(unseen)}" if unseen else ""
        guessed = " (focal length assumed)" * (self.camera.focal_source in GUESSES)
        return (
            f"person {self.person}: {self.status.replace('_', ' ')}, {self.params['transl'][2]:.2f} m away{guessed}, "
            f"reprojection {self.reprojection_px:.1f} px ({100 * self.reprojection_relative:.1f} % of height){hidden}"
        )

    def save(self, folder: str | os.PathLike[str], formats: Sequence[str] = ("npz", "glb")) -> list[Path]:
        """Write `params.npz` and `mesh.<format>` into a folder and return their paths.

        Args:
            folder: made if it is not there.
            formats: any of npz, glb, obj, ply.

        Raises:
            UsageError: unknown format. OutputError: the folder cannot be written; nothing half-written is left.
        """
        from fitkit.result_files import save_result

        return save_result(self, Path(folder), formats)
