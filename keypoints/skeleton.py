"""The lines that join keypoints when they are drawn, by name and in coloured groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from fitkit.keypoints.conventions import HAND_LEFT, HAND_RIGHT, side_swapped
from fitkit.keypoints.face_mesh import FACE_MESH_468, FACE_OVAL

Edge = tuple[str, str]
"""Two keypoint names."""


def _chain(*names: str) -> tuple[Edge, ...]:
    """Return the edges from each name to the next."""
    return tuple(zip(names, names[1:], strict=False))


def _loop(*names: str) -> tuple[Edge, ...]:
    return _chain(*names, names[0])


def _mirrored(edges: Iterable[Edge]) -> tuple[Edge, ...]:
    return tuple((side_swapped(a), side_swapped(b)) for a, b in edges)


def _fingers(hand: Sequence[str]) -> tuple[Edge, ...]:
    """Return the edges of five fingers that start at the hand's root."""
    return tuple(edge for start in range(1, 21, 4) for edge in _chain(hand[0], *hand[start : start + 4]))


def _face_68() -> tuple[Edge, ...]:
    def run(first: int, last: int) -> list[str]:
        return [f"face_{i:02d}" for i in range(first, last + 1)]

    open_runs = [run(0, 16), run(17, 21), run(22, 26), run(27, 30), run(31, 35)]
    loops = [run(36, 41), run(42, 47), run(48, 59), run(60, 67)]
    return tuple(edge for r in open_runs for edge in _chain(*r)) + tuple(edge for r in loops for edge in _loop(*r))


def _face_mesh() -> tuple[Edge, ...]:
    """Return the outline, eyes, brows, nose and lips of MediaPipe's mesh (its FACEMESH_CONTOURS, and the nose)."""
    right_runs = [
        (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7, 33),  # eye
        (70, 63, 105, 66, 107, 55, 65, 52, 53, 46, 70),  # brow
        (61, 185, 40, 39, 37, 0),  # upper lip, outer
        (61, 146, 91, 181, 84, 17),  # lower lip, outer
        (78, 191, 80, 81, 82, 13),  # upper lip, inner
        (78, 95, 88, 178, 87, 14),  # lower lip, inner
        (98, 97, 2),  # nostrils
    ]
    right = tuple(edge for run in right_runs for edge in _chain(*(FACE_MESH_468[i] for i in run)))
    nose = _chain(*(FACE_MESH_468[i] for i in (168, 6, 197, 195, 5, 4)))
    return _loop(*FACE_OVAL) + right + _mirrored(right) + nose


_LEFT_ARM = _chain("left_shoulder", "left_elbow", "left_wrist", "left_hand_root") + (
    ("left_wrist", "left_pinky"), ("left_wrist", "left_index"), ("left_wrist", "left_thumb"),
    ("left_pinky", "left_index"),
)  # fmt: skip
_LEFT_LEG = _chain("left_hip", "left_knee", "left_ankle", "left_heel") + (
    ("left_ankle", "left_big_toe"), ("left_big_toe", "left_small_toe"), ("left_ankle", "left_foot_index"),
    ("left_heel", "left_foot_index"),
)  # fmt: skip
_TORSO = (
    ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip"), ("left_shoulder", "left_hip"),
    ("right_shoulder", "right_hip"), ("neck", "mid_hip"), ("neck", "nose"), ("neck", "head_top"),
)  # fmt: skip
_LEFT_HEAD = _chain("nose", "left_eye_inner", "left_eye", "left_eye_outer", "left_ear") + (
    ("nose", "left_eye"), ("left_eye", "left_ear"),
)  # fmt: skip

EDGES: dict[str, tuple[Edge, ...]] = {
    "torso": _TORSO,
    "head": (*_LEFT_HEAD, *_mirrored(_LEFT_HEAD), ("mouth_left", "mouth_right")),
    "left_arm": _LEFT_ARM,
    "right_arm": _mirrored(_LEFT_ARM),
    "left_leg": _LEFT_LEG,
    "right_leg": _mirrored(_LEFT_LEG),
    "left_hand": _fingers(HAND_LEFT),
    "right_hand": _fingers(HAND_RIGHT),
    "face": _face_68() + _face_mesh(),
}
"""Edges of every convention by group; `edges_of` picks those that a convention has."""
COLOURS: dict[str, tuple[int, int, int]] = {
    "torso": (214, 214, 214),
    "head": (250, 230, 120),
    "left_arm": (72, 160, 255),
    "right_arm": (255, 120, 72),
    "left_leg": (60, 205, 235),
    "right_leg": (255, 185, 60),
    "left_hand": (130, 120, 255),
    "right_hand": (255, 90, 170),
    "face": (170, 255, 170),
}
"""RGB of each group, 0 to 255: the subject's left is blue, the right orange."""


def edges_of(names: Sequence[str]) -> list[tuple[int, int, str]]:
    """Return (first, second, group) for each edge between two of the names, as indices into them."""
    index = {name: i for i, name in enumerate(names)}
    named = [(a, b, group) for group, edges in EDGES.items() for a, b in edges]
    return [(index[a], index[b], group) for a, b, group in named if a in index and b in index]
