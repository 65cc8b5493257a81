"""Part labels, pieces inside the head, fingertips and other extreme vertices."""

import numpy as np
from numpy.typing import NDArray

from bake.rig import JOINTS
from bake.source import Source

INSIDE = (
    "eye_back.L",
    "eye_back.R",
    "eye_front.L",
    "eye_front.R",
    "eye_cavity.L",
    "eye_cavity.R",
    "mouth_cavity",
    "tongue",
)
"""Classes of Anny's own segmentation that no contact, silhouette or skin landmark should use."""

LIMB_PARTS = {
    "hip": "upper_leg",
    "knee": "lower_leg",
    "ankle": "foot",
    "foot": "toes",
    "collar": "collar",
    "shoulder": "upper_arm",
    "elbow": "lower_arm",
    "wrist": "hand",
}


def part_of_joint(joint: str) -> str:
    """Name of the body part that a joint moves."""
    side, _, rest = joint.partition("_")
    if side not in ("left", "right"):
        return "head" if joint == "jaw" else joint
    if rest == "eye_smplhf":
        return f"{side}_eye"
    return f"{side}_{LIMB_PARTS.get(rest, 'hand')}"


def segment(source: Source) -> dict[str, NDArray]:
    """Faces (F,) bool of every class of Anny's texture segmentation."""
    from anny.face_segmentation import get_face_segmentation_mask

    return {name: get_face_segmentation_mask(source.model, [name]).numpy() for name in INSIDE}


def label_faces(source: Source, weights: NDArray) -> tuple[tuple[str, ...], NDArray]:
    """Part names and the part (F,) of every face: its heaviest joint's; mouth cavity and tongue apart."""
    names = list(dict.fromkeys(part_of_joint(j) for j in JOINTS)) + ["mouth_cavity", "tongue"]
    strongest = weights[source.faces].sum(axis=1).argmax(axis=1)
    part = np.array([names.index(part_of_joint(j)) for j in JOINTS])[strongest]
    classes = segment(source)
    part[classes["mouth_cavity"]] = names.index("mouth_cavity")
    part[classes["tongue"]] = names.index("tongue")
    return tuple(names), part


def contact_faces(source: Source) -> NDArray:
    """(F,) bool: outer skin."""
    return ~np.any(list(segment(source).values()), axis=0)
