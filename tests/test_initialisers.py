"""Where fits begin: near the true place and heading, whatever of a person is seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import roma
import torch
from fitting_world import (
    KINDS,
    assert_same,
    keep_only,
    people_of,
    pictures_of,
    problem_of,
    scaled,
    standing_people,
    with_world,
)

from fitkit.errors import UsageError
from fitkit.initialisers import INITIALISERS
from fitkit.initialisers.frontal import FrontalInitialiser
from fitkit.initialisers.geometric import GeometricInitialiser
from fitkit.keypoints.containers import Keypoints
from fitkit.parameters import Parameters
from fitkit.problem import Problem
from fitkit.recipe import configurable
from fitkit.size import pixels_per_metre

UPPER = ("nose", "eye", "ear", "neck", "shoulder", "elbow", "wrist")
HEAD = ("nose", "eye", "ear", "face")
YAWS = np.arange(-180, 180, 30)


def _names_of(parts: tuple[str, ...]):
    return lambda name: any(part in name for part in parts) and "hand" not in name


def _angles(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Angles in degrees between rotation vectors."""
    turn = roma.rotvec_to_rotmat(first).transpose(-1, -2) @ roma.rotvec_to_rotmat(second)
    return roma.rotmat_to_rotvec(turn).norm(dim=-1).rad2deg()


def _made(name: str):
    cls = INITIALISERS.get(name)
    return cls(pose="mixture") if "pose" in configurable(cls) else cls()


def _hypotheses(initialiser, problem: Problem) -> tuple[Parameters, int]:
    proposal = initialiser(problem)
    assert proposal.parameters.problems == proposal.hypotheses * len(problem.observations.points)
    return proposal.parameters, proposal.hypotheses


