"""The accuracy benchmark: what its cases hide, how it measures, and that the same seed gives the same rows."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fitting_world import model_of

from fitkit.errors import UsageError
from fitkit.keypoints.conventions import part_of
from fitkit.recipe import parse_recipe
from fitkit.training.motion_capture import Poses

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from ablation import AS_IT_IS, EDITS, compared, variants  # noqa: E402
from accuracy import Settings, fitted, run, shown  # noqa: E402
from accuracy_cases import CASES, draw_people, observe  # noqa: E402
from accuracy_metrics import METRICS, Estimate, score  # noqa: E402
from accuracy_poses import captured_poses, prior_poses  # noqa: E402
from accuracy_targets import comparisons, target_column  # noqa: E402

QUICK = """
initialiser: {name: geometric, hypotheses: 2, pose: student}
solver: {name: levenberg_marquardt, max_iterations: 10}
terms: {reprojection: {deviation: 0.025}, pose_prior: {prior: student}, shape: {term: leaf_prior, leaf: betas}}
stages: [{name: body, free: [transl, global_orient, body_pose, betas]}]
"""


@pytest.fixture(scope="module")
def people():
    return draw_people(model_of("anny"), prior_poses(4, 0), CASES["all"], 0)


def truth(people):
    focal = people.camera.focal_length[:, 0, 0]
    return Estimate.from_parameters(model_of("anny"), people.parameters, focal, torch.zeros(len(focal)))


def shown_in(people, case, noise=0.0):
    seen = observe(people, CASES[case], noise, 0)
    return np.concatenate([one.points for one in seen]), np.concatenate([one.confidence for one in seen])


def test_rows_are_the_same_for_the_same_seed():
    method = fitted(parse_recipe(QUICK, "quick"))
    settings = Settings(people=4, cases=("all", "body"))
    rows = run(settings, {"mean pose": method, "again": method})
    assert [row["case"] for row in rows] == ["all", "all", "body", "body"]
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        for name in METRICS:
            np.testing.assert_array_equal(first["errors"][name], second["errors"][name])
        assert first["metrics"]["PA-MPJPE"]["mean"] < 80
        assert first["targets"].startswith("PA-MPJPE") and not second["targets"]
        assert shown(first)["case"] == first["case"]


@pytest.mark.parametrize("case", ["all", "upper"])
def test_the_truth_has_no_error(people, case):
    errors = score(model_of("anny"), people, CASES[case], observe(people, CASES[case], 0.0, 0), truth(people))
    assert set(errors) == set(METRICS)
    for name, values in errors.items():
        np.testing.assert_allclose(values, 0.0, atol=1e-3, err_msg=name)


def test_errors_know_what_they_align(people):
    actual = truth(people)
    moved = Estimate(
        1.2 * actual.joints + 0.1, 1.2 * actual.vertices + 0.1, actual.betas, actual.global_orient,
        1.1 * actual.focal, actual.iterations, actual.failed,
    )  # fmt: skip
    errors = score(model_of("anny"), people, CASES["all"], observe(people, CASES["all"], 0.0, 0), moved)
    for name in ("PA-MPJPE", "PA-V2V", "hands PA", "face PA"):
        np.testing.assert_allclose(errors[name], 0.0, atol=1e-3, err_msg=name)
    np.testing.assert_allclose(errors["focal error"], 10.0)
    assert (errors["MPJPE"] > 20).all()


@pytest.mark.parametrize(
    ("case", "count"),
    [("all", 118), ("body", 25), ("upper", 105), ("waist_up", 108), ("no_feet", 112), ("no_ankles", 110)],
)
def test_cases_hide_what_they_say(people, case, count):
    _, confidence = shown_in(people, case)
    assert ((confidence > 0).sum(1) == count).all()


def test_one_arm_is_hidden(people):
    _, confidence = shown_in(people, "one_arm_hidden")
    for row in confidence:
        hidden = {name for name, sure in zip(people.names, row, strict=True) if not sure}
        sides = {name.split("_")[0] for name in hidden}
        assert len(hidden) == 23 and len(sides) == 1
        assert all(part_of(name).endswith("hand") or name.split("_")[1] in ("elbow", "wrist") for name in hidden)


def test_a_fifth_of_the_points_is_grossly_wrong(people):
    points, _ = shown_in(people, "outliers")
    away = np.linalg.norm(points - people.points, axis=-1)
    assert ((away > 1).sum(1) == round(0.2 * len(people.names))).all()
    np.testing.assert_allclose(away[away > 1], 80.0)


@pytest.mark.parametrize("case", ["offsets", "equal_offsets"])
def test_offsets_are_the_keypoints_own(people, case):
    points, _ = shown_in(people, case)
    box = np.ptp(people.points, axis=1).max(-1)[:, None, None]
    offsets = (points - people.points) / box
    np.testing.assert_allclose(offsets, offsets[:1].repeat(len(points), axis=0), atol=1e-12)
    if case == "offsets":
        assert 0.015 < offsets[0].std() < 0.025
    else:
        np.testing.assert_allclose(np.linalg.norm(offsets[0], axis=-1), 0.02, rtol=1e-9)


def test_confidence_tells_the_noise(people):
    many = people.__class__(people.parameters, people.camera, people.names, np.zeros((400, len(people.names), 2)))
    points, confidence = shown_in(many, "all", 3.0)
    assert math.sqrt((points**2).mean()) == pytest.approx(3.0, rel=0.02)
    assert (points * confidence[..., None]).std() == pytest.approx(3.0 * math.sqrt(0.5), rel=0.02)
    assert 0.5 <= confidence.min() and confidence.max() <= 1


def test_far_poses_are_held_out_and_farther_than_others():
    model, frames = model_of("anny"), 1500
    random = torch.Generator().manual_seed(0)
    pose = 0.3 * torch.randn(frames, 21, 3, generator=random)
    pose[::3, (9, 10)] = torch.nan  # feet
    pose[1::3, (12, 13)] = torch.nan  # collars
    held = torch.arange(frames) % 10 == 0
    clip = np.array([f"source/{frame}" for frame in range(frames)])
    poses = Poses(pose.flatten(1), torch.ones(frames), held, clip, torch.zeros(frames, 3))
    usual, far = (captured_poses(poses, model, 20, 0, far=far) for far in (False, True))
    for drawn in (usual, far):
        assert drawn.body_pose.shape == (20, 63) and bool(drawn.body_pose.isfinite().all())
        # Knees are never missing: each drawn pose is one of the held-out frames.
        apart = torch.cdist(drawn.body_pose[:, 9:15], pose[held].flatten(1)[:, 9:15].double())
        assert float(apart.amin(1).max()) < 1e-6
    everybody = captured_poses(poses, model, int(held.sum()), 0, far=True)
    assert far.distance is not None and everybody.distance is not None
    assert float(far.distance.min()) >= float(everybody.distance.quantile(0.74))


def test_cases_that_need_motion_capture_say_so():
    with pytest.raises(UsageError, match="--poses FILE"):
        run(Settings(people=2, cases=("far",)), {})
    assert not any(CASES[case].needs_capture for case, _ in Settings().grid)
    with pytest.raises(UsageError, match="Did you mean 'upper'"):
        run(Settings(people=2, cases=("uper",)), {})


def test_targets_and_comparisons_are_told():
    def row(method, size, **others):
        metrics = {name: {"mean": size, "median": size} for name in METRICS}
        return {"case": "all", "noise px": 2.0, "method": method, "metrics": metrics} | others

    assert target_column(row("full", 15.0)).startswith("PA-MPJPE 15.0 <= 15 yes, PA-V2V 15.0 <= 19 yes")
    assert "PA-MPJPE 16.0 <= 15 NO" in target_column(row("full", 16.0))
    assert target_column(row("full", 1.0, **{"known focal": True})) == target_column(row("published", 1.0)) == ""
    lines = "\n".join(
        comparisons([row("published", 80.0), row("mean pose", 30.0), row("full", 10.0), row("network", 11.0)])
    )
    assert "PA-MPJPE 8.00 times (>= 4: yes)" in lines
    assert "lower by 9.1 % (>= 15: NO)" in lines
    assert "iterations of full / mean pose, all: 0.33 (<= 0.33: yes)" in lines


def test_each_part_that_is_left_out_changes_the_recipe():
    recipes = variants()
    assert set(recipes) == {AS_IT_IS, *EDITS}
    whole = recipes.pop(AS_IT_IS)
    for name, recipe in recipes.items():
        assert recipe.resolved != whole.resolved, name


def test_an_ablation_compares_the_same_people():
    """The part's row shows its own mean, and the mean of what each person loses."""
    metrics = {name: {"mean": 1.0} for name in METRICS}
    shared = {"case": "all", "metrics": metrics, "CPU ms": 1.0}
    rows = [
        shared | {"method": AS_IT_IS, "errors": {"PA-MPJPE": np.array([1.0, 2.0])}},
        shared | {"method": "part", "errors": {"PA-MPJPE": np.array([2.0, 5.0])}},
    ]
    whole, part = compared(rows)
    assert whole["difference"] == 0 and not whole["without"]
    assert part["difference"] == 2.0 and part["standard error"] == pytest.approx(1 / math.sqrt(2))
