"""Joint names of the SMPL family, and where its models carry the points that detectors see."""

from __future__ import annotations

BODY_JOINTS = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle",
    "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder",
    "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
)  # fmt: skip
FINGERS = ("index", "middle", "pinky", "ring", "thumb")
LEFT_HAND_JOINTS = tuple(f"left_{finger}{i}" for finger in FINGERS for i in (1, 2, 3))
RIGHT_HAND_JOINTS = tuple(f"right_{finger}{i}" for finger in FINGERS for i in (1, 2, 3))

JOINT_NAMES: dict[str, tuple[str, ...]] = {
    "smpl": (*BODY_JOINTS, "left_hand", "right_hand"),
    "smplh": (*BODY_JOINTS, *LEFT_HAND_JOINTS, *RIGHT_HAND_JOINTS),
    "smplx": (*BODY_JOINTS, "jaw", "left_eye", "right_eye", *LEFT_HAND_JOINTS, *RIGHT_HAND_JOINTS),
}
"""Kind of model -> its joints in order (the order of the published model files)."""

POSE_LEAVES: dict[str, tuple[tuple[str, int], ...]] = {
    "smpl": (("global_orient", 1), ("body_pose", 23)),
    "smplh": (("global_orient", 1), ("body_pose", 21), ("left_hand_pose", 15), ("right_hand_pose", 15)),
    "smplx": (
        ("global_orient", 1),
        ("body_pose", 21),
        ("jaw_pose", 1),
        ("leye_pose", 1),
        ("reye_pose", 1),
        ("left_hand_pose", 15),
        ("right_hand_pose", 15),
    ),
}
"""Kind of model -> leaves that hold its joints' rotations, with the number of joints of each, in joint order."""
LEAVES: tuple[str, ...] = (
    *dict.fromkeys(name for leaves in POSE_LEAVES.values() for name, _ in leaves),
    *("betas", "expression", "transl", "focal_length", "pose_latent"),
)
"""Every parameter that some model has, and the camera's: what a recipe may name."""

_SMPL_VERTICES = {
    "nose": 332, "right_eye": 6260, "left_eye": 2800, "right_ear": 4071, "left_ear": 583,
    "right_thumb_tip": 6191, "right_index_tip": 5782, "right_middle_tip": 5905, "right_ring_tip": 6016,
    "right_pinky_tip": 6133, "left_thumb_tip": 2746, "left_index_tip": 2319, "left_middle_tip": 2445,
    "left_ring_tip": 2556, "left_pinky_tip": 2673, "left_big_toe": 3216, "left_small_toe": 3226,
    "left_heel": 3387, "right_big_toe": 6617, "right_small_toe": 6624, "right_heel": 6787,
}  # fmt: skip
LANDMARK_VERTICES: dict[str, dict[str, int]] = {
    "smpl": _SMPL_VERTICES,
    "smplh": _SMPL_VERTICES,
    "smplx": {
        "nose": 9120, "right_eye": 9929, "left_eye": 9448, "right_ear": 616, "left_ear": 6,
        "right_thumb_tip": 8079, "right_index_tip": 7669, "right_middle_tip": 7794, "right_ring_tip": 7905,
        "right_pinky_tip": 8022, "left_thumb_tip": 5361, "left_index_tip": 4933, "left_middle_tip": 5058,
        "left_ring_tip": 5169, "left_pinky_tip": 5286, "left_big_toe": 5770, "left_small_toe": 5780,
        "left_heel": 8846, "right_big_toe": 8463, "right_small_toe": 8474, "right_heel": 8635,
    },
}  # fmt: skip
"""Kind of model -> mesh vertex of each landmark that is a single vertex (numbers of the published topologies)."""

VERTEX_COUNTS = {"smpl": 6890, "smplh": 6890, "smplx": 10475}
"""Kind of model -> vertices of its published topology, for which `LANDMARK_VERTICES` holds."""
