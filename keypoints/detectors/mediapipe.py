"""The embedded whole-body detector: MediaPipe's networks, chained so that they see several people."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np

from fitkit.errors import InputError
from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.conventions import MEDIAPIPE_HOLISTIC
from fitkit.keypoints.detectors.faces import face_confidence
from fitkit.keypoints.detectors.hands import WRISTS, Hand, drop_doubles, look_at_hand
from fitkit.keypoints.detectors.masks import OUTSIDE, carry_mask, paint_mask
from fitkit.keypoints.detectors.networks import load_networks
from fitkit.keypoints.detectors.people import PeopleFinder
from fitkit.keypoints.detectors.person import Person
from fitkit.keypoints.detectors.pose import BODY
from fitkit.keypoints.detectors.regions import Picture
from fitkit.keypoints.detectors.scoring import facing
from fitkit.keypoints.detectors.tflite import Network

HAND = 21
"""Points of a hand."""
MOST_THREADS = 4
"""More threads than this do not make such small networks faster."""


class MediaPipeDetector:
    """Finds the people in a picture: body, hands, face, mask."""

    def __init__(
        self, num_threads: int | None = None, masks: bool = True, report: Callable[[str], None] | None = None
    ) -> None:
        """Build the networks, fetching their files where they are missing.

        Args:
            num_threads: threads of each network; None for one per processor, four at most.
            masks: also say which pixels belong to each person.
            report: is given one line for the user when files are fetched; standard error by default.

        Raises:
            ModelNotFoundError: a network's file is not installed and cannot be fetched.
        """
        threads = num_threads or min(MOST_THREADS, _processors())
        black = {"pose_detection": -1.0, "face_detection": -1.0}
        contents = load_networks(report=report)
        self._networks = {name: Network(content, threads, black.get(name, 0.0)) for name, content in contents.items()}
        self._finder = PeopleFinder(self._networks)
        self._masks = masks

    def detect(self, pixels: np.ndarray, boxes: np.ndarray | None = None) -> Keypoints:
        """Return the people in a picture, best first, in the convention MEDIAPIPE_HOLISTIC.

        Args:
            pixels: (H, W, 3) uint8 RGB, upright.
            boxes: (P, 4) x0, y0, x1, y1 in pixels of people found by another detector, instead of looking for them;
                boxes in which nobody is seen are left out.

        Raises:
            InputError: the pixels or the boxes are of another shape or type.
        """
        _check(pixels, boxes)
        picture = Picture(pixels)
        if boxes is None:
            return self._assemble(picture, self._finder.find(picture))
        looks = [self._finder.look_in(picture, box) for box in np.asarray(boxes, dtype=float)]
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


def _check(pixels: np.ndarray, boxes: np.ndarray | None) -> None:
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        got = f"{pixels.dtype} {pixels.shape}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise InputError(f"A picture is a uint8 array (height, width, 3), RGB; got {got}.")
    if min(pixels.shape[:2]) < 2:
        raise InputError(f"A picture of {pixels.shape[1]} x {pixels.shape[0]} pixels is too small to show a person.")
    if boxes is not None and (np.ndim(boxes) != 2 or np.shape(boxes)[1] != 4 or not np.isfinite(boxes).all()):
        raise InputError(f"Boxes are finite numbers (people, 4): x0, y0, x1, y1; got an array {np.shape(boxes)}.")


def _processors() -> int:
    """Return the number of processors that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


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
    """Return (P, H, W) bool: the pixels of each person, none of them two people's."""
    masks = np.zeros((len(people), picture.height, picture.width), dtype=bool)
    for i, (mask, person) in enumerate(zip(masks, people, strict=True)):
        logits = person.mask
        for j, other in enumerate(people):
            if i != j:
                theirs = carry_mask(other.mask, other.region, person.region, len(logits))
                logits = np.where((theirs > logits) | ((theirs == logits) & (j < i)), OUTSIDE, logits)
        paint_mask(mask, logits, person.region)
    return masks


def _box(person: Person, size: np.ndarray) -> np.ndarray:
    """Return x0, y0, x1, y1 about what is seen of a person, with the flesh about the points, within the picture."""
    likely = person.confidence >= min(0.3, float(person.confidence.max()))
    seen = person.points[likely]
    margin = 0.03 * person.region.side
    return np.concatenate([np.clip(seen.min(0) - margin, 0.0, size), np.clip(seen.max(0) + margin, 0.0, size)])
