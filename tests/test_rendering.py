"""Rasterisers against geometry that is known exactly, against each other, and at the edges of what can be drawn."""

import os
import subprocess
import sys

import numpy as np
import pytest
import trimesh

from fitkit.errors import FitkitError, UsageError
from fitkit.keypoints.containers import Keypoints
from fitkit.rendering import RASTERISERS, choose
from fitkit.rendering.geometry import vertex_normals
from fitkit.rendering.occlusion import cone, visibility
from fitkit.viewers.overlay import PALETTE, DrawnBody, Style, overlay
from fitkit.viewers.side_view import picture, side_view
from fitkit.viewers.skeleton import LEFT, RIGHT, draw_keypoints
from fitkit.viewers.unseen import unseen_share

SIZE = (320, 240)
INTRINSICS = np.array([[400.0, 0.0, 150.0], [0.0, 400.0, 130.0], [0.0, 0.0, 1.0]])
BALL = trimesh.creation.icosphere(subdivisions=4)
FACES = np.array(BALL.faces)
RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


@pytest.fixture(params=RASTERISERS.names())
def rasteriser(request):
    return start(request.param)


def start(name):
    try:
        return RASTERISERS.get(name)()
    except FitkitError as error:
        pytest.skip(str(error))


def ball(centre, radius=0.3):
    return np.array(BALL.vertices) * radius + centre


def silhouette_area(centre, radius, focal):
    """Area in pixels of a sphere's image: an ellipse (the plane section of the tangent cone)."""
    distance = np.linalg.norm(centre)
    angle, tilt = np.arcsin(radius / distance), np.arccos(centre[2] / distance)
    low, high = np.tan(tilt - angle), np.tan(tilt + angle)
    semi_major = (high - low) / 2
    semi_minor = np.sin(angle) / np.sqrt(np.cos(tilt) ** 2 - np.sin(angle) ** 2)
    return np.pi * semi_major * semi_minor * focal**2


@pytest.mark.parametrize("centre", [(0.0, 0.0, 2.0), (0.3, -0.1, 2.0)], ids=["middle", "aside"])
def test_a_sphere_has_its_silhouette_and_depth(rasteriser, centre):
    rendering = rasteriser.render([ball(centre)], FACES, INTRINSICS, SIZE)
    assert rendering.alpha.shape == rendering.depth.shape == rendering.body_index.shape == (240, 320)
    assert rendering.colour.shape == (240, 320, 3)
    expected = silhouette_area(np.array(centre), 0.3, 400.0)
    assert rendering.alpha.sum() == pytest.approx(expected, rel=0.004)
    covered = rendering.body_index == 0
    assert covered.sum() == pytest.approx(expected, rel=0.01)
    assert np.isinf(rendering.depth[~covered]).all() and (rendering.body_index[~covered] == -1).all()
    # The ray through each pixel's centre meets the sphere at a depth that a quadratic equation tells.
    v, u = np.nonzero(covered)
    ray = np.stack([(u + 0.5 - 150) / 400, (v + 0.5 - 130) / 400, np.ones(len(u))], axis=1)
    b, a = ray @ np.array(centre), (ray**2).sum(1)
    inside = b**2 - a * (np.dot(centre, centre) - 0.3**2)
    well = inside > 0.02  # a grazing ray is at the mercy of the facets
    exact = (b[well] - np.sqrt(inside[well])) / a[well]
    np.testing.assert_allclose(rendering.depth[v, u][well], exact, atol=0.004)


def test_edges_are_antialiased_and_light_is_sane(rasteriser):
    rendering = rasteriser.render([ball((0, 0, 2.0))], FACES, INTRINSICS, SIZE, np.array([[0.6, 0.7, 0.9]]))
    partial = (rendering.alpha > 0.02) & (rendering.alpha < 0.98)
    assert 100 < partial.sum() < 600
    assert len(np.unique(np.round(rendering.alpha[partial], 2))) >= 3
    assert rendering.colour.min() >= 0 and rendering.colour.max() <= 1
    assert (rendering.colour[rendering.alpha == 0] == 0).all()
    shades = rendering.colour[rendering.alpha > 0.5]
    assert 0.3 < shades.mean() < 0.9 and shades.std() > 0.05
    assert shades[:, 2].mean() > shades[:, 0].mean() + 0.1  # still blue
    # No dark or bright seam: an edge pixel's colour is like its neighbour's inside.
    middle = rendering.colour[130]
    (columns,) = np.nonzero(rendering.alpha[130] > 0)
    assert np.abs(middle[columns[0]] - middle[columns[2]]).max() < 0.15


