"""Results: what a fit hands back, saved and loaded without loss, and readable by smplx itself."""

from __future__ import annotations

import dataclasses
import io
import json
import random
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from fitting_world import keep_only, people_of, pictures_of, quick, standing_people
from synthetic_models import write_model

import fitkit
from fitkit.errors import InputError, OutputError, UsageError
from fitkit.model_files import find_model
from fitkit.people import _seen
from fitkit.result_files import PARAMS_FILE
from fitkit.results import FORMATS, FitResult, PinholeCamera


@pytest.fixture(scope="module")
def result() -> FitResult:
    """A fit of the embedded body."""
    keypoints = dataclasses.replace(people_of("anny", 1).keypoints[0], source="photos/grüße 1.jpg")
    return fitkit.fit(keypoints, recipe=quick("default", 4))[0]


# ---------------------------------------------------------------------------------------------- what it holds


def test_shapes_and_types_are_as_documented(result):
    expected = {
        "global_orient": 3, "body_pose": 63, "left_hand_pose": 45, "right_hand_pose": 45, "jaw_pose": 3,
        "leye_pose": 3, "reye_pose": 3, "betas": 20, "transl": 3,
    }  # fmt: skip
    sizes = {name: value.shape for name, value in result.params.items()}
    assert sizes == {name: (size,) for name, size in expected.items()} | {"expression": sizes["expression"]}
    assert result.vertices.dtype == result.joints.dtype == np.float32 and result.faces.dtype == np.int32
    assert result.vertices.shape[1:] == result.faces.shape[1:] == (3,) and result.faces.max() < len(result.vertices)
    assert result.joints.shape == result.joint_deviation.shape == (len(result.joint_names), 3)
    assert result.points.shape == (len(result.names), 2) and result.confidence.shape == (len(result.names),)
    assert result.camera.intrinsics.shape == (3, 3) and result.camera.image_size == (1000, 1000)
    assert (result.model, result.gender, result.recipe, result.person) == ("anny", "neutral", "default", 0)
    assert len(result.model_hash) == 64 and result.version == fitkit.__version__
    assert result.image == "photos/grüße 1.jpg" and result.iterations > 0


def test_the_person_is_before_the_camera_that_sees_it(result):
    assert float(result.vertices[:, 2].min()) > 0
    place = {name: k for k, name in enumerate(result.joint_names)}
    keypoint = {name: k for k, name in enumerate(result.names)}
    seen = result.camera.project(result.joints[[place["left_shoulder"], place["right_shoulder"]]])
    shown = result.points[[keypoint["left_shoulder"], keypoint["right_shoulder"]]]
    assert np.linalg.norm(seen - shown, axis=-1).max() < 0.15 * result.height_px


def test_the_reprojection_error_is_that_of_the_result(result):
    assert set(result.reprojection) == {"body", "feet", "left_hand", "right_hand", "face"}
    assert result.reprojection_px == result.reprojection["body"]
    assert result.reprojection_relative == pytest.approx(result.reprojection_px / result.height_px)
    assert 0 <= result.reprojection_relative < 0.05
    assert all(result.seen.values())


def test_the_height_in_pixels_is_that_of_the_standing_person():
    picture = pictures_of(standing_people([0]))[0]
    standing = fitkit.fit(picture, recipe=quick("default", 4))[0]
    shown = picture.points[0, [k for k, name in enumerate(picture.names) if "toe" in name or "eye" in name], 1]
    assert 1.0 < standing.height_px / np.ptp(shown) < 1.3


