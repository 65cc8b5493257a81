"""No evidence and no start is bad enough for a number that is not finite, in either precision; good rows never notice.

A small version of `benchmarks/degenerate.py`: one batch of every kind of spoilt problem, three good people among them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from fitting_world import keep_only, model_of, people_of, problem_of, quick

from fitkit.fitting import Fit, fit
from fitkit.initialisers.given import GivenInitialiser
from fitkit.recipe import Recipe
from fitkit.results import FitResult
from fitkit.solvers.base import Status

from degenerate import KINDS, Mixed, difference, mixed_batch, not_finite  # isort: skip

GOOD = (0, 5, 9)
PRECISIONS = ("float64", "float32")
ENDS = {status.name.lower() for status in Status} - {"running", "non_finite"}


@lru_cache
def _recipe() -> Recipe:
    """The default recipe, its stages cut short: bad evidence breaks early, or never."""
    return quick("default", 6)


@lru_cache
def _batch() -> Mixed:
    kinds = list(KINDS)
    for place in GOOD[1:]:
        kinds.insert(place, "good")
    return mixed_batch(model_of("anny"), kinds, seed=3)


@lru_cache
def _solved(precision: str) -> tuple[Fit, list[FitResult]]:
    return _batch().solve(model_of("anny", getattr(torch, precision)), _recipe())


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_all_numbers_are_finite_and_the_end_is_told(kind, precision):
    batch, (_, results) = _batch(), _solved(precision)
    rows = [row for row, name in enumerate(batch.kinds) if name == kind]
    for row in rows:
        assert not_finite(results[row]) == []
        assert results[row].status in ENDS


@pytest.mark.parametrize("row", GOOD)
def test_good_people_never_notice(row):
    batch, (_, results) = _batch(), _solved("float64")
    assert batch.kinds[row] == "good"
    (alone,) = batch.select([row]).solve(model_of("anny"), _recipe())[1]
    assert difference(alone, results[row]) < 1e-4 and alone.status == results[row].status


def test_a_person_behind_the_camera_comes_before_it():
    _, results = _solved("float64")
    found = results[_batch().kinds.index("behind the camera at the start")]
    assert found.params["transl"][2] > 0.5 and found.reprojection_px < 30


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_not_seen_has_a_finite_and_large_deviation(precision):
    """Directions that only a prior holds, or nothing does, are factorised in double precision."""
    good = people_of("anny", 2).keypoints
    knee = keep_only(good[1], lambda name: name == "left_knee")
    recipe = quick("default", 2).with_known_focal()
    dtype = getattr(torch, precision)
    solved = fit(_as(problem_of([good[0], knee]), dtype), recipe.initialiser, recipe.stages)
    seen, unseen = solved.joint_deviation[:, 0].norm(dim=-1)
    assert bool(torch.isfinite(seen).all()) and bool(torch.isfinite(unseen).all())
    assert float(unseen.median()) > 5 * float(seen.median())


def test_deviations_agree_in_both_precisions():
    recipe = quick("default", 4).with_known_focal()
    good = problem_of(people_of("anny", 4).keypoints)
    double = fit(good, recipe.initialiser, recipe.stages)
    # The same end, looked at in both: a stage of no steps.
    last = recipe.stages[-1]
    still = replace(last, when="always", solver=replace(last.solver, max_iterations=0))
    rounded = double.parameters.map(lambda leaf: leaf.to(torch.float32))
    first = fit(good, GivenInitialiser(double.parameters), [still])
    single = fit(_as(good, torch.float32), GivenInitialiser(rounded), [still])
    torch.testing.assert_close(single.joint_deviation.double(), first.joint_deviation, rtol=0.02, atol=1e-5)


def _as(problem, dtype: torch.dtype):
    """Return a problem in another precision."""
    camera, observed = problem.camera, problem.observations
    return replace(
        problem,
        model=model_of("anny", dtype),
        camera=replace(camera, intrinsics=camera.intrinsics.to(dtype), image_size=camera.image_size.to(dtype)),
        observations=replace(observed, points=observed.points.to(dtype), confidence=observed.confidence.to(dtype)),
        start=problem.start.map(lambda leaf: leaf.to(dtype)),
        pixels_per_metre=problem.pixels_per_metre.to(dtype),
        heights=None if problem.heights is None else problem.heights.to(dtype),
    )
