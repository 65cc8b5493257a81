"""The standard deviations of the joints say how far off they are."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fitkit
from fitkit.model_files import load_model
from fitkit.models.arrays import ModelChoice

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from synthetic import sample_people

PEOPLE = 12


@pytest.fixture(scope="module")
def world():
    model = load_model(ModelChoice("anny", "anny", dtype=torch.float64))
    people = sample_people(model, PEOPLE, seed=5, pose=0.0)
    from fitkit.prior_files import load_prior

    # Poses as the prior expects them: about its mean, small enough to stay with one component.
    torch.manual_seed(5)
    pose = load_prior("mixture").mean.double() + 0.12 * torch.randn(PEOPLE, 1, 63, dtype=torch.float64)
    return model, people, people.parameters.replace({"body_pose": pose})


def fitted(world, noise):
    model, people, truth = world
    random = np.random.default_rng(7)
    names = people.keypoints[0].names
    from fitkit.keypoints.conventions import correspondence

    found = correspondence(names, model.landmark_names)
    landmarks = tuple(model.landmark_names[i] for i in found.indices)
    points = people.camera.project(model(truth).landmarks(landmarks))[:, 0].numpy()
    noisy = [
        replace(keypoints, points=(row + random.normal(scale=noise, size=row.shape))[None])
        for keypoints, row in zip(people.keypoints, points, strict=True)
    ]
    results = fitkit.fit(noisy, model=model)
    return results, np.array([result.joints for result in results]) - model(truth).joints[:, 0].numpy()


def test_deviations_are_calibrated(world):
    results, errors = fitted(world, noise=3.0)
    deviations = np.array([result.joint_deviation for result in results])
    assert deviations.shape == errors.shape and (deviations > 0).all()
    scores = np.abs(errors / deviations)[:, :22]
    # The median of |z| of a standard normal distribution is 0.674; robust, for a pose may end in another minimum.
    typical = np.median(scores, axis=(0, 1)) / 0.674
    assert (typical > 0.7).all() and (typical < 1.4).all(), typical


def test_depth_is_least_sure_and_noise_makes_all_less_sure(world):
    quiet, loud = (np.array([r.joint_deviation for r in fitted(world, noise)[0]]) for noise in (1.0, 8.0))
    assert quiet[..., 2].mean() > 3 * quiet[..., :2].mean()
    assert loud[..., :2].mean() > 1.5 * quiet[..., :2].mean()
