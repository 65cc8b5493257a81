"""The example pictures are small, show people whom the detector finds, and come out of their script."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PEOPLE = {"standing": 1, "waving": 1, "strolling": 2, "close_up": 1}


def load(name):
    with Image.open(EXAMPLES / "images" / f"{name}.jpg") as picture:
        return picture.convert("RGB")


@pytest.fixture
def maker(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import make_pictures

    yield make_pictures
    for name in [name for name in sys.modules if name == "make_pictures" or name.split(".")[0] == "scenes"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", PEOPLE)
def test_pictures_are_small_files(name):
    assert (EXAMPLES / "images" / f"{name}.jpg").stat().st_size <= 200_000
    assert 800 <= min(load(name).size) and max(load(name).size) <= 1300


def test_the_script_makes_all_of_them(maker):
    assert {name: len(shot.people) for name, shot in maker.SHOTS.items()} == PEOPLE


def test_a_picture_is_what_the_script_draws(maker):
    shot = maker.SHOTS["standing"]
    view = replace(shot.view, focal=shot.view.focal / 6, size=(shot.view.size[0] // 6, shot.view.size[1] // 6))
    drawn = maker.draw(replace(shot, view=view)).astype(float)
    kept = np.asarray(load("standing").resize(view.size, Image.Resampling.BOX), float)
    assert np.abs(drawn - kept).mean() < 4


@pytest.mark.detector
@pytest.mark.parametrize("name", PEOPLE)
def test_the_detector_finds_bodies_faces_and_hands(name):
    from fitkit.keypoints.conventions import part_of
    from fitkit.keypoints.detectors import detect

    (found,) = detect([np.asarray(load(name))])
    assert len(found) == PEOPLE[name]
    parts = np.array([part_of(keypoint) for keypoint in found.names])
    sure = {part: (found.confidence[:, parts == part] > 0.5).mean(1) for part in set(parts)}
    assert sure["face"].min() > 0.9 and sure["body"].min() > 0.8
    assert np.maximum(sure["left_hand"], sure["right_hand"]).min() > 0.9  # one hand of each at least
