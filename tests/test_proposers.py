"""Hypotheses on the way: flipped limbs and hands look alike in the picture, and a stage chooses among them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import yaml
from fitting_world import KINDS, assert_same, keep_only, model_of, people_of, pictures_of, problem_of, standing_people
from torch import Tensor

from fitkit import fitting
from fitkit.errors import InputError
from fitkit.fitting import Fit, fit
from fitkit.initialisers import PROPOSERS
from fitkit.initialisers.curls import HandCurls
from fitkit.initialisers.given import GivenInitialiser
from fitkit.initialisers.hand_restarts import HandRestarts
from fitkit.initialisers.limbs import LimbProposals
from fitkit.parameters import Parameters
from fitkit.problem import Problem
from fitkit.recipe import parse_recipe

MIDDLES_AND_ENDS = tuple(f"{side}_{name}" for side in ("left", "right") for name in ("elbow", "wrist", "knee", "ankle"))
RIGHT_ARM = [3 * (joint - 1) + axis for joint in (17, 19, 21) for axis in range(3)]
STAGE = """
initialiser: {name: frontal}
stages:
  - name: flips
    propose: {name: limbs}
    free: [body_pose]
    solver: {name: levenberg_marquardt, max_iterations: 6}
    terms: {reprojection: {hands: 0.0, face: 0.0}, pose_prior: {prior: student}}
