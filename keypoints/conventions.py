"""Keypoint conventions: tuples of names, and how names of one convention are found in another.

There is one namespace for all of them, and "left" is always the subject's left. Orders follow the tools that write
them: OpenPose 1.x (BODY_25, COCO-18, hand and face output), COCO and COCO-WholeBody annotations, Halpe full-body
annotations (AlphaPose), MediaPipe's pose, hand and face-mesh landmarkers, and the 118 points of the SMPLify-X recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fitkit.errors import UsageError
from fitkit.keypoints.face_mesh import FACE_FROM_MESH, FACE_MESH_468, FACE_OVAL, swap_mesh_point


def _sides(*stems: str) -> tuple[str, ...]:
    """Return left_ and right_ of each stem, in turn."""
    return tuple(f"{side}_{stem}" for stem in stems for side in ("left", "right"))


def _hand(side: str) -> tuple[str, ...]:
    """Return the 21 points of a hand: its root, then each finger from the knuckle to the tip."""
    fingers = ("thumb", "index", "middle", "ring", "pinky")
    points = [f"{side}_{finger}{joint}" for finger in fingers for joint in ("1", "2", "3", "_tip")]
    return (f"{side}_hand_root", *points)


_LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")

COCO_17: tuple[str, ...] = ("nose", *_sides("eye", "ear", *_LIMBS))
"""The 17 body points of COCO."""
FEET_6: tuple[str, ...] = tuple(f"{side}_{p}" for side in ("left", "right") for p in ("big_toe", "small_toe", "heel"))
"""The feet in the order of OpenPose and COCO-WholeBody."""
_OPENPOSE_ARMS = ("nose", "neck", *(f"{side}_{p}" for side in ("right", "left") for p in _LIMBS[:3]))
_OPENPOSE_HEAD = ("right_eye", "left_eye", "right_ear", "left_ear")
_OPENPOSE_LEGS = {side: tuple(f"{side}_{p}" for p in _LIMBS[3:]) for side in ("left", "right")}
COCO_18: tuple[str, ...] = (*_OPENPOSE_ARMS, *_OPENPOSE_LEGS["right"], *_OPENPOSE_LEGS["left"], *_OPENPOSE_HEAD)
"""OpenPose's COCO model: COCO's points in another order, and the neck."""
BODY_25: tuple[str, ...] = (
    *_OPENPOSE_ARMS, "mid_hip", *_OPENPOSE_LEGS["right"], *_OPENPOSE_LEGS["left"], *_OPENPOSE_HEAD, *FEET_6
)  # fmt: skip
"""OpenPose's default body model."""
HAND_LEFT: tuple[str, ...] = _hand("left")
"""A left hand, in the order of OpenPose and MediaPipe alike."""
HAND_RIGHT: tuple[str, ...] = _hand("right")
"""A right hand, in the order of OpenPose and MediaPipe alike."""
FACE_68: tuple[str, ...] = tuple(f"face_{i:02d}" for i in range(68))
"""The 68 points of iBUG 300-W (dlib): 00-16 contour from the subject's right ear to the left, 17-26 brows, 27-35 nose,
36-47 eyes, 48-67 lips; each run goes from the subject's right to the left, closed ones on clockwise in the picture."""
FACE_70: tuple[str, ...] = (*FACE_68, "right_pupil", "left_pupil")
"""OpenPose's face model."""
COCO_WHOLEBODY_133: tuple[str, ...] = (*COCO_17, *FEET_6, *FACE_68, *HAND_LEFT, *HAND_RIGHT)
"""COCO-WholeBody."""
OPENPOSE_137: tuple[str, ...] = (*BODY_25, *HAND_LEFT, *HAND_RIGHT, *FACE_70)
"""Everything that OpenPose writes for a person."""
HALPE_26: tuple[str, ...] = (*COCO_17, "head_top", "neck", "mid_hip", *_sides("big_toe", "small_toe", "heel"))
"""Body and feet of Halpe full-body."""
HALPE_136: tuple[str, ...] = (*HALPE_26, *FACE_68, *HAND_LEFT, *HAND_RIGHT)
"""Halpe full-body, as AlphaPose writes it."""
BLAZEPOSE_33: tuple[str, ...] = (
    "nose", "left_eye_inner", "left_eye", "left_eye_outer", "right_eye_inner", "right_eye", "right_eye_outer",
    *_sides("ear"), "mouth_left", "mouth_right", *_sides("shoulder", "elbow", "wrist", "pinky", "index", "thumb"),
    *_sides("hip", "knee", "ankle", "heel", "foot_index"),
)  # fmt: skip
"""MediaPipe's pose landmarks; pinky and index are first knuckles, thumb the second joint of the thumb."""
MEDIAPIPE_HOLISTIC: tuple[str, ...] = (*BLAZEPOSE_33, *HAND_LEFT, *HAND_RIGHT, *FACE_MESH_468)
"""MediaPipe's pose, both hands and face mesh: 543 points."""
SMPLIFYX_118: tuple[str, ...] = (*BODY_25, *HAND_LEFT, *HAND_RIGHT, *FACE_68[17:])
"""What SMPLify-X fits when the face contour is off."""