def test_pixel_centres_are_at_half(rasteriser):
    """A square from pixel 10 to pixel 20 covers exactly the pixels 10 to 19."""
    corners = np.array([[10, 10, 1], [20, 10, 1], [20, 20, 1], [10, 20, 1.0]]) * 2.0
    square = corners @ np.linalg.inv(INTRINSICS).T
    rendering = rasteriser.render([square], np.array([[0, 2, 1], [0, 3, 2]]), INTRINSICS, SIZE)
    expected = np.zeros((240, 320))
    expected[10:20, 10:20] = 1
    np.testing.assert_allclose(rendering.alpha, expected, atol=0.01)


def test_the_nearer_body_is_in_front_whatever_the_order(rasteriser):
    near, far = ball((0.05, 0, 2.0), 0.2), ball((-0.1, 0, 3.0), 0.5)
    for bodies, front in (([near, far], 0), ([far, near], 1)):
        rendering = rasteriser.render(bodies, FACES, INTRINSICS, SIZE, np.array([[1.0, 0.2, 0.2], [0.2, 0.2, 1.0]]))
        assert rendering.body_index[130, 160] == front
        assert rendering.body_index[130, 100] == 1 - front
        assert rendering.depth[130, 160] < 2.0 < rendering.depth[130, 100]
        red = rendering.colour[130, 160, 0] > rendering.colour[130, 160, 2]
        assert red == (front == 0)


def test_bodies_may_differ_in_size_and_colour_per_vertex(rasteriser):
    small = trimesh.creation.icosphere(subdivisions=1, radius=0.2)
    vertices = [ball((-0.3, 0, 2.0), 0.2), np.array(small.vertices) + [0.3, 0, 2.0]]
    colours = [np.tile([0.9, 0.2, 0.2], (len(vertices[0]), 1)), np.array([0.2, 0.9, 0.2])]
    rendering = rasteriser.render(vertices, [FACES, np.array(small.faces)], INTRINSICS, SIZE, colours)
    for body, channel in ((0, 0), (1, 1)):
        assert rendering.colour[rendering.body_index == body].mean(0).argmax() == channel


@pytest.mark.filterwarnings("error")
def test_what_cannot_be_seen_is_not_drawn(rasteriser):
    broken = ball((0, 0, 2.0))
    broken[7] = np.nan
    flat = np.array([[0.0, 0, 2], [0.1, 0, 2], [0.2, 0, 2]])
    none = np.zeros((0, 3), int)
    nothing = [
        ([], FACES),
        ([ball((0, 0, -2.0))], FACES),
        ([ball((9.0, 0, 2.0))], FACES),
        ([ball((0, 0, 2.0))], none),
        ([flat], np.array([[0, 1, 2], [1, 1, 1]])),
        ([broken * np.nan], FACES),
    ]
    for vertices, faces in nothing:
        rendering = rasteriser.render(vertices, faces, INTRINSICS, SIZE)
        assert rendering.alpha.shape == (240, 320) and not rendering.alpha.any()
    rendering = rasteriser.render([broken], FACES, INTRINSICS, SIZE)
    assert 0 < rendering.alpha.sum() and np.isfinite(rendering.colour).all()


@pytest.mark.filterwarnings("error")
def test_surfaces_through_the_camera_are_cut_and_not_mirrored(rasteriser):
    floor = np.array([[-50.0, 1, -4], [50, 1, -4], [50, 1, 40], [-50, 1, 40.0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    rendering = rasteriser.render([floor], faces, INTRINSICS, SIZE)
    assert not rendering.alpha[:135].any()  # nothing above the horizon, where the part behind would be mirrored to
    assert (rendering.alpha[145:] == 1).all()
    rows = np.arange(150, 240)
    np.testing.assert_allclose(rendering.depth[rows, 160], 400 / (rows + 0.5 - 130), rtol=0.01)
    inside = rasteriser.render([ball((0, 0, 0), 1.0)], FACES, INTRINSICS, SIZE)  # the camera within a body
    assert (inside.alpha == 1).all() and (inside.depth < 1.01).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 300)])
def test_tiny_pictures(rasteriser, size):
    assert rasteriser.render([ball((0, 0, 2.0))], FACES, INTRINSICS, size).depth.shape == size[::-1]


def test_shared_edges_leave_no_cracks():
    rng = np.random.default_rng(3)
    ball_vertices = ball((0, 0, 2.0), 0.5) + rng.normal(0, 1e-3, (len(BALL.vertices), 3))
    intrinsics = np.array([[397.3, 1.5, 160.25], [0, 401.7, 119.9], [0, 0, 1]])
    rendering = start("software").render([ball_vertices], FACES, intrinsics, SIZE)
    columns, rows = np.meshgrid(np.arange(320), np.arange(240))
    inner = np.hypot(columns - 160, rows - 120) < 90
    assert (rendering.body_index[inner] == 0).all() and (rendering.alpha[inner] == 1).all()
    assert rendering.depth[inner].max() < 2.0  # never the far side through a crack


