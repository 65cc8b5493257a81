"""The staged fit: known people are recovered, rows are independent, and no evidence is bad enough to raise."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from fitting_world import (
    assert_same,
    keep_only,
    model_of,
    people_of,
    pictures_of,
    problem_of,
    quick,
    standing_people,
)

from fitkit.energy import WeightedTerm
from fitkit.fitting import Fit, Stage, fit
from fitkit.keypoints.containers import Keypoints
from fitkit.parameters import Parameters
from fitkit.prior_files import load_prior
from fitkit.problem import Belief, Problem, Proposal
from fitkit.recipe import Recipe, load_recipe
from fitkit.solvers import SOLVERS
from fitkit.solvers.base import Status
from fitkit.terms.leaf_prior import LeafPrior
from fitkit.terms.reprojection import Reprojection

PEOPLE = 8


def _fit(keypoints: list[Keypoints], recipe: Recipe | None = None, kind: str = "anny") -> Fit:
    recipe = recipe or load_recipe("default").with_known_focal()
    return fit(problem_of(keypoints, kind), recipe.initialiser, recipe.stages)


def _distances(solved: Fit) -> torch.Tensor:
    """Distances (B, K) in pixels between fitted landmarks and keypoints."""
    seen = solved.problem.observations
    body = solved.problem.model(solved.parameters)
    return (solved.problem.camera.project(body.landmarks(seen.landmarks)) - seen.points).norm(dim=-1)[:, 0]


def _assert_same_fit(first: Fit, first_row: int, second: Fit, second_row: int, tolerance: float = 1e-4) -> None:
    for name in first.parameters:
        assert_same(first.parameters[name][first_row], second.parameters[name][second_row], tolerance)
    assert int(first.status[first_row]) == int(second.status[second_row])


@pytest.fixture(scope="module")
def solved() -> Fit:
    """The default recipe's fit of eight people by their noise-free keypoints."""
    return _fit(people_of("anny", PEOPLE).keypoints)


# ---------------------------------------------------------------------------------------------- recovery


def test_known_people_are_recovered(solved):
    medians = _distances(solved).median(dim=1).values
    assert float(medians.median()) < 1.0 and float(medians.max()) < 4.0, medians
    truth = people_of("anny", PEOPLE).parameters
    model = model_of("anny")
    error = (model(solved.parameters).joints - model(truth).joints)[:, 0, :22]
    # Without the place in depth, of which a single view says little.
    error = (error - error.mean(dim=1, keepdim=True)).norm(dim=-1).mean(dim=1)
    assert float(error.median()) < 0.2, error


def test_every_row_has_a_good_end(solved):
    assert not bool((solved.status == Status.NON_FINITE).any()) and not bool((solved.status == Status.RUNNING).any())
    assert bool((solved.iterations > 0).all())
    assert all(bool(leaf.isfinite().all()) for leaf in solved.parameters.values())


def test_the_solution_has_the_models_leaves_and_the_last_stages_energies(solved):
    last = load_recipe("default").stages[-1]
    assert set(solved.energies) == {entry.name for entry in last.terms if entry.weight}
    assert all(value.shape == (PEOPLE,) and bool(value.isfinite().all()) for value in solved.energies.values())
    assert set(solved.parameters) == {leaf.name for leaf in solved.problem.model.layout}
    assert solved.parameters["betas"].shape == (PEOPLE, 1, 20)


def test_expressions_stay_within_their_bounds(solved):
    expression = solved.parameters["expression"]
    assert float(expression.min()) > -0.3 and float(expression.max()) < 1.3


# ---------------------------------------------------------------------------------------------- rows are independent


@pytest.mark.parametrize("row", [0, 7])
def test_a_row_alone_is_the_row_among_others(solved, row):
    alone = _fit(people_of("anny", PEOPLE).keypoints[row : row + 1])
    _assert_same_fit(alone, 0, solved, row)


@pytest.mark.slow
def test_rows_alone_are_the_rows_among_64():
    people = people_of("anny", 64)
    together = _fit(people.keypoints)
    for row in range(0, 64, 8):
        _assert_same_fit(_fit(people.keypoints[row : row + 1]), 0, together, row)