CONVENTIONS: dict[str, tuple[str, ...]] = {
    "coco-17": COCO_17,
    "coco-18": COCO_18,
    "body-25": BODY_25,
    "hand-left": HAND_LEFT,
    "hand-right": HAND_RIGHT,
    "face-68": FACE_68,
    "face-70": FACE_70,
    "coco-wholebody-133": COCO_WHOLEBODY_133,
    "openpose-137": OPENPOSE_137,
    "halpe-26": HALPE_26,
    "halpe-136": HALPE_136,
    "blazepose-33": BLAZEPOSE_33,
    "face-mesh-468": FACE_MESH_468,
    "mediapipe-holistic": MEDIAPIPE_HOLISTIC,
    "smplify-x-118": SMPLIFYX_118,
}
"""Every convention by name."""

_FEET = frozenset((*FEET_6, *_sides("foot_index")))
_CONTOUR = frozenset((*FACE_68[:17], *FACE_OVAL))
_PART_BY_NAME = {
    **dict.fromkeys(HAND_LEFT, "left_hand"),
    **dict.fromkeys(HAND_RIGHT, "right_hand"),
    **dict.fromkeys((*FACE_70, *FACE_MESH_468), "face"),
    **dict.fromkeys(_CONTOUR, "contour"),
    **dict.fromkeys(_FEET, "feet"),
}
PARTS: tuple[str, ...] = ("body", "feet", "left_hand", "right_hand", "face", "contour")
"""The parts of a person that keypoints are grouped by."""


def part_of(name: str) -> str:
    """Return which of `PARTS` a keypoint belongs to.

    Eyes, ears, mouth corners and knuckles that come with a body convention (COCO, BlazePose) are "body": the body
    network saw them. "contour" holds the points of a face's outline, which are only loosely tied to the surface.
    """
    return _PART_BY_NAME.get(name, "body")


def side_swapped(name: str) -> str:
    """Return the name of the point that takes this one's place in a mirror (its own name for a point in the middle)."""
    if name.startswith("joint/"):
        return "joint/" + side_swapped(name.removeprefix("joint/"))
    if name.startswith("face_mesh_"):
        return swap_mesh_point(name)
    if name in _FACE_SWAP:
        return _FACE_SWAP[name]
    words = name.split("_")
    return "_".join({"left": "right", "right": "left"}.get(word, word) for word in words)


def _face_swap() -> dict[str, str]:
    """Return the mirror image of each of the 68 face points, from the runs that mirror each other."""
    runs = [
        (range(0, 17), range(16, -1, -1)),  # contour
        (range(17, 27), range(26, 16, -1)),  # brows
        (range(27, 31), range(27, 31)),  # bridge of the nose
        (range(31, 36), range(35, 30, -1)),  # nostrils
        (range(36, 42), (45, 44, 43, 42, 47, 46)),  # right eye
        (range(42, 48), (39, 38, 37, 36, 41, 40)),  # left eye
        (range(48, 55), range(54, 47, -1)),  # upper lip, outer
        (range(55, 60), range(59, 54, -1)),  # lower lip, outer
        (range(60, 65), range(64, 59, -1)),  # upper lip, inner
        (range(65, 68), range(67, 64, -1)),  # lower lip, inner
    ]
    return {FACE_68[a]: FACE_68[b] for there, back in runs for a, b in zip(there, back, strict=True)}


_FACE_SWAP = _face_swap()


def mirror_index(names: Sequence[str]) -> np.ndarray:
    """Return where each point's mirror image is, (K,) int: `points[:, mirror_index(names)]` has its sides swapped.

    Raises UsageError when a mirror image is not among the names (a single hand has none).
    """
    index = {name: i for i, name in enumerate(names)}
    missing = [name for name in names if side_swapped(name) not in index]
    if missing:
        absent = side_swapped(missing[0])
        raise UsageError(f"These keypoints cannot be mirrored: {absent}, the mirror image of {missing[0]}, is absent.")
    return np.array([index[side_swapped(name)] for name in names], dtype=int)


