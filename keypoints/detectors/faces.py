"""Faces: found in a picture, then 468 points on each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fitkit.keypoints.detectors.regions import Picture, Region
from fitkit.keypoints.detectors.scoring import sigmoid
from fitkit.keypoints.detectors.tflite import Network

FACE_SCALE = 1.5
"""Margin of a face's region about its points."""
RIGHT_EYE, LEFT_EYE, CHIN = 33, 263, 152
"""The outer corners of the eyes and the tip of the chin in the mesh of 468 points."""
LEAST_FLAG = 0.5
"""A face with a lower flag is none."""
HIDDEN = 0.3
"""Factor on the confidence of points on the side of the face that is turned away."""


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
        flag=float(sigmoid(flag.reshape(-1))[0]),
        region=region,
    )


def face_confidence(face: Face, head: np.ndarray) -> np.ndarray:
    """Return how far to trust each point (468,) of a face.

    Args:
        face: what the network says.
        head: (11,) probability that the body's points of the head are on its visible side.
    """
    if face.flag < LEAST_FLAG:
        return np.zeros(len(face.points))
    # Seen from the side, the far half of the mesh is a guess.
    turned = np.where(_away(face), HIDDEN, 1.0)
    return 0.97 * face.flag * float(head[:7].max()) * turned


def _away(face: Face) -> np.ndarray:
    """Return which points (468,) of a mesh look away from the camera, the head taken for a ball behind the face."""
    mesh = np.concatenate([face.points, face.depth[:, None]], axis=-1)
    across = mesh[LEFT_EYE] - mesh[RIGHT_EYE]
    down = mesh[CHIN] - (mesh[LEFT_EYE] + mesh[RIGHT_EYE]) / 2.0
    forward = np.cross(down, across)
    forward = forward / max(float(np.linalg.norm(forward)), 1e-6)
    centre = (mesh[LEFT_EYE] + mesh[RIGHT_EYE] + mesh[CHIN]) / 3.0 - forward * float(np.linalg.norm(across))
    outward = mesh - centre
    return outward[:, 2] > 0.2 * np.linalg.norm(outward, axis=-1)


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
