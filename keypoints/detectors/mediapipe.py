"""The embedded whole-body detector: MediaPipe's networks, chained so that they see several people."""

from __future__ import annotations

from functools import cached_property

import cv2
import numpy as np

from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.conventions import BLAZEPOSE_33, MEDIAPIPE_HOLISTIC
from fitkit.keypoints.detectors.anchors import anchor_grid, decode, merge_overlapping
from fitkit.keypoints.detectors.faces import Face, read_face, region_from_body, region_of_face
from fitkit.keypoints.detectors.hands import Hand, hand_search_region, read_hand, recrop, region_of_hand
from fitkit.keypoints.detectors.networks import load_networks
from fitkit.keypoints.detectors.pose import REGION_SCALE, Pose, read_pose
from fitkit.keypoints.detectors.regions import Picture, Region
from fitkit.keypoints.detectors.scoring import sigmas, suppress
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
        self._spread = sigmas(BLAZEPOSE_33)

    @cached_property
    def _anchors(self) -> np.ndarray:
        return anchor_grid(224, (8, 16, 32), (2, 2, 6))

    def detect(self, pixels: np.ndarray, boxes: np.ndarray | None = None) -> Keypoints:
        """Return the people in a picture, best first, in the convention MEDIAPIPE_HOLISTIC.

        Args:
            pixels: (H, W, 3) uint8 RGB, upright.
            boxes: (P, 4) x0, y0, x1, y1 in pixels of people found by another detector, instead of looking for them.
        """
        picture = Picture(pixels)
        regions = self._search(picture) if boxes is None else [_region_of_box(box) for box in np.asarray(boxes, float)]
        poses = []
        for region in regions:
            pose = read_pose(self._networks["pose_landmark"], picture, region)
            poses.append(read_pose(self._networks["pose_landmark"], picture, pose.next_region))
        poses = [pose for pose in poses if pose.flag > 0.5]
        if poses:
            keep = suppress(
                np.stack([p.points for p in poses]),
                np.stack([p.visibility for p in poses]),
                np.array([p.region.side / 3.0 for p in poses]),
                np.array([p.flag * p.visibility.mean() for p in poses]),
                self._spread,
                0.4,
            )
            poses = [poses[i] for i in keep]
        return self._assemble(picture, poses)

    def _search(self, picture: Picture) -> list[Region]:
        regions = []
        network = self._networks["pose_detection"]
        for tile in _tiles(picture):
            raw, logits = network(picture.cut(tile, network.side))
            found = merge_overlapping(decode(raw, logits, self._anchors, network.side, 0.5))
            for points in found.points:
                hips, top = tile.to_picture(points[:2])
                regions.append(Region.along(hips, top, 2.0 * float(np.hypot(*(top - hips))) * REGION_SCALE))
        return regions

    def _assemble(self, picture: Picture, poses: list[Pose]) -> Keypoints:
        count, names = len(poses), MEDIAPIPE_HOLISTIC
        points = np.zeros((count, len(names), 2))
        confidence = np.zeros((count, len(names)))
        world = np.full((count, len(names), 3), np.nan)
        masks = np.zeros((count, picture.height, picture.width), bool) if self._masks else None
        size = np.array([picture.width, picture.height])
        for i, pose in enumerate(poses):
            inside = ((pose.points >= 0) & (pose.points <= size)).all(-1)
            points[i, :33], world[i, :33] = pose.points, pose.world
            confidence[i, :33] = np.where(inside, np.minimum(pose.visibility, pose.presence), 0.0)
            for start, side in ((33, "left"), (54, "right")):
                hand = self._hand(picture, pose, side)
                points[i, start : start + 21] = hand.points
                world[i, start : start + 21] = hand.world + pose.world[WRISTS[side][0]]
                sure = hand.flag * confidence[i, WRISTS[side][0]] if hand.flag > 0.5 else 0.0
                confidence[i, start : start + 21] = sure
            face = self._face(picture, pose)
            points[i, 75:] = face.points
            confidence[i, 75:] = face.flag if face.flag > 0.5 else 0.0
            if masks is not None:
                _paint(masks[i], pose)
        inside = ((points >= 0) & (points <= size)).all(-1)
        confidence = np.where(inside, 0.99 * confidence, 0.0)
        return Keypoints(
            names=names,
            points=points,
            confidence=confidence,
            image_size=(picture.width, picture.height),
            scores=np.array([pose.flag * pose.visibility.mean() for pose in poses]),
            boxes=np.array([_box(points[i], confidence[i], size) for i in range(count)]).reshape(count, 4),
            world=world,
            masks=masks,
        )

    def _hand(self, picture: Picture, pose: Pose, side: str) -> Hand:
        wrist, index, pinky = pose.points[list(WRISTS[side])]
        region = recrop(self._networks["hand_recrop"], picture, hand_search_region(wrist, index, pinky))
        first = read_hand(self._networks["hand_landmark"], picture, region)
        return read_hand(self._networks["hand_landmark"], picture, region_of_hand(first.points))

    def _face(self, picture: Picture, pose: Pose) -> Face:
        first = read_face(self._networks["face_landmark"], picture, region_from_body(pose.points))
        return read_face(self._networks["face_landmark"], picture, region_of_face(first.points))


def _tiles(picture: Picture) -> list[Region]:
    """Return the squares in which people are looked for."""
    tiles = [picture.whole]
    side = picture.whole.side * 0.5
    for y in _starts(picture.height, side):
        for x in _starts(picture.width, side):
            tiles.append(Region((x + side / 2.0, y + side / 2.0), side))
    return tiles


def _starts(length: float, side: float) -> np.ndarray:
    if length <= side:
        return np.array([(length - side) / 2.0])
    return np.linspace(0.0, length - side, int(np.ceil((length - side) / (side / 2.0))) + 1)


def _region_of_box(box: np.ndarray) -> Region:
    side = float(max(box[2] - box[0], box[3] - box[1]))
    return Region((float(box[0] + box[2]) / 2.0, float(box[1] + box[3]) / 2.0), side * REGION_SCALE)


def _box(points: np.ndarray, confidence: np.ndarray, size: np.ndarray) -> np.ndarray:
    seen = points[confidence > 0.3] if (confidence > 0.3).any() else points
    return np.concatenate([np.clip(seen.min(0), 0, size), np.clip(seen.max(0), 0, size)])


def _paint(mask: np.ndarray, pose: Pose) -> None:
    """Set a person's pixels in a mask (H, W) of the picture."""
    height, width = mask.shape
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    found = pose.region.to_picture(corners)
    low = np.clip(np.floor(found.min(0)).astype(int), 0, [width, height])
    high = np.clip(np.ceil(found.max(0)).astype(int), 0, [width, height])
    if (high <= low).any():
        return
    side = pose.mask.shape[0]
    matrix = cv2.getAffineTransform(
        (corners[:3] * side - 0.5).astype(np.float32), (found[:3] - low - 0.5).astype(np.float32)
    )
    logits = np.clip(pose.mask, -8.0, 8.0)
    shape = (int(high[0] - low[0]), int(high[1] - low[1]))
    warped = cv2.warpAffine(logits, matrix, shape, flags=cv2.INTER_LINEAR, borderValue=-8.0)
    mask[low[1] : high[1], low[0] : high[0]] = warped > 0.0