def test_the_order_of_rows_does_not_matter(solved):
    order = [5, 1, 6]
    other = _fit([people_of("anny", PEOPLE).keypoints[row] for row in order])
    for place, row in enumerate(order):
        _assert_same_fit(other, place, solved, row)


# ---------------------------------------------------------------------------------------------- bad evidence


def _bad(good: Keypoints) -> dict[str, Keypoints]:
    """Evidence that detectors do give."""
    nan = good.points.copy()
    nan[0, ::3] = np.nan
    wild = np.full((1, len(good.names), 3), np.nan)
    wild[0, ::2] = 1e30
    return {
        "some NaN": replace(good, points=nan),
        "all NaN": replace(good, points=np.full_like(good.points, np.nan)),
        "one keypoint": keep_only(good, lambda name: name == "left_knee"),
        "two keypoints": keep_only(good, lambda name: name in ("left_knee", "right_ankle")),
        "only a hand": keep_only(good, lambda name: name.startswith("left_hand") or "left_index" in name),
        "zero confidence": replace(good, confidence=np.zeros_like(good.confidence)),
        "tiny confidence": replace(good, confidence=np.full_like(good.confidence, 1e-300)),
        "all points equal": replace(good, points=np.full_like(good.points, 400.0)),
        "a million pixels away": replace(good, points=good.points + 1e6),
        "mirrored": replace(good, points=good.points * (-1, 1) + (1000, 0)),
        "upside down": replace(good, points=1000 - good.points),
        "a pixel tall": replace(good, points=good.points / 1000),
        "a picture of one pixel": replace(good, image_size=(1, 1), focal_length=1.2),
        "nonsense in space": replace(good, world=wild),
        "random points": replace(good, points=np.random.default_rng(0).uniform(0, 1000, good.points.shape)),
    }


@pytest.fixture(scope="module")
def with_bad_neighbours(solved) -> tuple[Fit, list[str]]:
    """A batch of every kind of bad evidence, the first three good people among it."""
    good = people_of("anny", PEOPLE).keypoints
    bad = _bad(good[0])
    names, pictures = list(bad), list(bad.values())
    mixed = [good[0], *pictures[:5], good[1], *pictures[5:], good[2]]
    return _fit(mixed), ["good 0", *names[:5], "good 1", *names[5:], "good 2"]


def test_every_evidence_ends_with_finite_parameters(with_bad_neighbours):
    found, names = with_bad_neighbours
    assert len(found.status) == len(names)
    for row, name in enumerate(names):
        assert Status(int(found.status[row])) not in (Status.RUNNING, Status.NON_FINITE), name
        for leaf, value in found.parameters.items():
            assert bool(value[row].isfinite().all()), (name, leaf)
        assert bool(found.problem.model(found.parameters.select(torch.tensor([row]))).vertices.isfinite().all()), name


@pytest.mark.parametrize("stages", [0, 1])
def test_a_large_batch_is_minimised_in_parts(monkeypatch, stages):
    recipe = quick("default", 2)
    problem = problem_of(people_of("anny", 5).keypoints)
    whole = fit(problem, recipe.initialiser, recipe.stages[-1:] * stages)
    monkeypatch.setattr("fitkit.fitting.CPU_PROBLEMS", 2)
    parts = fit(problem, recipe.initialiser, recipe.stages[-1:] * stages)
    assert len(parts.status) == len(whole.status) == parts.problem.observations.points.shape[0]
    assert torch.equal(parts.problem.observations.points, whole.problem.observations.points)
    assert torch.equal(parts.hypothesis, whole.hypothesis) and torch.equal(parts.iterations, whole.iterations)
    for name in whole.parameters:
        assert_same(parts.parameters[name], whole.parameters[name], 1e-6)
    for name in whole.energies:
        torch.testing.assert_close(parts.energies[name], whole.energies[name])
    assert_same(parts.joint_deviation.nan_to_num(), whole.joint_deviation.nan_to_num(), 1e-6)


