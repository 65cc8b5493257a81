"""The command line on fakes (which photo ends how, what is written where, what is said) and, at the end, for real."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fitkit import api
from fitkit.cli import main
from fitkit.errors import InputError
from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.detectors import DETECTORS
from fitkit.results import FitResult, PinholeCamera
from fitkit.version import __version__

NAMES = ("nose", "left_shoulder", "right_shoulder", "left_hip", "right_hip")
SIZE = (64, 48)


def people(count: int) -> Keypoints:
    points = np.random.default_rng(count).uniform(5.0, 40.0, (count, len(NAMES), 2))
    return Keypoints(NAMES, points, np.ones((count, len(NAMES))), image_size=SIZE, scores=np.ones(count))


class FakeDetector:
    """Finds as many people as the red of the picture says, coarsely enough for JPEG."""

    def detect(self, pixels: np.ndarray, boxes: np.ndarray | None = None) -> Keypoints:
        return people(round(pixels[..., 0].mean() / 40))


class FakeFit:
    """Stands in for `fitkit.api.fit`: a tetrahedron per person, and a list of the photos of each call."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.options: dict[str, object] = {}
        self.keypoints: list[Keypoints] = []
        self.breaks_on: dict[str, BaseException] = {}

    def __call__(self, keypoints: list[Keypoints], **options: object) -> list[FitResult]:
        names = [Path(str(entry.source)).stem for entry in keypoints]
        self.calls.append(names)
        self.options, self.keypoints = options, keypoints
        for name in names:
            if name in self.breaks_on:
                raise self.breaks_on[name]
        return [result(entry, person) for entry in keypoints for person in range(len(entry))]


def result(keypoints: Keypoints, person: int) -> FitResult:
    corners = np.array([[0, 0, 2], [0.5, 0, 2], [0, 0.5, 2], [0, 0, 2.5]], np.float32)
    return FitResult(
        params={"transl": np.array([0.0, 0.0, 2.0])},
        vertices=corners,
        faces=np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32),
        joints=corners,
        joint_names=("pelvis", "neck", "head", "spine1"),
        camera=PinholeCamera(np.array([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]]), SIZE),
        status="converged",
        energies={"reprojection": 1.0},
        reprojection={"body": 1.5},
        height_px=100.0,
        seen={"head": True},
        person=person,
        image=keypoints.source,
    )


@pytest.fixture
def fake_fit(monkeypatch) -> FakeFit:
    fake = FakeFit()
    monkeypatch.setattr(api, "fit", fake)
    monkeypatch.setitem(DETECTORS._entries, "mediapipe", f"{__name__}:FakeDetector")
    return fake


