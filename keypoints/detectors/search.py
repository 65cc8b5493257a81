"""Where people may be: proposals of MediaPipe's pose and face detectors at several scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fitkit.keypoints.detectors.anchors import Detections, anchor_grid, decode, merge_overlapping
from fitkit.keypoints.detectors.pose import REGION_SCALE, Veil
from fitkit.keypoints.detectors.regions import Picture, Region
from fitkit.keypoints.detectors.tflite import Network

POSE_LAYOUT = ((8, 16, 32), (2, 2, 6))
"""Strides of `pose_detection` and anchors per cell at each (three maps of stride 32 have two each)."""
FACE_LAYOUT = ((4,), (1,))
"""The same of `face_detection_full_range_sparse`."""
FACE_SIDE = 11.5
"""Side of a body's region over the width of its face's box: the median over people seen by both detectors."""
FACE_DROP = 3.4
"""Distance from the eyes to the middle of the hips over the width of the face's box, likewise."""
UPRIGHT = 0.9
"""Radians of tilt up to which a head bends on an upright body; beyond, the body is taken to lie."""
SAME_PLACE = (0.15, 0.25, 0.4)
"""Two proposals are one when they differ by less in centre (sides), logarithm of the side, and rotation (radians)."""


@dataclass(frozen=True)
class Seed:
    """A place where a person may be."""

    region: Region
    """Where the body's points would be looked for."""
    head: np.ndarray
    """(2,) pixels: the middle of the head."""
    score: float
    """The detector's own, in [0, 1]."""
    of_face: bool = False
    """Whether only a face was seen."""


@dataclass(frozen=True)
class FoundFace:
    """A face that the face detector saw."""

    box: np.ndarray
    """(4,) x0, y0, x1, y1 in pixels."""
    points: np.ndarray
    """(6, 2) pixels: right eye, left eye, nose, mouth, right ear, left ear."""
    score: float
    """The detector's own, in [0, 1]."""


def tiles(picture: Picture, fraction: float) -> list[Region]:
    """Return squares that cover a picture, neighbours overlapping by half.

    Args:
        picture: the picture.
        fraction: side of a square over the picture's longer side; from 1 on one square about the whole picture.
    """
    whole = picture.whole
    if fraction >= 1.0:
        return [whole.scaled(fraction)]
    side = whole.side * fraction
    return [
        Region((x + side / 2.0, y + side / 2.0), side)
        for y in _starts(picture.height, side)
        for x in _starts(picture.width, side)
    ]


class Searcher:
    """The two detectors and their anchors."""

    def __init__(self, pose: Network, face: Network) -> None:
        """Take the networks `pose_detection` and `face_detection_full_range_sparse`."""
        self._pose, self._face = pose, face
        self._pose_anchors = anchor_grid(pose.side, *POSE_LAYOUT)
        self._face_anchors = anchor_grid(face.side, *FACE_LAYOUT)

    def bodies(self, picture: Picture, tile: Region, threshold: float, veil: Veil | None = None) -> list[Seed]:
        """Return the people whom the pose detector sees in a tile, those behind the veil left out."""
        found = _run(self._pose, self._pose_anchors, picture, tile, threshold, veil)
        return [
            Seed(region_of_body(points), box.reshape(2, 2).mean(0), float(score))
            for score, points, box in zip(found.scores, found.points, found.boxes, strict=True)
        ]

    def faces(self, picture: Picture, tile: Region, threshold: float) -> list[FoundFace]:
        """Return the faces that the face detector sees in a tile."""
        found = _run(self._face, self._face_anchors, picture, tile, threshold)
        return [FoundFace(*parts) for parts in zip(found.boxes, found.points, map(float, found.scores), strict=True)]


def region_of_body(points: np.ndarray) -> Region:
    """Return a body's region from the pose detector's points (4, 2): the middle of the hips, then a point above.

    Their distance is the radius of a circle that holds the person.
    """
    radius = float(np.hypot(*(points[1] - points[0])))
    return Region.along(points[0], points[1], 2.0 * radius * REGION_SCALE)


def seed_of_face(face: FoundFace) -> Seed:
    """Return where the body of a face would be: half as much tilted as a fairly upright face, else as much."""
    right, left, _, mouth = face.points[:4]
    eyes = (right + left) / 2.0
    width = float(face.box[2] - face.box[0])
    tilt = float(np.arctan2(eyes[0] - mouth[0], mouth[1] - eyes[1]))
    tilt = tilt if abs(tilt) > UPRIGHT else 0.5 * tilt
    hips = eyes + width * FACE_DROP * np.array([-np.sin(tilt), np.cos(tilt)])
    region = Region((float(hips[0]), float(hips[1])), width * FACE_SIDE, tilt)
    return Seed(region, face.box.reshape(2, 2).mean(0), face.score, of_face=True)


def distinct_seeds(seeds: list[Seed]) -> list[Seed]:
    """Return the seeds that differ in place, best first."""
    kept: list[Seed] = []
    for seed in sorted(seeds, key=lambda item: -item.score):
        if not any(same_place(seed.region, other.region) for other in kept):
            kept.append(seed)
    return kept


def same_place(region: Region, other: Region) -> bool:
    """Return whether two regions would show a network the same thing."""
    centre, side, rotation = SAME_PLACE
    apart = np.hypot(region.centre[0] - other.centre[0], region.centre[1] - other.centre[1])
    turn = (region.rotation - other.rotation + np.pi) % (2.0 * np.pi) - np.pi
    return bool(
        apart < centre * min(region.side, other.side)
        and abs(np.log(region.side / other.side)) < side
        and abs(turn) < rotation
    )


def _run(
    network: Network,
    anchors: np.ndarray,
    picture: Picture,
    tile: Region,
    threshold: float,
    veil: Veil | None = None,
) -> Detections:
    """Return what a detector sees in a tile, in pixels of the picture."""
    crop = picture.cut(tile, network.side)
    raw, logits = network(crop if veil is None else veil(crop, tile))
    found = merge_overlapping(decode(raw, logits, anchors, network.side, threshold))
    boxes = tile.to_picture(found.boxes.reshape(-1, 2, 2)).reshape(-1, 4)
    return Detections(found.scores, boxes, tile.to_picture(found.points))


def _starts(length: float, side: float) -> np.ndarray:
    """Return where squares of a side begin along a length: centred when it holds but one."""
    if length <= side:
        return np.array([(length - side) / 2.0])
    return np.linspace(0.0, length - side, int(np.ceil((length - side) / (side / 2.0))) + 1)
