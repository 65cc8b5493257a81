"""Keypoints drawn as a skeleton."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.conventions import FACE_68, HAND_LEFT, HAND_RIGHT, part_of

LEFT = (255, 159, 67)
"""RGB of the subject's left: orange."""
RIGHT = (60, 190, 255)
"""RGB of the subject's right: sky blue."""
MIDDLE = (245, 245, 245)
"""RGB of what has no side."""
RIM = (30, 30, 30)
"""RGB of the dark rim that keeps lines visible on any ground."""
SEEN = 0.2
"""Confidence from which a keypoint is drawn."""
MESH = "face_mesh_"
"""Prefix of the dense points of a face."""
SHIFT = 4
"""Bits behind the binary point of the coordinates given to OpenCV."""


def _chain(*names: str) -> list[tuple[str, str]]:
    return list(zip(names[:-1], names[1:], strict=True))


def _run(first: int, last: int, closed: bool = False) -> list[tuple[str, str]]:
    names = list(FACE_68[first : last + 1])
    return _chain(*names, *names[:1] * closed)


def _hand(names: Sequence[str]) -> list[tuple[str, str]]:
    return [edge for finger in range(5) for edge in _chain(names[0], *names[1 + 4 * finger : 5 + 4 * finger])]


def _limbs(side: str) -> list[tuple[str, str]]:
    arm, leg = ("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle")
    chains = [arm, leg, ("ankle", "heel"), ("ankle", "big_toe"), ("big_toe", "small_toe"), ("ankle", "foot_index")]
    chains += [("heel", "foot_index"), ("eye", "ear"), ("shoulder", "hip")]
    edges = [edge for chain in chains for edge in _chain(*(f"{side}_{name}" for name in chain))]
    return [*edges, ("nose", f"{side}_eye"), ("neck", f"{side}_shoulder"), ("mid_hip", f"{side}_hip")]


BODY_EDGES: tuple[tuple[str, str], ...] = (
    *_limbs("left"),
    *_limbs("right"),
    ("left_shoulder", "right_shoulder"),
    ("left_hip", "right_hip"),
    ("neck", "mid_hip"),
    ("neck", "nose"),
    ("head_top", "nose"),
)
"""Pairs of body keypoints that a line joins, where a convention has both."""
FINE_EDGES: tuple[tuple[str, str], ...] = (
    *_hand(HAND_LEFT),
    *_hand(HAND_RIGHT),
    *_run(0, 16),
    *_run(17, 21),
    *_run(22, 26),
    *_run(27, 30),
    *_run(31, 35),
    *_run(36, 41, closed=True),
    *_run(42, 47, closed=True),
    *_run(48, 59, closed=True),
    *_run(60, 67, closed=True),
)
"""The same of hands and face, drawn thinner."""


def draw_keypoints(
    image: UInt8[np.ndarray, "H W 3"], keypoints: Keypoints, scale: float = 1.0, opacity: float = 0.9
) -> UInt8[np.ndarray, "H W 3"]:
    """Return a picture with the keypoints of all people drawn over it; the subject's left is orange, the right blue.

    Args:
        image: RGB.
        keypoints: in pixels of the picture before it was scaled.
        scale: size of `image` divided by that of the picture that the keypoints were found on.
        opacity: of lines and points.
    """
    drawn = image.copy()
    for points, confidence in zip(keypoints.points * scale, keypoints.confidence, strict=True):
        _draw_person(drawn, keypoints.names, points, confidence)
    return cv2.addWeighted(drawn, opacity, image, 1.0 - opacity, 0.0)


def _draw_person(
    canvas: UInt8[np.ndarray, "H W 3"],
    names: Sequence[str],
    points: Float[np.ndarray, "K 2"],
    confidence: Float[np.ndarray, " K"],
) -> None:
    """Draw one person's lines and points into a picture."""
    seen = {name: point for name, point, weight in zip(names, points, confidence, strict=True) if weight >= SEEN}
    if not seen:
        return
    extent = float(np.ptp(np.stack(list(seen.values())), axis=0).max())
    thick = float(np.clip(extent / 170, 1.4, 7.0))
    for edges, width in ((FINE_EDGES, 0.5 * thick), (BODY_EDGES, thick)):
        present = [(a, b) for a, b in edges if a in seen and b in seen]
        for rim in (True, False):
            pixels = max(1, round(width + (thick * 0.5 if rim else 0.0)))
            for a, b in present:
                cv2.line(
                    canvas, _fixed(seen[a]), _fixed(seen[b]), RIM if rim else _colour(a, b), pixels, cv2.LINE_AA, SHIFT
                )
    _draw_mesh_points(canvas, [point for name, point in seen.items() if name.startswith(MESH)])
    for name, point in seen.items():
        if not name.startswith(MESH):
            radius = thick * (1.1 if part_of(name) in ("body", "feet") else 0.5)
            if radius > 1.0:
                cv2.circle(canvas, _fixed(point), _subpixels(radius * 1.35), RIM, -1, cv2.LINE_AA, SHIFT)
            cv2.circle(canvas, _fixed(point), _subpixels(radius), _colour(name), -1, cv2.LINE_AA, SHIFT)


def _draw_mesh_points(canvas: UInt8[np.ndarray, "H W 3"], points: Sequence[Float[np.ndarray, "2"]]) -> None:
    """Draw the dense points of a face as fine dots; on a small face only some of them, lest they hide it."""
    if not points:
        return
    radius = float(np.ptp(np.stack(points), axis=0).max()) / 160
    every = max(1, round((0.8 / max(radius, 0.1)) ** 2))
    for point in points[::every]:
        cv2.circle(canvas, _fixed(point), _subpixels(max(radius, 0.7)), MIDDLE, -1, cv2.LINE_AA, SHIFT)


def _colour(*names: str) -> tuple[int, int, int]:
    """Return the RGB of a point, or of the line between two."""
    sides = {name.split("_")[0] for name in names}
    if "left" in sides and "right" not in sides:
        return LEFT
    return RIGHT if "right" in sides and "left" not in sides else MIDDLE


def _fixed(point: Float[np.ndarray, "2"]) -> tuple[int, int]:
    """Return a point for OpenCV, to whom the centre of the top-left pixel is (0, 0); far ones are brought nearer."""
    x, y = (np.clip(point - 0.5, -16000, 16000) * (1 << SHIFT)).round().astype(int)
    return int(x), int(y)


def _subpixels(radius: float) -> int:
    """Return a radius for OpenCV."""
    return max(1, round(radius * (1 << SHIFT)))
