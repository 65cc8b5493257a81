"""Single-shot detectors: their anchor points, and what their raw outputs mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Detections:
    """D candidates of one network run."""

    scores: np.ndarray
    """(D,) in [0, 1]."""
    boxes: np.ndarray
    """(D, 4) x0, y0, x1, y1."""
    points: np.ndarray
    """(D, P, 2) the key points that the network gives with each box."""


def anchor_grid(side: int, strides: tuple[int, ...], per_cell: tuple[int, ...]) -> np.ndarray:
    """Return the anchor points (A, 2) of a detector with anchors of one fixed size, in units of the input's side.

    Args:
        side: input width and height in pixels.
        strides: pixels between neighbouring cells of each output map.
        per_cell: anchors in each cell of each output map; they share its centre.
    """
    maps = []
    for stride, count in zip(strides, per_cell, strict=True):
        cells = -(-side // stride)
        centres = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 1, 2)
        maps.append(np.broadcast_to(grid, (cells * cells, count, 2)).reshape(-1, 2))
    return np.concatenate(maps).astype(np.float32)


def decode(raw: np.ndarray, logits: np.ndarray, anchors: np.ndarray, side: int, threshold: float) -> Detections:
    """Return the candidates above a threshold, in units of the input's side, best first.

    Offsets are pixels of the input relative to the anchor: box centre, box size, then the key points (x, y).

    Args:
        raw: (A, 4 + 2 P) regressed offsets.
        logits: (A, 1) scores before the sigmoid.
        anchors: (A, 2) from `anchor_grid`.
        side: input width and height in pixels.
        threshold: least score.
    """
    scores = 1.0 / (1.0 + np.exp(-np.clip(logits[:, 0], -80.0, 80.0)))
    keep = np.flatnonzero(scores >= threshold)
    keep = keep[np.argsort(-scores[keep], kind="stable")]
    at = anchors[keep]
    centre = raw[keep, 0:2] / side + at
    half = raw[keep, 2:4] / side / 2.0
    points = raw[keep, 4:].reshape(len(keep), (raw.shape[1] - 4) // 2, 2) / side + at[:, None]
    return Detections(scores[keep], np.concatenate([centre - half, centre + half], axis=-1), points)


def box_overlap(boxes: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the intersection over union (A, B) of boxes (A, 4) with others (B, 4), corners x0, y0, x1, y1."""
    low = np.maximum(boxes[:, None, :2], other[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], other[None, :, 2:])
    shared = np.clip(high - low, 0.0, None).prod(-1)
    area = np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None).prod(-1)
    area_other = np.clip(other[:, 2:] - other[:, :2], 0.0, None).prod(-1)
    return shared / np.maximum(area[:, None] + area_other[None] - shared, 1e-12)


def merge_overlapping(found: Detections, overlap: float = 0.3) -> Detections:
    """Return one candidate for each group of overlapping boxes: the score-weighted mean of the group.

    The blending non-maximum suppression of Bazarevsky et al., "BlazeFace" (2019), section 3.4.

    Args:
        found: candidates, best first.
        overlap: intersection over union from which two boxes are one thing.
    """
    left = np.arange(len(found.scores))
    kept: list[tuple[float, np.ndarray, np.ndarray]] = []
    while len(left):
        near = box_overlap(found.boxes[left[:1]], found.boxes[left])[0] >= overlap
        near[0] = True
        group = left[near]
        weight = found.scores[group] / found.scores[group].sum()
        kept.append(
            (
                float(found.scores[left[0]]),
                np.tensordot(weight, found.boxes[group], 1),
                np.tensordot(weight, found.points[group], 1),
            )
        )
        left = left[~near]
    if not kept:
        return found
    scores, boxes, points = zip(*kept, strict=True)
    return Detections(np.array(scores), np.stack(boxes), np.stack(points))
