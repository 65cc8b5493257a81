"""Models, synthetic people and problems that several tests of the fit start from; models are loaded once."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import roma
import torch
import yaml
from synthetic_models import make_arrays
from torch import Tensor

from fitkit.keypoints.containers import Keypoints
from fitkit.model_files import load_model
from fitkit.models.arrays import ModelChoice, model_from_arrays
from fitkit.models.smpl_family import SMPLFamilyModel
from fitkit.parameters import Parameters, zeros
from fitkit.people import Person, make_problem
from fitkit.prior_files import load_prior, prior_names
from fitkit.problem import Problem
from fitkit.recipe import Recipe, load_recipe, parse_recipe
from fitkit.regressor_files import REGRESSORS, load_regressor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from synthetic import SyntheticPeople, sample_people  # noqa: E402

KINDS = ("anny", "smplx", "smplh", "smpl")
"""All models: the embedded one, and synthetic files of the licensed ones."""


@lru_cache
def arrays_of(kind: str) -> dict[str, np.ndarray]:
    """Return the arrays of a licensed kind's file, made of random numbers."""
    return make_arrays(kind)


@lru_cache
def model_of(kind: str, dtype: torch.dtype = torch.float64) -> SMPLFamilyModel:
    """Return the embedded body, or a licensed kind's model made of random numbers."""
    if kind == "anny":
        return load_model(ModelChoice("anny", "anny", dtype=dtype))
    return model_from_arrays(arrays_of(kind), ModelChoice(kind, kind, dtype=dtype))


@lru_cache
def people_of(kind: str, count: int, seed: int = 0, yaw: float = 0.6) -> SyntheticPeople:
    """Return synthetic people and their noise-free keypoints."""
    return sample_people(model_of(kind), count, seed, yaw=yaw)


def random_parameters(model: SMPLFamilyModel, problems: int, bodies: int = 1, seed: int = 0) -> Parameters:
    """Return parameters with every entry drawn, poses from +-0.5 rad; what bodies share has N = 1."""
    random = torch.Generator().manual_seed(seed)
    leaves = {}
    for leaf in model.layout:
        shape = (problems, 1 if leaf.shared else bodies, leaf.size)
        low, high = (0.0, 0.5) if leaf.lower is not None else (-0.5, 0.5)
        leaves[leaf.name] = low + (high - low) * torch.rand(shape, generator=random, dtype=torch.float64).to(
            model.dtype
        )
    leaves["transl"] = leaves["transl"] + torch.tensor([0.0, 0.0, 3.0], dtype=model.dtype)
    return Parameters(leaves)


def problem_of(keypoints: list[Keypoints], kind: str = "anny", start: Parameters | None = None) -> Problem:
    """Return the problem of the first person of each picture, focal lengths as the keypoints record them.

    `start` may lack leaves, which are zero. All pose priors are at hand, whichever a recipe asks for.
    """
    people = [Person(one, 0, one.focal_length or 1000.0, "given") for one in keypoints]
    plain = parse_recipe("initialiser: {name: frontal}\nstages: [{}]", "plain")
    problem = make_problem(people, model_of(kind), plain)
    start = problem.start.replace(dict(start or {}))
    priors = {name: load_prior(name) for name in prior_names()}
    regressors = {name: load_regressor(name) for name in REGRESSORS}
    return replace(problem, start=start, priors=priors, regressors=regressors)


def with_world(keypoints: list[Keypoints], parameters: Parameters, kind: str = "anny") -> list[Keypoints]:
    """Return the keypoints with the true places of all landmarks in space, as a detector that guesses depth does."""
    problem = problem_of(keypoints, kind)
    body = problem.model(parameters)
    world = (body.landmarks(problem.observations.landmarks) - body.joints[:, :, :1])[:, 0].numpy()
    place = {name: k for k, name in enumerate(problem.observations.names)}
    found = []
    for row, one in enumerate(keypoints):
        points = np.full((1, len(one.names), 3), np.nan)
        known = [k for k, name in enumerate(one.names) if name in place]
        points[0, known] = world[row, [place[one.names[k]] for k in known]]
        found.append(replace(one, world=points))
    return found


def standing_people(
    yaws: Sequence[float], place: tuple[float, float, float] = (0.3, 0.1, 4.0), roll: float = 0.0
) -> Parameters:
    """Return people in a relaxed stance, turned by yaws (degrees) from facing a camera that is rolled (radians)."""
    model = model_of("anny")
    rows = len(yaws)
    start = zeros(model.layout, rows, 1, model.shape.v_template)
    turn = torch.zeros(rows, 3, dtype=torch.float64)
    turn[:, 1] = torch.as_tensor(np.radians(np.asarray(yaws, dtype=float)))
    upright = roma.rotvec_to_rotmat(torch.tensor([np.pi, 0.0, 0.0], dtype=torch.float64))
    rolled = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, roll], dtype=torch.float64))
    orient = roma.rotmat_to_rotvec(rolled @ upright @ roma.rotvec_to_rotmat(turn))
    leaves = {
        "global_orient": orient[:, None],
        "body_pose": load_prior("mixture").mean.to(orient).expand(rows, 1, 63),
        "transl": torch.tensor(place, dtype=torch.float64).expand(rows, 1, 3),
    }
    return start.replace(leaves)


def pictures_of(parameters: Parameters) -> list[Keypoints]:
    """Return what a camera of 1300 pixels sees of people of the embedded body in pictures of 1000: all 118 points."""
    template = people_of("anny", 1).keypoints[0]
    problem = problem_of([template] * parameters.problems)
    points = problem.camera.project(problem.model(parameters).landmarks(problem.observations.landmarks))[:, 0].numpy()
    names, ones = problem.observations.names, np.ones((1, len(problem.observations.names)))
    return [Keypoints(names, row[None], ones, (1000, 1000), focal_length=1300.0) for row in points]


def quick(name: str, iterations: int = 4) -> Recipe:
    """Return a shipped recipe whose stages end after a few iterations: all of its parts run, none to the end."""
    resolved = copy.deepcopy(dict(load_recipe(name).resolved))
    for stage in resolved["stages"]:
        stage["solver"]["max_iterations"] = iterations
    return parse_recipe(yaml.safe_dump(resolved), name)


def scaled(keypoints: Keypoints, factor: float) -> Keypoints:
    """Return the keypoints of the same picture at another resolution."""
    width, height = keypoints.image_size
    focal = None if keypoints.focal_length is None else factor * keypoints.focal_length
    return replace(
        keypoints,
        points=factor * keypoints.points,
        image_size=(round(factor * width), round(factor * height)),
        focal_length=focal,
    )


def keep_only(keypoints: Keypoints, wanted: Callable[[str], bool]) -> Keypoints:
    """Return the keypoints with confidence 0 for those that `wanted` (of a name) rejects."""
    kept = torch.tensor([bool(wanted(name)) for name in keypoints.names]).numpy()
    return replace(keypoints, confidence=keypoints.confidence * kept)


def assert_same(first: Tensor, second: Tensor, tolerance: float = 1e-9) -> None:
    """Fail unless two tensors agree within an absolute tolerance."""
    torch.testing.assert_close(first, second, rtol=0, atol=tolerance)