def test_smplx_makes_the_same_body_of_the_parameters(tmp_path, result):
    """Names, order and units are smplx's own: no conversion stands between a result and its users."""
    smplx = pytest.importorskip("smplx")
    path = tmp_path / "SMPLX_NEUTRAL.npz"
    shutil.copy(find_model("anny", "neutral"), path)
    sizes = {name: len(value) for name, value in result.params.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = smplx.create(
            str(path), "smplx", use_pca=False, flat_hand_mean=True, num_betas=sizes["betas"],
            num_expression_coeffs=sizes["expression"], use_face_contour=False, dtype=torch.float64,
        )  # fmt: skip
    body = theirs(**{name: torch.as_tensor(value)[None] for name, value in result.params.items()})
    np.testing.assert_allclose(result.vertices, body.vertices[0].detach().numpy(), atol=2e-5)
    np.testing.assert_allclose(result.joints, body.joints[0, :55].detach().numpy(), atol=2e-5)


@pytest.mark.parametrize("kind", ["smplx", "smplh", "smpl"])
def test_results_of_licensed_models_hold_what_these_models_have(tmp_path, kind):
    write_model(tmp_path, kind)
    keypoints = people_of(kind, 1).keypoints
    found = fitkit.fit(keypoints, model=kind, model_dir=tmp_path, recipe=quick("default", 1))[0]
    assert found.model == kind and len(found.params["betas"]) == 10
    assert len(found.params["body_pose"]) == (69 if kind == "smpl" else 63)
    assert ("left_hand_pose" in found.params) == (kind != "smpl")
    assert ("jaw_pose" in found.params) == ("expression" in found.params) == (kind == "smplx")
    found.save(tmp_path / "out", ["npz"])
    _assert_equal(fitkit.load_result(tmp_path / "out"), found)


def test_what_is_not_seen_is_marked():
    head = keep_only(people_of("anny", 1).keypoints[0], lambda name: "eye" in name or "ear" in name or name == "nose")
    found = fitkit.fit(head, recipe=quick("default", 1))[0]
    assert found.seen == {name: name == "head" for name in found.seen}
    assert set(found.reprojection) == {"body"}
    assert "unseen: torso, left arm" in found.summary


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["left_elbow"], {"left_arm"}),
        (["right_ankle"], {"right_leg"}),
        (["left_heel"], {"left_foot"}),
        (["right_index2"], {"right_hand"}),
        (["face_33"], {"head"}),
        (["left_hip"], {"torso"}),
        ([], set()),
    ],
)
def test_a_part_is_seen_by_its_own_keypoints(names, expected):
    seen = _seen(names, np.ones(len(names)))
    assert {part for part, shown in seen.items() if shown} == expected
    assert not any(_seen(names, np.full(len(names), 0.1)).values())


# ---------------------------------------------------------------------------------------------- summaries


def test_the_summary_is_one_line_with_the_numbers(result):
    assert "\n" not in result.summary
    assert f"{result.params['transl'][2]:.2f} m away" in result.summary and "% of height" in result.summary
    assert "_" not in result.summary


def test_without_confident_keypoints_the_error_is_not_a_number(result):
    blind = dataclasses.replace(result, reprojection={})
    assert np.isnan(blind.reprojection_px) and "nan px" in blind.summary


def test_a_camera_projects_as_its_matrix_says():
    camera = PinholeCamera(np.array([[500.0, 0, 320], [0, 510.0, 240], [0, 0, 1]]), (640, 480))
    np.testing.assert_allclose(camera.project(np.array([[0.2, -0.1, 2.0]])), [[370.0, 214.5]])
    assert camera.focal_length == 500


# ---------------------------------------------------------------------------------------------- saved and loaded


def _assert_equal(first: FitResult, second: FitResult) -> None:
    for entry in dataclasses.fields(FitResult):
        one, two = getattr(first, entry.name), getattr(second, entry.name)
        if entry.name == "params":
            assert list(one) == list(two)
            for name in one:
                np.testing.assert_array_equal(one[name], two[name])
                assert one[name].dtype == two[name].dtype
        elif entry.name == "camera":
            np.testing.assert_array_equal(one.intrinsics, two.intrinsics)
            assert (one.image_size, one.focal_source) == (two.image_size, two.focal_source)
            assert one.focal_deviation == two.focal_deviation
        elif isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, two)
            assert one.dtype == two.dtype, entry.name
        else:
            assert one == two and type(one) is type(two), entry.name


def test_a_loaded_result_equals_the_saved_one(tmp_path, result):
    (path,) = result.save(tmp_path / "deep" / "folder", ["npz"])
    assert path == tmp_path / "deep" / "folder" / PARAMS_FILE
    for place in (path, str(path), path.parent, str(path.parent)):
        _assert_equal(fitkit.load_result(place), result)


def test_saving_again_gives_the_same(tmp_path, result):
    result.save(tmp_path / "one", ["npz"])
    fitkit.load_result(tmp_path / "one").save(tmp_path / "two", ["npz"])
    _assert_equal(fitkit.load_result(tmp_path / "two"), result)


def test_nothing_in_the_file_is_pickled(tmp_path, result):
    (path,) = result.save(tmp_path, ["npz"])
    with np.load(path, allow_pickle=False) as file:
        kinds = {name: file[name].dtype.kind for name in file.files}
    assert set(kinds.values()) <= set("fiuU")
    assert {"vertices", "K", "metadata", "body_pose", "betas"} <= set(kinds)


