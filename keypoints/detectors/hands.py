"""One hand of one person: where the body says it is, looked at more closely, then its 21 points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fitkit.keypoints.detectors.regions import Picture, Region
from fitkit.keypoints.detectors.tflite import Network

SEARCH_SCALE = 2.7
"""Side of the region that is searched for the hand, over twice the distance from wrist to knuckles."""
SECOND_TRY = 0.65
"""Side of the region that is looked at when the network finds no better one, over the side of the searched one."""
SEARCH_SHIFT = 0.1
"""Shift of that region towards the finger tips, in sides."""
CROP_SHIFT = 0.1
"""Shift of the hand's own region towards the finger tips, in sides."""
WRISTS = {"left": (15, 19, 17), "right": (16, 20, 18)}
"""Wrist, index and pinky of each side in the body's 33 points."""
LEAST_WRIST = 0.15
"""Confidence of the body's wrist below which its hand is not looked for."""
LEAST_SIDE = 16.0
"""Pixels; hands are not looked for in smaller regions."""
LEAST_FLAG = 0.5
"""A hand with a lower flag is none."""
LEAST_AGREEMENT = 0.2
"""A hand that is of this side with a lower probability is the other one, or another person's."""
FARTHEST_WRIST = 1.3
"""Palm lengths between the hand's wrist and the body's, beyond which the hand is another one's."""
APART = 0.35
"""Palm lengths between two looks at a point at which its confidence has fallen to 1/e."""


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
    confidence: np.ndarray
    """(21,) probability that the point lies where it should; all 0 where there is no such hand."""

    @property
    def size(self) -> float:
        """Return the length of the palm in pixels."""
        return palm_length(self.points)


def palm_length(points: np.ndarray) -> float:
    """Return the distance from the wrist to the middle finger's knuckle, of a hand's points (21, 2)."""
    return float(np.hypot(*(points[9] - points[0])))


def look_at_hand(
    networks: Mapping[str, Network], picture: Picture, body: np.ndarray, confidence: np.ndarray, side: str
) -> Hand | None:
    """Return a person's hand, looked at several times, the last time in a mirror.

    Args:
        networks: by name.
        picture: the picture.
        body: (33, 2) pixels, the person's body.
        confidence: (33,) of the body's points.
        side: "left" or "right".

    Returns:
        the hand, or None where the body network does not see the wrist.
    """
    wrist, index, pinky = (body[i] for i in WRISTS[side])
    if confidence[WRISTS[side][0]] < LEAST_WRIST:
        return None
    search = hand_search_region(wrist, index, pinky)
    if search.side < LEAST_SIDE:
        return None
    network = networks["hand_landmark"]
    for region in (recrop(networks["hand_recrop"], picture, search), search.scaled(SECOND_TRY)):
        first = read_hand(network, picture, region)
        second = read_hand(network, picture, region_of_hand(first.points))
        if second.flag >= LEAST_FLAG:
            return fuse_hands(second, read_hand(network, picture, second.region.mirror()), wrist, side)
    return None


def fuse_hands(look: Hand, mirrored: Hand, wrist: np.ndarray, side: str) -> Hand | None:
    """Return the hand of whom two looks at the same region tell; None where it is not this one.

    Args:
        look: one look.
        mirrored: the other.
        wrist: (2,) pixels, where the body network sees the wrist.
        side: "left" or "right".
    """
    flag = min(look.flag, mirrored.flag)
    handedness = (look.handedness + mirrored.handedness) / 2.0
    agrees = handedness if side == "right" else 1.0 - handedness
    points = (look.points + mirrored.points) / 2.0
    size = max(palm_length(points), 1e-6)
    away = float(np.hypot(*(points[0] - wrist))) / size
    if flag < LEAST_FLAG or agrees < LEAST_AGREEMENT or away > FARTHEST_WRIST:
        return None
    apart = np.hypot(*(look.points - mirrored.points).T) / size
    confidence = flag * min(1.0, 0.4 + agrees) * np.exp(-((apart / APART) ** 2))
    return Hand(points, (look.world + mirrored.world) / 2.0, flag, handedness, look.region, confidence)


def drop_doubles(hands: Sequence[Hand | None]) -> list[Hand | None]:
    """Return the hands with all but the surest of those at one place left out (None)."""
    found = [(float(hand.confidence.mean()), i, hand) for i, hand in enumerate(hands) if hand is not None]
    kept: dict[int, Hand] = {}
    for _, i, hand in sorted(found, key=lambda item: -item[0]):
        if not any(_same_hand(hand, other) for other in kept.values()):
            kept[i] = hand
    return [kept.get(i) for i in range(len(hands))]


def _same_hand(hand: Hand, other: Hand) -> bool:
    apart = np.hypot(*(hand.points - other.points).T).mean()
    return bool(apart < 0.5 * min(hand.size, other.size))


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
    points = region.to_picture(unit)
    return Hand(
        points=points,
        world=metres - metres[:1],
        flag=float(flag[0]),
        handedness=1.0 - right if region.mirrored else right,
        region=region,
        confidence=np.full(len(points), float(flag[0])),
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
