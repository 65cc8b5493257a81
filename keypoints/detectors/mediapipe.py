"""The embedded whole-body detector: MediaPipe's networks, chained so that they see several people."""

from __future__ import annotations

import numpy as np

from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.conventions import MEDIAPIPE_HOLISTIC
from fitkit.keypoints.detectors.hands import Hand, hand_search_region, read_hand, recrop, region_of_hand
from fitkit.keypoints.detectors.masks import paint_mask
from fitkit.keypoints.detectors.networks import load_networks
from fitkit.keypoints.detectors.people import PeopleFinder
from fitkit.keypoints.detectors.person import Person
from fitkit.keypoints.detectors.pose import REGION_SCALE
from fitkit.keypoints.detectors.regions import Picture, Region
from fitkit.keypoints.detectors.tflite import Network

WRISTS = {"left": (15, 19, 17), "right": (16, 20, 18)}
"""Wrist, index and pinky of each side in the body's 33 points."""


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
            boxes: (P, 4) x0, y0, x1, y1 in pixels of people found by another detector, instead of looking for them.
        """
        picture = Picture(pixels)
        if boxes is None:
            return self._assemble(picture, self._finder.find(picture))
        regions = [_region_of_box(box) for box in np.asarray(boxes, dtype=float).reshape(-1, 4)]
        looks = [self._finder.look_in(picture, region) for region in regions]
        return self._assemble(picture, [person for person in looks if person is not None])

    def _assemble(self, picture: Picture, poses: list[Person]) -> Keypoints:
        count, names = len(poses), MEDIAPIPE_HOLISTIC
        points = np.zeros((count, len(names), 2))
        confidence = np.zeros((count, len(names)))
        world = np.full((count, len(names), 3), np.nan)
        masks = np.zeros((count, picture.height, picture.width), bool) if self._masks else None
        size = np.array([picture.width, picture.height])
        for i, pose in enumerate(poses):
            points[i, :33], world[i, :33] = pose.points, pose.world
            confidence[i, :33] = pose.confidence
            for start, side in ((33, "left"), (54, "right")):
                hand = self._hand(picture, pose, side)
                points[i, start : start + 21] = hand.points
                world[i, start : start + 21] = hand.world + pose.world[WRISTS[side][0]]
                sure = hand.flag * confidence[i, WRISTS[side][0]] if hand.flag > 0.5 else 0.0
                confidence[i, start : start + 21] = sure
            face = pose.face
            assert face is not None
            points[i, 75:] = face.points
            confidence[i, 75:] = face.flag if face.flag > 0.5 else 0.0
            if masks is not None:
                paint_mask(masks[i], pose.mask, pose.region)
        inside = ((points >= 0) & (points <= size)).all(-1)
        confidence = np.where(inside, 0.99 * confidence, 0.0)
        return Keypoints(
            names=names,
            points=points,
            confidence=confidence,
            image_size=(picture.width, picture.height),
            scores=np.array([pose.score for pose in poses]),
            boxes=np.array([_box(points[i], confidence[i], size) for i in range(count)]).reshape(count, 4),
            world=world,
            masks=masks,
        )

    def _hand(self, picture: Picture, pose: Person, side: str) -> Hand:
        wrist, index, pinky = pose.points[list(WRISTS[side])]
        region = recrop(self._networks["hand_recrop"], picture, hand_search_region(wrist, index, pinky))
        first = read_hand(self._networks["hand_landmark"], picture, region)
        return read_hand(self._networks["hand_landmark"], picture, region_of_hand(first.points))


def _region_of_box(box: np.ndarray) -> Region:
    side = float(max(box[2] - box[0], box[3] - box[1]))
    return Region((float(box[0] + box[2]) / 2.0, float(box[1] + box[3]) / 2.0), side * REGION_SCALE)


def _box(points: np.ndarray, confidence: np.ndarray, size: np.ndarray) -> np.ndarray:
    seen = points[confidence > 0.3] if (confidence > 0.3).any() else points
    return np.concatenate([np.clip(seen.min(0), 0, size), np.clip(seen.max(0), 0, size)])
