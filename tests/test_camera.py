"""Cameras: projection, distortion, and where a focal length comes from."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import roma
import torch

from fitkit.camera import (
    NEAREST_DEPTH,
    Camera,
    check_centre,
    choose_focal,
    distort,
    distortion_slopes,
    focal_from_field_of_view,
    pinhole,
)
from fitkit.errors import InputError, UsageError


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _camera(problems: int = 2) -> Camera:
    focal = torch.linspace(800, 1200, problems, dtype=torch.float64)
    return pinhole(focal, torch.tensor([[640.0, 480.0]], dtype=torch.float64).expand(problems, 2))


def _posed(problems: int = 2) -> Camera:
    turn = roma.rotvec_to_rotmat(0.3 * _random(problems, 1, 3, seed=5))
    shift = 0.2 * _random(problems, 1, 3, seed=6)
    return replace(_camera(problems), R_camera_world=turn, t_camera_world=shift)


def _points(problems: int = 2, count: int = 7) -> torch.Tensor:
    return _random(problems, 1, count, 3) * 0.4 + torch.tensor([0.0, 0.0, 4.0])


def test_the_optical_axis_meets_the_picture_in_its_middle():
    pixels = _camera(1).project(torch.tensor([[[[0.0, 0.0, 2.5]]]], dtype=torch.float64))
    assert pixels.flatten().tolist() == [320.0, 240.0]


def test_axes_are_right_down_forward():
    points = torch.tensor([[[[0.1, 0.0, 1.0], [0.0, 0.1, 1.0], [0.1, 0.0, 2.0]]]], dtype=torch.float64)
    right, down, far = (_camera(1).project(points)[0, 0] - torch.tensor([320.0, 240.0])).tolist()
    assert right == pytest.approx([80, 0]) and down == pytest.approx([0, 80]) and far == pytest.approx([40, 0])


def test_projection_and_unprojection_are_a_round_trip():
    camera, points = _posed(), _points()
    pixels, depth = camera.project(points), camera.to_camera(points)[..., 2:]
    rays = torch.cat([pixels, torch.ones_like(depth)], dim=-1) @ torch.linalg.inv(camera.intrinsics).transpose(-1, -2)
    back = (rays * depth - camera.t_camera_world[..., None, :]) @ camera.R_camera_world
    torch.testing.assert_close(back, points, rtol=0, atol=1e-12)


@pytest.mark.parametrize("coefficients", [[0.0] * 5, [0.1, -0.2, 0.01, -0.02, 0.05]])
def test_projection_is_opencvs(coefficients):
    camera = _posed(1)
    if any(coefficients):
        camera = replace(camera, distortion=torch.tensor(coefficients, dtype=torch.float64).expand(1, 1, 5))
    points = _points(1)
    expected, _ = cv2.projectPoints(
        points[0, 0].numpy(),
        cv2.Rodrigues(camera.R_camera_world[0, 0].numpy())[0],
        camera.t_camera_world[0, 0].numpy(),
        camera.intrinsics[0, 0].numpy(),
        np.array(coefficients),
    )
    np.testing.assert_allclose(camera.project(points)[0, 0].numpy(), expected[:, 0], atol=1e-8)


def test_the_slopes_of_distortion_are_its_derivative():
    flat, coefficients = 0.4 * _random(2, 3, 5, 2), 0.2 * _random(2, 3, 5, seed=1)
    leaf = flat.clone().requires_grad_(True)
    moved = distort(leaf, coefficients)
    expected = torch.stack(
        [torch.autograd.grad(moved[..., k].sum(), leaf, retain_graph=True)[0] for k in range(2)], dim=-2
    )
    torch.testing.assert_close(distortion_slopes(flat, coefficients), expected)


def test_points_behind_the_camera_stay_finite_and_so_do_their_gradients():
    points = torch.tensor([[[[0.1, 0.2, -1.0], [0.1, 0.2, 0.0], [0.1, 0.2, NEAREST_DEPTH]]]], dtype=torch.float64)
    points.requires_grad_(True)
    pixels = _camera(1).project(points)
    pixels.sum().backward()
    assert bool(pixels.isfinite().all()) and bool(points.grad.isfinite().all())
    assert torch.equal(pixels[0, 0, 0], pixels[0, 0, 2])


def test_another_focal_length_keeps_centre_and_aspect():
    camera = _camera()
    camera = replace(camera, intrinsics=camera.intrinsics * torch.tensor([[1.0], [1.1], [1.0]]))
    wanted = torch.tensor([500.0, 2000.0], dtype=torch.float64)[:, None, None]
    changed = camera.with_focal_length(wanted)
    assert torch.equal(changed.focal_length, wanted)
    torch.testing.assert_close(changed.intrinsics[..., 1, 1], 1.1 * wanted[..., 0])
    torch.testing.assert_close(changed.intrinsics[..., :, 2], camera.intrinsics[..., :, 2])


def test_selected_cameras_project_like_the_selected_rows():
    camera, points = _posed(3), _points(3)
    camera = replace(camera, distortion=0.01 * _random(3, 1, 5, seed=9))
    rows = torch.tensor([2, 0])
    torch.testing.assert_close(camera.select(rows).project(points[rows]), camera.project(points)[rows])


def test_the_first_that_is_known_decides_the_focal_length():
    size = (1200, 800)
    assert choose_focal(size, 900.0, math.radians(60), 700.0) == (900.0, "given")
    length, source = choose_focal(size, None, math.radians(60), 700.0)
    assert source == "field of view" and length == pytest.approx(600 / math.tan(math.radians(30)))
    assert choose_focal(size, None, None, 700.0) == (700.0, "EXIF")
    length, source = choose_focal(size)
    assert source == "default" and length == pytest.approx(600 / math.tan(math.radians(22.5)))


def test_the_field_of_view_lies_along_the_longer_side():
    assert choose_focal((800, 1200), field_of_view=1.0) == choose_focal((1200, 800), field_of_view=1.0)


@pytest.mark.parametrize("useless", [None, 0.0, -3.0, math.nan, math.inf])
def test_a_useless_exif_focal_length_is_passed_over(useless):
    assert choose_focal((1200, 800), exif_focal=useless)[1] == "default"


@pytest.mark.parametrize("focal", [0.0, -1.0, math.nan, math.inf])
def test_a_focal_length_must_be_positive(focal):
    with pytest.raises(UsageError, match="positive number of pixels"):
        choose_focal((1200, 800), focal)


@pytest.mark.parametrize("focal", [0.001, 35.0, 1e6])
def test_a_focal_length_must_be_one_of_such_a_picture(focal):
    with pytest.raises(InputError, match="1200 x 800 px; expected 120 to 240000. Is it in millimetres"):
        choose_focal((1200, 800), focal)


@pytest.mark.parametrize("centre", [(1e7, -5.0), (0.0, -3e4), (math.nan, 0.0)])
def test_a_principal_point_must_be_one_of_such_a_picture(centre):
    check_centre((1200, 800), -9000.0, 600.0)
    with pytest.raises(InputError, match="none of a picture of 1200 x 800 px.*at most 24000 px"):
        check_centre((1200, 800), *centre)


@pytest.mark.parametrize("degrees", [0.0, -20.0, 180.0, 400.0, math.nan])
def test_a_field_of_view_lies_between_0_and_180_degrees(degrees):
    with pytest.raises(UsageError, match="between 0 and 180 degrees"):
        focal_from_field_of_view(math.radians(degrees), 1000)