def photo(path: Path, count: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    pixels[..., 0] = 40 * count
    Image.fromarray(pixels).save(path, format="JPEG" if path.suffix == ".jpg" else "PNG")
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Return a folder `in` with three photos, of one, two and no people, and make its parent the current folder."""
    monkeypatch.chdir(tmp_path)
    for name, count in (("a", 1), ("b", 2), ("c", 0)):
        photo(tmp_path / "in" / f"{name}.png", count)
    return tmp_path / "in"


def files(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def whole(out: Path) -> bool:
    """Return whether nothing temporary lies in the output folder."""
    return not any(path.name.startswith(".") for path in out.rglob("*"))


# Usage


def test_help_and_version_import_nothing_heavy():
    code = (
        "import sys; from fitkit.cli import main;"
        "codes = main(['--help']), main(['fit', '--help']), main(['--version']);"
        "print(codes, {'torch', 'numpy', 'scipy', 'cv2', 'PIL', 'rich', 'yaml'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.rstrip().endswith("(0, 0, 0) set()")


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fitkit {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fit"], "Missing argument 'INPUT...'"),
        (["fit", "in", "--batch-size", "0"], "--batch-size"),
        (["fit", "in", "--gender", "man"], "'man' is not one of"),
        (["fit", "in", "--overwrit"], "--overwrite"),
        (["fit", "in", "--save", "npz,gbl"], "--save does not know 'gbl'. Did you mean 'glb'?"),
        (["fit", "in", "--save", ","], "names nothing to save"),
        (["fit", "in", "--focal", "500", "--fov", "60"], "give one of them"),
        (["fit", "in", "--focal", "500", "--intrinsics", "5,5,3,2"], "--focal and --intrinsics say the same thing"),
        (["fit", "in", "--focal", "0"], "--focal"),
        (["fit", "in", "--fov", "180"], "--fov"),
        (["fit", "in", "--intrinsics", "500,500,32"], "takes FX,FY,CX,CY in pixels"),
        (["fit", "in", "--intrinsics", "500,500,32,inf"], "needs positive focal lengths and a finite centre"),
        (["fit", "in", "--height", "178"], "between 0.4 and 2.8 metres; got 178. In metres 178 cm are 1.78."),
        (["fit", "in", "--height", "0"], "between 0.4 and 2.8 metres; got 0."),
        (["fit", "in", "--height", "-1.7"], "got -1.7."),
        (["fit", "in", "--height", "nan"], "got nan."),
        (["fit", "in", "--height", "1e9"], "got 1e+09."),
        (["fit", "in", "--height", "1,78"], "write 1.78"),
        (["fit", "in", "--height", "5'10"], "--height takes metres, such as 1.78"),
        (["fit", "missing.jpg"], "There is no file or folder missing.jpg"),
        (["fit", "in/*.tif"], "matches no picture"),
        (["fit", "in", "--detector", "mediapie"], "Did you mean 'mediapipe'?"),
        (["detect", "in", "--format", "cocco"], "'cocco' is not one of"),
        (["detekt", "in"], "detekt"),
    ],
)
def test_wrong_usage_is_said_in_a_sentence_with_exit_code_2(folder, capsys, arguments, said):
    assert main(arguments) == 2
    written = capsys.readouterr()
    assert said in written.err
    assert "Traceback" not in written.err
    assert written.out == ""
    assert os.listdir(folder.parent) == ["in"] or arguments[-1] == "mediapie"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "any"], r"'any'.* Did you mean 'anny'\?"),
        (["--config", "defualt"], "Did you mean 'default'"),
        (["--device", "gpu"], "(?i)unknown device"),
        (["--device", "cuda:99"], "This machine has no cuda:99 device that torch can use; use --device cpu"),
        (["--init", "mena"], r"initialiser 'mena'. Did you mean 'mean'\? Known: mean, geometric"),
    ],
)
def test_unknown_names_are_answered_before_anything_is_done(folder, fake_fit, capsys, arguments, said):
    assert main(["fit", "in", "-o", "out", *arguments]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert fake_fit.calls == []


def test_a_missing_licensed_model_is_said_before_anything_is_done(folder, fake_fit, capsys, tmp_path):
    assert main(["fit", "in", "--model", "smplx", "--model-dir", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert all(part in said for part in ("smpl-x.is.tue.mpg.de", str(tmp_path / "smplx"), "--model anny"))
    assert len(said.splitlines()) == 1 and fake_fit.calls == []


def test_a_wrong_key_in_a_recipe_is_answered_with_the_nearest(folder, fake_fit, capsys):
    Path("mine.yaml").write_text("stagess: []\n")
    assert main(["fit", "in", "--config", "mine.yaml"]) in (1, 2)
    said = capsys.readouterr().err
    assert "stages" in said and "mine.yaml" in said and len(said.splitlines()) == 1


def test_models_lists_what_is_there_and_how_to_get_the_rest(capsys):
    assert main(["models"]) == 0
    written = capsys.readouterr().out
    assert re.search(r"anny +installed \(CC0", written)
    assert re.search(r"smplx +not installed: register at", written)
    assert "pose_landmark" in written


# What lies where


def test_each_photo_gets_a_folder(folder, fake_fit, capsys):
    assert main(["fit", "in", "-o", "out"]) == 0
    assert files(Path("out")) == [
        "a/fit.json",
        "a/overlay.jpg",
        "a/person_00/mesh.glb",
        "a/person_00/params.npz",
        "b/fit.json",
        "b/overlay.jpg",
        "b/person_00/mesh.glb",
        "b/person_00/params.npz",
        "b/person_01/mesh.glb",
        "b/person_01/params.npz",
    ]
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("in/b.png: person ")] == lines[2:4]
    assert "in/c.png: nobody was found" in lines
    assert lines[-1] == "3 photos: 2 fitted (3 people), 1 without people. Results are in out."
    assert fake_fit.calls == [["a", "b"]]


def test_save_chooses_what_is_written(folder, fake_fit):
    assert main(["fit", "in/a.png", "-o", "out", "--save", "obj, ply"]) == 0
    assert files(Path("out")) == ["a/fit.json", "a/person_00/mesh.obj", "a/person_00/mesh.ply"]


def test_side_view_widens_the_overlay(folder, fake_fit):
    assert main(["fit", "in/a.png", "-o", "plain"]) == 0
    assert main(["fit", "in/a.png", "-o", "wide", "--side-view", "--draw-keypoints"]) == 0
    with Image.open("plain/a/overlay.jpg") as plain, Image.open("wide/a/overlay.jpg") as wide:
        assert plain.size == SIZE
        assert wide.width > SIZE[0] and wide.height == SIZE[1]


def test_photos_of_one_name_do_not_collide(folder, fake_fit):
    photo(folder / "a.jpg")
    photo(folder.parent / "other" / "a.png", 2)
    assert main(["fit", "in", "other", "-o", "out", "--save", "npz"]) == 0
    records = [json.loads(path.read_text()) for path in Path("out").glob("*/fit.json")]
    assert len({record["source"] for record in records}) == 4


def test_the_photos_of_a_group_hold_no_more_people_than_the_batch(folder, fake_fit):
    photo(folder / "d.png", 3)
    assert main(["fit", "in", "-o", "out", "--batch-size", "3", "--save", "npz"]) == 0
    assert fake_fit.calls == [["a", "b"], ["d"]]


def test_quiet_says_problems_only(folder, fake_fit, capsys):
    (folder / "bad.jpg").write_text("text")
    assert main(["fit", "in", "-o", "out", "--quiet"]) == 1
    written = capsys.readouterr()
    assert written.out == ""
    assert len(written.err.splitlines()) == 1 and "bad.jpg" in written.err


# What one photo does to the others


def test_nobody_in_a_lone_photo_is_a_failure(folder, fake_fit, capsys):
    assert main(["fit", "in/c.png", "-o", "out"]) == 1
    assert "nobody was found" in capsys.readouterr().out
    assert main(["detect", "in/c.png", "-o", "out"]) == 1


def test_a_bad_photo_never_stops_a_folder(folder, fake_fit, capsys):
    (folder / "aa.jpg").write_text("text named .jpg")
    (folder / "empty.jpg").write_bytes(b"")
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    assert main(["fit", "in", "-o", "out"]) == 1
    written = capsys.readouterr()
    assert len(written.err.splitlines()) == 3
    assert all(name in written.err for name in ("in/aa.jpg", "in/empty.jpg", "in/one.png"))
    assert "2 fitted (3 people), 1 without people, 3 failed" in written.out


@pytest.mark.parametrize("error", [InputError("in/a.png: no."), ValueError("boom"), MemoryError()], ids=repr)
def test_a_photo_that_breaks_the_fit_is_left_out_of_its_group(folder, fake_fit, capsys, error):
    fake_fit.breaks_on["a"] = error
    assert main(["fit", "in", "-o", "out", "--save", "npz"]) == 1
    assert fake_fit.calls == [["a", "b"], ["a"], ["b"]]
    assert files(Path("out")) == ["b/fit.json", "b/person_00/params.npz", "b/person_01/params.npz"]
    written = capsys.readouterr().err
    assert len(written.splitlines()) == 1
    assert written.startswith("in/a.png")


def test_a_traceback_is_shown_on_demand_only(folder, fake_fit, capsys, monkeypatch):
    monkeypatch.delenv("FITKIT_DEBUG", raising=False)
    fake_fit.breaks_on["a"] = ValueError("boom")
    assert main(["fit", "in/a.png", "-o", "out"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    monkeypatch.setenv("FITKIT_DEBUG", "1")
    assert main(["fit", "in/a.png", "-o", "out"]) == 1
    assert "ValueError: boom" in capsys.readouterr().err


def test_a_person_with_too_few_points_is_said_in_a_warning(folder, fake_fit, capsys, monkeypatch):
    def half_blind(self: FakeDetector, pixels: np.ndarray, boxes: np.ndarray | None = None) -> Keypoints:
        found = people(2)
        found.confidence[1, 1:] = 0.0
        return found

    monkeypatch.setattr(FakeDetector, "detect", half_blind)
    assert main(["fit", "in/b.png", "-o", "out", "--save", "npz"]) == 0
    assert re.match(r"Warning: in/b.png: person 1 has 1 keypoints", capsys.readouterr().err)
    assert files(Path("out")) == ["b/fit.json", "b/person_00/params.npz"]


# Going on


def test_running_again_does_only_what_is_missing(folder, fake_fit, capsys):
    assert main(["fit", "in", "-o", "out"]) == 0
    photo(folder / "d.png", 1)
    fake_fit.calls.clear()
    assert main(["fit", "in", "-o", "out"]) == 0
    assert fake_fit.calls == [["d"]]
    assert "4 photos: 1 fitted (1 person), 2 done before, 1 without people" in capsys.readouterr().out


def test_overwrite_makes_everything_anew(folder, fake_fit):
    assert main(["fit", "in", "-o", "out"]) == 0
    assert main(["fit", "in", "-o", "out", "--overwrite"]) == 0
    assert fake_fit.calls == [["a", "b"]] * 2


def test_results_of_other_settings_are_kept_but_not_silently(folder, fake_fit, capsys):
    assert main(["fit", "in/a.png", "-o", "out"]) == 0
    before = Path("out/a/person_00/params.npz").stat().st_mtime_ns
    assert main(["fit", "in/a.png", "-o", "out", "--gender", "female"]) == 1
    written = capsys.readouterr().err
    assert "gender as recorded instead of female" in written and "--overwrite" in written
    assert Path("out/a/person_00/params.npz").stat().st_mtime_ns == before
    assert main(["fit", "in/a.png", "-o", "out", "--gender", "female", "--overwrite"]) == 0
    assert json.loads(Path("out/a/fit.json").read_text())["settings"]["gender"] == "female"


def test_a_photo_that_changed_is_fitted_anew(folder, fake_fit):
    assert main(["fit", "in/b.png", "-o", "out", "--save", "npz"]) == 0
    photo(folder / "b.png", 1)
    assert main(["fit", "in/b.png", "-o", "out", "--save", "npz"]) == 0
    assert files(Path("out")) == ["b/fit.json", "b/person_00/params.npz"]


def test_heights_go_with_the_people_of_each_photo(folder, fake_fit, capsys):
    photo(folder / "d.png", 2)
    assert main(["fit", "in", "-o", "out", "--height", "1.78, -", "--save", "npz"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("in/a.png: 2 heights for 1 person; give one for each") and len(said.splitlines()) == 1
    assert fake_fit.calls == [["b", "d"]] and fake_fit.options["height"] == [1.78, None, 1.78, None]
    assert main(["fit", "in/b.png", "-o", "other", "--height", "1.78"]) == 1
    assert "in/b.png: 1 height for 2 people" in capsys.readouterr().err


def test_results_of_another_height_are_kept_but_not_silently(folder, fake_fit, capsys):
    assert main(["fit", "in/a.png", "-o", "out", "--height", "1.5"]) == 0
    assert main(["fit", "in/a.png", "-o", "out", "--height", "1.50", "--save", "npz"]) == 0
    assert main(["fit", "in/a.png", "-o", "out", "--init", "mean"]) == 1
    assert "made with height 1.5 instead of not given, init not given instead of mean;" in capsys.readouterr().err


def test_a_camera_given_in_full_is_the_cameras_matrix(folder, fake_fit):
    assert main(["fit", "in/a.png", "-o", "out", "--intrinsics", "60,61,30,20", "--save", "npz"]) == 0
    assert fake_fit.keypoints[0].intrinsics.tolist() == [[60, 0, 30], [0, 61, 20], [0, 0, 1]]


def test_more_outputs_add_to_what_is_there(folder, fake_fit):
    assert main(["fit", "in/a.png", "-o", "out", "--save", "npz,obj"]) == 0
    assert main(["fit", "in/a.png", "-o", "out", "--save", "npz"]) == 0
    assert len(fake_fit.calls) == 1
    assert main(["fit", "in/a.png", "-o", "out", "--save", "ply"]) == 0
    assert len(fake_fit.calls) == 2
    assert files(Path("out/a/person_00")) == ["mesh.obj", "mesh.ply", "params.npz"]


def test_a_result_with_a_lost_file_is_made_anew(folder, fake_fit):
    assert main(["fit", "in/a.png", "-o", "out"]) == 0
    Path("out/a/person_00/mesh.glb").unlink()
    assert main(["fit", "in/a.png", "-o", "out"]) == 0
    assert Path("out/a/person_00/mesh.glb").exists()


# Nothing half-written


def test_ctrl_c_says_one_line_and_leaves_nothing_half_written(folder, fake_fit, capsys):
    photo(folder / "d.png", 3)
    fake_fit.breaks_on["d"] = KeyboardInterrupt()
    assert main(["fit", "in", "-o", "out", "--batch-size", "3", "--save", "npz"]) == 130
    assert capsys.readouterr().err.strip().splitlines() == [
        "Interrupted. What is written is whole; the same command goes on from here."
    ]
    assert whole(Path("out")) and sorted(os.listdir("out")) == ["a", "b"]
    fake_fit.breaks_on.clear()
    assert main(["fit", "in", "-o", "out", "--batch-size", "3", "--save", "npz"]) == 0
    assert fake_fit.calls[-1] == ["d"]


def test_a_full_disk_ends_the_run_with_one_sentence(folder, fake_fit, capsys, monkeypatch):
    def full(*arguments: object, **arrays: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    assert main(["fit", "in", "-o", "out"]) == 1
    written = capsys.readouterr().err
    assert "no space is left on the disk" in written and len(written.splitlines()) == 1
    assert files(Path("out")) == [] and whole(Path("out"))


@pytest.mark.parametrize("command", ["fit", "detect"])
def test_an_output_folder_that_cannot_be_made_is_named(folder, fake_fit, capsys, command):
    assert main([command, "in", "-o", "in/a.png/out"]) == 1
    written = capsys.readouterr().err
    assert "in/a.png/out" in written and len(written.splitlines()) == 1


def test_no_name_writes_outside_the_output_folder(folder, fake_fit):
    for name in ("...png", "..png"):
        photo(folder / name, 1)
    assert main(["fit", "in/...png", "in/..png", "-o", "out/deep", "--save", "npz"]) == 0
    assert main(["detect", "in/...png", "in/..png", "-o", "out/deep"]) == 0
    assert sorted(os.listdir("out")) == ["deep"]
    assert sorted(os.listdir(folder.parent)) == ["in", "out"]


# Keypoints


def openpose(path: Path, *persons: np.ndarray) -> Path:
    entries = [{"pose_keypoints_2d": person.ravel().tolist()} for person in persons]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": 1.3, "people": entries}))
    return path


def body_25(confidence: float = 0.9) -> np.ndarray:
    points = np.random.default_rng(0).uniform(5.0, 40.0, (25, 3))
    points[:, 2] = confidence
    return points


def test_keypoints_are_taken_from_files(folder, fake_fit):
    openpose(Path("kp/a_keypoints.json"), body_25(), body_25())
    assert main(["fit", "in/a.png", "-o", "out", "--keypoints", "kp", "--save", "npz"]) == 0
    assert files(Path("out")) == ["a/fit.json", "a/person_00/params.npz", "a/person_01/params.npz"]
    openpose(Path("kp/a_keypoints.json"), body_25())
    assert main(["fit", "in/a.png", "-o", "out", "--keypoints", "kp", "--save", "npz"]) == 0
    assert files(Path("out")) == ["a/fit.json", "a/person_00/params.npz"], "other keypoints, another result"


def test_heights_go_with_the_people_of_keypoint_files(folder, fake_fit):
    openpose(Path("kp/a_keypoints.json"), body_25(), body_25())
    arguments = ["fit", "in/a.png", "-o", "out", "--keypoints", "kp", "--save", "npz"]
    assert main([*arguments, "--height", "1.5"]) == 1
    assert main([*arguments, "--height", "-,1.5"]) == 0
    assert fake_fit.options["height"] == [None, 1.5]


def test_a_photo_without_keypoints_fails_alone(folder, fake_fit, capsys):
    openpose(Path("kp/a_keypoints.json"), body_25())
    openpose(Path("kp/c_keypoints.json"))
    assert main(["fit", "in", "-o", "out", "--keypoints", "kp", "--save", "npz"]) == 1
    written = capsys.readouterr()
    assert written.err == "in/b.png: kp holds no keypoints of this photo.\n"
    assert "1 fitted (1 person), 1 without people, 1 failed" in written.out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("{}", "no known keypoint format"),
        (json.dumps({"people": [{"pose_keypoints_2d": [1.0] * 30}]}), "in/a|kp.json"),
        (json.dumps({"people": [{"pose_keypoints_2d": [10.0, 20.0, 0.0] * 25}]}), "confidence above 0"),
        (json.dumps({"people": [{"pose_keypoints_2d": [float("nan")] * 75}]}), "confidence above 0"),
    ],
    ids=["broken", "unknown", "wrong count", "all unseen", "NaN"],
)
def test_useless_keypoint_files_are_said_in_a_sentence(folder, fake_fit, capsys, text, said):
    Path("kp.json").write_text(text)
    assert main(["fit", "in/a.png", "-o", "out", "--keypoints", "kp.json"]) == 1
    written = capsys.readouterr().err
    assert re.search(said, written) and len(written.splitlines()) == 1
    assert files(Path("out")) == []


def test_a_missing_keypoint_file_is_named(folder, fake_fit, capsys):
    assert main(["fit", "in/a.png", "-o", "out", "--keypoints", "nowhere.json"]) == 1
    assert "nowhere.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file_format", "name"), [("openpose", "b_keypoints.json"), ("coco-wholebody", None), ("npz", None)]
)
def test_what_detect_writes_is_what_fit_reads(folder, fake_fit, capsys, file_format, name):
    assert main(["detect", "in", "-o", "kp", "--format", file_format]) == 0
    assert "3 photos: 2 with keypoints (3 people), 1 without people" in capsys.readouterr().out
    assert len(os.listdir("kp")) == 2
    assert name is None or Path("kp", name).exists()
    assert main(["fit", "in/a.png", "in/b.png", "-o", "out", "--keypoints", "kp", "--save", "npz"]) == 0
    assert fake_fit.calls == [["a", "b"]]


def test_detect_draws_a_picture_on_demand(folder, fake_fit):
    assert main(["detect", "in/a.png", "-o", "kp", "--save-picture"]) == 0
    assert sorted(os.listdir("kp")) == ["a_keypoints.jpg", "a_keypoints.json"]


# For real


def fitkit(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; from fitkit.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


@pytest.fixture(scope="module")
def astronaut(tmp_path_factory) -> Path:
    data = pytest.importorskip("skimage.data", reason="scikit-image's wheel carries the photo")
    path = tmp_path_factory.mktemp("photo") / "astronaut.png"
    Image.fromarray(data.astronaut()).save(path)
    return path


@pytest.mark.detector
@pytest.mark.slow
def test_a_photo_becomes_a_body(astronaut, tmp_path):
    done = fitkit("fit", astronaut, "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert files(tmp_path / "out") == [
        "astronaut/fit.json",
        "astronaut/overlay.jpg",
        "astronaut/person_00/mesh.glb",
        "astronaut/person_00/params.npz",
    ]
    loaded = api.load_result(tmp_path / "out" / "astronaut" / "person_00")
    assert np.isfinite(loaded.vertices).all()
    assert loaded.reprojection_relative < 0.02
    assert loaded.vertices[:, 2].min() > 0.0, "in front of the camera"


@pytest.mark.detector
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGINT to send")
def test_ctrl_c_for_real(astronaut, tmp_path):
    photos = tmp_path / "in"
    photos.mkdir()
    for index in range(60):
        (photos / f"{index:02d}.png").symlink_to(astronaut)
    code = "import sys; from fitkit.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "detect", str(photos), "-o", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip().startswith("Interrupted.") and len(said.strip().splitlines()) == 1
    assert whole(tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        json.loads(path.read_text())


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    code = "import sys; from fitkit.cli import main; sys.exit(main())"
    command = f"{sys.executable} -c '{code}' models | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=100)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
