"""Keypoint names: orders, mirror images, parts, edges, and how one convention is found in another."""

from __future__ import annotations

import numpy as np
import pytest

from fitkit.errors import UsageError
from fitkit.keypoints import conventions as c
from fitkit.keypoints.face_mesh import FACE_FROM_MESH, FACE_MESH_468, FACE_OVAL
from fitkit.keypoints.skeleton import COLOURS, EDGES, edges_of

SIZES = {
    "coco-17": 17,
    "coco-18": 18,
    "body-25": 25,
    "hand-left": 21,
    "hand-right": 21,
    "face-68": 68,
    "face-70": 70,
    "coco-wholebody-133": 133,
    "openpose-137": 137,
    "halpe-26": 26,
    "halpe-136": 136,
    "blazepose-33": 33,
    "face-mesh-468": 468,
    "mediapipe-holistic": 543,
    "smplify-x-118": 118,
}
WHOLE = sorted(set(SIZES) - {"hand-left", "hand-right"})
SMPLX_LIKE = (
    *(name for name in c.COCO_17 if "hip" not in name),
    *c.FEET_6,
    *c.FACE_68[17:],
    *(f"{side}_{finger}_tip" for side in ("left", "right") for finger in ("thumb", "index", "middle", "ring", "pinky")),
    *("pelvis", "left_hip", "right_hip", "neck", "joint/left_wrist", "joint/left_eye", "joint/right_eye"),
    *(
        f"{side}_{finger}{i}"
        for side in ("left", "right")
        for finger in ("index", "middle", "thumb")
        for i in (1, 2, 3)
    ),
    *(f"{side}_{finger}{i}" for side in ("left", "right") for finger in ("pinky", "ring") for i in (1, 2, 3)),
)
"""What a body model with a sparse face has."""


def found_in(name: str, available: tuple[str, ...]) -> str | None:
    found = c.correspondence((name,), available)
    return available[found.indices[0]] if found.mask[0] else None


def test_sizes_and_uniqueness() -> None:
    assert {name: len(points) for name, points in c.CONVENTIONS.items()} == SIZES
    assert all(len(set(points)) == len(points) for points in c.CONVENTIONS.values())


@pytest.mark.parametrize(
    ("convention", "index", "name"),
    [
        (c.BODY_25, 1, "neck"),
        (c.BODY_25, 4, "right_wrist"),
        (c.BODY_25, 8, "mid_hip"),
        (c.BODY_25, 14, "left_ankle"),
        (c.BODY_25, 15, "right_eye"),
        (c.BODY_25, 19, "left_big_toe"),
        (c.BODY_25, 24, "right_heel"),
        (c.COCO_18, 8, "right_hip"),
        (c.COCO_18, 17, "left_ear"),
        (c.COCO_17, 5, "left_shoulder"),
        (c.COCO_17, 16, "right_ankle"),
        (c.HALPE_26, 17, "head_top"),
        (c.HALPE_26, 21, "right_big_toe"),
        (c.HALPE_26, 24, "left_heel"),
        (c.HALPE_136, 26, "face_00"),
        (c.HALPE_136, 94, "left_hand_root"),
        (c.COCO_WHOLEBODY_133, 22, "right_heel"),
        (c.COCO_WHOLEBODY_133, 91, "left_hand_root"),
        (c.COCO_WHOLEBODY_133, 132, "right_pinky_tip"),
        (c.OPENPOSE_137, 25, "left_hand_root"),
        (c.OPENPOSE_137, 135, "right_pupil"),
        (c.BLAZEPOSE_33, 9, "mouth_left"),
        (c.BLAZEPOSE_33, 16, "right_wrist"),
        (c.BLAZEPOSE_33, 21, "left_thumb"),
        (c.BLAZEPOSE_33, 32, "right_foot_index"),
        (c.HAND_LEFT, 8, "left_index_tip"),
        (c.MEDIAPIPE_HOLISTIC, 75, "face_mesh_000"),
        (c.SMPLIFYX_118, 67, "face_17"),
    ],
)
def test_order(convention: tuple[str, ...], index: int, name: str) -> None:
    assert convention[index] == name


@pytest.mark.parametrize("name", WHOLE)
def test_mirror_is_an_involution_that_swaps_sides(name: str) -> None:
    names = c.CONVENTIONS[name]
    index = c.mirror_index(names)
    np.testing.assert_array_equal(index[index], np.arange(len(names)))
    for k, point in enumerate(names):
        if "left" in point:
            assert names[index[k]] == point.replace("left", "right")


def test_a_single_hand_has_no_mirror_image() -> None:
    with pytest.raises(UsageError, match="right_hand_root"):
        c.mirror_index(c.HAND_LEFT)


