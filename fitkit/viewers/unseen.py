"""Which vertices of a body the photo says nothing about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

FADE = 0.02
"""Metres over which seen surface turns into unseen."""
FAR = 100.0
"""Metres: further than any vertex is from a bone."""

_CORE = {
    "torso": (("pelvis", "spine1"), ("spine1", "spine2"), ("spine2", "spine3"), ("spine3", "neck")),
    "head": (("neck", "head"),),
}
_SIDE = {
    "torso": (("pelvis", "hip"), ("spine3", "collar"), ("collar", "shoulder")),
    "arm": (("shoulder", "elbow"), ("elbow", "wrist")),
    "leg": (("hip", "knee"), ("knee", "ankle")),
    "foot": (("ankle", "foot"),),
}
_FINGERS = ("index", "middle", "pinky", "ring", "thumb")


def unseen_share(
    vertices: Float[np.ndarray, "V 3"],
    joints: Float[np.ndarray, "J 3"],
    joint_names: Sequence[str],
    seen: Mapping[str, bool],
) -> Float[np.ndarray, " V"]:
    """Return how far each vertex belongs to parts of the body that are not seen, in [0, 1], for `DrawnBody.unseen`.

    A vertex belongs to the bone that it lies nearest to; works for every model of the SMPL family.

    Args:
        vertices: of the body, metres.
        joints: of the same body, metres.
        joint_names: J names, as the model gives them.
        seen: part ("head", "torso", "left_arm", "left_hand", "left_leg", "left_foot", and the right ones) -> whether it
            is seen; parts that are absent count as seen.
    """
    if all(seen.values()):
        return np.zeros(len(vertices))
    place = dict(zip(joint_names, np.asarray(joints, np.float64), strict=True))
    if "head" in place:  # the skull reaches as far above the head joint as the neck below it
        place["crown"] = 2 * place["head"] - place["neck"]
    nearest = {True: np.full(len(vertices), np.inf), False: np.full(len(vertices), np.inf)}
    points = np.asarray(vertices, np.float64)
    for part, start, end in _bones():
        if start in place and end in place:
            shown = bool(seen.get(part, True))
            nearest[shown] = np.minimum(nearest[shown], _distance(points, place[start], place[end]))
    # Capped, so that a body of which nothing is seen gives no infinities.
    to_seen, to_unseen = (np.minimum(nearest[shown], FAR) for shown in (True, False))
    return np.clip(0.5 + (to_seen - to_unseen) / FADE, 0.0, 1.0)


def _bones() -> list[tuple[str, str, str]]:
    """Return the part, the upper and the lower joint of every bone."""
    bones = [(part, *pair) for part, pairs in _CORE.items() for pair in pairs] + [("head", "head", "crown")]
    for side in ("left", "right"):
        for part, pairs in _SIDE.items():
            name = part if part == "torso" else f"{side}_{part}"
            for pair in pairs:
                start, end = (joint if joint in ("pelvis", "spine3") else f"{side}_{joint}" for joint in pair)
                bones.append((name, start, end))
        bones.append((f"{side}_hand", f"{side}_wrist", f"{side}_hand"))  # SMPL has no fingers
        for finger in _FINGERS:
            bones.append((f"{side}_hand", f"{side}_wrist", f"{side}_{finger}1"))
            bones.append((f"{side}_hand", f"{side}_{finger}1", f"{side}_{finger}3"))
    return bones


def _distance(
    points: Float[np.ndarray, "V 3"], start: Float[np.ndarray, "3"], end: Float[np.ndarray, "3"]
) -> Float[np.ndarray, " V"]:
    """Return the distance of points from a segment."""
    along = end - start
    share = np.clip((points - start) @ along / max(float(along @ along), 1e-12), 0.0, 1.0)
    return np.linalg.norm(points - start - share[:, None] * along, axis=1)
