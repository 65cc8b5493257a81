"""Keypoint files: what each format's samples give, round trips, finding a picture's file, and every bad input."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fitkit.errors import InputError, OutputError, UsageError
from fitkit.keypoints import conventions as c
from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.conversion import convert
from fitkit.keypoints.formats import (
    FORMATS,
    WRITABLE,
    KeypointFolder,
    file_name,
    find_keypoints,
    read_keypoints,
    write_keypoints,
)


def flat(count: int, start: float = 10.0, confidence: float = 0.9) -> list[float]:
    """Return x, y, confidence of `count` points along a diagonal."""
    return [value for k in range(count) for value in (start + k, 2.0 * (start + k), confidence)]


def save(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def openpose_person(**fields: object) -> dict[str, object]:
    empty = {f"{part}_keypoints_2d": [] for part in ("face", "hand_left", "hand_right")}
    return {"person_id": [-1], "pose_keypoints_2d": flat(25), **empty, "pose_keypoints_3d": [], **fields}


def people(names: tuple[str, ...], count: int = 2, **fields: Any) -> Keypoints:
    """Return random people in a convention, of whom some points are unseen."""
    random = np.random.default_rng(0)
    confidence = random.uniform(0.05, 1.0, (count, len(names))) * (random.random((count, len(names))) > 0.1)
    points = random.uniform(0.0, 600.0, (count, len(names), 2)) * (confidence[..., None] > 0.0)
    return Keypoints(names, points, confidence, **fields)


# What the tools write


def test_openpose_body_25_with_hands_and_face(tmp_path: Path) -> None:
    whole = openpose_person(
        face_keypoints_2d=flat(70, 50.0, 1.01), hand_left_keypoints_2d=flat(21), hand_right_keypoints_2d=flat(21, 90.0)
    )
    path = save(tmp_path / "photo_keypoints.json", {"version": 1.3, "people": [openpose_person(), whole]})
    (found,) = read_keypoints(path)
    assert found.names == c.OPENPOSE_137
    assert found.source == "photo"
    assert (found.confidence[0, 25:] == 0.0).all()
    assert (found.confidence[1, 67:] == 1.0).all()
    np.testing.assert_allclose(found.points[1, found.names.index("right_hand_root")], [90.0, 180.0])
    np.testing.assert_allclose(found.points[1, found.names.index("right_pupil")], [118.0, 236.0])


@pytest.mark.parametrize(("count", "names"), [(25, c.BODY_25), (18, c.COCO_18)])
@pytest.mark.parametrize("key", ["pose_keypoints_2d", "pose_keypoints"])
def test_openpose_body_alone_in_old_and_new_words(tmp_path: Path, count: int, names: tuple[str, ...], key: str) -> None:
    (found,) = read_keypoints(save(tmp_path / "a.json", {"version": 1.0, "people": [{key: flat(count)}]}))
    assert found.names == names
    np.testing.assert_allclose(found.points[0, 3], [13.0, 26.0])


def test_openpose_genders_prefer_the_annotated_one(tmp_path: Path) -> None:
    persons = [openpose_person(gender_pd="female", gender_gt="male"), openpose_person(gender_pd="female")]
    (found,) = read_keypoints(save(tmp_path / "a.json", {"people": [*persons, openpose_person()]}))
    assert found.genders == ("male", "female", None)


def test_openpose_nobody(tmp_path: Path) -> None:
    (found,) = read_keypoints(save(tmp_path / "a.json", {"version": 1.3, "people": []}))
    assert len(found) == 0


def test_openpose_objects_by_picture(tmp_path: Path) -> None:
    document = {"b.jpg": {"version": 0.1, "bodies": [{"joints": flat(18)}]}, "c.jpg": {"people": []}}
    first, second = read_keypoints(save(tmp_path / "a.json", document))
    assert (first.source, len(first), first.names) == ("b.jpg", 1, c.COCO_18)
    assert (second.source, len(second)) == ("c.jpg", 0)


def coco_annotation(image: int = 7, **fields: object) -> dict[str, object]:
    keypoints = [float(v) for k in range(17) for v in (10 + k, 20 + k, (2, 1, 0)[k % 3])]
    return {"image_id": image, "iscrowd": 0, "bbox": [1.0, 2.0, 30.0, 40.0], "keypoints": keypoints, **fields}


def whole_body(**fields: object) -> dict[str, object]:
    parts = {
        "foot_kpts": flat(6, confidence=2.0),
        "face_kpts": flat(68, confidence=1.0),
        "lefthand_kpts": flat(21, confidence=0.3),
        "righthand_kpts": [*flat(20, confidence=1.0), 5.0, 6.0, 2.0],
        **{f"{part}_valid": True for part in ("foot", "face", "lefthand", "righthand")},
    }
    return coco_annotation(**{**parts, **fields})


IMAGES = [{"id": 7, "file_name": "000000000007.jpg", "width": 640, "height": 480}]


def test_coco_flags_become_confidences(tmp_path: Path) -> None:
    document = {"images": IMAGES, "annotations": [coco_annotation(), coco_annotation(iscrowd=1)]}
    (found,) = read_keypoints(save(tmp_path / "a.json", document))
    assert found.names == c.COCO_17
    assert found.source == "000000000007.jpg"
    assert found.image_size == (640, 480)
    np.testing.assert_allclose(found.confidence[0, :3], [1.0, 0.5, 0.0])
    assert found.boxes is not None
    np.testing.assert_allclose(found.boxes, [[1.0, 2.0, 31.0, 42.0]])


def test_coco_whole_body_parts(tmp_path: Path) -> None:
    document = {"images": IMAGES, "annotations": [whole_body(), whole_body(face_valid=False)]}
    (found,) = read_keypoints(save(tmp_path / "a.json", document))
    assert found.names == c.COCO_WHOLEBODY_133
    confidence = {part: found.confidence[:, [c.part_of(n) == part for n in found.names]] for part in c.PARTS}
    assert (confidence["feet"] == 1.0).all()
    assert (confidence["face"][0] == 1.0).all() and (confidence["face"][1] == 0.0).all()
    assert (confidence["left_hand"] == 0.3).all()
    np.testing.assert_allclose(confidence["right_hand"][0], [0.5] * 20 + [1.0])


def test_coco_leaves_out_people_without_labels_but_keeps_the_picture(tmp_path: Path) -> None:
    document = {"images": IMAGES, "annotations": [coco_annotation(keypoints=[0] * 51)]}
    (found,) = read_keypoints(save(tmp_path / "a.json", document))
    assert len(found) == 0


def test_halpe_annotations(tmp_path: Path) -> None:
    document = {"images": IMAGES, "annotations": [coco_annotation(keypoints=flat(136, confidence=2.0))]}
    (found,) = read_keypoints(save(tmp_path / "a.json", document))
    assert found.names == c.HALPE_136
    assert (found.confidence == 1.0).all()


def test_coco_results_by_picture(tmp_path: Path) -> None:
    results = [
        {"image_id": 7, "category_id": 1, "keypoints": flat(133, confidence=0.25), "score": 0.8},
        {"image_id": 9, "category_id": 1, "keypoints": flat(133), "score": 2.0},
        {"image_id": 7, "category_id": 1, "keypoints": flat(133), "score": 0.5},
    ]
    seven, nine = read_keypoints(save(tmp_path / "a.json", results))
    assert (seven.source, nine.source) == ("7", "9")
    assert seven.scores is not None and nine.scores is not None
    np.testing.assert_allclose(seven.scores, [0.8, 0.5])
    np.testing.assert_allclose(nine.scores, [1.0])
    np.testing.assert_allclose(seven.confidence[0], 0.25)


@pytest.mark.parametrize(
    ("count", "names"),
    [(17, c.COCO_17), (26, c.HALPE_26), (136, c.HALPE_136), (68, (*c.HALPE_26, *c.HAND_LEFT, *c.HAND_RIGHT))],
)
def test_alphapose(tmp_path: Path, count: int, names: tuple[str, ...]) -> None:
    person = {"image_id": "b.jpg", "category_id": 1, "keypoints": flat(count, confidence=5.0), "score": 3.25}
    (found,) = read_keypoints(save(tmp_path / "a.json", [{**person, "box": [1, 2, 3, 4], "idx": [0.0]}]))
    assert (found.names, found.source) == (names, "b.jpg")
    assert (found.confidence == 1.0).all()
    assert found.scores is not None and found.boxes is not None
    np.testing.assert_allclose(found.scores, [1.0])
    np.testing.assert_allclose(found.boxes, [[1.0, 2.0, 4.0, 6.0]])


def test_alphapose_object_by_picture(tmp_path: Path) -> None:
    document = {"x/a.jpg": [{"keypoints": flat(17), "score": 1.3}], "x/b.jpg": []}
    first, second = read_keypoints(save(tmp_path / "a.json", document))
    assert (len(first), len(second), second.source) == (1, 0, "x/b.jpg")


def mmpose_instance(count: int = 17) -> dict[str, object]:
    points = [[10.0 + k, 20.0] for k in range(count)]
    return {"keypoints": points, "keypoint_scores": [0.5] * count, "bbox": [[1, 2, 3, 4]], "bbox_score": 0.75}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda people: people,
        lambda people: {"instances": people},
        lambda people: {"meta_info": {"dataset_name": "coco"}, "instance_info": people},
        lambda people: {"predictions": [people]},
    ],
)
def test_mmpose(tmp_path: Path, wrap: Callable[[list[object]], object]) -> None:
    (found,) = read_keypoints(save(tmp_path / "photo.json", wrap([mmpose_instance(), mmpose_instance()])))
    assert (found.names, len(found), found.source) == (c.COCO_17, 2, "photo")
    assert found.scores is not None and found.boxes is not None
    np.testing.assert_allclose(found.scores, 0.75)
    np.testing.assert_allclose(found.boxes[0], [1, 2, 3, 4])
    np.testing.assert_allclose(found.points[1, 2], [12.0, 20.0])


def test_mmpose_names_its_points(tmp_path: Path) -> None:
    names = ["nose", "head", "face-5", "left_thumb4", "right_forefinger2", "left_hand_root"]
    meta = {"keypoint_id2name": {str(i): name for i, name in enumerate(names)}}
    document = {"meta_info": meta, "instance_info": [mmpose_instance(6)]}
    (found,) = read_keypoints(save(tmp_path / "a.json", document))
    assert found.names == ("nose", "head_top", "face_05", "left_thumb_tip", "right_index2", "left_hand_root")


def test_mmpose_video_frames(tmp_path: Path) -> None:
    document = [{"frame_id": 0, "instances": [mmpose_instance()]}, {"frame_id": 1, "instances": []}]
    found = read_keypoints(save(tmp_path / "a.json", document))
    assert [(len(frame), frame.source) for frame in found] == [(1, "frame 0"), (0, "frame 1")]


def test_an_empty_list_is_a_picture_with_nobody(tmp_path: Path) -> None:
    (found,) = read_keypoints(save(tmp_path / "photo.json", []))
    assert (len(found), found.source) == (0, "photo")


# Missing and strange values


def test_missing_values_are_unseen(tmp_path: Path) -> None:
    values: list[Any] = flat(25)
    values[0:3] = [None, None, None]
    values[3:6] = [float("nan"), 4.0, 0.9]
    values[6:9] = [-1, -1, 0.9]
    values[9:12] = [1.0, 2.0, -1]
    values[12:15] = [1.0, 2.0, 1.0002]
    (found,) = read_keypoints(save(tmp_path / "a.json", {"people": [{"pose_keypoints_2d": values}]}))
    np.testing.assert_allclose(found.confidence[0, :5], [0.0, 0.0, 0.0, 0.0, 1.0])
    assert np.isfinite(found.points).all()


def test_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"people": []}).encode())
    assert len(read_keypoints(path)) == 1


def test_image_size_is_filled_in_or_checked(tmp_path: Path) -> None:
    bare = save(tmp_path / "a.json", {"people": [openpose_person()]})
    assert read_keypoints(bare, image_size=(640, 480))[0].image_size == (640, 480)
    sized = save(tmp_path / "b.json", {"images": IMAGES, "annotations": [coco_annotation()]})
    assert read_keypoints(sized, image_size=(640, 480))[0].image_size == (640, 480)
    with pytest.raises(InputError, match="640 x 480 pixels, but the picture has 320 x 240"):
        read_keypoints(sized, image_size=(320, 240))


BAD_TEXTS = {
    "not JSON": ("{oops", "is not JSON: .* line 1"),
    "empty": ("  ", "is empty"),
    "a text": ('"hello"', "a text, which is no known keypoint format"),
    "a number": ("3", "a number, which is no known"),
    "null": ("null", "null, which is no known"),
    "another object": ('{"bbox": [1, 2]}', "keys bbox, which is no known keypoint format. Known are OpenPose"),
    "an empty object": ("{}", "an empty object"),
    "a list of numbers": ("[1, 2]", "a list of a number"),
    "too deep": ("[" * 100_000, "neither JSON nor an npz|is not JSON"),
}


@pytest.mark.parametrize(("text", "message"), BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_bad_texts(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_keypoints(path)


BAD_DOCUMENTS: dict[str, tuple[object, str]] = {
    "openpose, wrong count": (
        {"people": [{"pose_keypoints_2d": flat(17)[:50] + [1, 2]}]},
        r"person 0: got 52 values for pose_keypoints_2d; expected 75 \(BODY_25\) or 54 \(COCO-18\)",
    ),
    "openpose, wrong hand": (
        {"people": [openpose_person(hand_left_keypoints_2d=[1.0])]},
        "got 1 values for hand_left_keypoints_2d; expected 63",
    ),
    "openpose, text": ({"people": [{"pose_keypoints_2d": "no"}]}, "expected a list of numbers; got a text"),
    "openpose, words": ({"people": [{"pose_keypoints_2d": ["x"] * 75}]}, "expected a list of numbers"),
    "openpose, person is a number": ({"people": [3]}, "person 0: expected an object; got a number"),
    "openpose, no keypoints": ({"people": [{"face": 1}]}, "expected pose_keypoints_2d; got an object with the keys"),
    "openpose, two layouts": (
        {"people": [{"pose_keypoints_2d": flat(25)}, {"pose_keypoints_2d": flat(18)}]},
        "person 1 has 18 points where the first has 25",
    ),
    "openpose, shares": (
        {"people": [{"pose_keypoints_2d": [0.4, 0.5, 0.9] * 25}]},
        "all coordinates lie between -1 and 1.*--keypoint_scale 0",
    ),
    "coco, no image_id": ({"annotations": [{"keypoints": []}]}, "expected annotations with an image_id"),
    "coco, wrong count": (
        {"annotations": [coco_annotation(keypoints=[1, 2, 2])]},
        r"keypoints: got 3 values; expected 51 \(17 points\)",
    ),
    "coco, wrong foot": ({"annotations": [whole_body(foot_kpts=[1])]}, r"foot_kpts: got 1 values; expected 18"),
    "coco, short box": ({"annotations": [coco_annotation(bbox=[1, 2])]}, "x, y, width and height; got 2"),
    "results, wrong count": ([{"image_id": 1, "keypoints": [1, 2, 3]}], "got 3 values"),
    "results, later one broken": ([{"image_id": 1, "keypoints": flat(17)}, 5], "expected results with an image_id"),
    "alphapose, no keypoints": ([{"image_id": "a", "idx": 1, "keypoints": None}], "a list of numbers; got null"),
    "mmpose, wrong count": ([mmpose_instance(5)], "got 5 keypoints; expected 17"),
    "mmpose, 3D": ([{"keypoints": [[1, 2, 3]], "keypoint_scores": [1]}], "expected pairs x, y"),
    "mmpose, ragged": ([{"keypoints": [[1, 2], [3]], "keypoint_scores": [1, 1]}], "expected pairs x, y"),
    "mmpose, scores": ([{**mmpose_instance(), "keypoint_scores": [1.0]}], "got 1 keypoint_scores for 17"),
    "coco, size in words": (
        {"images": [{**IMAGES[0], "width": "wide"}], "annotations": [coco_annotation()]},
        "a value of the wrong kind",
    ),
    "coco, images is a number": ({"images": 3, "annotations": []}, "a value of the wrong kind"),
    "mmpose, box in words": ([{**mmpose_instance(), "bbox": ["x"]}], "a value of the wrong kind"),
    "huge number": ({"people": [{"pose_keypoints_2d": [10**400] * 75}]}, "expected a list of numbers"),
}


@pytest.mark.parametrize(("document", "message"), BAD_DOCUMENTS.values(), ids=BAD_DOCUMENTS)
def test_bad_documents(tmp_path: Path, document: object, message: str) -> None:
    path = save(tmp_path / "a.json", document)
    with pytest.raises(InputError, match=message) as caught:
        read_keypoints(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_paths(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no keypoint file"):
        read_keypoints(tmp_path / "none.json")
    with pytest.raises(InputError, match="is a folder"):
        read_keypoints(tmp_path)
    with pytest.raises(InputError, match="no keypoint file or folder"):
        KeypointFolder(tmp_path / "none")
    with pytest.raises(InputError, match="no keypoint file or folder"):
        find_keypoints(tmp_path / "none", "a.jpg")


def test_binary_files(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xff\xd8\xff\xe0 a picture")
    with pytest.raises(InputError, match="neither JSON nor an npz"):
        read_keypoints(path)
    path.write_bytes(pickle.dumps({"people": []}))
    with pytest.raises(InputError, match="pickle"):
        read_keypoints(path)


# Our own npz


def full_keypoints() -> Keypoints:
    random = np.random.default_rng(1)
    return people(
        c.MEDIAPIPE_HOLISTIC,
        image_size=(33, 21),
        scores=np.array([0.9, 0.4]),
        boxes=random.uniform(0, 30, (2, 4)),
        world=np.where(random.random((2, 543, 1)) > 0.2, random.normal(size=(2, 543, 3)), np.nan),
        masks=random.random((2, 21, 33)) > 0.5,
        genders=("female", None),
        source="photo.jpg",
        metadata={"detector": "mediapipe", "passes": 2},
    )


def assert_equal(first: Keypoints, second: Keypoints) -> None:
    for name in ("names", "image_size", "genders", "source", "metadata"):
        assert getattr(first, name) == getattr(second, name)
    for name in ("points", "confidence", "scores", "boxes", "world", "masks"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_npz_keeps_everything(tmp_path: Path) -> None:
    wanted = full_keypoints()
    path = write_keypoints(tmp_path / "photo.npz", wanted, "npz")
    (found,) = read_keypoints(path)
    assert_equal(found, wanted)
    with np.load(path, allow_pickle=False) as arrays:
        assert arrays["masks"].nbytes == 2 * np.ceil(21 * 33 / 8)


def test_npz_of_nobody_and_of_little(tmp_path: Path) -> None:
    for wanted in (people(c.COCO_17, 0, masks=np.zeros((0, 5, 7), bool), image_size=(7, 5)), people(("nose",), 1)):
        path = write_keypoints(tmp_path / "photo.npz", wanted)
        (found,) = read_keypoints(path)
        assert found.source == "photo"
        np.testing.assert_array_equal(found.points, wanted.points)
        assert (found.masks is None) == (wanted.masks is None)


def test_bad_npz(tmp_path: Path) -> None:
    path = write_keypoints(tmp_path / "a.npz", full_keypoints())
    whole = path.read_bytes()
    for size in (3, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"a\.npz"):
            read_keypoints(path)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    path.write_bytes(bytes(damaged))
    with pytest.raises(InputError, match="damaged"):
        read_keypoints(path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"points": np.array([{}], dtype=object), "names": np.array(["nose"])}, "pickles"),
        ({"vertices": np.zeros(3)}, "keys vertices, which is no known"),
        ({"points": np.zeros((1, 2, 2))}, r"need points \(P, 1, 2\)"),
        ({"points": np.zeros((2, 1, 2))}, "need points"),
        ({"scores": np.zeros(3)}, "scores of 3 people"),
        ({"masks": np.zeros((1, 1), np.uint8), "mask_size": np.array([50, 50])}, "do not fit together"),
        ({"format_version": np.array(99)}, "newer fitkit"),
    ],
)
def test_npz_with_bad_arrays(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    good = {"names": np.array(["nose"]), "points": np.zeros((1, 1, 2)), "confidence": np.ones((1, 1))}
    content = arrays if "vertices" in arrays else good | arrays
    np.savez(tmp_path / "a.npz", **content)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        read_keypoints(tmp_path / "a.npz")


# Writing


@pytest.mark.parametrize("format", WRITABLE)
@pytest.mark.parametrize("name", ["coco-17", "body-25", "openpose-137", "coco-wholebody-133", "mediapipe-holistic"])
def test_what_is_written_is_read_back(tmp_path: Path, format: str, name: str) -> None:
    wanted = people(c.CONVENTIONS[name], image_size=(640, 480), source="photo.jpg")
    path = write_keypoints(tmp_path / file_name("x/photo.jpg", format), wanted, format)
    found = find_keypoints(tmp_path, "elsewhere/photo.jpg")
    assert found is not None
    written = {"openpose": c.OPENPOSE_137, "coco-wholebody": c.COCO_WHOLEBODY_133}.get(format, wanted.names)
    expected = convert(wanted, written)
    found = convert(found, written)
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-4)
    np.testing.assert_allclose(
        found.points, np.where(expected.confidence[..., None] > 0, expected.points, 0), atol=1e-4
    )
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_nothing_is_written_for_nobody(tmp_path: Path) -> None:
    for format in WRITABLE:
        path = write_keypoints(tmp_path / file_name("a.jpg", format), people(c.COCO_17, 0), format)
        assert len(read_keypoints(path)[0] if read_keypoints(path) else []) == 0


def test_openpose_writes_its_own_layout(tmp_path: Path) -> None:
    wanted = people(c.COCO_17, genders=("male", None))
    path = write_keypoints(tmp_path / "a_keypoints.json", wanted, "openpose")
    document = json.loads(path.read_text(encoding="utf-8"))
    assert [len(person["pose_keypoints_2d"]) for person in document["people"]] == [75, 75]
    assert document["people"][0]["hand_left_keypoints_2d"] == []
    assert document["people"][0]["gender_pd"] == "male"
    assert "gender_pd" not in document["people"][1]


def test_coco_wholebody_writes_its_own_layout(tmp_path: Path) -> None:
    pictures = [people(c.COCO_WHOLEBODY_133, source=f"{name}.jpg", image_size=(64, 48)) for name in "ab"]
    path = write_keypoints(tmp_path / "all.json", pictures, "coco-wholebody")
    document = json.loads(path.read_text(encoding="utf-8"))
    assert [image["file_name"] for image in document["images"]] == ["a.jpg", "b.jpg"]
    assert [a["id"] for a in document["annotations"]] == [1, 2, 3, 4]
    first = document["annotations"][0]
    assert (len(first["keypoints"]), len(first["face_kpts"]), len(first["foot_kpts"])) == (51, 204, 18)
    assert set(first["keypoints"][2::3]) <= {0, 1, 2}
    assert all(isinstance(flag, int) for flag in first["keypoints"][2::3])
    assert len(read_keypoints(path, "b.jpg")[0]) == 2


def test_neck_and_middle_of_the_hips_are_made_and_unseen_ends_spoil_them() -> None:
    confidence = np.ones((2, 17))
    confidence[0, c.COCO_17.index("left_shoulder")] = 0.4
    confidence[1, c.COCO_17.index("right_hip")] = 0.0
    points = np.arange(68.0).reshape(2, 17, 2)
    made = convert(Keypoints(c.COCO_17, points, confidence, world=np.ones((2, 17, 3))), c.BODY_25)
    neck, hips = made.names.index("neck"), made.names.index("mid_hip")
    np.testing.assert_allclose(made.confidence[:, neck], [0.4, 1.0])
    np.testing.assert_allclose(made.points[0, neck], points[0, 5:7].mean(0))
    np.testing.assert_allclose(made.confidence[:, hips], [1.0, 0.0])
    assert made.world is not None
    assert np.isfinite(made.world[:, neck]).all() and np.isnan(made.world[:, made.names.index("left_heel")]).all()


def test_mediapipe_becomes_openpose_and_wholebody_by_name() -> None:
    wanted = people(c.MEDIAPIPE_HOLISTIC)
    for names in (c.OPENPOSE_137, c.COCO_WHOLEBODY_133):
        made = convert(wanted, names)
        for there, here in {
            "left_wrist": "left_wrist",
            "left_big_toe": "left_foot_index",
            "right_index2": "right_index2",
            "face_30": "face_mesh_004",
            "face_08": "face_mesh_152",
        }.items():
            k, j = names.index(there), wanted.names.index(here)
            np.testing.assert_array_equal(made.points[:, k], wanted.points[:, j])
            np.testing.assert_array_equal(made.confidence[:, k], wanted.confidence[:, j])


def test_formats_that_are_only_read_and_unknown_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written as 'alphapose'; choose one of openpose"):
        write_keypoints(tmp_path / "a", people(c.COCO_17), "alphapose")
    with pytest.raises(UsageError, match="Did you mean 'openpose'"):
        write_keypoints(tmp_path / "a", people(c.COCO_17), "openpos")
    with pytest.raises(UsageError, match="one picture; got 2"):
        write_keypoints(tmp_path / "a", [people(c.COCO_17)] * 2, "openpose")
    assert not list(tmp_path.iterdir())
    assert {name for name in FORMATS if FORMATS.get(name).write} == set(WRITABLE)


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    for format in WRITABLE:
        with pytest.raises(OutputError, match="its folder does not exist"):
            write_keypoints(tmp_path / "none" / "a.json", people(c.COCO_17), format)


# Finding a picture's keypoints


def test_a_folder_is_searched_by_file_name_then_by_recorded_name(tmp_path: Path) -> None:
    save(tmp_path / "a_keypoints.json", {"people": [openpose_person()]})
    save(tmp_path / "b.json", [mmpose_instance(), mmpose_instance()])
    write_keypoints(tmp_path / "c.npz", people(c.COCO_17, 3))
    save(tmp_path / "all.json", {"images": IMAGES, "annotations": [coco_annotation()]})
    save(tmp_path / "notes.json", {"nothing": "of ours"})
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    folder = KeypointFolder(tmp_path)
    found = folder.find_all(
        ["x/a.jpg", "b.png", "c.jpeg", "000000000007.jpg", "COCO_val2014_000000000007.jpg", "d.jpg"]
    )
    assert [None if each is None else len(each) for each in found] == [1, 2, 3, 1, None, None]
    with pytest.raises(InputError, match="is not JSON"):
        folder.find("broken.jpg")


def test_numbers_stand_for_pictures(tmp_path: Path) -> None:
    save(tmp_path / "all.json", [{"image_id": 7, "keypoints": flat(17)}, {"image_id": 70, "keypoints": flat(17)}])
    for path in (tmp_path, tmp_path / "all.json"):
        found = find_keypoints(path, "COCO_val2014_000000000007.jpg")
        assert found is not None and found.source == "7"
        assert find_keypoints(path, "photo8.jpg") is None


def test_the_fuller_of_two_files_wins(tmp_path: Path) -> None:
    save(tmp_path / "body.json", {"images": IMAGES, "annotations": [coco_annotation()]})
    save(tmp_path / "whole.json", {"images": IMAGES, "annotations": [whole_body()]})
    found = find_keypoints(tmp_path, "000000000007.jpg")
    assert found is not None and len(found.names) == 133


def test_the_same_name_in_two_folders_is_told_by_the_path(tmp_path: Path) -> None:
    results = [
        {"image_id": f"{folder}/1.jpg", "keypoints": flat(17, start), "idx": 0}
        for folder, start in (("a", 1), ("b", 2))
    ]
    path = save(tmp_path / "all.json", results)
    found = find_keypoints(path, "photos/b/1.jpg")
    assert found is not None and found.source == "b/1.jpg"
    with pytest.raises(InputError, match="a/1.jpg and b/1.jpg"):
        find_keypoints(path, "1.jpg")


def test_a_lone_unnamed_file_fits_one_picture_only(tmp_path: Path) -> None:
    path = save(tmp_path / "detections.json", {"people": [openpose_person()]})
    folder = KeypointFolder(path)
    assert folder.find("photo.jpg") is not None
    assert folder.find_all(["photo.jpg"])[0] is not None
    with pytest.raises(InputError, match="one picture, but there are 2 pictures"):
        folder.find_all(["photo.jpg", "other.jpg"])
    named = [found is not None for found in folder.find_all(["detections.jpg", "other.jpg"])]
    assert named == [True, False]


def test_a_file_about_another_picture_gives_none(tmp_path: Path) -> None:
    path = save(tmp_path / "all.json", {"images": IMAGES, "annotations": [coco_annotation()]})
    assert find_keypoints(path, "photo.jpg") is None
    assert read_keypoints(path, image="photo.jpg") == []
    assert len(read_keypoints(path, image="somewhere/000000000007.png")) == 1


def test_a_folder_trusts_the_name_of_a_file_of_one_picture(tmp_path: Path) -> None:
    write_keypoints(tmp_path / "new.npz", people(c.COCO_17, source="old.jpg"))
    for image in ("new.jpg", "old.jpg"):
        assert find_keypoints(tmp_path, image) is not None
    assert find_keypoints(tmp_path / "new.npz", "new.jpg") is None


def test_unnamed_frames_cannot_be_told_apart(tmp_path: Path) -> None:
    path = save(tmp_path / "video.json", [{"frame_id": k, "instances": [mmpose_instance()]} for k in range(2)])
    assert find_keypoints(path, "photo.jpg") is None


def test_a_folder_reads_a_file_of_many_pictures_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "all.json", [{"image_id": f"{k}.jpg", "keypoints": flat(17), "idx": k} for k in range(50)])
    reads: list[Path] = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: (reads.append(self), original(self))[1])
    for k in range(50):
        found = find_keypoints(tmp_path, f"photos/{k}.jpg")
        assert found is not None and found.source == f"{k}.jpg"
    assert len(reads) == 1


def test_a_rewritten_file_is_read_anew(tmp_path: Path) -> None:
    import os

    path = save(
        tmp_path / "all.json", [{"image_id": name, "keypoints": flat(17), "idx": 0} for name in ("a.jpg", "b.jpg")]
    )
    assert find_keypoints(tmp_path, "c.jpg") is None
    assert find_keypoints(path, "a.jpg") is not None
    save(path, [{"image_id": "c.jpg", "keypoints": flat(17), "idx": 0}])
    os.utime(path, ns=(1, 1))
    assert find_keypoints(path, "c.jpg") is not None
