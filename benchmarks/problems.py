"""The problems that the benchmarks of fits solve: synthetic people, 118 keypoints each, one energy."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import roma
import torch
from accuracy_poses import prior_poses
from synthetic import keypoints_of, sample_people
from torch import Tensor

from fitkit.energy import Energy
from fitkit.models.arrays import ModelChoice, model_from_arrays
from fitkit.models.smpl_family import SMPLFamilyModel
from fitkit.parameters import Parameters
from fitkit.people import Person, make_problem
from fitkit.problem import Problem
from fitkit.recipe import Recipe, load_recipe
from fitkit.scene import Scene

RECIPES = Path(__file__).parent / "recipes"
SIZE, NOISE = 1000, 2.0
"""Width and height of the pictures, and the standard deviation of the keypoints, pixels."""
BODY_JOINTS = 22
"""Joints whose error is measured: the body's, without face and fingers."""


def make_model(dtype: torch.dtype = torch.float64, device: str = "cpu") -> SMPLFamilyModel:
    """Return the embedded body as `smplx` reads its file: its joints regressed, 10 betas, 10 expressions."""
    source = resources.files("fitkit.models") / "data" / "anny_neutral.npz"
    with resources.as_file(source) as file, np.load(file) as data:
        arrays = {name: data[name] for name in data.files if name not in ("J_template", "J_shapedirs")}
    choice = ModelChoice("anny", "smplx", num_betas=10, num_expressions=10, dtype=dtype, device=device)
    return model_from_arrays(arrays, choice)


def make_people(
    model: SMPLFamilyModel, count: int, seed: int = 0, noise: float = NOISE
) -> tuple[list[Person], Parameters]:
    """Return people to fit and the truth: 118 keypoints each, with so much noise in pixels, focal length known."""
    sampled = sample_people(model, count, seed)
    truth = sampled.parameters.replace(
        {"body_pose": prior_poses(count, seed).body_pose[:, None].to(sampled.parameters["betas"])}
    )
    random = np.random.default_rng(seed)
    people = []
    for keypoints in keypoints_of(model, truth, sampled.camera, SIZE):
        moved = keypoints.points + noise * random.standard_normal(keypoints.points.shape)
        people.append(Person(replace(keypoints, points=moved), 0, float(keypoints.focal_length or 0), "given"))
    return people, truth


def problem_of(people: list[Person], model: SMPLFamilyModel, recipe: Recipe) -> Problem:
    """Return the people as one batch of problems for a recipe."""
    return make_problem(people, model, recipe)


def recipe(name: str) -> Recipe:
    """Return one of the benchmarks' recipes, or a shipped one."""
    own = RECIPES / f"{name}.yaml"
    return load_recipe(own if own.exists() else name)


def reference_energy(problem: Problem) -> Energy:
    """Return the energy that all solvers are judged by: the published last stage's, bound to the problem."""
    stage = load_recipe("smplifyx").stages[-1]
    return Energy(tuple(replace(entry, term=entry.term.observe(problem)) for entry in stage.terms if entry.weight))


def judge(problem: Problem, found: Parameters, truth: Parameters) -> dict[str, np.ndarray]:
    """Return arrays (B,): `energy`, and the joints' mean distance from the truth in mm, `rooted` and `aligned`."""
    with torch.no_grad():
        scene = Scene(problem.model, found, problem.camera)
        energy = reference_energy(problem)(scene)
        joints, true = scene.body.joints[:, 0, :BODY_JOINTS], problem.model(truth).joints[:, 0, :BODY_JOINTS]
        rooted = (joints - joints[:, :1]) - (true - true[:, :1])
        aligned = _aligned(joints, true) - true
    return {
        "energy": energy.double().cpu().numpy(),
        "rooted": 1000 * rooted.norm(dim=-1).mean(-1).double().cpu().numpy(),
        "aligned": 1000 * aligned.norm(dim=-1).mean(-1).double().cpu().numpy(),
    }


def _aligned(points: Tensor, onto: Tensor) -> Tensor:
    """Return points (B, K, 3) after the similarity that brings each row nearest to the other."""
    rotation, translation, scale = roma.rigid_points_registration(points, onto, compute_scaling=True)
    return scale[:, None, None] * (points @ rotation.transpose(-1, -2)) + translation[:, None]
