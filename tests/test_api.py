"""The Python interface: what may be given, who is fitted by what, and what is said when that cannot be."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fitting_world import keep_only, model_of, people_of, pictures_of, quick, standing_people
from synthetic_models import write_model

import fitkit
from fitkit.api import choose_device, usable_people
from fitkit.errors import FitkitError, InputError, ModelNotFoundError, UsageError
from fitkit.keypoints.containers import Keypoints
from fitkit.results import FitResult

BRIEF = quick("default", 1)
"""A recipe whose every stage takes one step: who is fitted with what does not depend on how well."""


def _pictures(count: int) -> list[Keypoints]:
    return people_of("anny", 8).keypoints[:count]


def _group(count: int = 2, **changes) -> Keypoints:
    """Several people of one picture."""
    alone = _pictures(count)
    together = replace(
        alone[0],
        points=np.concatenate([one.points for one in alone]),
        confidence=np.concatenate([one.confidence for one in alone]),
    )
    return replace(together, **changes)


def _assert_same(first: FitResult, second: FitResult, tolerance: float = 1e-4) -> None:
    for name in first.params:
        np.testing.assert_allclose(first.params[name], second.params[name], rtol=0, atol=tolerance)
    np.testing.assert_allclose(first.vertices, second.vertices, rtol=0, atol=tolerance)
    assert (first.person, first.image, first.status) == (second.person, second.image, second.status)


# ---------------------------------------------------------------------------------------------- what may be given


def test_one_picture_needs_no_list():
    (alone,) = fitkit.fit(_pictures(1)[0], recipe=BRIEF)
    (listed,) = fitkit.fit(_pictures(1), recipe=BRIEF)
    (tupled,) = fitkit.fit(tuple(_pictures(1)), recipe=BRIEF)
    _assert_same(alone, listed)
    _assert_same(alone, tupled)


def test_results_come_in_the_order_of_pictures_and_people():
    pictures = [replace(_group(2), source="a.jpg"), replace(_pictures(1)[0], source="b.jpg"), _group(3, source="c.jpg")]
    found = fitkit.fit(pictures, recipe=BRIEF)
    assert [(one.image, one.person) for one in found] == [
        ("a.jpg", 0), ("a.jpg", 1), ("b.jpg", 0), ("c.jpg", 0), ("c.jpg", 1), ("c.jpg", 2)
    ]  # fmt: skip
    seen = [picture.points[index] for picture in pictures for index in range(len(picture))]
    for one, points in zip(found, seen, strict=True):
        np.testing.assert_allclose(one.points, points, atol=1e-9)


def test_nothing_gives_nothing():
    empty = Keypoints(("nose",), np.zeros((0, 1, 2)), np.zeros((0, 1)), (100, 100))
    assert fitkit.fit([], recipe=BRIEF) == [] and fitkit.fit(empty, recipe=BRIEF) == []
    assert len(fitkit.fit([empty, *_pictures(1), empty], recipe=BRIEF)) == 1


@pytest.fixture
def detector(monkeypatch) -> list:
    """A detector that finds the same person in every picture; returns the pictures that it was shown."""
    shown: list = []

    def detect(images, detector="mediapipe"):
        shown.extend(images)
        return [replace(_pictures(1)[0], source=f"{detector} {len(shown)}") for _ in images]

    monkeypatch.setattr("fitkit.keypoints.detectors.detect", detect)
    return shown


def test_pictures_are_detected_and_mix_with_keypoints(detector):
    array = np.zeros((10, 10, 3), dtype=np.uint8)
    given = [array, replace(_pictures(2)[1], source="keypoints"), "photo.jpg", Path("other.jpg")]
    found = fitkit.fit(given, recipe=BRIEF)
    assert len(found) == 4 and found[1].image == "keypoints"
    assert [one.image.split()[0] for one in (found[0], found[2], found[3])] == ["mediapipe"] * 3
    assert len(detector) == 3 and detector[0] is array and detector[1:] == ["photo.jpg", Path("other.jpg")]


@pytest.mark.parametrize("picture", ["photo.jpg", Path("photo.jpg"), np.zeros((4, 4, 3), dtype=np.uint8)])
def test_one_picture_of_any_kind_needs_no_list(detector, picture):
    assert len(fitkit.detect(picture)) == 1 and len(fitkit.fit(picture, recipe=BRIEF)) == 1
    assert len(detector) == 2


def test_keypoints_alone_need_no_detector(detector):
    fitkit.fit(_pictures(1), recipe=BRIEF)
    assert detector == []


def test_what_is_public_is_there():
    for name in fitkit.__all__:
        assert getattr(fitkit, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'fits'"):
        _ = fitkit.fits


# ---------------------------------------------------------------------------------------------- genders and models


def test_everybody_gets_the_body_of_their_gender():
    keypoints = _group(3, genders=("female", None, "male"))
    found = fitkit.fit([keypoints, _pictures(1)[0]], recipe=BRIEF)
    assert [one.gender for one in found] == ["female", "neutral", "male", "neutral"]
    assert [one.person for one in found] == [0, 1, 2, 0]
    assert len({one.model_hash for one in found}) == 3
    for index, gender in ((0, "female"), (2, "male")):
        (alone,) = fitkit.fit(keypoints.select([index]), gender=gender, recipe=BRIEF, focal=1300)
        np.testing.assert_allclose(alone.params["betas"], found[index].params["betas"], atol=1e-4)


def test_a_gender_that_is_asked_for_wins_over_the_recorded():
    found = fitkit.fit(_group(2, genders=("female", "male")), gender="male", recipe=BRIEF)
    assert [one.gender for one in found] == ["male", "male"]


def test_licensed_models_are_found_in_the_folder_named(tmp_path):
    write_model(tmp_path, "smpl", "female")
    (found,) = fitkit.fit(people_of("smpl", 1).keypoints, "smpl", "female", BRIEF, model_dir=tmp_path)
    assert (found.model, found.gender, found.vertices.shape) == ("smpl", "female", (6890, 3))
    with pytest.raises(ModelNotFoundError, match="--model anny"):
        fitkit.fit(_pictures(1), "smpl", "male", BRIEF, model_dir=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "smplix"}, "Unknown body model 'smplix'.*'smplx'"),
        ({"gender": "man"}, "Unknown gender 'man'"),
        ({"recipe": "smplify-x"}, "Unknown recipe 'smplify-x'.*'smplifyx'"),
        ({"device": "gpu"}, "Unknown device 'gpu'"),
        ({"focal": 1000.0, "fov": 60.0}, "either focal .* or fov"),
        ({"focal": -5.0}, "positive number of pixels"),
        ({"fov": 200.0}, "between 0 and 180 degrees; got 200"),
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"start": [{}, {}]}, "one entry for each of the 1 people"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        fitkit.fit(_pictures(1), **({"recipe": BRIEF} | options))


def test_a_loaded_model_is_used_as_it_is():
    model = model_of("anny", torch.float32)
    (found,) = fitkit.fit(_pictures(1), model, recipe=BRIEF)
    assert found.model_hash == model.file_hash and found.status != "non_finite"


def test_a_recipe_may_be_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("initialiser: {name: frontal}\nstages: [{free: [transl], terms: {reprojection: {}}}]")
    for recipe in (path, str(path)):
        (found,) = fitkit.fit(_pictures(1), recipe=recipe)
        assert found.recipe == "mine" and set(found.energies) == {"reprojection"}


def test_the_recipes_freedoms_are_the_models(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "initialiser: {name: frontal}\nmodel: {betas: 5, expressions: 3, hand_components: null}\n"
        "stages: [{free: [transl], terms: {reprojection: {}}}]"
    )
    (found,) = fitkit.fit(_pictures(1), recipe=path)
    assert (len(found.params["betas"]), len(found.params["expression"])) == (5, 3)
    assert len(found.params["left_hand_pose"]) == 45


# ---------------------------------------------------------------------------------------------- devices


def test_auto_is_cuda_where_there_is_one():
    assert choose_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == "cpu"


def test_a_device_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="has no cuda device.*--device cpu"):
        fitkit.fit(_pictures(1), recipe=BRIEF, device="cuda")
    with pytest.raises(UsageError, match="has no cuda:1 device"):
        choose_device("cuda:1")


@pytest.mark.parametrize("name", ["", "gpu", "CPU", "xpu:0", "cpu:x"])
def test_an_unknown_device_is_said(name):
    with pytest.raises(UsageError, match="Unknown device"):
        choose_device(name)


@pytest.mark.gpu
def test_a_gpu_fits_what_a_cpu_fits():
    pictures = _pictures(4)
    here, there = (fitkit.fit(pictures, device=device) for device in ("cpu", "cuda"))
    for one, two in zip(here, there, strict=True):
        assert two.status != "non_finite"
        assert abs(one.reprojection_px - two.reprojection_px) < 1.0


# ---------------------------------------------------------------------------------------------- batches


def test_the_size_of_batches_does_not_matter():
    pictures = _pictures(4)
    recipe = quick("default", 5)
    together = fitkit.fit(pictures, recipe=recipe)
    for size in (1, 3):
        for one, two in zip(fitkit.fit(pictures, recipe=recipe, batch_size=size), together, strict=True):
            _assert_same(one, two)


def test_progress_is_told():
    calls: list[tuple[int, int, int]] = []
    fitkit.fit(_pictures(1), recipe=BRIEF, progress=lambda *call: calls.append(call))
    meant = [stage for stage in BRIEF.stages if stage.when != "unbelieved"]
    assert {(stage, count) for stage, count, _ in calls} == {(number, len(meant)) for number in range(len(meant))}


# ---------------------------------------------------------------------------------------------- cameras


def test_the_focal_length_is_the_first_that_is_known():
    with_exif, without = _pictures(1)[0], replace(_pictures(1)[0], focal_length=None)

    def focal(keypoints: Keypoints, **options) -> tuple[float, str]:
        (found,) = fitkit.fit(keypoints, recipe=BRIEF.with_known_focal(), **options)
        np.testing.assert_allclose(found.camera.intrinsics[:2, 2], (500, 500))
        return found.camera.focal_length, found.camera.focal_source

    assert focal(with_exif, focal=900.0) == (900.0, "given")
    assert focal(with_exif, fov=90.0) == (pytest.approx(500.0), "field of view")
    assert focal(with_exif) == (1300.0, "EXIF")
    expected = 500 / math.tan(math.radians(BRIEF.camera.field_of_view) / 2)
    assert focal(without, init="mean") == (pytest.approx(expected), "default")
    assert focal(without)[1] == "guessed", "by the network"


def test_only_an_unknown_focal_length_of_a_lone_person_is_refined():
    without = replace(_pictures(1)[0], focal_length=None)
    refines = any("focal_length" in stage.free for stage in BRIEF.stages)
    (alone,) = fitkit.fit(without, recipe=BRIEF)
    assert (alone.camera.focal_deviation is not None) == refines
    (given,) = fitkit.fit(without, recipe=BRIEF, focal=1234)
    assert (given.camera.focal_length, given.camera.focal_source) == (1234, "given")
    group = fitkit.fit([_group(2, focal_length=1234.0), without], recipe=BRIEF)
    assert [one.camera.focal_source for one in group[:2]] == ["EXIF", "EXIF"]
    assert [one.camera.focal_deviation for one in group[:2]] == [None, None]
    _assert_same(group[2], alone)


def test_people_of_one_picture_agree_on_an_unknown_focal_length():
    alone = [replace(one, focal_length=None) for one in pictures_of(standing_people([20.0, 70.0], (0.0, 0.0, 2.2)))]
    points, confidence = (np.concatenate([getattr(one, name) for one in alone]) for name in ("points", "confidence"))
    group = replace(alone[0], points=points, confidence=confidence)
    *together, other = fitkit.fit([group, alone[0]], recipe=quick("default", 8))
    by_themselves = fitkit.fit(alone, recipe=quick("default", 8))
    _assert_same(other, by_themselves[0])
    first, second = (one.camera for one in together)
    low, high = sorted(one.camera.focal_length for one in by_themselves)
    assert first.focal_length == second.focal_length and low < first.focal_length < high
    assert first.focal_source == second.focal_source == "refined"
    assert first.focal_deviation >= 0.08 * first.focal_length, "what they have in common is no further evidence"
    (guess,) = {one.camera.focal_source for one in fitkit.fit(group, recipe=quick("smplifyx", 1))}
    assert guess == "default", "a recipe that refines nothing"


def test_a_focal_length_counts_as_refined_where_perspective_tells_it():
    people = [
        replace(pictures_of(standing_people([20.0], (0.0, 0.0, depth)))[0], focal_length=None) for depth in (1.8, 25.0)
    ]
    near, far = fitkit.fit(people, recipe=quick("default", 8))
    assert near.camera.focal_source == "refined" and "assumed" not in near.summary
    assert far.camera.focal_source == "guessed" and "m away (focal length assumed)," in far.summary
    for one in (near, far):
        assert one.camera.focal_deviation > 0
    relative = [one.camera.focal_deviation / one.camera.focal_length for one in (near, far)]
    assert relative[0] < 0.15 < relative[1] < 0.3, "not much less sure than the prior"


def test_the_recipes_focal_length_stands_in():
    without = replace(_pictures(1)[0], focal_length=None)
    (found,) = fitkit.fit(without, recipe=quick("smplifyx", 1))
    assert (found.camera.focal_length, found.camera.focal_source) == (5000, "default")


@pytest.mark.parametrize("length", [35.0, 1e9])
def test_a_focal_length_of_no_such_picture_is_refused(length):
    with pytest.raises(InputError, match="focal length of .* is none of a picture of 1000 x 1000 px"):
        fitkit.fit(_pictures(1), recipe=BRIEF, focal=length)


# ---------------------------------------------------------------------------------------------- size


def _tall(result: FitResult) -> float:
    return float(model_of("anny").standing_height(torch.as_tensor(result.params["betas"]))[0])


def test_a_known_height_is_met_and_moves_the_person_away():
    (plain,) = fitkit.fit(_pictures(1), recipe=quick("default", 10))
    taller, shorter = (fitkit.fit(_pictures(1), recipe=quick("default", 10), height=h)[0] for h in (2.0, 1.4))
    assert _tall(taller) == pytest.approx(2.0, abs=0.05) and _tall(shorter) == pytest.approx(1.4, abs=0.05)
    assert shorter.params["transl"][2] < plain.params["transl"][2] < taller.params["transl"][2]


def test_heights_are_given_to_each_person():
    group = _group(2)
    some = fitkit.fit([group, *_pictures(1)], recipe=quick("default", 6), height=[None, 1.95, 1.5])
    assert [_tall(one) for one in some[1:]] == pytest.approx([1.95, 1.5], abs=0.03)
    without = fitkit.fit(group, recipe=quick("default", 6))
    _assert_same(some[0], without[0])


@pytest.mark.parametrize(
    ("height", "message"),
    [
        (178, "between 0.4 and 2.8 metres; got 178. In metres 178 cm are 1.78."),
        (math.nan, "got nan"),
        ([1.7, 1.8], "2 heights for 1 person"),
        ([], "0 heights for 1 person"),
    ],
)
def test_heights_that_cannot_be_used_are_said(height, message):
    with pytest.raises(FitkitError, match=message):
        fitkit.fit(_pictures(1), recipe=BRIEF, height=height)


def test_a_height_that_a_recipe_does_not_use_is_said():
    with pytest.raises(UsageError, match="smplifyx has no `height` term"):
        fitkit.fit(_pictures(1), recipe=quick("smplifyx", 1), height=1.7)


def test_one_height_is_not_that_of_several_people():
    with pytest.raises(InputError, match="img.png: 1 height for 2 people; give one for each"):
        fitkit.fit(_group(2, source="img.png"), recipe=BRIEF, height=1.7)


# ---------------------------------------------------------------------------------------------- where fits begin


def test_fits_can_begin_elsewhere_than_the_recipe_says():
    (mean,) = fitkit.fit(_pictures(1), recipe=BRIEF, init="mean")
    (frontal,) = fitkit.fit(_pictures(1), recipe=BRIEF, init="frontal")
    assert mean.settings["initialiser"]["name"] == "geometric" and frontal.settings["initialiser"]["name"] == "frontal"
    with pytest.raises(UsageError, match="Unknown initialiser 'fronta'. Did you mean 'frontal'"):
        fitkit.fit(_pictures(1), recipe=BRIEF, init="fronta")


# ---------------------------------------------------------------------------------------------- too little evidence


def _blind(keypoints: Keypoints) -> Keypoints:
    return replace(keypoints, confidence=np.zeros_like(keypoints.confidence))


def test_a_picture_without_a_usable_person_is_said():
    for little in (_blind(_pictures(1)[0]), keep_only(_pictures(1)[0], lambda name: name in ("nose", "left_eye"))):
        with pytest.raises(InputError, match=r"img.png: no person has three keypoints.*got [02]"):
            fitkit.fit(replace(little, source="img.png"), recipe=BRIEF)


def test_people_with_too_few_keypoints_are_left_out_with_a_warning():
    group = _group(3, source="img.png")
    confidence = group.confidence.copy()
    confidence[1] = 0
    with pytest.warns(UserWarning, match="img.png: person 1 has 0 keypoints and was left out"):
        found = fitkit.fit(replace(group, confidence=confidence), recipe=BRIEF)
    assert [one.person for one in found] == [0, 2]


def test_three_points_are_enough():
    shown = ("left_shoulder", "right_shoulder", "left_hip")
    (found,) = fitkit.fit(keep_only(_pictures(1)[0], lambda name: name in shown), recipe=BRIEF)
    assert found.status != "non_finite" and np.isfinite(found.vertices).all()


def test_an_overflow_is_a_status(tmp_path):
    good, other = _pictures(2)
    starts = [{"transl": np.array([x, 0.0, 3.0])} for x in (0.0, 1e200)]
    found = fitkit.fit([good, other], start=starts, recipe=BRIEF)
    assert [one.status == "non_finite" for one in found] == [False, True]
    (alone,) = fitkit.fit(good, start=starts[:1], recipe=BRIEF)
    _assert_same(found[0], alone)
    found[1].save(tmp_path, ["npz"])
    assert "non finite" in fitkit.load_result(tmp_path).summary


def test_points_too_far_away_to_be_squared_are_unseen():
    good, wild = _pictures(2)
    found = fitkit.fit(replace(good, points=np.where(np.arange(118)[:, None] % 2, 1e200, good.points)), recipe=BRIEF)
    assert found[0].status != "non_finite" and (found[0].confidence == 0).sum() >= 59
    with pytest.raises(InputError, match="no person has three keypoints"):
        fitkit.fit(replace(wild, points=1e200 * wild.points), recipe=BRIEF)


def test_keypoints_must_know_their_picture():
    with pytest.raises(InputError, match="size of the picture is not recorded"):
        usable_people(replace(_pictures(1)[0], image_size=None))


def test_keypoints_that_no_body_has_are_said():
    tails = Keypoints(("tail1", "tail2", "tail3"), np.ones((1, 3, 2)), np.ones((1, 3)), (10, 10), source="cat.json")
    with pytest.raises(InputError, match="cat.json: the body model anny has none of these points .tail1, tail2, tail3"):
        fitkit.fit(tails, recipe=BRIEF)


def test_fingers_alone_are_nothing_for_a_body_without_fingers(tmp_path):
    write_model(tmp_path, "smpl")
    hand = people_of("anny", 1).keypoints[0]
    places = [k for k, name in enumerate(hand.names) if name.startswith("left_") and name.endswith(("1", "2", "3"))]
    alone = Keypoints(
        tuple(hand.names[k] for k in places), hand.points[:, places], hand.confidence[:, places], (10, 10)
    )
    with pytest.raises(InputError, match="smpl has none of these points"):
        fitkit.fit(alone, model="smpl", model_dir=tmp_path, recipe=BRIEF)


# ---------------------------------------------------------------------------------------------- a given start


@pytest.fixture(scope="module")
def good() -> FitResult:
    return fitkit.fit(_pictures(1), recipe=quick("default", 10))[0]


def test_a_fit_goes_on_from_where_another_ended(good):
    (again,) = fitkit.fit(_pictures(1), recipe=BRIEF, start=[good.params])
    (anew,) = fitkit.fit(_pictures(1), recipe=BRIEF)
    assert again.reprojection_px < anew.reprojection_px
    assert np.abs(again.params["transl"] - good.params["transl"]).max() < 0.1


def test_a_start_may_be_in_part_and_of_other_lengths(good):
    part = {"global_orient": good.params["global_orient"], "betas": np.ones(3), "transl": good.params["transl"]}
    (found,) = fitkit.fit(_pictures(1), recipe=BRIEF, start=[part])
    assert np.isfinite(found.vertices).all()


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"body_pose": np.zeros(10)}, "body_pose needs 63 values; got 10"),
        ({"transl": np.array([np.nan, 0, 1])}, "transl.*finite"),
        ({"body_poze": np.zeros(63)}, "'body_poze'.*'body_pose'"),
    ],
)
def test_a_start_that_cannot_be_used_is_said(start, message):
    with pytest.raises(UsageError, match=message):
        fitkit.fit(_pictures(1), recipe=BRIEF, start=[start])


def test_a_known_camera_matrix_is_used_as_it_is():
    keypoints = _pictures(1)[0]
    matrix = np.array([[900.0, 0.0, 430.0], [0.0, 950.0, 560.0], [0.0, 0.0, 1.0]])
    (result,) = fitkit.fit(replace(keypoints, intrinsics=matrix), recipe=BRIEF)
    assert np.allclose(result.camera.intrinsics, matrix) and result.camera.focal_source == "given"
    (other,) = fitkit.fit(replace(keypoints, intrinsics=matrix), recipe=BRIEF, focal=1000.0)
    assert other.camera.focal_length == 1000.0
