"""The embedded whole-body detector: MediaPipe's networks, chained so that they see several people."""

from __future__ import annotations

import numpy as np

from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.conventions import MEDIAPIPE_HOLISTIC
from fitkit.keypoints.detectors.faces import face_confidence
from fitkit.keypoints.detectors.hands import WRISTS, Hand, drop_doubles, look_at_hand
from fitkit.keypoints.detectors.masks import paint_mask
from fitkit.keypoints.detectors.networks import load_networks
from fitkit.keypoints.detectors.people import PeopleFinder
from fitkit.keypoints.detectors.person import Person
from fitkit.keypoints.detectors.pose import BODY
from fitkit.keypoints.detectors.regions import Picture
from fitkit.keypoints.detectors.scoring import facing
from fitkit.keypoints.detectors.tflite import Network

HAND = 21
"""Points of a hand."""


class MediaPipeDetector:
    """Finds the people in a picture: body, hands, face, mask."""

    def __init__(self, num_threads: int = 2, masks: bool = True) -> None:
        """Build the networks, fetching their files where they are missing.

        Args:
            num_threads: threads of each network.
            masks: also say which pixels belong to each person.
        """
        contents = load_networks()
        self._masks = masks
        low = {"pose_detection": -1.0, "face_detection": -1.0}
        self._networks = {name: Network(content, num_threads, low.get(name, 0.0)) for name, content in contents.items()}
        self._finder = PeopleFinder(self._networks)

    def detect(self, pixels: np.ndarray, boxes: np.ndarray | None = None) -> Keypoints:
        """Return the people in a picture, best first, in the convention MEDIAPIPE_HOLISTIC.

        Args:
            pixels: (H, W, 3) uint8 RGB, upright.
            boxes: (P, 4) x0, y0, x1, y1 in pixels of people found by another detector, instead of looking for them;
                boxes in which nobody is seen are left out.
        """
        picture = Picture(pixels)
        if boxes is None:
            return self._assemble(picture, self._finder.find(picture))
        looks = [self._finder.look_in(picture, box) for box in np.asarray(boxes, dtype=float).reshape(-1, 4)]
        return self._assemble(picture, [person for person in looks if person is not None])

    def _assemble(self, picture: Picture, people: list[Person]) -> Keypoints:
        """Return the people with their hands and faces as keypoints."""
        sides = [(person, side) for person in people for side in ("left", "right")]
        hands = drop_doubles(
            [look_at_hand(self._networks, picture, one.points, one.confidence, side) for one, side in sides]
        )
        size = np.array([picture.width, picture.height])
        parts = [_gather(person, hands[2 * i], hands[2 * i + 1]) for i, person in enumerate(people)]
        points = np.array([part[0] for part in parts]).reshape(-1, len(MEDIAPIPE_HOLISTIC), 2)
        confidence = np.array([part[1] for part in parts]).reshape(points.shape[:2])
        confidence = np.where(((points >= 0.0) & (points <= size)).all(-1), confidence, 0.0)
        return Keypoints(
            names=MEDIAPIPE_HOLISTIC,
            points=points,
            confidence=confidence,
            image_size=(picture.width, picture.height),
            scores=np.array([person.score for person in people]),
            boxes=np.array([_box(person, size) for person in people]).reshape(-1, 4),
            world=np.array([part[2] for part in parts]).reshape(*points.shape[:2], 3),
            masks=_masks(picture, people) if self._masks else None,
        )


def _gather(person: Person, left: Hand | None, right: Hand | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return points (543, 2), confidence (543,) and world (543, 3) of one person.

    A hand's world points hang on the body's wrist; those of the face are unknown (NaN).
    """
    points = np.zeros((len(MEDIAPIPE_HOLISTIC), 2))
    confidence = np.zeros(len(points))
    world = np.full((len(points), 3), np.nan)
    points[:BODY], confidence[:BODY], world[:BODY] = person.points, person.confidence, person.world
    for start, side, hand in ((BODY, "left", left), (BODY + HAND, "right", right)):
        if hand is not None:
            part = slice(start, start + HAND)
            points[part], confidence[part] = hand.points, hand.confidence
            world[part] = hand.world + person.world[WRISTS[side][0]]
    if person.face is not None:
        points[BODY + 2 * HAND :] = person.face.points
        confidence[BODY + 2 * HAND :] = face_confidence(person.face, facing(person.world))
    return points, confidence, world


def _masks(picture: Picture, people: list[Person]) -> np.ndarray:
    """Return (P, H, W) bool: the pixels of each person."""
    masks = np.zeros((len(people), picture.height, picture.width), dtype=bool)
    for mask, person in zip(masks, people, strict=True):
        paint_mask(mask, person.mask, person.region)
    return masks


def _box(person: Person, size: np.ndarray) -> np.ndarray:
    """Return x0, y0, x1, y1 about what is seen of a person, with the flesh about the points, within the picture."""
    likely = person.confidence >= min(0.3, float(person.confidence.max()))
    seen = person.points[likely]
    margin = 0.03 * person.region.side
    return np.concatenate([np.clip(seen.min(0) - margin, 0.0, size), np.clip(seen.max(0) + margin, 0.0, size)])
