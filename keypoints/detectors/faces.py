"""Faces: found in a picture, then 468 points on each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fitkit.keypoints.detectors.regions import Picture, Region
from fitkit.keypoints.detectors.scoring import sigmoid
from fitkit.keypoints.detectors.tflite import Network

FACE_SCALE = 1.5
"""Margin of a face's region about its points."""
RIGHT_EYE, LEFT_EYE = 33, 263
"""The outer corners of the eyes in the mesh of 468 points."""


@dataclass(frozen=True)
class Face:
    """What the face network says."""

    points: np.ndarray
    """(468, 2) pixels of the picture."""
    depth: np.ndarray
    """(468,) pixels of the picture, away from the camera, relative to the head's middle."""
    flag: float
    """Probability that the region holds a face."""
    region: Region
    """Where it was looked for."""


def read_face(network: Network, picture: Picture, region: Region) -> Face:
    """Return the face that `face_landmark` sees in a region."""
    raw, flag = network(picture.cut(region, network.side, replicate=True))
    raw = raw.reshape(-1, 3) / network.side
    return Face(
        points=region.to_picture(raw[:, :2]),
        depth=raw[:, 2] * region.side,
        flag=float(sigmoid(flag.reshape(-1)[0])),
        region=region,
    )


def look_at_face(network: Network, picture: Picture, body: np.ndarray) -> Face:
    """Return the face that the body's points (33, 2) suggest, looked at twice."""
    first = read_face(network, picture, region_from_body(body))
    return read_face(network, picture, region_of_face(first.points))


def region_of_face(points: np.ndarray) -> Region:
    """Return the region of a face, from its points (468, 2)."""
    return enclosing_region(points, points[RIGHT_EYE], points[LEFT_EYE], FACE_SCALE)


def enclosing_region(points: np.ndarray, right_eye: np.ndarray, left_eye: np.ndarray, scale: float) -> Region:
    """Return a square about points (K, 2), its x axis along the line from the right eye (2,) to the left eye (2,)."""
    dx, dy = left_eye - right_eye
    frame = Region((0.0, 0.0), 1.0, float(np.arctan2(dy, dx)))
    along = points @ frame.axes
    low, high = along.min(0), along.max(0)
    centre = frame.axes @ ((low + high) / 2.0)
    return Region((float(centre[0]), float(centre[1])), float((high - low).max()) * scale, frame.rotation)


def region_from_body(points: np.ndarray) -> Region:
    """Return where the body network puts the face, from its points (33, 2)."""
    eyes = points[[5, 2]]
    mouth = points[9:11].mean(0)
    across = eyes[1] - eyes[0]
    up = eyes.mean(0) - mouth
    # Seen from the side the eyes nearly coincide; the line from mouth to eyes is the better compass then.
    direction = across / max(float(np.hypot(*across)), 1e-6) * np.hypot(*across) + np.array([-up[1], up[0]])
    middle = (eyes.mean(0) + mouth) / 2.0
    size = max(float(np.hypot(*across)) * 1.0, float(np.hypot(*up)))
    rotation = float(np.arctan2(direction[1], direction[0]))
    return Region((float(middle[0]), float(middle[1])), 4.2 * size, rotation)