def test_neighbours_with_bad_evidence_change_nothing(with_bad_neighbours, solved):
    found, names = with_bad_neighbours
    for row in range(3):
        _assert_same_fit(found, names.index(f"good {row}"), solved, row)


def test_without_evidence_the_body_is_a_likely_one(with_bad_neighbours):
    found, names = with_bad_neighbours
    row = names.index("zero confidence")
    assert float(found.parameters["betas"][row].abs().max()) < 1
    lower, upper = load_prior("joint_limits").bounds
    pose = found.parameters["body_pose"][row]
    assert bool(((pose > lower - 0.1) & (pose < upper + 0.1)).all())
    assert float(found.energies["reprojection"][row]) == 0


def test_a_row_that_is_not_finite_is_a_status_and_not_its_neighbours_problem(solved):
    """NaN that gets past the container, as from a term's own evidence."""
    recipe = load_recipe("default").with_known_focal()
    good = people_of("anny", PEOPLE).keypoints
    problem = problem_of(good[:3])
    points = problem.observations.points.clone()
    points[1] = math.nan
    problem = replace(problem, observations=replace(problem.observations, points=points))
    found = fit(problem, recipe.initialiser, recipe.stages)
    assert int(found.status[1]) == Status.NON_FINITE
    for row in (0, 2):
        _assert_same_fit(found, row, solved, row)


# ---------------------------------------------------------------------------------------------- hypotheses


@dataclass(frozen=True)
class _Proposals:
    """Start from given translations, one hypothesis each."""

    offsets: tuple[float, ...]

    def __call__(self, problem: Problem) -> Proposal:
        rows = torch.arange(len(problem.observations.points)).repeat_interleave(len(self.offsets))
        start = problem.start.select(rows)
        shift = torch.tensor(self.offsets * problem.start.problems, dtype=torch.float64)
        moved = start["transl"] + torch.stack([shift, 0 * shift, 0 * shift], dim=-1)[:, None]
        return Proposal(start.replace({"transl": moved}), len(self.offsets))


def _placed(count: int = 2) -> Problem:
    people = people_of("anny", count)
    return problem_of(people.keypoints, start=people.parameters)


def _stage(iterations: int = 30, keep: int = 0, solver: str = "lbfgs", **settings) -> Stage:
    terms = (WeightedTerm("reprojection", 1.0, Reprojection(outlier=5.0)),)
    rate = {"learning_rate": 0.1} if solver == "adam" else {}
    made = SOLVERS.get(solver)(max_iterations=iterations, **rate)
    return replace(Stage("only", ("transl",), terms, made, keep), **settings)


def test_the_best_hypothesis_is_kept():
    problem = _placed()
    found = fit(problem, _Proposals((1.5, -0.2, 0.9)), [_stage(iterations=0)])
    assert found.hypothesis.tolist() == [1, 1]
    assert_same(found.parameters["transl"], problem.start["transl"] - torch.tensor([0.2, 0.0, 0.0]), 1e-6)


def test_the_kept_hypotheses_are_those_of_least_energy_whatever_their_number():
    problem = _placed()
    offsets = (3.0, 0.4, -0.1, 1.0)
    for keeps in ((4, 4), (2, 1), (1, 1), (0, 0), (3, 2), (9, 9)):
        stages = [_stage(iterations=0, keep=keep) for keep in keeps]
        found = fit(problem, _Proposals(offsets), stages)
        assert found.hypothesis.tolist() == [2, 2] and len(found.status) == 2, keeps
        assert found.parameters.problems == found.problem.pixels_per_metre.shape[0] == 2


def test_a_hypothesis_that_is_not_finite_loses():
    problem = _placed()
    found = fit(problem, _Proposals((math.nan, 0.5)), [_stage(iterations=0)])
    assert found.hypothesis.tolist() == [1, 1] and not bool((found.status == Status.NON_FINITE).any())


