"""The body of one person in a region of interest, by MediaPipe's BlazePose landmark network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fitkit.keypoints.detectors.regions import Picture, Region
from fitkit.keypoints.detectors.scoring import sigmoid
from fitkit.keypoints.detectors.tflite import Network

BODY = 33
"""Points of the body; the network gives six auxiliary ones besides."""
Veil = Callable[[np.ndarray, Region], np.ndarray]
"""Changes the pixels (S, S, 3) of a region before they are looked at."""
HEATMAP_KERNEL = 7
"""Cells of the heatmap, in each direction, that refine a point."""
HEATMAP_LEAST = 0.5
"""A point whose heatmap stays below this is not refined."""
REGION_SCALE = 1.25
"""Margin of a region about the circle that holds the person."""
SWAP = np.array(
    [0, 4, 5, 6, 1, 2, 3, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15, 18, 17, 20, 19, 22, 21, 24, 23, 26, 25, 28, 27, 30, 29]
    + [32, 31]
)
"""(33,) for each point of the body, its counterpart on the other side."""


@dataclass(frozen=True)
class Pose:
    """What one run of the network says."""

    points: np.ndarray
    """(33, 2) pixels of the picture."""
    visibility: np.ndarray
    """(33,) probability that the point is seen, not hidden by another thing."""
    presence: np.ndarray
    """(33,) probability that the point lies inside the region."""
    peak: np.ndarray
    """(33,) highest value of the point's heatmap near the point."""
    world: np.ndarray
    """(33, 3) metres relative to the middle of the hips, camera axes."""
    flag: float
    """Probability that the region holds a person."""
    region: Region
    """Where it was looked for."""
    next_region: Region
    """Where the network itself would look next."""
    mask: np.ndarray
    """(256, 256) float32 logits of the person's pixels in the region."""


def read_pose(network: Network, picture: Picture, region: Region, veil: Veil | None = None) -> Pose:
    """Return the body that a network sees in a region.

    Args:
        network: `pose_landmark_full`.
        picture: the picture.
        region: where; may be mirrored.
        veil: hides what is not to be seen.
    """
    crop = picture.cut(region, network.side)
    raw, flag, mask, heatmap, world = network(crop if veil is None else veil(crop, region))
    raw = raw.reshape(-1, 5)
    unit = raw[:, :2] / network.side
    unit, peak = refine(unit, sigmoid(heatmap))
    order = SWAP if region.mirrored else np.arange(BODY)
    aux = region.to_picture(unit[BODY : BODY + 2])
    radius = float(np.hypot(*(aux[1] - aux[0])))
    return Pose(
        points=region.to_picture(unit[:BODY])[order],
        visibility=sigmoid(raw[:BODY, 3])[order],
        presence=sigmoid(raw[:BODY, 4])[order],
        peak=peak[:BODY][order],
        world=region.turn(world.reshape(-1, 3)[:BODY].astype(np.float64))[order],
        flag=float(flag[0]),
        region=region,
        next_region=Region.along(aux[0], aux[1], 2.0 * radius * REGION_SCALE),
        mask=mask[..., 0],
    )


def refine(unit: np.ndarray, heatmap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return points moved to the centre of mass of their heatmaps, and the heatmaps' maxima near them.

    Args:
        unit: (K, 2) points in [0, 1].
        heatmap: (h, w, K) in [0, 1].

    Returns:
        points (K, 2) in [0, 1] and maxima (K,); points whose maximum stays below HEATMAP_LEAST do not move.
    """
    height, width, count = heatmap.shape
    half = HEATMAP_KERNEL // 2
    offsets = np.arange(-half, half + 1)
    columns = (unit[:, 0] * width).astype(int)[:, None] + offsets
    rows = (unit[:, 1] * height).astype(int)[:, None] + offsets
    inside = ((columns >= 0) & (columns < width))[:, None, :] & ((rows >= 0) & (rows < height))[:, :, None]
    values = heatmap[
        np.clip(rows, 0, height - 1)[:, :, None],
        np.clip(columns, 0, width - 1)[:, None, :],
        np.arange(count)[:, None, None],
    ]
    values = np.where(inside, values, 0.0)
    peak = values.max((1, 2))
    total = np.maximum(values.sum((1, 2)), 1e-9)
    x = (values * columns[:, None, :]).sum((1, 2)) / total / width
    y = (values * rows[:, :, None]).sum((1, 2)) / total / height
    moved = np.stack([x, y], axis=-1)
    return np.where((peak >= HEATMAP_LEAST)[:, None], moved, unit), peak
