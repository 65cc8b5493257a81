"""Which pixels belong to whom: masks carried from region to region, painted into pictures, and used to hide people."""

from __future__ import annotations

import cv2
import numpy as np

from fitkit.keypoints.detectors.regions import Region

OUTSIDE = -8.0
"""Logit of pixels of which nothing is known."""
MARGIN = 1.0
"""Logits by which a pixel must rather be another's than one's own before it is hidden."""


def carry_mask(logits: np.ndarray, region: Region, target: Region, size: int) -> np.ndarray:
    """Return a mask (size, size) as a second region shows it.

    Args:
        logits: (h, h) float32, in the first region.
        region: where the mask was made.
        target: where it is wanted.
        size: pixels of the result.
    """
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    source = corners * len(logits) - 0.5
    place = target.from_picture(region.to_picture(corners)) * size - 0.5
    return _warp(logits, source, place, (size, size))


def mask_at(logits: np.ndarray, region: Region, points: np.ndarray) -> np.ndarray:
    """Return the logits (K,) of a mask (h, h) of a region at points (K, 2) of the picture."""
    at = np.floor(region.from_picture(points) * len(logits)).astype(int)
    near = np.clip(at, 0, len(logits) - 1)
    return np.where((at == near).all(-1), np.clip(logits[near[:, 1], near[:, 0]], OUTSIDE, -OUTSIDE), OUTSIDE)


def paint_mask(mask: np.ndarray, logits: np.ndarray, region: Region) -> None:
    """Set a person's pixels in a mask of the whole picture, in place.

    Args:
        mask: (H, W) bool.
        logits: (h, h) float32, in the region.
        region: where.
    """
    height, width = mask.shape
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    place = region.to_picture(corners)
    low = np.clip(np.floor(place.min(0)).astype(int), 0, [width, height])
    high = np.clip(np.ceil(place.max(0)).astype(int), 0, [width, height])
    if (high <= low).any():
        return
    shape = (int(high[0] - low[0]), int(high[1] - low[1]))
    found = _warp(logits, corners[:3] * len(logits) - 0.5, place[:3] - low - 0.5, shape)
    mask[low[1] : high[1], low[0] : high[0]] |= found > 0.0


def hide(crop: np.ndarray, others: np.ndarray, own: np.ndarray | None) -> np.ndarray:
    """Return a picture in which other people are painted over with their blurred surroundings.

    Args:
        crop: (S, S, 3) uint8 RGB.
        others: (S, S) logits of the others' pixels.
        own: (S, S) logits of the person who is to stay, where known.
    """
    hidden = others > 0.0
    if own is not None:
        hidden &= others - own > MARGIN
    if not hidden.any():
        return crop
    kept = (~hidden).astype(np.float32)
    width = len(crop) // 8 | 1
    total = cv2.blur(crop * kept[..., None], (width, width))
    amount = np.maximum(cv2.blur(kept, (width, width)), 1e-3)
    result = crop.copy()
    result[hidden] = np.clip(total / amount[..., None], 0.0, 255.0).astype(np.uint8)[hidden]
    return result


def _warp(logits: np.ndarray, source: np.ndarray, place: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    matrix = cv2.getAffineTransform(source.astype(np.float32), place.astype(np.float32))
    clipped = np.clip(logits, OUTSIDE, -OUTSIDE).astype(np.float32)
    return cv2.warpAffine(clipped, matrix, shape, flags=cv2.INTER_LINEAR, borderValue=OUTSIDE)