def test_energies_are_those_of_the_hypothesis_that_was_kept():
    problem = _placed()
    found = fit(problem, _Proposals((0.3, 0.05)), [_stage(iterations=0)])
    alone = fit(problem, _Proposals((0.05,)), [_stage(iterations=0)])
    torch.testing.assert_close(found.energies["reprojection"], alone.energies["reprojection"])


# ---------------------------------------------------------------------------------------------- stages


@pytest.mark.parametrize("solver", SOLVERS.names())
def test_every_solver_brings_a_displaced_person_back(solver):
    problem = _placed()
    iterations = 400 if solver == "adam" else 50
    found = fit(problem, _Proposals((0.3,)), [_stage(iterations, solver=solver)])
    assert_same(found.parameters["transl"], problem.start["transl"], 2e-3)


def test_only_free_leaves_move():
    problem = _placed()
    found = fit(problem, _Proposals((0.3,)), [_stage()])
    for name in problem.start:
        assert torch.equal(found.parameters[name], problem.start[name]) == (name != "transl")


@pytest.mark.parametrize("believed", [True, False])
def test_a_stage_may_be_for_starts_of_one_kind_alone(believed):
    problem = _placed()
    starts = _Proposals((0.3,))

    def propose(problem: Problem) -> Proposal:
        proposal = starts(problem)
        mean, whitening = torch.zeros(2, 1, 63).double(), torch.eye(63).double().expand(2, 1, 63, 63)
        belief = Belief(("body_pose",), (63,), mean, whitening) if believed else None
        return replace(proposal, belief=belief)

    for when, runs in (("always", True), ("believed", believed), ("unbelieved", not believed)):
        stages = [_stage(iterations=0), replace(_stage(when=when), name="second")]
        found = fit(problem, propose, stages)
        assert bool((found.iterations > 0).all()) == runs, when


def test_terms_of_weight_zero_are_left_out():
    problem = _placed()
    terms = (*_stage().terms, WeightedTerm("shape", 0.0, LeafPrior("betas")))
    found = fit(problem, _Proposals((0.3,)), [_stage(terms=terms)])
    assert set(found.energies) == {"reprojection"}


def test_leaves_that_the_model_lacks_are_left_out():
    people = people_of("smpl", 2)
    problem = problem_of(people.keypoints, "smpl", people.parameters)
    found = fit(problem, _Proposals((0.1,)), [_stage(free=("transl", "jaw_pose", "left_hand_pose"))])
    assert_same(found.parameters["transl"], problem.start["transl"], 2e-3)


@pytest.mark.parametrize("solver", SOLVERS.names())
def test_a_stage_with_nothing_to_do_changes_nothing(solver):
    """Stages for hands on a body without hands, or whose terms are all turned off."""
    problem = _placed()
    idle = [_stage(free=("tail_pose",), solver=solver), _stage(terms=(), solver=solver)]
    for stage in idle:
        found = fit(problem, _Proposals((0.3,)), [stage])
        assert_same(found.parameters["transl"], problem.start["transl"] + torch.tensor([0.3, 0.0, 0.0]), 1e-6)
        assert not bool((found.status == Status.NON_FINITE).any())


def test_a_free_focal_length_is_refined_and_reported():
    problem = _placed()
    wrong = replace(problem, camera=problem.camera.with_focal_length(1.1 * problem.camera.focal_length))
    stage = _stage(200, free=("focal_length",))
    found = fit(wrong, _Proposals((0.0,)), [stage])
    torch.testing.assert_close(found.parameters["focal_length"], problem.camera.focal_length, rtol=1e-3, atol=0)


def test_the_problem_is_left_as_it_was():
    problem = _placed()
    before = problem.start.map(torch.clone)
    fit(problem, _Proposals((0.3,)), [_stage()])
    assert all(torch.equal(before[name], problem.start[name]) for name in before)


def test_progress_counts_stages_and_iterations():
    calls: list[tuple[int, int, int]] = []
    fit(_placed(), _Proposals((0.3,)), [_stage(), _stage()], lambda *call: calls.append(call))
    assert {stage for stage, _, _ in calls} == {0, 1} and {stages for _, stages, _ in calls} == {2}
    assert all(
        first[:1] + first[2:] <= second[:1] + second[2:] for first, second in zip(calls, calls[1:], strict=False)
    )


