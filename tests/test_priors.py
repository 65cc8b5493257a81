"""Pose priors: densities that mirror, derive, prefer people to contortions, and come from files that can be trusted."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from fitkit.errors import InputError, UsageError
from fitkit.prior_files import load_prior, prior_names
from fitkit.priors.base import PosePrior
from fitkit.priors.gaussian_mixture import GaussianMixturePosePrior
from fitkit.priors.joint_limits import SOFTNESS, JointLimits
from fitkit.priors.mirror import mirrored

every_prior = pytest.mark.parametrize("name", prior_names())
KNEE, ELBOW = 3 * 3, 3 * 17 + 1
"""Places of the left knee's flexion (positive) and the left elbow's (negative)."""


def poses(prior: PosePrior, count: int, spread: float = 0.4) -> torch.Tensor:
    return prior.mean.double() + spread * torch.randn(count, 63, dtype=torch.float64)


def energy(prior: PosePrior, pose: torch.Tensor) -> torch.Tensor:
    return prior.residual(pose).square().sum(-1)


@every_prior
def test_priors_follow_the_protocol(name):
    prior = load_prior(name)
    assert isinstance(prior, PosePrior)
    assert prior.mean.shape == (63,)
    assert load_prior(name) is prior
    residual = prior.residual(poses(prior, 5))
    assert residual.dtype == torch.float64
    assert torch.isfinite(residual).all()
    assert prior.residual(poses(prior, 5).float()).dtype == torch.float32


@every_prior
@pytest.mark.parametrize("spread", [0.05, 0.5, 2.0])
def test_the_jacobian_is_the_derivative(name, spread):
    prior = load_prior(name)
    pose = poses(prior, 6, spread)
    residual, jacobian = prior.linearise(pose)
    torch.testing.assert_close(residual, prior.residual(pose))
    whole = torch.autograd.functional.jacobian(prior.residual, pose, vectorize=True)
    automatic = torch.stack([whole[row, :, row] for row in range(len(pose))])
    torch.testing.assert_close(jacobian, automatic, rtol=1e-6, atol=1e-8)


@every_prior
def test_the_gradient_is_right(name):
    prior = load_prior(name)
    pose = poses(prior, 3, 0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: prior.residual(x), pose, atol=1e-5, fast_mode=True)


@every_prior
def test_a_pose_alone_equals_the_pose_among_others(name):
    prior = load_prior(name)
    pose = poses(prior, 7)
    alone = torch.cat([prior.residual(row[None]) for row in pose])
    torch.testing.assert_close(prior.residual(pose), alone)


@every_prior
def test_a_pose_and_its_mirror_image_are_equally_likely(name):
    prior = load_prior(name)
    pose = poses(prior, 20)
    torch.testing.assert_close(energy(prior, pose), energy(prior, mirrored(pose)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(prior.mean, mirrored(prior.mean), rtol=0, atol=1e-3)


@every_prior
def test_knees_and_elbows_bend_one_way(name):
    prior = load_prior(name)
    for place, angle in ((KNEE, 1.0), (ELBOW, -1.0)):
        pose = prior.mean.double().repeat(2, 1)
        pose[0, place], pose[1, place] = angle, -angle
        bent, broken = energy(prior, pose)
        assert broken > bent + 20


@every_prior
def test_energies_stay_finite_and_slopes_sane_at_the_mean_and_far_away(name):
    prior = load_prior(name)
    for spread in (0.0, 3.0):
        pose = poses(prior, 4, spread).requires_grad_()
        energy(prior, pose).sum().backward()
        assert torch.isfinite(pose.grad).all()


@pytest.mark.parametrize("name", ["relaxed", "student", "mixture"])
def test_densities_rank_the_mean_pose_before_a_sloppy_one_before_noise(name):
    prior = load_prior(name)
    at_mean, sloppy, noise = (energy(prior, poses(prior, 50, spread)) for spread in (0.0, 0.1, 1.0))
    assert at_mean.max() < 60
    assert at_mean.max() < sloppy.min()
    assert sloppy.max() < noise.min()


@pytest.mark.parametrize("name", ["student", "mixture"])
def test_the_tails_pull_ever_more_gently(name):
    prior = load_prior(name)
    direction = torch.randn(63, dtype=torch.float64)
    steps = torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64)[:, None]
    values = energy(prior, prior.mean + direction / direction.norm() * steps)
    assert (values.diff() > 0).all()
    assert values[3] - values[2] < 2 * (values[2] - values[1])


def mixture(degrees: float) -> GaussianMixturePosePrior:
    means = torch.stack([torch.full((63,), -1.0), torch.full((63,), 1.0)]).double()
    whitening = torch.eye(63, dtype=torch.float64) * torch.tensor([1.0, 2.0])[:, None, None]
    return GaussianMixturePosePrior(means, whitening, torch.tensor([0.7, 0.3]), degrees)


@pytest.mark.parametrize("degrees", [4.0, float("inf")])
@pytest.mark.parametrize("spread", [1e-6, 0.4, 3.0])
def test_the_derivatives_products_are_those_of_the_derivatives(degrees, spread):
    for prior in (
        mixture(degrees),
        GaussianMixturePosePrior(torch.zeros(1, 63), torch.rand(1, 63, 63), torch.ones(1), degrees),
    ):
        pose = prior.modes[:1].double() + spread * torch.randn(5, 63, dtype=torch.float64)
        residual, jacobian = prior.linearise(pose)
        slope, curvature = prior.squared(pose)
        torch.testing.assert_close(slope, (jacobian.mT @ residual[..., None])[..., 0], rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(curvature, jacobian.mT @ jacobian, rtol=1e-8, atol=1e-8)


def test_the_likeliest_component_is_chosen_with_weights_and_normalisers():
    prior = mixture(float("inf"))
    scales = [torch.distributions.Normal(-1.0, 1.0), torch.distributions.Normal(1.0, 0.5)]
    pose = 1.5 * torch.randn(40, 63, dtype=torch.float64) * torch.rand(40, 1)
    logs = torch.stack([d.log_prob(pose).sum(-1) for d in scales], 1) + torch.tensor([0.7, 0.3]).log()
    assert torch.equal(prior.component(pose), logs.argmax(1))
    expected = -2 * logs.amax(1)
    shifted = energy(prior, pose)
    torch.testing.assert_close(shifted - shifted[0], expected - expected[0])


def test_the_modes_are_the_middles_the_most_frequent_first():
    prior = load_prior("mixture")
    assert isinstance(prior, GaussianMixturePosePrior)
    assert prior.modes.shape == (prior.components, 63)
    assert energy(prior, prior.modes.double()).max() < 60
    torch.testing.assert_close(mixture(5.0).modes[:, 0], torch.tensor([-1.0, 1.0], dtype=torch.float64))


def test_few_degrees_of_freedom_are_a_t_density():
    prior = mixture(5.0)
    pose = torch.randn(40, 63, dtype=torch.float64)
    squared = torch.stack([(pose + 1).square().sum(-1), 4 * (pose - 1).square().sum(-1)], 1)
    constant = torch.tensor([0.0, -2 * 63 * np.log(2.0)]) - 2 * torch.tensor([0.7, 0.3]).log()
    expected = (68 * torch.log1p(squared / 5) + constant).amin(1)
    shifted = energy(prior, pose)
    torch.testing.assert_close(shifted - shifted[0], expected - expected[0])


def test_many_degrees_of_freedom_are_a_gaussian():
    pose = torch.randn(10, 63, dtype=torch.float64)
    torch.testing.assert_close(mixture(1e9).residual(pose), mixture(float("inf")).residual(pose), rtol=1e-5, atol=1e-6)


def test_limits_cost_nothing_within_and_grow_beyond():
    prior = load_prior("joint_limits")
    assert isinstance(prior, JointLimits)
    lower, upper = prior.bounds
    assert (lower < prior.mean).all() and (prior.mean < upper).all()
    assert energy(prior, prior.mean[None]) == 0
    torch.testing.assert_close(prior.residual(upper[None] + 2 * SOFTNESS), torch.full((1, 63), 2.0), rtol=0, atol=1e-3)
    torch.testing.assert_close(prior.residual(lower[None] - SOFTNESS), torch.full((1, 63), -1.0), rtol=0, atol=1e-3)


def test_mirroring_swaps_sides_and_is_its_own_inverse():
    pose = torch.zeros(63)
    pose[3 * 15 : 3 * 16] = torch.tensor([0.1, 0.2, 0.3])
    expected = torch.zeros(63)
    expected[3 * 16 : 3 * 17] = torch.tensor([0.1, -0.2, -0.3])
    torch.testing.assert_close(mirrored(pose), expected)
    noise, matrix = torch.randn(63), torch.randn(5, 63)
    torch.testing.assert_close(mirrored(mirrored(noise)), noise)
    torch.testing.assert_close(mirrored(matrix) @ noise, matrix @ mirrored(noise))


def test_an_unknown_prior_is_named_with_the_nearest():
    with pytest.raises(UsageError, match="Did you mean 'mixture'"):
        load_prior("mixtures")


def test_damaged_weights_are_said_to_be_damaged(monkeypatch, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "gaussian_mixture.npz").write_bytes(b"PK\x03\x04 not much of a file")
    monkeypatch.setattr("fitkit.prior_files.resources.files", lambda package: tmp_path)
    with pytest.raises(InputError, match="install fitkit-body again"):
        load_prior.__wrapped__("mixture")


def test_the_training_script_learns_from_synthetic_poses(root, tmp_path):
    script = root / "tools" / "train_pose_prior.py"
    if not script.exists():
        pytest.skip("the tools are not part of what is installed")
    random = np.random.default_rng(0)
    frames = 1500
    rotations = 0.2 * random.standard_normal((frames, 22, 3)).astype(np.float32)
    rotations[:, 4:6, 0] = np.abs(rotations[:, 4:6, 0]) + 0.2
    parents = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19]
    source = np.array(["snu_tiling", "cmu_daz", "cmu_iclone"])[np.arange(frames) % 3]
    clip = np.arange(frames) // 20
    np.savez(tmp_path / "poses.npz", poses=rotations, parents=parents, source=source, clip=clip)
    paths = ["--data", str(tmp_path / "poses.npz"), "--out", str(tmp_path / "out")]
    command = [sys.executable, str(script), *paths, "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out" / "gaussian_mixture.npz", allow_pickle=False) as file:
        arrays = {name: torch.from_numpy(value) for name, value in file.items()}
    prior = GaussianMixturePosePrior.from_arrays(arrays)
    assert prior.components == 4
    assert 0.15 < prior.mean[KNEE] < 0.7
    assert (tmp_path / "out" / "README.md").read_text().startswith("# Learned pose priors")


@pytest.mark.parametrize("name", ["student.npz", "gaussian_mixture.npz", "joint_limits.npz"])
def test_the_weights_are_small_plain_arrays_and_have_a_card(root, name):
    folder = root / "fitkit" / "priors" / "data"
    assert (folder / name).stat().st_size < 500_000
    with np.load(folder / name, allow_pickle=False) as file:
        assert all(np.isfinite(file[key]).all() for key in file.files)
    assert name.removesuffix(".npz") in (folder / "README.md").read_text()
