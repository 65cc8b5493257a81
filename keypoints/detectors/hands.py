"""One hand of one person: where the body says it is, looked at more closely, then its 21 points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fitkit.keypoints.detectors.regions import Picture, Region
from fitkit.keypoints.detectors.tflite import Network

SEARCH_SCALE = 2.7
"""Side of the region that is searched for the hand, over twice the distance from wrist to knuckles."""
SEARCH_SHIFT = 0.1
"""Shift of that region towards the finger tips, in sides."""
CROP_SHIFT = 0.1
"""Shift of the hand's own region towards the finger tips, in sides."""


@dataclass(frozen=True)
class Hand:
    """What the hand network says."""

    points: np.ndarray
    """(21, 2) pixels of the picture; 0 is the wrist."""
    world: np.ndarray
    """(21, 3) metres relative to the wrist, camera axes."""
    flag: float
    """Probability that the region holds a hand."""
    handedness: float
    """Probability that it is the subject's right hand."""
    region: Region
    """Where it was looked for."""


def hand_search_region(wrist: np.ndarray, index: np.ndarray, pinky: np.ndarray) -> Region:
    """Return the region that the body's wrist and knuckles suggest, each (2,) in pixels."""
    knuckles = (2.0 * index + pinky) / 3.0
    side = 2.0 * float(np.hypot(*(knuckles - wrist))) * SEARCH_SCALE
    return shifted(Region.along(wrist, knuckles, side, centre=knuckles), SEARCH_SHIFT)


def shifted(region: Region, amount: float) -> Region:
    """Return a region moved along its upward axis by an amount given in sides."""
    centre = np.asarray(region.centre) - region.axes[:, 1] * amount * region.side
    return Region((float(centre[0]), float(centre[1])), region.side, region.rotation, region.mirrored)


def recrop(network: Network, picture: Picture, region: Region) -> Region:
    """Return the hand's own region within a searched one, by `hand_recrop`."""
    (out,) = network(picture.cut(region, network.side))
    centre, top = region.to_picture(out.reshape(2, 2) / network.side)
    side = 2.0 * float(np.hypot(*(top - centre)))
    # This network's direction points to the right of the hand's region when the fingers point up.
    found = Region.along(centre, top, side)
    return shifted(Region(found.centre, side, found.rotation - np.pi), CROP_SHIFT)


def read_hand(network: Network, picture: Picture, region: Region) -> Hand:
    """Return the hand that `hand_landmark_full` sees in a region (which may be mirrored)."""
    raw, flag, handedness, world = network(picture.cut(region, network.side))
    unit = raw.reshape(-1, 3)[:, :2] / network.side
    metres = region.turn(world.reshape(-1, 3).astype(np.float64))
    right = float(handedness[0])
    return Hand(
        points=region.to_picture(unit),
        world=metres - metres[:1],
        flag=float(flag[0]),
        handedness=1.0 - right if region.mirrored else right,
        region=region,
    )


def region_of_hand(points: np.ndarray) -> Region:
    """Return the region to look at again, from a hand's points (21, 2)."""
    wrist, index, middle, ring = points[[0, 5, 9, 13]]
    knuckles = ((index + ring) / 2.0 + middle) / 2.0
    frame = Region.along(wrist, knuckles, 1.0)
    palm = points[[0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18]]
    along = (palm - wrist) @ frame.axes
    low, high = along.min(0), along.max(0)
    centre = wrist + frame.axes @ ((low + high) / 2.0)
    side = 2.0 * float((high - low).max())
    return shifted(Region((float(centre[0]), float(centre[1])), side, frame.rotation), CROP_SHIFT)
