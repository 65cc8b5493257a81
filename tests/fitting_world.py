"""Models, synthetic people and problems that several tests of the fit start from; models are loaded once."""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fitkit.keypoints.containers import Keypoints
from fitkit.model_files import load_model
from fitkit.models.arrays import ModelChoice, model_from_arrays
from fitkit.models.smpl_family import SMPLFamilyModel
from fitkit.parameters import Parameters, zeros
from fitkit.people import Person, make_problem
from fitkit.problem import Problem
from fitkit.recipe import Recipe, load_recipe, parse_recipe
from synthetic_models import make_arrays

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


def problem_of(
    keypoints: list[Keypoints], kind: str = "anny", recipe: Recipe | None = None, start: Parameters | None = None
) -> Problem:
    """Return the problem of the first person of each picture, focal lengths as the keypoints record them."""
    people = [Person(one, 0, one.focal_length or 1000.0, "given") for one in keypoints]
    problem = make_problem(people, model_of(kind), recipe or load_recipe("default"))
    if start is None:
        return problem
    missing = {leaf.name: value for leaf, value in zip_layout(problem) if leaf.name not in start}
    return Problem(
        problem.model,
        problem.camera,
        problem.observations,
        start.replace(missing),
        problem.pixels_per_metre,
        problem.priors,
    )


def zip_layout(problem: Problem) -> list[tuple]:
    """Return (leaf, zeros) of a problem's layout."""
    layout = problem.model.layout
    empty = zeros(layout, len(problem.observations.points), 1, problem.observations.points)
    return [(leaf, empty[leaf.name]) for leaf in layout]


def quick(name: str, iterations: int = 4) -> Recipe:
    """Return a shipped recipe whose stages end after a few iterations: all of its parts run, none to the end."""
    import copy

    import yaml

    resolved = copy.deepcopy(dict(load_recipe(name).resolved))
    for stage in resolved["stages"]:
        stage["solver"]["max_iterations"] = iterations
    return parse_recipe(yaml.safe_dump(resolved), name)


def scaled(keypoints: Keypoints, factor: float) -> Keypoints:
    """Return the keypoints of the same picture at another resolution."""
    from dataclasses import replace

    width, height = keypoints.image_size
    focal = None if keypoints.focal_length is None else factor * keypoints.focal_length
    return replace(
        keypoints,
        points=factor * keypoints.points,
        image_size=(round(factor * width), round(factor * height)),
        focal_length=focal,
    )


def keep_only(keypoints: Keypoints, wanted) -> Keypoints:
    """Return the keypoints with confidence 0 for those that `wanted` (of a name) rejects."""
    from dataclasses import replace

    kept = torch.tensor([bool(wanted(name)) for name in keypoints.names]).numpy()
    return replace(keypoints, confidence=keypoints.confidence * kept)


def assert_same(first: Tensor, second: Tensor, tolerance: float = 1e-9) -> None:
    """Fail unless two tensors agree within an absolute tolerance."""
    torch.testing.assert_close(first, second, rtol=0, atol=tolerance)