def test_pyrender_agrees_with_software():
    opengl, software = start("pyrender"), start("software")
    bodies = [ball((-0.1, 0, 2.0), 0.3), ball((0.15, 0.1, 2.3), 0.4)]
    colours = np.array([[0.6, 0.7, 0.9], [0.9, 0.6, 0.5]])
    intrinsics = INTRINSICS + [[0, 5.0, 0], [0, 20, 0], [0, 0, 0]]  # with skew and unequal focal lengths
    a, b = (r.render(bodies, FACES, intrinsics, SIZE, colours) for r in (opengl, software))
    assert (a.body_index != b.body_index).mean() < 0.002
    both = (a.body_index == b.body_index) & (a.body_index >= 0)
    assert np.median(np.abs(a.depth[both] - b.depth[both])) < 1e-3
    assert np.abs(a.alpha - b.alpha).mean() < 0.005
    assert np.abs(a.colour - b.colour)[both].mean() < 0.01


def test_starting_opengl_leaves_the_environment_alone():
    code = """
import os
before = dict(os.environ)
from fitkit.rendering import choose
choose("pyrender")
assert before == dict(os.environ)
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYOPENGL_PLATFORM"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=120)


def test_without_opengl_the_software_rasteriser_draws_and_says_why(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "pyrender", None)  # makes `import pyrender` fail
    chosen = choose("pyrender")
    assert type(chosen) is RASTERISERS.get("software")
    assert len(caplog.records) == 1 and "OpenGL cannot start" in caplog.text


def test_an_unknown_rasteriser_is_refused():
    with pytest.raises(UsageError, match="Did you mean 'software'"):
        choose("sofware")


def test_normals_point_outwards():
    normals = vertex_normals(np.array(BALL.vertices), FACES)
    assert np.einsum("vi,vi->v", normals, np.array(BALL.vertices)).min() > 0.999


def test_shadows_fall_on_what_lies_behind():
    small, large = ball((0, 0, 0), 0.2), ball((0, 1.0, 0), 0.4)
    vertices = np.concatenate([small, large])
    normals = np.concatenate([np.array(BALL.vertices)] * 2)
    bodies = np.repeat([0, 1], len(small))
    above = cone(np.array([0.0, -1.0, 0.0]), 0.1, 8)
    light = visibility(vertices, normals, bodies, above)
    assert light.min() >= 0 and light.max() <= 1
    on_large = light[len(small) :]
    below = np.hypot(large[:, 0], large[:, 2]) < 0.1
    assert on_large[below & (normals[len(small) :, 1] < 0)].max() < 0.2  # under the small ball
    assert (
        on_large[(normals[len(small) :, 0] > 0.7) & (normals[len(small) :, 1] < -0.2)].min() > 0.8
    )  # aside of its shadow
    assert light[: len(small)][normals[: len(small), 1] < -0.5].min() > 0.95
    far = visibility(vertices + np.outer(bodies, [0, 1e6, 0]), normals, bodies, above)  # too far to shade each other
    assert far[normals[:, 1] < -0.5].min() > 0.9


def drawn(centre, radius=0.3, **rest):
    return DrawnBody(ball(centre, radius), FACES, INTRINSICS, **rest)


def test_an_overlay_changes_the_photo_where_bodies_are():
    photo = np.random.default_rng(0).integers(0, 255, (240, 320, 3)).astype(np.uint8)
    before = photo.copy()
    result = overlay(photo, [drawn((0, 0, 2.0))])
    assert result.dtype == np.uint8 and result.shape == photo.shape
    np.testing.assert_array_equal(photo, before)
    changed = (result != photo).any(2)
    assert not changed[:, 220:].any() and changed[100:160, 130:170].mean() > 0.95
    np.testing.assert_array_equal(overlay(photo, []), photo)


def test_each_person_keeps_the_own_camera_and_one_depth_order():
    """A body seen with a longer lens looks nearer than it is, and stays behind another that is nearer."""
    photo = np.zeros((240, 320, 3), np.uint8)
    tele = INTRINSICS * [[2, 2, 1], [2, 2, 1], [1, 1, 1]]
    red = DrawnBody(ball((0, 0, 3.0), 0.3), FACES, tele, colour=RED)
    blue = drawn((0, 0, 2.0), 0.15, colour=BLUE)
    for people in ([red, blue], [blue, red]):
        result = overlay(photo, people)
        assert result[130, 150].argmax() == 2
        assert result[130, 150 + 60].argmax() == 0 and result[130, 150 + 60].max() > 50


def test_large_photos_are_scaled_down_unless_told_otherwise():
    photo = np.zeros((480, 640, 3), np.uint8)
    small = overlay(photo, [drawn((0, 0, 2.0))], style=Style(max_size=320))
    assert small.shape == (240, 320, 3)
    full = overlay(photo, [drawn((0, 0, 2.0))], style=Style(max_size=None))
    assert full.shape == photo.shape
    assert full.any(2).sum() == pytest.approx(4 * small.any(2).sum(), rel=0.05)


def test_unseen_parts_are_paler():
    photo = np.zeros((240, 320, 3), np.uint8)
    unseen = (ball((0, 0, 2.0))[:, 1] > 0).astype(float)
    result = overlay(photo, [drawn((0, 0, 2.0), colour=(0.2, 0.2, 0.9), unseen=unseen)]).astype(int)
    saturation = result.max(2) - result.min(2)
    assert saturation[100, 150] > 2 * saturation[160, 150]


def test_keypoints_are_drawn_where_they_were_seen():
    names = ("left_shoulder", "left_elbow", "right_shoulder", "right_elbow", "nose")
    points = np.array([[[200.0, 60], [200, 120], [100, 60], [100, 120], [30, 30]]])
    seen = Keypoints(names, points, np.array([[1.0, 1, 1, 1, 0]]))
    canvas = np.zeros((240, 320, 3), np.uint8)
    result = draw_keypoints(canvas, seen, opacity=1.0)
    for column, colour in ((199, LEFT), (99, RIGHT)):
        assert np.argmax(result[90, column]) == np.argmax(colour) and result[90, column].max() > 90
    assert not result[20:40, 20:40].any()  # not seen, not drawn
    halved = draw_keypoints(canvas, seen, scale=0.5, opacity=1.0)
    assert halved[45, 99].any() and not halved[45, 199].any()
    with_body = overlay(canvas, [drawn((0, 0, 2.0), keypoints=seen)], keypoints=True)
    assert with_body[90, 199].any()
    far = Keypoints(names, points * 1e7, np.ones((1, 5)))
    draw_keypoints(canvas, far)


def test_the_side_view_looks_from_the_side():
    """Two balls behind each other stand side by side in it, the nearer one at the left."""
    photo = np.zeros((240, 320, 3), np.uint8)
    people = [drawn((0, 0, 2.0), colour=RED), drawn((0, 0, 3.0), colour=BLUE)]
    view = side_view(people, 240).astype(int)
    assert view.shape[0] == 240
    red, blue = view[..., 0] - view[..., 2] > 60, view[..., 2] - view[..., 0] > 60
    assert red.any() and blue.any()
    assert np.nonzero(red)[1].max() < np.nonzero(blue)[1].min()
    both = picture(photo, people)
    np.testing.assert_array_equal(both[:, 320:], view)
    assert picture(photo, people, side=False).shape == photo.shape
    assert picture(photo, []).shape == photo.shape


def test_vertices_near_unseen_bones_are_unseen():
    names = ("pelvis", "spine3", "neck", "head", "left_collar", "left_shoulder", "left_elbow", "left_wrist")
    joints = np.array(
        [
            [0, 0, 0],
            [0, 0.4, 0],
            [0, 0.5, 0],
            [0, 0.6, 0],
            [0.05, 0.45, 0],
            [0.2, 0.45, 0],
            [0.45, 0.45, 0],
            [0.7, 0.45, 0],
        ]
    )
    vertices = np.array([[0, 0.2, 0.1], [0.3, 0.5, 0], [0.7, 0.4, 0], [0, 0.7, 0.05]])
    seen = {"torso": True, "head": True, "left_arm": False}
    np.testing.assert_array_equal(unseen_share(vertices, joints, names, seen), [0, 1, 1, 0])
    assert not unseen_share(vertices, joints, names, {"torso": True}).any()
    assert unseen_share(vertices, joints, names, {"torso": False, "head": False, "left_arm": False}).all()


def test_a_body_that_is_not_finite_spoils_no_picture():
    photo = np.zeros((240, 320, 3), np.uint8)
    good, broken = drawn((0, 0, 2.0)), drawn((0, 0, 2.0))
    broken.vertices_camera[:] = np.nan
    lost = DrawnBody(ball((0, 0, 2.0)), FACES, INTRINSICS * np.nan)
    np.testing.assert_array_equal(picture(photo, [good, broken, lost]), picture(photo, [good]))
    assert picture(photo, [broken, lost])[..., :3].shape[0] == 240
    assert overlay(np.zeros((1, 1, 3), np.uint8), [good]).shape == (1, 1, 3)


def test_colours_stay_with_people():
    photo = np.zeros((240, 320, 3), np.uint8)
    broken = DrawnBody(ball((0, 0, 2.0)) * np.nan, FACES, INTRINSICS)
    second = overlay(photo, [broken, drawn((0, 0, 2.0))])[130, 150].astype(int)
    assert np.abs(second / second.max() - np.array(PALETTE[1]) / max(PALETTE[1])).max() < 0.25
