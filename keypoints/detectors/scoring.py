"""How alike two skeletons are, and which of many stand for the same person."""

from __future__ import annotations

import numpy as np

COCO_SIGMAS = {
    "nose": 0.026,
    "eye": 0.025,
    "ear": 0.035,
    "mouth": 0.03,
    "shoulder": 0.079,
    "elbow": 0.072,
    "wrist": 0.062,
    "pinky": 0.07,
    "index": 0.07,
    "thumb": 0.07,
    "hip": 0.107,
    "knee": 0.087,
    "ankle": 0.089,
    "heel": 0.089,
    "foot": 0.089,
}
"""Spread of human annotators relative to the person's size (COCO keypoint evaluation), extended to like points."""


def sigmas(names: tuple[str, ...]) -> np.ndarray:
    """Return the spread (K,) of each named body point."""
    return np.array([next(value for part, value in COCO_SIGMAS.items() if part in name) for name in names])


def similarity(
    points: np.ndarray, others: np.ndarray, weights: np.ndarray, size: float, spread: np.ndarray
) -> np.ndarray:
    """Return the object keypoint similarity (M,) of one skeleton with others, in [0, 1].

    COCO's formula: the weighted mean over points of exp(-d^2 / (2 (2 sigma)^2 s^2)).

    Args:
        points: (K, 2) pixels.
        others: (M, K, 2) pixels.
        weights: (M, K) how much each point counts.
        size: s, pixels; the square root of the person's area.
        spread: (K,) sigma.
    """
    squared = ((others - points) ** 2).sum(-1)
    alike = np.exp(-squared / (2.0 * (2.0 * spread) ** 2 * max(size, 1e-6) ** 2))
    total = weights.sum(-1)
    return np.where(total > 1e-6, (alike * weights).sum(-1) / np.maximum(total, 1e-6), 0.0)


def suppress(
    points: np.ndarray, visibility: np.ndarray, sizes: np.ndarray, scores: np.ndarray, spread: np.ndarray, alike: float
) -> list[int]:
    """Return the indices of skeletons that are left when of those alike only the best stays, best first.

    Args:
        points: (M, K, 2) pixels.
        visibility: (M, K) in [0, 1].
        sizes: (M,) pixels.
        scores: (M,) best highest.
        spread: (K,) from `sigmas`.
        alike: similarity from which two skeletons are one person.
    """
    left = list(np.argsort(-scores, kind="stable"))
    kept: list[int] = []
    while left:
        best = left.pop(0)
        kept.append(int(best))
        if left:
            weights = np.minimum(visibility[best], visibility[left])
            close = similarity(points[best], points[left], weights, sizes[best], spread)
            left = [index for index, value in zip(left, close, strict=True) if value < alike]
    return kept