@pytest.mark.parametrize(
    ("name", "mirrored"),
    [
        ("face_00", "face_16"),
        ("face_36", "face_45"),
        ("face_39", "face_42"),
        ("face_41", "face_46"),
        ("face_48", "face_54"),
        ("face_67", "face_65"),
        ("face_33", "face_33"),
        ("face_mesh_033", "face_mesh_263"),
        ("face_mesh_133", "face_mesh_362"),
        ("face_mesh_061", "face_mesh_291"),
        ("face_mesh_234", "face_mesh_454"),
        ("face_mesh_152", "face_mesh_152"),
        ("joint/left_hip", "joint/right_hip"),
        ("mouth_left", "mouth_right"),
        ("nose", "nose"),
    ],
)
def test_side_swapped(name: str, mirrored: str) -> None:
    assert c.side_swapped(name) == mirrored
    assert c.side_swapped(mirrored) == name


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("nose", "body"),
        ("left_wrist", "body"),
        ("left_index", "body"),
        ("left_heel", "feet"),
        ("right_foot_index", "feet"),
        ("left_hand_root", "left_hand"),
        ("right_pinky_tip", "right_hand"),
        ("face_30", "face"),
        ("left_pupil", "face"),
        ("face_mesh_004", "face"),
        ("face_08", "contour"),
        ("face_mesh_152", "contour"),
    ],
)
def test_part_of(name: str, part: str) -> None:
    assert c.part_of(name) == part
    assert part in c.PARTS


def test_each_face_point_has_its_own_mesh_point_and_sides_agree() -> None:
    assert list(FACE_FROM_MESH) == list(c.FACE_68)
    assert len(set(FACE_FROM_MESH.values())) == 68
    for face, mesh in FACE_FROM_MESH.items():
        assert FACE_FROM_MESH[c.side_swapped(face)] == c.side_swapped(mesh)
    assert len(set(FACE_OVAL)) == 36


@pytest.mark.parametrize("names", c.CONVENTIONS.values(), ids=c.CONVENTIONS)
@pytest.mark.parametrize("available", [*c.CONVENTIONS.values(), SMPLX_LIKE], ids=[*c.CONVENTIONS, "smplx-like"])
@pytest.mark.parametrize("aliases", [c.ALIASES, c.CONVERSION_ALIASES], ids=["fit", "conversion"])
def test_a_part_never_uses_a_point_twice(
    names: tuple[str, ...], available: tuple[str, ...], aliases: dict[str, tuple[str, ...]]
) -> None:
    found = c.correspondence(names, available, aliases)
    assert found.indices.shape == found.mask.shape == (len(names),)
    assert (found.indices[~found.mask] == 0).all()
    used = [(c.part_of(name), i) for name, i, ok in zip(names, found.indices, found.mask, strict=True) if ok]
    assert len(set(used)) == len(used)


@pytest.mark.parametrize("name", sorted(SIZES))
def test_a_convention_is_found_in_itself(name: str) -> None:
    names = c.CONVENTIONS[name]
    found = c.correspondence(names, names)
    assert found.mask.all()
    np.testing.assert_array_equal(found.indices, np.arange(len(names)))


@pytest.mark.parametrize(
    ("name", "landmark"),
    [
        ("left_hand_root", "left_wrist"),
        ("mid_hip", "pelvis"),
        ("neck", "neck"),
        ("left_foot_index", "left_big_toe"),
        ("mouth_left", "face_54"),
        ("mouth_right", "face_48"),
        ("left_eye_inner", "face_42"),
        ("right_eye_outer", "face_36"),
        ("left_index", "left_index1"),
        ("right_pinky", "right_pinky1"),
        ("left_thumb", "left_thumb2"),
        ("left_pupil", "left_eye"),
        ("face_mesh_263", "face_45"),
        ("face_mesh_001", None),
        ("face_mesh_152", None),
        ("face_08", None),
        ("head_top", None),
    ],
)
def test_stand_ins(name: str, landmark: str | None) -> None:
    assert found_in(name, SMPLX_LIKE) == landmark


def test_neck_base_is_preferred_to_the_joint_and_joints_stand_in() -> None:
    assert found_in("neck", ("neck", "neck_base")) == "neck_base"
    assert found_in("left_hip", ("joint/left_hip", "pelvis")) == "joint/left_hip"
    assert found_in("left_hip", ("joint/left_hip", "left_hip")) == "left_hip"


def test_wrist_and_hand_root_share_a_point_and_a_direct_match_wins() -> None:
    names = ("left_hand_root", "left_wrist")
    found = c.correspondence(names, ("nose", "left_wrist"))
    np.testing.assert_array_equal(found.indices, [1, 1])
    assert found.mask.all()
    toes = c.correspondence(("left_foot_index", "left_big_toe"), ("left_big_toe",))
    np.testing.assert_array_equal(toes.mask, [False, True])


def test_most_of_holistic_is_found_on_a_sparse_face() -> None:
    found = c.correspondence(c.MEDIAPIPE_HOLISTIC, SMPLX_LIKE)
    parts = [c.part_of(name) for name, ok in zip(c.MEDIAPIPE_HOLISTIC, found.mask, strict=True) if ok]
    assert parts.count("face") == 51
    assert parts.count("left_hand") == parts.count("right_hand") == 21
    assert parts.count("body") == 29


def test_edges_join_known_names_and_come_with_colours() -> None:
    known = {name for names in c.CONVENTIONS.values() for name in names}
    assert {end for edges in EDGES.values() for edge in edges for end in edge} <= known
    assert set(COLOURS) == set(EDGES)
    for names in c.CONVENTIONS.values():
        edges = edges_of(names)
        assert edges
        assert len({frozenset(edge[:2]) for edge in edges}) == len(edges)
        assert all(a != b for a, b, _ in edges)


def test_face_mesh_names() -> None:
    assert FACE_MESH_468[0] == "face_mesh_000"
    assert FACE_MESH_468[467] == "face_mesh_467"