def _build_aliases() -> dict[str, tuple[str, ...]]:
    """Return the stand-ins of each name; see `ALIASES`."""
    one_sided = {  # written for the left
        "left_wrist": ("left_hand_root",),
        "left_hand_root": ("left_wrist",),
        "left_eye": ("left_pupil",),
        "left_pupil": ("left_eye",),
        "left_eye_inner": ("face_42", "face_mesh_362"),
        "left_eye_outer": ("face_45", "face_mesh_263"),
        "left_pinky": ("left_pinky1",),
        "left_index": ("left_index1",),
        "left_thumb": ("left_thumb2",),
        "left_foot_index": ("left_big_toe",),
        "left_big_toe": ("left_foot_index",),
        "left_middle1": ("left_hand",),  # SMPL's last joint of the arm
    }
    aliases = dict(one_sided)
    for name, stand_ins in one_sided.items():
        aliases[side_swapped(name)] = tuple(side_swapped(stand_in) for stand_in in stand_ins)
    aliases["mouth_left"] = ("face_54", "face_mesh_291")
    aliases["mouth_right"] = ("face_48", "face_mesh_061")
    aliases["nose"] = ("face_30", "face_mesh_004")
    aliases["neck"] = ("neck_base", "neck")
    aliases["mid_hip"] = ("mid_hip", "pelvis")
    for face, mesh in FACE_FROM_MESH.items():
        if part_of(face) != "contour":
            aliases[face] = (mesh,)
            aliases[mesh] = (face,)
    return aliases


ALIASES: dict[str, tuple[str, ...]] = _build_aliases()
"""Acceptable stand-ins for a name, in the order in which they are tried.

A name that is not itself in its tuple is tried before the tuple. The contour of the face is left out: one convention's
slides along the outline that the camera sees, the mesh's sits on the skin.
"""
_OTHER_PARTS = frozenset(_sides("hand_root", "pupil"))
CONVERSION_ALIASES: dict[str, tuple[str, ...]] = {
    **{name: stand_ins for name, stand_ins in ALIASES.items() if name not in _OTHER_PARTS},
    **{face: (mesh,) for face, mesh in FACE_FROM_MESH.items() if part_of(face) == "contour"},
}
"""Stand-ins for writing keypoints in another convention.

The mesh's contour is better than none; a wrist does not make a hand, nor an eye a face.
"""


@dataclass(frozen=True)
class Correspondence:
    """Where keypoints are found among the points of a model or of another convention."""

    indices: np.ndarray
    """(K,) int: each keypoint's index among the available names; 0 where there is none (safe to gather with)."""
    mask: np.ndarray
    """(K,) bool: whether there is one."""


def _candidates(name: str, aliases: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return what may stand for a name, best first; a bone's joint stands in for the surface point of the same name."""
    stand_ins = aliases.get(name, ())
    ordered = stand_ins if name in stand_ins else (name, *stand_ins)
    return [form for candidate in ordered for form in (candidate, f"joint/{candidate}")]


def correspondence(
    names: Sequence[str], available: Sequence[str], aliases: Mapping[str, tuple[str, ...]] = ALIASES
) -> Correspondence:
    """Return where each keypoint is found among the available names, by its own name or by a stand-in.

    Two keypoints of one part (see `part_of`) never share a point: the better match keeps it and the other goes to its
    next stand-in or is left out. Keypoints of different parts may (a body's left_wrist and a hand's left_hand_root),
    for two networks saw them.

    Args:
        names: K keypoint names.
        available: names to look among, such as a body model's landmark and joint names.
        aliases: stand-ins for each name, as `ALIASES`.
    """
    place = {name: i for i, name in reversed(list(enumerate(available)))}
    options = [_candidates(name, aliases) for name in names]
    found: dict[int, int] = {}
    taken: set[tuple[str, int]] = set()
    for rank in range(max(map(len, options), default=0)):
        for k, name in enumerate(names):
            if k in found or rank >= len(options[k]) or options[k][rank] not in place:
                continue
            index = place[options[k][rank]]
            if (part_of(name), index) not in taken:
                taken.add((part_of(name), index))
                found[k] = index
    indices = np.array([found.get(k, 0) for k in range(len(names))], dtype=int)
    return Correspondence(indices, np.array([k in found for k in range(len(names))], dtype=bool))