def test_iterations_add_up_over_stages():
    problem = _placed()
    once = fit(problem, _Proposals((0.3,)), [_stage(2)]).iterations
    twice = fit(problem, _Proposals((0.3,)), [_stage(2), _stage(2)]).iterations
    assert bool((once == 2).all()) and bool((twice == 4).all())


def test_a_person_seen_in_part_keeps_to_the_prior_elsewhere():
    arms = ("shoulder", "elbow", "wrist", "nose", "eye", "ear")
    pictures = [
        keep_only(one, lambda name: any(part in name for part in arms)) for one in pictures_of(standing_people([30]))
    ]
    found = _fit(pictures)
    assert float(_distances(found)[found.problem.observations.confidence[:, 0] > 0].median()) < 10
    body = found.problem.model(found.parameters)
    knees = body.landmarks(("left_knee", "right_knee"))[0, 0, :, 1]
    hips = body.landmarks(("left_hip", "right_hip"))[0, 0, :, 1]
    assert bool((knees > hips).all()), "legs that are not seen hang down"


def test_single_precision_fits_too():
    from fitkit.people import Person, make_problem

    model = model_of("anny", torch.float32)
    recipe = quick("default", 5).with_known_focal()
    people = [Person(one, 0, one.focal_length, "given") for one in people_of("anny", 2).keypoints]
    found = fit(make_problem(people, model, recipe), recipe.initialiser, recipe.stages)
    assert found.parameters["body_pose"].dtype == torch.float32
    assert not bool((found.status == Status.NON_FINITE).any())
    assert all(bool(leaf.isfinite().all()) for leaf in found.parameters.values())
    assert float(_distances(found).median()) < 15


def test_parameters_stay_parameters(solved):
    assert isinstance(solved.parameters, Parameters)
    assert not any(leaf.requires_grad for leaf in solved.parameters.values())


def test_what_is_not_seen_is_less_certain():
    whole = pictures_of(standing_people([20]))[0]
    upper = keep_only(whole, lambda name: not any(part in name for part in ("knee", "ankle", "toe", "heel")))
    found = _fit([whole, upper])
    deviation = found.joint_deviation[:, 0]
    assert deviation.shape == (2, 55, 3) and bool((deviation > 0).all())
    place = {name: k for k, name in enumerate(found.problem.model.joint_names)}
    ankles = [place["left_ankle"], place["right_ankle"]]
    # Across the picture above all: in depth the person's distance is unsure, too, and the same for both.
    ratio = deviation[1, ankles] / deviation[0, ankles]
    assert bool((ratio[:, :2] > 2).all() and (ratio[:, 2] > 1.5).all())
    assert float(deviation[..., 2].median()) > float(deviation[..., :2].median()), "depth is the least certain"


@pytest.mark.parametrize("solver", SOLVERS.names())
def test_a_lens_that_distorts_is_fitted(solver):
    problem = _placed()
    bent = replace(problem.camera, distortion=torch.tensor([0.1, -0.05, 0.0, 0.0, 0.0]).double().expand(2, 1, 5))
    points = bent.project(problem.model(problem.start).landmarks(problem.observations.landmarks))
    problem = replace(problem, camera=bent, observations=replace(problem.observations, points=points))
    found = fit(problem, _Proposals((0.1,)), [_stage(400 if solver == "adam" else 50, solver=solver)])
    assert_same(found.parameters["transl"], problem.start["transl"], 5e-3)
    # The focal length's slope runs through the distortion, too.
    wrong = replace(problem, camera=bent.with_focal_length(1.1 * bent.focal_length))
    again = fit(wrong, _Proposals((0.0,)), [_stage(800, free=("focal_length",), solver=solver)])
    torch.testing.assert_close(again.parameters["focal_length"], bent.focal_length, rtol=1e-2, atol=0)