def test_the_metadata_is_plain_json(tmp_path, result):
    (path,) = result.save(tmp_path, ["npz"])
    with np.load(path) as file:
        metadata = json.loads(str(file["metadata"]))
    assert metadata["settings"] == result.settings and metadata["model_hash"] == result.model_hash
    assert metadata["format_version"] == 1 and metadata["energies"] == result.energies


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "npz"])
def test_meshes_are_saved(tmp_path, result, name):
    (path,) = result.save(tmp_path, [name])
    assert path.name == f"mesh.{name}"
    mesh = trimesh.load(path, process=False, force="mesh")
    assert len(mesh.faces) == len(result.faces)


def test_formats_may_be_several_and_repeat(tmp_path, result):
    paths = result.save(tmp_path, ["npz", "ply", "npz"])
    assert [path.name for path in paths] == [PARAMS_FILE, "mesh.ply"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mesh.ply", PARAMS_FILE]


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path, result):
    with pytest.raises(UsageError, match="Unknown output format 'gbl'.*Did you mean 'glb'"):
        result.save(tmp_path / "out", ["npz", "gbl"])
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_said(tmp_path, result):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        result.save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_result_that_is_not_finite_is_saved_too(tmp_path, result):
    broken = dataclasses.replace(
        result,
        status="non_finite",
        energies={"reprojection": float("nan")},
        vertices=np.full_like(result.vertices, np.nan),
    )
    broken.save(tmp_path, ["npz"])
    loaded = fitkit.load_result(tmp_path)
    assert (
        loaded.status == "non_finite" and np.isnan(loaded.energies["reprojection"]) and np.isnan(loaded.vertices).all()
    )


# ---------------------------------------------------------------------------------------------- damaged files


@pytest.fixture(scope="module")
def saved(result, tmp_path_factory) -> bytes:
    (path,) = result.save(tmp_path_factory.mktemp("saved"), ["npz"])
    return path.read_bytes()


def _load(tmp_path: Path, content: bytes) -> FitResult:
    path = tmp_path / PARAMS_FILE
    path.write_bytes(content)
    return fitkit.load_result(path)


def test_a_missing_result_is_said(tmp_path):
    for place in (tmp_path, tmp_path / "nothing.npz"):
        with pytest.raises(InputError, match="There is no result at"):
            fitkit.load_result(place)


def test_a_truncated_result_is_refused_wherever_it_ends(tmp_path, saved):
    for length in (0, 1, 100, len(saved) // 3, len(saved) // 2, len(saved) - 1):
        with pytest.raises(InputError, match="no result of fitkit, or it is truncated"):
            _load(tmp_path, saved[:length])


def test_flipped_bytes_never_raise_anything_else(tmp_path, saved):
    dice = random.Random(0)
    for _ in range(40):
        damaged = bytearray(saved)
        for _ in range(dice.randint(1, 30)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        try:
            _load(tmp_path, bytes(damaged))
        except InputError:
            pass


def _without(saved: bytes, name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved)) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.namelist():
            if entry != f"{name}.npy":
                new.writestr(entry, old.read(entry))
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["metadata", "K", "betas", "vertices", "joint_names"])
def test_a_result_that_lacks_something_is_refused(tmp_path, saved, name):
    with pytest.raises(InputError, match="no result of fitkit"):
        _load(tmp_path, _without(saved, name))


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY"])
def test_what_is_no_npz_is_refused(tmp_path, content):
    with pytest.raises(InputError, match="no result of fitkit"):
        _load(tmp_path, content)


def test_other_arrays_are_refused(tmp_path):
    np.savez(tmp_path / PARAMS_FILE, a=np.zeros(3))
    with pytest.raises(InputError, match="no result of fitkit"):
        fitkit.load_result(tmp_path)
    with (tmp_path / PARAMS_FILE).open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match="no result of fitkit"):
        fitkit.load_result(tmp_path)


def test_a_pickle_in_disguise_is_not_run(tmp_path):
    np.savez(tmp_path / PARAMS_FILE, metadata=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="no result of fitkit"):
        fitkit.load_result(tmp_path)


def test_a_result_of_a_newer_version_says_so(tmp_path, saved):
    with np.load(io.BytesIO(saved)) as file:
        arrays = {name: file[name] for name in file.files}
    metadata = json.loads(str(arrays["metadata"])) | {"format_version": 99}
    np.savez(tmp_path / PARAMS_FILE, **(arrays | {"metadata": np.array(json.dumps(metadata))}))
    with pytest.raises(InputError, match="newer version of fitkit"):
        fitkit.load_result(tmp_path)
