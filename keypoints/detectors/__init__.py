"""Detectors: from pictures to keypoints. Each is a class whose `detect(pixels, boxes=None)` returns `Keypoints`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

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
        UsageError: no detector has that name.
    """
    if isinstance(images, (np.ndarray, str, os.PathLike)):
        images = [images]
    chosen = DETECTORS.get(detector)() if isinstance(detector, str) else detector
    images = list(images)
    given = [None] * len(images) if boxes is None else list(boxes)
    results = []
    for image, people in zip(images, given, strict=True):
        pixels = image if isinstance(image, np.ndarray) else read_image(image).pixels
        found = chosen.detect(pixels, boxes=people)
        source = None if isinstance(image, np.ndarray) else os.fspath(image)
        results.append(replace(found, source=source))
    return results
