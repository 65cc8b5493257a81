"""Detectors: from pictures to keypoints. Each is a class whose `detect(pixels, boxes=None)` returns `Keypoints`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from fitkit.errors import UsageError
from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.images import read_image
from fitkit.registry import Registry

DETECTORS = Registry("detector", {"mediapipe": "fitkit.keypoints.detectors.mediapipe:MediaPipeDetector"})
"""Detectors by name."""


def detect(
    images: Iterable[np.ndarray | str | os.PathLike[str]] | np.ndarray | str | os.PathLike[str],
    *,
    detector: str | Any = "mediapipe",
    boxes: Iterable[np.ndarray | None] | None = None,
) -> list[Keypoints]:
    """Return the people of each picture.

    Args:
        images: (H, W, 3) uint8 RGB arrays or picture files, or one of these.
        detector: a detector's name, or an object with a `detect` method.
        boxes: for each picture (P, 4) x0, y0, x1, y1 in pixels of the people in it, found by something better; None
            where the detector is to look for them itself.

    Raises:
        InputError: a picture cannot be read.
        ModelNotFoundError: the detector's networks are not installed and cannot be fetched.
        UsageError: no detector has that name, or there are boxes for another number of pictures.
    """
    if isinstance(images, (np.ndarray, str, os.PathLike)):
        images = [images]
    chosen = DETECTORS.get(detector)() if isinstance(detector, str) else detector
    images = list(images)
    given = [None] * len(images) if boxes is None else list(boxes)
    if len(given) != len(images):
        raise UsageError(f"Give boxes for each picture: got {len(images)} pictures and boxes for {len(given)}.")
    return [_detect_one(chosen, image, people) for image, people in zip(images, given, strict=True)]


def _detect_one(detector: Any, image: np.ndarray | str | os.PathLike[str], boxes: np.ndarray | None) -> Keypoints:
    """Return the people of a picture, with what its file says."""
    if isinstance(image, np.ndarray):
        return detector.detect(image, boxes=boxes)
    picture = read_image(image)
    found = detector.detect(picture.pixels, boxes=boxes)
    return replace(found, source=os.fspath(image), focal_length=picture.focal_px)
