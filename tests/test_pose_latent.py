"""Stages that free a pose latent: derivatives through the decoder, and fits that stay in its space."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from fitting_world import model_of, pictures_of, problem_of, random_parameters, standing_people

import fitkit
from fitkit.camera import pinhole
from fitkit.chart import Chart
from fitkit.energy import Energy, WeightedTerm
from fitkit.errors import InputError, UsageError
from fitkit.parameters import Parameters
from fitkit.prior_files import load_latent_prior
from fitkit.priors.vae import VariationalPosePrior
from fitkit.recipe import parse_recipe
from fitkit.scene import Scene
from fitkit.terms.leaf_prior import LeafPrior
from fitkit.terms.pose_prior import PosePriorTerm
from fitkit.terms.reprojection import Reprojection

FREE = ("transl", "pose_latent", "global_orient", "betas", "focal_length")
NAMES = ("left_index_tip", "right_knee", "head", "left_big_toe", "pelvis")
forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
"""What torch.func imports on first use."""

RECIPE = """
initialiser: {name: frontal}
model: {pose_latent: vae}
solver: {name: levenberg_marquardt, max_iterations: 12}
terms:
  reprojection: {deviation: 0.02}
  latent: {term: leaf_prior, leaf: pose_latent, weight: 0.1}
stages:
  - free: [transl, global_orient]
  - free: [transl, global_orient, pose_latent, betas]
  - free: [transl, global_orient, pose_latent, betas]
"""


@lru_cache
def decoder() -> VariationalPosePrior:
    prior = load_latent_prior("vae")
    assert isinstance(prior, VariationalPosePrior)
    return prior


def scene_of(kind: str, bodies: int = 2) -> Scene:
    """Return two problems of random bodies whose poses are decoded."""
    model = model_of(kind)
    focal = torch.tensor([900.0, 1100.0], dtype=torch.float64)
    camera = pinhole(focal, torch.full((2, 2), 1000.0, dtype=torch.float64))
    random = torch.Generator().manual_seed(3)
    latent = torch.randn(2, bodies, decoder().latents, generator=random, dtype=torch.float64)
    leaves = {"pose_latent": latent, "focal_length": camera.focal_length[:, :1]}
    return Scene(model, random_parameters(model, 2, bodies, seed=7).replace(leaves), camera, decoder())


def moved(scene: Scene, x: torch.Tensor) -> Scene:
    """Return the scene of packed free values, its poses decoded anew."""
    return Scene(scene.model, scene.parameters.unpack(FREE, x), scene.camera, decoder())


@forward_mode
@pytest.mark.parametrize("kind", ["anny", "smpl"])
def test_landmarks_move_with_latents_as_forward_mode_says(kind):
    scene = scene_of(kind)
    packed = scene.parameters.pack(FREE)
    found = Chart(scene, FREE).landmarks(NAMES)
    whole = torch.func.jacfwd(lambda x: moved(scene, x).landmarks(NAMES))(packed)
    expected = torch.stack([whole[row, ..., row, :] for row in range(2)])
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-8


def test_the_energy_has_its_gradient_through_the_decoder():
    """Terms on the decoded pose and on the latent itself, in one energy."""
    keypoints = pictures_of(standing_people([10.0, 200.0]))
    problem = problem_of(keypoints)
    latent = torch.randn(2, 1, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    leaves = {"pose_latent": latent, "focal_length": problem.camera.focal_length}
    start = standing_people([0.0, 190.0]).replace(leaves)
    scene = Scene(problem.model, start, problem.camera, decoder())
    terms = (Reprojection(), PosePriorTerm(prior="student"), LeafPrior(leaf="pose_latent"))
    energy = Energy(tuple(WeightedTerm(str(k), 1.5, term.observe(problem)) for k, term in enumerate(terms)))
    gradient, curvature = energy.normal_equations(scene, Chart(scene, FREE))
    x = start.pack(FREE).requires_grad_()
    (expected,) = torch.autograd.grad(energy(moved(scene, x)).sum(), x)
    assert (gradient - expected).abs().max() < 1e-8 * expected.abs().max()
    assert (curvature - curvature.mT).abs().max() < 1e-9 * curvature.abs().max()
    assert torch.linalg.eigvalsh(curvature).min() > -1e-9 * curvature.abs().max()


def test_a_fit_of_the_latent_finds_the_pose_and_returns_it_as_body_pose():
    truth = standing_people([5.0, -20.0])
    latent = 0.7 * torch.randn(2, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    truth = truth.replace({"body_pose": decoder().decode(latent)[:, None]})
    results = fitkit.fit(pictures_of(truth), model=model_of("anny"), recipe=parse_recipe(RECIPE, "latent"))
    for result in results:
        assert result.reprojection_px < 2
        pose = torch.as_tensor(result.params["body_pose"]).double()[None]
        again = decoder().decode(decoder().encode(pose))
        # What came out of the decoder goes through both networks nearly unchanged.
        assert (again - pose).abs().mean() < 0.1
        assert "pose_latent" not in result.params


def test_latents_are_dropped_by_stages_that_free_the_pose_itself():
    recipe = RECIPE + "  - free: [transl, global_orient, body_pose]\n"
    result = fitkit.fit(
        pictures_of(standing_people([0.0])), model=model_of("anny"), recipe=parse_recipe(recipe, "then_free")
    )
    assert result[0].reprojection_px < 1


def test_other_solvers_go_through_the_decoder_too():
    recipe = RECIPE.replace("levenberg_marquardt, max_iterations: 12", "lbfgs, max_iterations: 4")
    result = fitkit.fit(
        pictures_of(standing_people([0.0])), model=model_of("anny"), recipe=parse_recipe(recipe, "first_order")
    )
    assert all(torch.isfinite(torch.as_tensor(value)).all() for value in result[0].params.values())


def test_a_recipe_says_who_decodes_and_frees_one_of_both():
    with pytest.raises(InputError, match="model: {pose_latent: vae}"):
        parse_recipe(RECIPE.replace("model: {pose_latent: vae}", ""), "nobody")
    with pytest.raises(InputError, match="free one of them"):
        parse_recipe(RECIPE.replace("pose_latent, betas", "pose_latent, body_pose"), "both")
    with pytest.raises(UsageError, match="no latent space"):
        load_latent_prior("student")


def test_parameters_without_latents_stay_as_they_are():
    parameters = Parameters({"body_pose": torch.zeros(1, 1, 63), "transl": torch.zeros(1, 1, 3)})
    model = model_of("anny")
    camera = pinhole(torch.tensor([1000.0]), torch.tensor([[1000.0, 1000.0]]))
    assert Scene(model, parameters, camera, decoder()).parameters is parameters