def _errors(problem: Problem, truth: Parameters, initialiser=None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return angles (B, C) in degrees and distances (B, C) in metres between hypotheses and truth."""
    found, count = _hypotheses(initialiser or GeometricInitialiser(pose="mixture"), problem)
    rows = torch.arange(truth.problems).repeat_interleave(count)
    angles = _angles(found["global_orient"], truth["global_orient"][rows])[:, 0].unflatten(0, (-1, count))
    root = problem.model(found).joints[:, 0, 0] - problem.model(truth.select(rows)).joints[:, 0, 0]
    return angles, root.norm(dim=-1).unflatten(0, (-1, count))


# ---------------------------------------------------------------------------------------------- every initialiser


@pytest.mark.parametrize("name", INITIALISERS.names())
@pytest.mark.parametrize("kind", KINDS)
def test_proposals_are_finite_parameters_of_the_models_layout(name, kind):
    people = people_of(kind, 3)
    problem = problem_of(people.keypoints, kind)
    found, count = _hypotheses(_made(name), problem)
    assert {leaf.name: leaf.size for leaf in problem.model.layout} == {k: v.shape[2] for k, v in found.items()}
    assert all(bool(leaf.isfinite().all()) for leaf in found.values())
    assert found["transl"].shape == (3 * count, 1, 3) and bool((found["transl"][..., 2] > 0).all())


@pytest.mark.parametrize("name", INITIALISERS.names())
def test_a_row_alone_is_the_row_among_others(name):
    people = people_of("anny", 4)
    problem = problem_of(with_world(people.keypoints, people.parameters))
    initialiser = _made(name)
    together, count = _hypotheses(initialiser, problem)
    for row in range(4):
        alone, _ = _hypotheses(initialiser, problem.select(torch.tensor([row])))
        for leaf in together:
            assert_same(alone[leaf], together[leaf][row * count : (row + 1) * count])


@pytest.mark.parametrize("name", INITIALISERS.names())
@pytest.mark.parametrize(
    "case", ["nothing seen", "one point", "two points", "all points equal", "far away", "only a hand"]
)
def test_poor_evidence_still_gives_a_finite_start(name, case):
    good = people_of("anny", 1).keypoints[0]
    keypoints = {
        "nothing seen": keep_only(good, lambda name: False),
        "one point": keep_only(good, lambda name: name == "left_knee"),
        "two points": keep_only(good, lambda name: name in ("left_knee", "right_wrist")),
        "all points equal": replace(good, points=np.full_like(good.points, 412.0)),
        "far away": replace(good, points=good.points + 1e6),
        "only a hand": keep_only(good, lambda name: name.startswith("left_hand") or "left_index" in name),
    }[case]
    found, _ = _hypotheses(_made(name), problem_of([keypoints]))
    assert all(bool(leaf.isfinite().all()) for leaf in found.values())


# ---------------------------------------------------------------------------------------------- geometric


def test_a_standing_person_is_put_near_place_and_heading_for_every_yaw():
    truth = standing_people(YAWS)
    angles, distances = _errors(problem_of(pictures_of(truth)), truth)
    best = angles.argmin(dim=1, keepdim=True)
    # Seen from the side the widths say little: within the reach of the placement stage.
    assert bool((angles.amin(1) < 35).all()), angles.amin(1)
    assert bool((distances.gather(1, best) < 0.6).all()), distances


def test_the_first_guess_faces_the_way_that_the_person_faces():
    for yaws, facing in ((range(-60, 61, 20), True), (range(120, 241, 20), False)):
        truth = standing_people(list(yaws))
        found, count = _hypotheses(GeometricInitialiser(1, "mixture"), problem_of(pictures_of(truth)))
        forward = roma.rotvec_to_rotmat(found["global_orient"])[:, 0, 2, 2]
        assert count == 1 and bool(((forward < 0) == facing).all())


@pytest.mark.parametrize("roll", [-1.4, -0.7, 0.7, 1.4, 3.0])
def test_a_rolled_picture_rolls_the_start(roll):
    truth = standing_people([0, 30, -30], place=(0.0, 0.0, 4.0), roll=roll)
    angles, _ = _errors(problem_of(pictures_of(truth)), truth)
    assert bool((angles.amin(1) < 35).all()), angles


@pytest.mark.parametrize(("parts", "angle", "distance"), [(UPPER, 45, 0.6), (HEAD, 50, 1.5)])
def test_half_bodies_and_heads_are_enough(parts, angle, distance):
    truth = standing_people([-40, 0, 40])
    pictures = [keep_only(one, _names_of(parts)) for one in pictures_of(truth)]
    angles, distances = _errors(problem_of(pictures), truth)
    assert bool((angles.amin(1) < angle).all()), angles
    assert bool((distances.amin(1) < distance).all()), distances


def test_legs_alone_are_enough():
    truth = standing_people([-40, 0, 40])
    pictures = [keep_only(one, _names_of(("hip", "knee", "ankle"))) for one in pictures_of(truth)]
    angles, distances = _errors(problem_of(pictures), truth)
    assert bool((angles.amin(1) < 40).all()) and bool((distances.amin(1) < 0.6).all())


def test_places_in_space_give_the_heading_at_once():
    truth = standing_people(YAWS)
    problem = problem_of(with_world(pictures_of(truth), truth))
    angles, _ = _errors(problem, truth)
    assert bool((angles[:, 0] < 8).all()), angles[:, 0]


@pytest.mark.parametrize("rubbish", [np.nan, np.inf, 0.0])
def test_useless_places_in_space_are_passed_over(rubbish):
    truth = standing_people([-40, 0, 40])
    pictures = pictures_of(truth)
    wrong = [replace(one, world=np.full((1, len(one.names), 3), rubbish)) for one in pictures]
    found, _ = _hypotheses(GeometricInitialiser(pose="mixture"), problem_of(wrong))
    assert all(bool(leaf.isfinite().all()) for leaf in found.values())
    if not np.isfinite(rubbish):
        expected, _ = _hypotheses(GeometricInitialiser(pose="mixture"), problem_of(pictures))
        assert_same(found["global_orient"], expected["global_orient"])


@pytest.mark.parametrize("count", [1, 2, 4])
def test_hypotheses_are_as_many_as_asked_for_and_differ(count):
    problem = problem_of(pictures_of(standing_people([40])))
    found, hypotheses = _hypotheses(GeometricInitialiser(count, "mixture"), problem)
    assert hypotheses == count
    for first in range(count):
        for second in range(first):
            assert float(_angles(found["global_orient"][first], found["global_orient"][second])) > 10


@pytest.mark.parametrize("count", [0, -1, 5])
def test_a_senseless_number_of_hypotheses_is_refused(count):
    with pytest.raises(UsageError, match="hypotheses"):
        GeometricInitialiser(count)


@pytest.mark.parametrize("name", INITIALISERS.names())
def test_the_resolution_of_the_picture_does_not_matter(name):
    pictures = pictures_of(standing_people([-120, 0, 80]))
    initialiser = _made(name)
    found, _ = _hypotheses(initialiser, problem_of(pictures))
    other, _ = _hypotheses(initialiser, problem_of([scaled(one, 2.0) for one in pictures]))
    for leaf in found:
        assert_same(other[leaf], found[leaf])


# ---------------------------------------------------------------------------------------------- frontal


def test_the_published_start_faces_the_camera_and_takes_depth_from_the_trunk():
    truth = standing_people([0, 10], place=(0.0, 0.0, 4.0))
    problem = problem_of(pictures_of(truth))
    angles, _ = _errors(problem, truth, FrontalInitialiser(flip=False, pose="mixture"))
    assert bool((angles < 11).all())
    found, _ = _hypotheses(FrontalInitialiser(flip=False, pose="mixture"), problem)
    assert bool(((found["transl"][:, 0, 2] - 4).abs() < 0.3).all()) and not found["transl"][..., :2].any()


def test_the_flip_is_tried_where_the_shoulders_are_narrow():
    problem = problem_of(pictures_of(standing_people([0, 88])))
    found, count = _hypotheses(FrontalInitialiser(pose="mixture"), problem)
    assert count == 2
    orient = found["global_orient"].unflatten(0, (2, 2))
    assert_same(orient[0, 0], orient[0, 1])
    assert float(_angles(orient[1, 0], orient[1, 1])) == pytest.approx(180)


# ---------------------------------------------------------------------------------------------- apparent size


def _size(keypoints: list[Keypoints]) -> torch.Tensor:
    problem = problem_of(keypoints)
    return pixels_per_metre(problem.model, problem.observations)[:, 0]


def test_the_apparent_size_is_focal_length_over_depth_for_every_yaw():
    assert bool((_size(pictures_of(standing_people(YAWS))) / (1300 / 4) - 1).abs().max() < 0.25)


@pytest.mark.parametrize(
    "parts", [UPPER, HEAD, ("hip", "knee", "ankle"), ("knee", "ankle"), ("shoulder", "elbow", "wrist"), ("shoulder",)]
)
def test_the_size_is_known_from_whatever_is_seen(parts):
    pictures = [keep_only(one, _names_of(parts)) for one in pictures_of(standing_people([-30, 0, 30]))]
    ratio = _size(pictures) / (1300 / 4)
    assert bool((ratio > 0.6).all()) and bool((ratio < 1.5).all()), ratio


def test_one_misplaced_point_does_not_set_the_size():
    picture = pictures_of(standing_people([0]))[0]
    points = picture.points.copy()
    points[0, picture.names.index("left_ankle")] = (5000, 5000)
    ratio = float(_size([replace(picture, points=points)])[0]) / (1300 / 4)
    assert 0.7 < ratio < 1.4


def test_the_size_grows_with_the_picture_and_ignores_the_unseen():
    picture = pictures_of(standing_people([20]))[0]
    one = keep_only(picture, lambda name: name != "left_ankle")
    points = one.points.copy()
    points[0, one.names.index("left_ankle")] = (1e6, -1e6)
    sizes = _size([one]), _size([scaled(one, 3.0)]), _size([replace(one, points=points)])
    torch.testing.assert_close(sizes[1], 3 * sizes[0])
    torch.testing.assert_close(sizes[2], sizes[0])


def test_points_without_a_known_span_give_their_extent():
    picture = keep_only(
        pictures_of(standing_people([0]))[0], lambda name: name in ("face_48", "face_54", "left_big_toe")
    )
    assert 0.3 < float(_size([picture])[0]) / (1300 / 4) < 3
