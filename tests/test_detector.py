"""The embedded detector on real pictures; needs its networks, which are found on disk or fetched.

The astronaut (NASA, public domain) comes with scikit-image: a smiling woman, half a body, her hands out of the frame
or hidden. Where several people are wanted, she is copied.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as pillow

from fitkit.errors import InputError, UsageError
from fitkit.keypoints.conventions import MEDIAPIPE_HOLISTIC
from fitkit.keypoints.detectors import DETECTORS, detect
from fitkit.keypoints.images import read_image

pytestmark = pytest.mark.detector

NAMES = {name: index for index, name in enumerate(MEDIAPIPE_HOLISTIC)}
FACE = slice(75, 543)


def skimage_file(name: str) -> Path:
    data = pytest.importorskip("skimage.data", reason="scikit-image's wheel carries the pictures")
    return Path(data.__file__).parent / name


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return read_image(skimage_file("astronaut.png")).pixels


@pytest.fixture(scope="module")
def detector():
    return DETECTORS.get("mediapipe")(num_threads=2)


@pytest.fixture(scope="module")
def found(detector, astronaut):
    return detector.detect(astronaut)


def point(keypoints, name: str, person: int = 0) -> np.ndarray:
    return keypoints.points[person, NAMES[name]]


def test_one_person_is_found(found):
    assert len(found) == 1 and found.names == MEDIAPIPE_HOLISTIC
    assert found.image_size == (512, 512) and found.scores[0] > 0.95


def test_her_face_and_shoulders_lie_where_they_should(found):
    for name, place in {"left_eye": (248, 102), "right_eye": (204, 102), "nose": (226, 124)}.items():
        assert np.hypot(*(point(found, name) - place)) < 12.0, name
        assert found.confidence[0, NAMES[name]] > 0.9
    assert point(found, "left_shoulder")[0] > point(found, "right_shoulder")[0] + 80.0
    for name in ("left_shoulder", "right_shoulder"):
        assert 170.0 < point(found, name)[1] < 260.0


def test_her_face_mesh_agrees_with_her_head(found):
    assert (found.confidence[0, FACE] > 0.8).mean() > 0.9
    assert np.hypot(*(point(found, "face_mesh_001") - point(found, "nose"))) < 10.0
    mesh = found.points[0, FACE]
    assert mesh.min(0)[0] > 160.0 and mesh.max(0)[0] < 280.0


def test_nothing_is_certain_and_nothing_is_seen_outside(found):
    assert found.confidence.max() < 1.0
    outside = ((found.points < 0.0) | (found.points > 512.0)).any(-1)
    assert outside.any() and (found.confidence[outside] == 0.0).all()
    for name in ("left_ankle", "right_ankle", "left_foot_index"):
        assert found.confidence[0, NAMES[name]] < 0.3, name


def test_her_mask_and_box_hold_her(found):
    mask, box = found.masks[0], found.boxes[0]
    assert mask.shape == (512, 512) and 0.25 < mask.mean() < 0.7
    assert mask[100, 225] and mask[300, 200] and not mask[100, 450] and not mask[20, 20]
    assert (box[:2] >= 0.0).all() and (box[2:] <= 512.0).all() and (box[:2] < [150, 110]).all() and box[2] > 300.0


def test_the_third_dimension_of_the_body(found):
    world = found.world[0]
    assert np.isfinite(world[:33]).all() and np.isnan(world[FACE]).all()
    shoulders = world[NAMES["left_shoulder"]] - world[NAMES["right_shoulder"]]
    assert 0.2 < np.linalg.norm(shoulders) < 0.5
    assert world[NAMES["nose"], 2] < world[NAMES["left_ear"], 2]  # she faces the camera: z points away from it
    assert world[NAMES["nose"], 1] < world[NAMES["left_hip"], 1]  # y points down


def test_detection_repeats_itself(detector, astronaut, found):
    np.testing.assert_array_equal(detector.detect(astronaut).points, found.points)


def test_a_mirror_image_exchanges_the_sides(detector, astronaut, found):
    mirrored = detector.detect(np.ascontiguousarray(astronaut[:, ::-1]))
    assert len(mirrored) == 1
    for name in ("shoulder", "eye", "ear"):
        expected = [512.0, 0.0] + point(found, f"left_{name}") * [-1.0, 1.0]
        assert np.hypot(*(point(mirrored, f"right_{name}") - expected)) < 12.0, name


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_a_photo_held_sideways(detector, astronaut, found, quarter):
    turned = detector.detect(np.ascontiguousarray(np.rot90(astronaut, quarter)))
    assert len(turned) == 1
    x, y = point(found, "nose") - 256.0
    expected = {1: (y, -x), 2: (-x, -y), 3: (-y, x)}[quarter]
    assert np.hypot(*(point(turned, "nose") - 256.0 - expected)) < 12.0


def test_size_and_place_do_not_matter(detector, astronaut, found):
    canvas = np.full((900, 1400, 3), 128, np.uint8)
    canvas[300:812, 700:1212] = astronaut
    moved = detector.detect(canvas)
    assert len(moved) == 1
    assert np.hypot(*(point(moved, "nose") - point(found, "nose") - [700.0, 300.0])) < 8.0


def test_several_people_are_told_apart(detector, astronaut):
    row = np.concatenate([astronaut, astronaut[:, ::-1], astronaut], axis=1)
    people = detector.detect(np.ascontiguousarray(row))
    assert len(people) == 3
    noses = sorted(point(people, "nose", i)[0] for i in range(3))
    np.testing.assert_allclose(noses, [225.0, 799.0, 1249.0], atol=12.0)
    assert people.masks.sum(0).max() == 1


def test_a_close_up_of_a_face_is_a_person(detector, astronaut):
    people = detector.detect(np.ascontiguousarray(astronaut[20:220, 120:330]))
    assert len(people) == 1
    assert np.hypot(*(point(people, "nose") - [105.0, 101.0])) < 10.0
    assert people.confidence[0, NAMES["left_knee"]] == 0.0


@pytest.mark.parametrize("name", ["coffee.png", "brick.png", "coins.png"])
def test_things_are_no_people(detector, name):
    nobody = detector.detect(read_image(skimage_file(name)).pixels)
    assert len(nobody) == 0
    assert nobody.points.shape == (0, 543, 2) and nobody.boxes.shape == (0, 4) and nobody.world.shape == (0, 543, 3)
    assert nobody.masks.shape[0] == 0 and nobody.scores.shape == (0,)


@pytest.mark.parametrize("shape", [(24, 24), (16, 200), (200, 16)])
def test_tiny_pictures_are_survived(detector, shape):
    assert len(detector.detect(np.zeros((*shape, 3), np.uint8))) == 0


def test_boxes_of_another_detector(detector, astronaut, found):
    row = np.ascontiguousarray(np.concatenate([astronaut, astronaut[:, ::-1]], axis=1))
    box = found.boxes[0]
    people = detector.detect(row, boxes=np.array([[1024 - box[2], box[1], 1024 - box[0], box[3]]]))
    assert len(people) == 1
    assert np.hypot(*(point(people, "nose") - [1024.0 - 225.0, 121.0])) < 12.0
    assert len(detector.detect(row, boxes=np.zeros((0, 4)))) == 0


@pytest.mark.parametrize(
    "pixels", [np.zeros((10, 10), np.uint8), np.zeros((10, 10, 3)), np.zeros((10, 10, 4), np.uint8)]
)
def test_other_arrays_are_no_pictures(detector, pixels):
    with pytest.raises(InputError, match="uint8 array"):
        detector.detect(pixels)


def test_boxes_have_four_numbers(detector, astronaut):
    with pytest.raises(InputError, match="Boxes"):
        detector.detect(astronaut, boxes=np.array([1.0, 2.0, 3.0, 4.0]))


def test_files_and_arrays_are_taken_alike(detector, astronaut, found):
    from_file, from_array = detect([skimage_file("astronaut.png"), astronaut], detector=detector)
    np.testing.assert_array_equal(from_file.points, found.points)
    assert from_file.source == str(skimage_file("astronaut.png")) and from_array.source is None


def test_the_focal_length_comes_along(detector, astronaut, tmp_path):
    exif = pillow.Exif()
    exif.get_ifd(0x8769)[0xA405] = 35
    pillow.fromarray(astronaut).save(tmp_path / "photo.jpg", exif=exif)
    (found,) = detect(tmp_path / "photo.jpg", detector=detector)
    assert found.focal_length == read_image(tmp_path / "photo.jpg").focal_px
    assert found.focal_length == pytest.approx(35.0 / 43.2666 * np.hypot(512, 512))


def test_as_many_boxes_as_pictures(detector, astronaut):
    with pytest.raises(UsageError, match="1 pictures and boxes for 2"):
        detect(astronaut, detector=detector, boxes=[None, None])


def test_unknown_detectors_are_named():
    with pytest.raises(UsageError, match="mediapipe"):
        detect([], detector="mediapip")


def test_without_masks(astronaut):
    assert DETECTORS.get("mediapipe")(num_threads=1, masks=False).detect(astronaut).masks is None