"""


def _pixels(problem: Problem, parameters: Parameters) -> Tensor:
    """Return where elbows, wrists, knees and ankles are seen (B, N, 8, 2)."""
    places = problem.observations.places
    names = tuple(problem.observations.landmarks[places[name]] for name in MIDDLES_AND_ENDS)
    return problem.camera.project(problem.model(parameters).landmarks(names))


def _standing() -> tuple[Problem, Parameters]:
    truth = standing_people([-20.0, 30.0])
    # Hanging arms bent forward: seen from the front, as if bent backward.
    pose = truth["body_pose"].clone()
    pose[..., [3 * 17 + 1, 3 * 18 + 1]] = torch.tensor([-1.0, 1.0], dtype=pose.dtype)
    truth = truth.replace({"body_pose": pose})
    return problem_of(pictures_of(truth), start=truth), truth


def _hypotheses(problem: Problem, proposer: LimbProposals) -> tuple[list[Parameters], int]:
    proposal = proposer(problem)
    rows = torch.arange(proposal.parameters.problems).unflatten(0, (-1, proposal.hypotheses))
    return [proposal.parameters.select(rows[:, c]) for c in range(proposal.hypotheses)], proposal.hypotheses


def test_flipped_limbs_look_as_the_limbs_did():
    problem, truth = _standing()
    found, count = _hypotheses(problem, LimbProposals(alternatives=4))
    assert count == 2 + 4 * 4
    assert_same(found[0]["body_pose"], truth["body_pose"])
    for hypothesis in found:
        # Keypoints of elbows and knees are on the skin, a centimetre or two from the joints' centres.
        assert float((_pixels(problem, hypothesis) - _pixels(problem, truth)).norm(dim=-1).max()) < 30


def test_the_four_poses_of_a_limb_differ_in_depth():
    problem, _ = _standing()
    wrist = problem.model.joint_names.index("right_wrist")
    found, count = _hypotheses(problem, LimbProposals(alternatives=4))
    ways = [h for h in found if not torch.equal(h["body_pose"][..., RIGHT_ARM], found[0]["body_pose"][..., RIGHT_ARM])]
    depths = torch.stack([problem.model(h).joints[:, 0, wrist, 2] for h in ways[-4:]])
    assert len(ways) == 5
    assert float(depths.std(dim=0).min()) > 0.05


def test_a_limb_that_is_not_seen_stays():
    _, truth = _standing()
    hidden = [keep_only(one, lambda name: name != "right_wrist") for one in pictures_of(truth)]
    found, _ = _hypotheses(problem_of(hidden, start=truth), LimbProposals())
    for hypothesis in found:
        assert_same(hypothesis["body_pose"][..., RIGHT_ARM], truth["body_pose"][..., RIGHT_ARM])


def test_limbs_that_no_picture_names_are_not_proposed():
    _, truth = _standing()
    problem = problem_of(pictures_of(truth), start=truth)
    observed = problem.observations
    some = [k for k, name in enumerate(observed.names) if "wrist" not in name and "hand_root" not in name]
    fewer = replace(
        observed,
        names=tuple(observed.names[k] for k in some),
        landmarks=tuple(observed.landmarks[k] for k in some),
        points=observed.points[..., some, :],
        confidence=observed.confidence[..., some],
    )
    assert LimbProposals()(replace(problem, observations=fewer)).hypotheses == 2 + 2 * 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PROPOSERS.names())
def test_proposers_are_finite_on_every_model_and_name_the_start_first(kind, name):
    problem = problem_of(people_of(kind, 2).keypoints, kind)
    start = problem.start.replace({"transl": problem.start["transl"] + torch.tensor([0.0, 0.0, 3.0]).double()})
    problem = replace(problem, start=start)
    proposal = PROPOSERS.get(name)()(problem)
    assert proposal.parameters.problems == 2 * proposal.hypotheses
    for leaf, value in proposal.parameters.items():
        assert bool(torch.isfinite(value).all()), leaf
        assert_same(value[:: proposal.hypotheses], start[leaf])


def test_hands_are_moved_by_deviations():
    model, problem = model_of("anny"), problem_of(people_of("anny", 2).keypoints)
    proposal = HandCurls("right_hand_pose", components=2, size=0.5)(problem)
    moved = (proposal.parameters["right_hand_pose"][:, 0] / model.hands[1].deviation)[:5, :2]
    ways = [[0.0, 0.0], [-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]]
    assert_same(moved, torch.tensor(ways, dtype=torch.float64), 1e-12)
    assert_same(proposal.parameters["left_hand_pose"], problem.start["left_hand_pose"].repeat_interleave(5, 0))


def test_hands_are_laid_anew_one_at_a_time_and_both():
    model, problem = model_of("anny"), problem_of(people_of("anny", 2).keypoints)
    start = problem.start.replace({"left_hand_pose": problem.start["left_hand_pose"] + 0.3})
    proposal = HandRestarts(components=1, size=0.5)(replace(problem, start=start))
    assert proposal.hypotheses == 8
    left = (proposal.parameters["left_hand_pose"][:8, 0] / model.hands[0].deviation)[:, 0]
    right = (proposal.parameters["right_hand_pose"][:8, 0] / model.hands[1].deviation)[:, 0]
    here = float(0.3 / model.hands[0].deviation[0])
    assert_same(left, left.new_tensor([here, 0.0, -0.5, 0.5, here, here, here, 0.0]), 1e-12)
    assert_same(right, right.new_tensor([0.0, 0.0, 0.0, 0.0, 0.0, -0.5, 0.5, 0.0]), 1e-12)


def _flipped() -> tuple[Problem, Parameters]:
    """Return people as they are not: the worst of the four poses of the right arm."""
    problem, truth = _standing()
    found, _ = _hypotheses(problem, LimbProposals(alternatives=4, twists=24))
    return problem, found[2 + 4 * 2 + 3]


def _run(problem: Problem, start: Parameters, propose: bool) -> Fit:
    stages = parse_recipe(STAGE, "test").stages
    return fit(problem, GivenInitialiser(start), stages if propose else (replace(stages[0], propose=None),))


def test_a_stage_flips_a_limb_that_no_step_would():
    problem, start = _flipped()
    stuck, mended = (_run(problem, start, propose) for propose in (False, True))
    total = [torch.stack(list(one.energies.values())).sum(0) for one in (stuck, mended)]
    assert bool((total[1] < 0.5 * total[0]).all())
    assert mended.parameters.problems == problem.observations.points.shape[0]
    wrist = problem.model.joint_names.index("right_wrist")
    truth = problem.model(problem.start).joints[:, 0, wrist]
    assert float((problem.model(mended.parameters).joints[:, 0, wrist] - truth).norm(dim=-1).max()) < 0.1


def test_many_hypotheses_are_minimised_in_parts_to_the_same_end(monkeypatch):
    problem, start = _flipped()
    whole = _run(problem, start, True)
    monkeypatch.setattr(fitting, "CPU_BLOCK", 3 * 64 * 64 * 8)
    parts = _run(problem, start, True)
    assert_same(whole.parameters["body_pose"], parts.parameters["body_pose"], 1e-8)
    assert torch.equal(whole.iterations, parts.iterations)


def test_an_unknown_proposer_gets_a_suggestion():
    with pytest.raises(InputError, match=r"stages\[0\].propose.*Did you mean 'limbs'"):
        parse_recipe(STAGE.replace("limbs", "limb"), "test")


def test_a_recipe_that_proposes_reads_back_and_names_its_prior():
    recipe = parse_recipe(STAGE.replace("{name: limbs}", "{name: limbs, pose: mixture}"), "test")
    assert recipe.stages[0].propose == LimbProposals("mixture")
    assert "mixture" in recipe.priors
    assert parse_recipe(yaml.safe_dump(dict(recipe.resolved), sort_keys=False), "test") == recipe
