"""Terms of the energy: zero where they should be, the same at every resolution, rows and bodies independent."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import roma
import torch
from fitting_world import KINDS, assert_same, model_of, people_of, problem_of, random_parameters, scaled, with_world

from fitkit.chart import Chart
from fitkit.energy import Energy, ResidualTerm, Term, WeightedTerm, select_evidence
from fitkit.errors import UsageError
from fitkit.keypoints.conventions import part_of
from fitkit.parameters import Parameters
from fitkit.problem import Belief, Problem
from fitkit.scene import Scene
from fitkit.terms import TERMS
from fitkit.terms.bending import Bending
from fitkit.terms.bone_directions import BoneDirections
from fitkit.terms.bounds import Bounds
from fitkit.terms.depth_anchor import DepthAnchor
from fitkit.terms.focal_prior import FocalPrior
from fitkit.terms.hand_prior import HandPrior
from fitkit.terms.height import Height
from fitkit.terms.leaf_prior import LeafPrior
from fitkit.terms.pose_prior import PosePriorTerm
from fitkit.terms.reprojection import Reprojection
from fitkit.terms.upright import Upright

ROWS = 3


def _settings(name: str) -> dict:
    return {"prior": "mixture"} if name == "pose_prior" else {}


TERMS_TO_TEST = {
    **{name: (lambda name=name: TERMS.get(name)(**_settings(name))) for name in TERMS.names()},
    "reprojection, adaptive": lambda: Reprojection(adaptive=True),
    "reprojection, spreads": lambda: Reprojection(adaptive=True, spreads=4.0),
    "reprojection, welsch": lambda: Reprojection(loss="welsch", outlier=0.5),
    "reprojection, published": lambda: Reprojection(image_scaled=True, deviation=1.0, outlier=100.0),
    "depth_anchor, relative": lambda: DepthAnchor(relative=True),
    "hand_prior, published": lambda: HandPrior(standardised=False),
    "height, expected": lambda: Height(mean=1.7),
}
"""Every term of the registry, and those whose settings change what they do."""


@pytest.fixture(params=TERMS_TO_TEST)
def term(request) -> Term:
    return TERMS_TO_TEST[request.param]()


@lru_cache
def _problem(kind: str = "anny", factor: float = 1.0) -> Problem:
    """Three people at their true parameters, seen with their places in space and a known focal length."""
    people = people_of(kind, ROWS)
    keypoints = with_world(people.keypoints, people.parameters, kind)
    problem = problem_of([scaled(one, factor) for one in keypoints], kind, people.parameters)
    heights = torch.tensor([[1.8], [math.nan], [1.6]], dtype=torch.float64)
    start = problem.start.replace({"focal_length": problem.camera.focal_length})
    return replace(problem, start=start, heights=heights, belief=_belief(problem))


def _belief(problem: Problem) -> Belief:
    """A belief in the start: other deviations for every value, and correlations among them."""
    names = tuple(name for name in ("global_orient", "body_pose", "betas", "left_hand_pose") if name in problem.start)
    sizes = tuple(min(problem.start[name].shape[-1], 63) for name in names)
    mean = torch.cat([problem.start[name][..., :size] for name, size in zip(names, sizes, strict=True)], dim=-1)
    random = torch.Generator().manual_seed(5)
    count = mean.shape[-1]
    mixing = torch.eye(count) + 0.1 * torch.randn(count, count, generator=random)
    whitening = mixing.double() / (0.1 + torch.rand(ROWS, 1, 1, count, generator=random, dtype=torch.float64))
    return Belief(names, sizes, mean, whitening)


def _moved(problem: Problem, amount: float = 0.1, seed: int = 1) -> Parameters:
    """The start with every leaf disturbed."""
    random = torch.Generator().manual_seed(seed)

    def disturb(leaf: torch.Tensor) -> torch.Tensor:
        return leaf + amount * torch.randn(leaf.shape, generator=random, dtype=leaf.dtype)

    moved = problem.start.map(disturb)
    return moved.replace({"focal_length": problem.start["focal_length"] * (1 + 3 * amount)})


def _scene(problem: Problem, parameters: Parameters | None = None) -> Scene:
    return Scene(problem.model, problem.start if parameters is None else parameters, problem.camera)


# ---------------------------------------------------------------------------------------------- every term


@pytest.mark.parametrize("kind", KINDS)
def test_one_energy_per_problem(term, kind):
    problem = _problem(kind)
    energy = term.observe(problem)(_scene(problem, _moved(problem)))
    assert energy.shape == (ROWS,) and bool(energy.isfinite().all()) and bool((energy >= 0).all())


def test_the_energy_is_the_sum_of_squared_residuals(term):
    if not isinstance(term, ResidualTerm):
        pytest.skip("no residuals")
    problem = _problem()
    scene = _scene(problem, _moved(problem))
    bound = term.observe(problem)
    torch.testing.assert_close(bound(scene), bound.residual(scene).square().sum(-1))


def test_a_row_alone_is_the_row_among_others_in_any_order(term):
    problem = _problem()
    moved = _moved(problem)
    together = term.observe(problem)(_scene(problem, moved))
    for rows in ([0], [1], [2], [2, 0, 1], [1, 1]):
        chosen = torch.tensor(rows)
        fewer = problem.select(chosen)
        torch.testing.assert_close(term.observe(fewer)(_scene(fewer, moved.select(chosen))), together[chosen])
        selected = select_evidence(term.observe(problem), chosen)
        torch.testing.assert_close(selected(_scene(fewer, moved.select(chosen))), together[chosen])


@pytest.mark.parametrize("factor", [0.25, 2.0])
def test_the_resolution_of_the_picture_does_not_matter(term, factor):
    problem, other = _problem(), _problem(factor=factor)
    moved = _moved(problem)
    elsewhere = moved.replace({"focal_length": factor * moved["focal_length"]})
    torch.testing.assert_close(
        term.observe(other)(_scene(other, elsewhere)), term.observe(problem)(_scene(problem, moved))
    )


def test_bodies_of_one_problem_add_up(term):
    """Two problems of one body cost what one problem of the same two bodies costs."""
    apart = _problem().select(torch.tensor([0, 1]))
    moved = _moved(apart)

    def joined(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.flatten(0, 1)[None]

    seen = apart.observations
    observed = replace(seen, points=joined(seen.points), confidence=joined(seen.confidence), world=joined(seen.world))
    camera = replace(
        apart.camera, intrinsics=joined(apart.camera.intrinsics), image_size=joined(apart.camera.image_size)
    )
    together = replace(
        apart,
        camera=camera,
        observations=observed,
        start=apart.start.map(joined),
        pixels_per_metre=joined(apart.pixels_per_metre),
        heights=joined(apart.heights),
        focal_known=joined(apart.focal_known),
        belief=replace(apart.belief, mean=joined(apart.belief.mean), whitening=joined(apart.belief.whitening)),
    )
    one = term.observe(together)(Scene(together.model, moved.map(joined), camera))
    torch.testing.assert_close(one, term.observe(apart)(_scene(apart, moved)).sum(0, keepdim=True))


def test_the_gradient_is_the_slope(term):
    problem = _problem().select(torch.tensor([0]))
    names = list(problem.start)
    bound, moved = term.observe(problem), _moved(problem)
    values = moved.pack(names)
    random = torch.Generator().manual_seed(3)

    def energy(x: torch.Tensor) -> torch.Tensor:
        return bound(_scene(problem, moved.unpack(names, x)))

    leaf = values.clone().requires_grad_(True)
    found = energy(leaf)
    slope = torch.autograd.grad(found.sum(), leaf)[0] if found.requires_grad else torch.zeros_like(values)
    for _ in range(3):
        along = torch.randn(values.shape, generator=random, dtype=values.dtype)
        along = along / along.norm()
        step = 1e-6
        measured = (energy(values + step * along) - energy(values - step * along)) / (2 * step)
        torch.testing.assert_close((slope * along).sum(-1), measured, rtol=1e-5, atol=1e-6)


def test_a_term_is_observed_without_changing_the_problem(term):
    problem = _problem()
    before = problem.start.map(torch.clone)
    bound = term.observe(problem)
    assert type(bound) is type(term) and all(torch.equal(before[name], problem.start[name]) for name in before)


# ---------------------------------------------------------------------------------------------- reprojection


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["reprojection", "reprojection, adaptive", "reprojection, published"])
def test_reprojection_is_zero_at_the_truth(kind, name):
    problem = _problem(kind)
    assert_same(TERMS_TO_TEST[name]().observe(problem)(_scene(problem)), torch.zeros(ROWS).double(), 1e-12)


def _confident(problem: Problem, confidence: torch.Tensor) -> Problem:
    return replace(problem, observations=replace(problem.observations, confidence=confidence))


def _displaced(problem: Problem, pixels: torch.Tensor) -> Problem:
    seen = problem.observations
    return replace(problem, observations=replace(seen, points=seen.points + pixels))


def test_unseen_points_do_not_matter():
    problem = _problem()
    confidence = problem.observations.confidence.clone()
    confidence[..., ::2] = 0
    clean = Reprojection().observe(_confident(problem, confidence))
    shift = torch.zeros_like(problem.observations.points)
    shift[..., ::2, :] = 1e5
    moved = Reprojection().observe(_confident(_displaced(problem, shift), confidence))
    scene = _scene(problem, _moved(problem))
    torch.testing.assert_close(moved(scene), clean(scene))


def test_the_weight_of_a_point_is_its_confidence_squared():
    problem = _displaced(_problem(), torch.tensor([3.0, -2.0]).double())
    half = _confident(problem, 0.5 * problem.observations.confidence)
    scene = _scene(problem)
    torch.testing.assert_close(4 * Reprojection().observe(half)(scene), Reprojection().observe(problem)(scene))


def test_no_evidence_is_no_energy():
    problem = _problem()
    nothing = _confident(problem, torch.zeros_like(problem.observations.confidence))
    for one in (Reprojection(), Reprojection(adaptive=True), BoneDirections()):
        assert not one.observe(nothing)(_scene(problem)).any()


def test_far_outliers_cost_a_fixed_price():
    problem = _problem()
    one_point = torch.zeros_like(problem.observations.points)
    one_point[..., 0, :] = torch.tensor([1.0, 0.0])
    term = Reprojection(deviation=0.02, outlier=0.2)
    far, farther = (term.observe(_displaced(problem, d * one_point))(_scene(problem)) for d in (1e4, 1e6))
    torch.testing.assert_close(far, farther, rtol=1e-2, atol=0)
    torch.testing.assert_close(farther, torch.full((ROWS,), (0.2 / 0.02) ** 2).double(), rtol=1e-3, atol=0)


def test_small_errors_count_in_standard_deviations_at_the_persons_size():
    problem = _problem()
    one_point = torch.zeros_like(problem.observations.points)
    one_point[..., 0, 0] = 0.001 * problem.pixels_per_metre
    energy = Reprojection(deviation=0.01, outlier=1.0).observe(_displaced(problem, one_point))(_scene(problem))
    torch.testing.assert_close(energy, torch.full((ROWS,), 0.1**2).double(), rtol=1e-4, atol=0)


def test_the_published_energy_is_reproduced():
    """(1000 / H)^2 sum (w c)^2 rho^2 r^2 / (r^2 + rho^2), rho a tenth of the height."""
    problem = _displaced(_problem(), torch.tensor([30.0, 40.0]).double())
    confidence = torch.rand(problem.observations.confidence.shape, generator=torch.Generator().manual_seed(0)).double()
    problem = _confident(problem, confidence)

    weight = torch.tensor(
        [0.1 if part_of(name).endswith("hand") else 1.0 for name in problem.observations.names]
    ).double()
    height, squared = 1000.0, 50.0**2
    expected = (1000 / height) ** 2 * (weight * confidence).square() * squared * 100**2 / (squared + 100**2)
    term = Reprojection(image_scaled=True, deviation=1.0, outlier=100.0, hands=0.1)
    torch.testing.assert_close(term.observe(problem)(_scene(problem)), expected.flatten(1).sum(-1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("part", ["body", "feet", "hands", "face"])
def test_the_parts_weights_turn_parts_off_and_sum_up(part):
    problem = _displaced(_problem(), torch.tensor([2.0, 1.0]).double())
    parts = ("body", "feet", "hands", "face")
    off = dict.fromkeys(parts, 0.0)
    scene = _scene(problem)
    alone = Reprojection(**(off | {part: 1.0})).observe(problem)(scene)
    rest = Reprojection(**{part: 0.0}).observe(problem)(scene)
    assert bool((alone > 0).all())
    torch.testing.assert_close(alone + rest, Reprojection().observe(problem)(scene))


def test_keypoints_can_be_chosen_and_left_out():
    problem = _displaced(_problem(), torch.tensor([2.0, 1.0]).double())
    names, scene = ("left_hip", "right_wrist"), _scene(problem)
    only = Reprojection(only=names).observe(problem)
    without = Reprojection(without=names).observe(problem)
    assert len(only.landmarks) == 2
    torch.testing.assert_close(only(scene) + without(scene), Reprojection().observe(problem)(scene))


def test_adapting_shrinks_the_deviation_where_keypoints_agree_and_never_grows_it():
    problem = _problem()
    scene = _scene(problem)
    for pixels, shrinks in ((0.5, True), (500.0, False)):
        wrong = _displaced(problem, torch.tensor([pixels, 0.0]).double())
        plain = Reprojection(outlier=5.0).observe(wrong)(scene)
        adaptive = Reprojection(outlier=5.0, adaptive=True).observe(wrong)(scene)
        if shrinks:
            assert bool((adaptive > 2 * plain).all())
        else:
            torch.testing.assert_close(adaptive, plain)


def test_the_spread_is_that_of_keypoints_of_full_confidence():
    """A detector whose errors are as large as it says, half of them twice as large: the weights come out the same."""
    problem = _problem()
    scene = _scene(problem)
    random = torch.Generator().manual_seed(0)
    shape = problem.observations.points.shape
    sure = torch.where(torch.rand(shape[:-1], generator=random) < 0.5, 0.5, 1.0).double()
    noise = 3.0 * torch.randn(shape, generator=random, dtype=torch.float64)
    wide = {"deviation": 0.1, "outlier": 5000.0, "adaptive": True}

    def energy(confidence: torch.Tensor, **settings: float) -> torch.Tensor:
        points = problem.observations.points + noise / confidence[..., None]
        observed = replace(problem.observations, points=points, confidence=confidence)
        return Reprojection(**wide, **settings).observe(replace(problem, observations=observed))(scene)

    torch.testing.assert_close(energy(sure), energy(torch.ones_like(sure)), rtol=1e-9, atol=0)
    torch.testing.assert_close(energy(sure, remaining=0.5), energy(sure) / 4, rtol=0.01, atol=0)


def test_a_usual_detector_counts_like_a_few_keypoints():
    """The energy of points met exactly but for a hair: what is usual keeps the deviation from vanishing."""
    problem = _problem()
    scene = _scene(problem)
    wrong = _displaced(problem, torch.tensor([0.01, 0.0]).double())
    bare, usual, coarse = (
        Reprojection(deviation=0.05, outlier=5.0, adaptive=True, usual=one).observe(wrong)(scene)
        for one in (None, 0.01, 0.05)
    )
    assert bool((coarse < usual).all() and (usual < bare).all())
    torch.testing.assert_close(usual / coarse, torch.full_like(usual, 25.0), rtol=0.1, atol=0)


def test_an_unknown_loss_is_refused():
    with pytest.raises(UsageError, match="welsch"):
        Reprojection(loss="tukey")


def test_an_outlier_is_one_by_the_spread_of_the_others():
    """Points 80 px off, all others met exactly: they stop to pull where spreads say how far is far."""
    problem = _problem()
    points = problem.observations.points.clone()
    points[:, :, ::12] += 80.0
    wrong = replace(problem, observations=replace(problem.observations, points=points))

    def slope(term: Reprojection) -> torch.Tensor:
        values = problem.start["transl"].clone().requires_grad_(True)
        scene = Scene(problem.model, problem.start.replace({"transl": values}), problem.camera)
        (gradient,) = torch.autograd.grad(term.observe(wrong)(scene).sum(), values)
        return gradient.norm(dim=-1)

    plain, by_spread = slope(Reprojection(adaptive=True)), slope(Reprojection(adaptive=True, spreads=4.0))
    assert bool((by_spread < 0.2 * plain).all())
    within = slope(Reprojection(adaptive=True, spreads=4.0, near=10.0))
    torch.testing.assert_close(within, plain)


# ---------------------------------------------------------------------------------------------- directions in space


@pytest.mark.parametrize("kind", KINDS)
def test_bone_directions_are_zero_at_the_truth(kind):
    problem = _problem(kind)
    assert_same(BoneDirections().observe(problem)(_scene(problem)), torch.zeros(ROWS).double(), 1e-12)


def test_only_directions_count_not_place_or_scale():
    problem = _problem()
    world = 1.7 * problem.observations.world + torch.tensor([0.3, -5.0, 2.0])
    other = replace(problem, observations=replace(problem.observations, world=world))
    scene = _scene(problem, _moved(problem))
    torch.testing.assert_close(BoneDirections().observe(other)(scene), BoneDirections().observe(problem)(scene))


def test_bones_of_unknown_ends_do_not_count():
    problem = _problem()
    world = problem.observations.world.clone()
    place = problem.observations.places["left_elbow"]
    world[0, 0, place] = math.nan
    world[1, 0, place] = math.inf
    other = replace(problem, observations=replace(problem.observations, world=world))
    scene = _scene(problem, _moved(problem))
    fewer, all_of_them = BoneDirections().observe(other)(scene), BoneDirections().observe(problem)(scene)
    assert bool(fewer.isfinite().all()) and bool((fewer[:2] < all_of_them[:2]).all())
    torch.testing.assert_close(fewer[2], all_of_them[2])


def test_without_places_in_space_directions_are_free():
    problem = _problem()
    flat = replace(problem, observations=replace(problem.observations, world=None))
    assert not BoneDirections().observe(flat)(_scene(problem, _moved(problem))).any()


# ---------------------------------------------------------------------------------------------- priors


def test_the_pose_prior_is_the_priors_own_energy():
    problem = _problem()
    prior = problem.priors["mixture"]
    expected = prior.residual(problem.start["body_pose"][:, 0]).square().sum(-1)
    torch.testing.assert_close(PosePriorTerm("mixture").observe(problem)(_scene(problem)), expected)


def test_an_unknown_pose_prior_gets_a_suggestion():
    with pytest.raises(UsageError, match="Did you mean 'mixture'"):
        PosePriorTerm("mixtur").observe(_problem())


def test_a_leaf_prior_is_zero_at_its_mean_and_counts_deviations():
    problem = _problem()
    wanted = tuple(float(value) for value in problem.start["jaw_pose"][0, 0])
    term = LeafPrior("jaw_pose", mean=wanted, deviation=(0.1, 0.2, 0.5))
    alone = problem.select(torch.tensor([0]))
    assert_same(term(_scene(alone)), torch.zeros(1).double())
    moved = alone.start.replace({"jaw_pose": alone.start["jaw_pose"] + torch.tensor([0.1, 0.2, 0.5])})
    assert_same(term(_scene(alone, moved)), torch.full((1,), 3.0).double(), 1e-6)


def test_a_leaf_that_the_model_lacks_costs_nothing():
    problem = _problem("smpl")
    assert not LeafPrior("expression")(_scene(problem)).any()
    assert not HandPrior()(_scene(problem)).any()
    assert not Bounds()(_scene(problem)).any()


@pytest.mark.parametrize("standardised", [True, False])
def test_the_hand_prior_is_zero_at_the_mean_hand(standardised):
    problem = _problem()
    hands = ("left_hand_pose", "right_hand_pose")
    zero = problem.start.replace({name: torch.zeros_like(problem.start[name]) for name in hands})
    term = HandPrior(standardised)
    assert not term(_scene(problem, zero)).any()
    one = zero.replace({"left_hand_pose": zero["left_hand_pose"] + problem.model.hands[0].deviation})
    expected = 12.0 if standardised else float(problem.model.hands[0].deviation.square().sum())
    torch.testing.assert_close(term(_scene(problem, one)), torch.full((ROWS,), expected).double())


def test_bounds_are_free_within_and_count_the_excess():
    problem = _problem()
    size = problem.start["expression"].shape[-1]

    def energy(value: float) -> torch.Tensor:
        leaf = torch.full((ROWS, 1, size), value, dtype=torch.float64)
        return Bounds(margin=0.05)(
            _scene(problem, problem.start.replace({"expression": leaf, "betas": 100 * leaf[..., :20]}))
        )

    for inside in (0.0, 0.3, 1.0):
        assert not energy(inside).any()
    for outside in (-0.1, 1.1):
        torch.testing.assert_close(energy(outside), torch.full((ROWS,), 4.0 * size).double())


def test_bending_is_the_published_exponential():
    problem = _problem()
    full = torch.cat([problem.start["global_orient"], problem.start["body_pose"]], dim=-1)[:, 0]
    expected = sum(torch.exp(sign * full[:, entry]).square() for entry, sign in ((55, 1), (58, -1), (12, -1), (15, -1)))
    torch.testing.assert_close(Bending()(_scene(problem)), expected)


def test_bending_grows_when_knees_and_elbows_bend_backwards():
    """Which way is backwards is read off the body, not off the signs."""
    model = model_of("anny")
    rest = random_parameters(model, 1).map(torch.zeros_like)
    straight = Scene(model, rest, _problem().select(torch.tensor([0])).camera)

    def bent(entry: int, angle: float) -> Scene:
        pose = rest["body_pose"].clone()
        pose[..., entry] = angle
        return straight.with_parameters(rest.replace({"body_pose": pose}))

    for entry, landmark in ((9, "left_ankle"), (12, "right_ankle"), (52, "left_wrist"), (55, "right_wrist")):
        for angle in (-0.5, 0.5):
            scene = bent(entry, angle)
            moved = float((scene.landmarks((landmark,)) - straight.landmarks((landmark,)))[..., 2])
            # Ankles that go forward and wrists (of arms stretched out sideways) that go back are overextended.
            overextended = moved > 0 if "ankle" in landmark else moved < 0
            assert bool(Bending()(scene) > Bending()(straight)) == overextended, (landmark, angle)


def test_an_absurd_bend_stays_finite():
    problem = _problem()
    absurd = problem.start.replace({"body_pose": torch.full_like(problem.start["body_pose"], 1e4)})
    assert bool(Bending()(_scene(problem, absurd)).isfinite().all())


@pytest.mark.parametrize("relative", [False, True])
def test_the_depth_anchor_holds_the_depth_alone(relative):
    problem = _problem()
    term = DepthAnchor(deviation=0.5, relative=relative).observe(problem)
    start = problem.start["transl"]
    sideways = problem.start.replace({"transl": start + torch.tensor([1.0, 2.0, 0.0])})
    assert not term(_scene(problem, sideways)).any()
    unit = start[:, 0, 2:] if relative else torch.ones(ROWS, 1).double()
    away = torch.cat([torch.zeros(ROWS, 2).double(), 0.5 * unit], dim=-1)[:, None]
    torch.testing.assert_close(
        term(_scene(problem, problem.start.replace({"transl": start + away}))), torch.ones(ROWS).double()
    )


def test_the_focal_prior_is_symmetric_in_the_ratio_with_a_wall():
    problem = _problem()
    term = FocalPrior(deviation=0.2, limit=1.5).observe(problem)

    def energy(ratio: float) -> torch.Tensor:
        return term(_scene(problem, problem.start.replace({"focal_length": ratio * problem.camera.focal_length})))

    assert_same(energy(1.0), torch.zeros(ROWS).double())
    torch.testing.assert_close(energy(1.25), energy(0.8))
    torch.testing.assert_close(energy(1.25), torch.full((ROWS,), (math.log(1.25) / 0.2) ** 2).double())
    assert float(energy(1.7)[0]) > 2 * (math.log(1.7) / 0.2) ** 2
    fixed = Parameters({name: leaf for name, leaf in problem.start.items() if name != "focal_length"})
    assert not term(_scene(problem, fixed)).any()


@pytest.mark.parametrize("kind", KINDS)
def test_the_height_is_the_upright_bodys_own(kind):
    problem = _problem(kind)
    rest = Parameters({name: leaf for name, leaf in problem.start.items() if name in ("betas", "transl")})
    upward = problem.model(rest).vertices[..., 1]
    tall = upward.amax(-1) - upward.amin(-1)
    assert_same(problem.model.standing_height(problem.start["betas"])[0], tall)
    energy = Height(known=0.02).observe(problem)(_scene(problem))
    assert_same(energy, ((tall - problem.heights)[:, 0] / 0.02).square().nan_to_num(0.0))


def test_a_height_is_expected_only_where_none_is_known():
    problem = _problem()
    tall = problem.model.standing_height(problem.start["betas"])[0][:, 0]
    energy = Height(known=0.01, mean=1.7, deviation=0.1).observe(problem)(_scene(problem))
    assert_same(energy[0], ((tall[0] - 1.8) / 0.01).square())
    assert_same(energy[1], ((tall[1] - 1.7) / 0.1).square())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shared", [True, False])
def test_the_height_has_its_exact_slope(kind, shared):
    problem = _problem(kind)
    both = problem.select(torch.tensor([0, 2]))
    joined = {name: leaf.transpose(0, 1) for name, leaf in both.start.items()}
    if shared:
        joined["betas"] = joined["betas"][:, :1]
    term = replace(Height(), target=both.heights.T, precision=torch.full((1, 2), 100.0, dtype=torch.float64))
    scene = Scene(problem.model, Parameters(joined), problem.camera.select(torch.tensor([0])))
    energy, free = Energy((WeightedTerm("height", 1.3, term),)), ("transl", "betas")
    gradient, curvature = energy.normal_equations(scene, Chart(scene, free))
    assert_same(gradient, Chart(scene, free).gradient(energy)[1])
    slopes = Chart(scene, free).jacobian(term.residual).jacobian
    assert_same(curvature, 2.6 * slopes.mT @ slopes)


def test_an_initialiser_that_says_how_sure_it_is_of_the_focal_length_is_believed():
    problem = _problem()
    sure = torch.tensor([0.1, 0.3, 0.001], dtype=torch.float64)[:, None, None]
    nothing = torch.zeros(ROWS, 1, 0, dtype=torch.float64)
    belief = Belief((), (), nothing, torch.zeros(ROWS, 1, 0, 0, dtype=torch.float64), sure)
    term = FocalPrior(least=0.05).observe(replace(problem, belief=belief))
    energy = term(_scene(problem, problem.start.replace({"focal_length": 1.2 * problem.camera.focal_length})))
    torch.testing.assert_close(energy, (math.log(1.2) / sure[:, 0, 0].clamp_min(0.05)).square())


@pytest.mark.parametrize("shared", [True, False])
def test_the_focal_prior_has_its_exact_slope(shared):
    both = _problem().select(torch.tensor([0, 2]))
    joined = {name: leaf.transpose(0, 1) for name, leaf in both.start.items()}
    ratios = torch.tensor([1.1, 3.0], dtype=torch.float64)[None, :, None]
    joined["focal_length"] = (joined["focal_length"] * ratios)[:, : 1 if shared else 2]
    focal = both.camera.focal_length.transpose(0, 1)
    term = replace(FocalPrior(), focal=focal, spread=0.1 * torch.ones_like(focal))
    scene = Scene(both.model, Parameters(joined), both.camera.select(torch.tensor([0])))
    chart = Chart(scene, ("transl", "focal_length"))
    gradient, curvature = Energy((WeightedTerm("focal", 1.3, term),)).normal_equations(scene, chart)
    slopes = chart.jacobian(term.residual)
    assert_same(gradient, 2.6 * (slopes.residual[:, None] @ slopes.jacobian)[:, 0])
    assert_same(curvature, 2.6 * slopes.jacobian.mT @ slopes.jacobian)


def _turned(problem: Problem, axis: list[float], angle: float) -> Parameters:
    turn = roma.rotvec_to_rotmat(angle * torch.tensor(axis, dtype=torch.float64))
    still = problem.start["body_pose"].new_zeros(problem.start["body_pose"].shape)
    upright = torch.tensor([math.pi, 0.0, 0.0], dtype=torch.float64)
    orient = roma.rotmat_to_rotvec(turn @ roma.rotvec_to_rotmat(upright)).expand(ROWS, 1, 3)
    return problem.start.replace({"global_orient": orient, "body_pose": still})


def test_upright_people_are_free_whichever_way_they_face():
    problem = _problem()
    for yaw in np.linspace(-3, 3, 5):
        # A trunk's joints are not quite plumb.
        assert bool((Upright()(_scene(problem, _turned(problem, [0.0, 1.0, 0.0], yaw))) < 0.2).all())


def test_leaning_costs_more_the_farther_up_to_a_fixed_price():
    problem = _problem()
    for axis in ([1.0, 0.0, 0.0], [0.0, 0.0, 1.0]):
        costs = torch.stack(
            [Upright()(_scene(problem, _turned(problem, axis, angle))) for angle in (0.3, 0.8, 1.5, 3.0)]
        )
        assert bool((costs.diff(dim=0) > 0).all())
        assert bool((costs[-1] < (0.8 / 0.3) ** 2).all())


# ---------------------------------------------------------------------------------------------- their sum


def test_a_weight_multiplies_its_term_once():
    problem = _problem()
    terms = [WeightedTerm("shape", 2.5, LeafPrior("betas")), WeightedTerm("hands", 0.3, HandPrior())]
    scene, energy = _scene(problem), Energy(tuple(terms))
    expected = {entry.name: entry.weight * entry.term(scene) for entry in terms}
    parts = energy.parts(scene)
    assert list(parts) == ["shape", "hands"]
    for name, value in parts.items():
        torch.testing.assert_close(value, expected[name])
    torch.testing.assert_close(energy(scene), sum(expected.values()))


def test_selected_energies_are_the_energies_of_the_selected():
    problem = _problem()
    bound = tuple(WeightedTerm(name, 1.0, make().observe(problem)) for name, make in TERMS_TO_TEST.items())
    energy, rows, moved = Energy(bound), torch.tensor([2, 0]), _moved(problem)
    fewer = energy.select(rows)(_scene(problem.select(rows), moved.select(rows)))
    torch.testing.assert_close(fewer, energy(_scene(problem, moved))[rows])


def test_a_scene_computes_what_is_shared_once():
    problem = _problem()
    scene, calls = _scene(problem), []
    for _ in range(2):
        scene.shared("key", lambda: calls.append(1))
    assert calls == [1]
    assert scene.landmarks(("nose",)) is scene.landmarks(("nose",))
    assert scene.with_parameters(_moved(problem)).landmarks(("nose",)) is not scene.landmarks(("nose",))
