"""Training of the learned initialiser: it learns, goes on where it stopped, and its weights serve a fit."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from fitkit.errors import InputError
from fitkit.model_files import load_model
from fitkit.models.arrays import ModelChoice
from fitkit.prior_files import load_prior
from fitkit.regression.network import KeypointNetwork, NetworkShape
from fitkit.regressor_files import load_regressor
from fitkit.training.calibration import DEGREES, scatter_of
from fitkit.training.detections import Detector
from fitkit.training.initialiser import Schedule, Trainer
from fitkit.training.initialiser_run import CHECKPOINT, REPORT, WEIGHTS, InitialiserSettings, train_initialiser
from fitkit.training.motion_capture import Poses
from fitkit.training.pose_source import PoseSource, pose_source
from fitkit.training.synthetic_people import Population

TINY = NetworkShape(width=32, blocks=1, alternatives=1)


@pytest.fixture
def captured(tmp_path):
    """A file of poses as AMASS has them."""
    random = np.random.default_rng(0)
    poses = 0.2 * random.standard_normal((120, 66))
    np.savez(tmp_path / "poses.npz", poses=poses.astype(np.float32))
    return tmp_path / "poses.npz"


def _settings(steps: int, **changes) -> InitialiserSettings:
    settings = InitialiserSettings(Schedule(steps=steps, batch=32), TINY, calibration=256)
    return replace(settings, **changes)


def test_training_writes_weights_that_load_and_a_report(captured, tmp_path):
    out = tmp_path / "out"
    report = train_initialiser(captured, out, _settings(3))
    assert load_regressor(out / WEIGHTS).network.shape == TINY
    assert json.loads((out / REPORT).read_text())["held out"] == report["held out"]
    again = train_initialiser(captured, tmp_path / "again", _settings(3))
    for label, scores in report["held out"].items():
        assert again["held out"][label] == pytest.approx(scores, rel=1e-4), "same seed, same numbers"


def test_the_loss_falls():
    model = load_model(ModelChoice("anny", "anny", dtype=torch.float32))
    lower, upper = load_prior("joint_limits").bounds
    source = PoseSource(torch.zeros(4, 63), torch.zeros(4, 3), torch.ones(4), lower.float(), upper.float(), noise=0.0)
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    schedule = Schedule(steps=60, batch=64, rate=3e-3, warm_up=5)
    trainer = Trainer(KeypointNetwork(TINY), Population(model, source), Detector(), schedule, random)
    seen = []
    trainer.run(lambda _, figures: seen.append(figures["mm"]), 10)
    assert seen[-1] < 0.7 * seen[0]


def test_an_interrupted_training_goes_on(captured, tmp_path, monkeypatch):
    monkeypatch.setattr("fitkit.training.initialiser_run._SAVED", 10)

    def interrupt(step: int, figures: dict[str, float]) -> None:
        if step >= 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_initialiser(captured, tmp_path, _settings(30), interrupt)
    assert not (tmp_path / WEIGHTS).exists()
    steps = []
    report = train_initialiser(captured, tmp_path, _settings(30), lambda step, _: steps.append(step))
    assert steps == [30]
    whole = train_initialiser(captured, tmp_path / "whole", _settings(30))
    for label, scores in whole["held out"].items():
        assert report["held out"][label] == pytest.approx(scores, rel=1e-4), "as if it had not been interrupted"
    other = replace(_settings(30), shape=replace(TINY, width=16))
    with pytest.raises(InputError, match="another size"):
        train_initialiser(captured, tmp_path, other)
    (tmp_path / CHECKPOINT).write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match="remove it"):
        train_initialiser(captured, tmp_path, _settings(30))


def test_training_goes_on_from_weights(captured, tmp_path):
    train_initialiser(captured, tmp_path / "first", _settings(2))
    start = str(tmp_path / "first" / WEIGHTS)
    train_initialiser(captured, tmp_path / "second", _settings(1, start=start))
    with pytest.raises(InputError, match="another size"):
        train_initialiser(captured, tmp_path / "third", replace(_settings(1, start=start), shape=NetworkShape()))


def test_missing_joints_are_drawn_from_what_goes_with_the_others():
    random = torch.Generator().manual_seed(0)
    shared = torch.randn(500, 1, generator=random)
    pose = shared + 0.1 * torch.randn(500, 63, generator=random)
    true = pose.clone()
    pose[::2, 27:33] = torch.nan
    rows = torch.zeros(500, dtype=torch.bool)
    poses = Poses(pose, torch.ones(500), rows, np.full(500, "a/1"), torch.zeros(500, 3))
    filled = pose_source(poses, (torch.full((63,), -9.0), torch.full((63,), 9.0)), random).poses
    assert bool(filled.isfinite().all()) and torch.equal(filled[1::2], true[1::2])
    assert float((filled - true)[::2, 27:33].std()) < 0.25


def test_poses_vary_within_limits():
    random = torch.Generator().manual_seed(0)
    bound = torch.full((63,), 0.2)
    source = PoseSource(torch.zeros(10, 63), torch.zeros(10, 3), torch.ones(10), -bound, bound, noise=1.0)
    pose, _ = source.sample(500, random)
    assert float(pose.std()) > 0.02 and float(pose.abs().max()) < 0.2001
    assert not bool(source.sample(50, random, varied=False)[0].any())


def test_the_scatter_of_a_t_density_is_found_despite_gross_errors():
    random = torch.Generator().manual_seed(0)
    mixing = torch.eye(6, dtype=torch.float64)
    mixing[0, 1] = 0.8
    normal = torch.randn(20000, 6, generator=random, dtype=torch.float64) @ mixing.T
    chi = torch.randn(20000, int(DEGREES), generator=random, dtype=torch.float64).square().sum(1) / DEGREES
    z = normal / chi.sqrt()[:, None]
    z[:50] *= 50
    torch.testing.assert_close(scatter_of(z), mixing @ mixing.T, atol=0.1, rtol=0.1)
