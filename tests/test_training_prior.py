"""Training of the pose prior: what it reads, that it learns, what it writes, and that nothing is left half-done."""

from __future__ import annotations

import numpy as np
import pytest
import roma
import torch

from fitkit import cli
from fitkit.errors import InputError
from fitkit.prior_files import load_prior
from fitkit.priors.mirror import mirrored, mirrored_columns
from fitkit.priors.vae import VariationalPosePrior
from fitkit.training.motion_capture import Poses
from fitkit.training.pose_files import read_poses
from fitkit.training.pose_losses import PARENTS, Likeness, NormalShape, Skeleton
from fitkit.training.pose_prior import Frames, PoseAutoencoder, Settings, train
from fitkit.training.pose_prior_report import measure, prior_of

TINY = Settings(steps=3, batch=32, width=8, depth=1)
REST = 0.15 * np.random.default_rng(0).normal(size=(22, 3))


def some_poses(frames: int = 400, columns: int = 66) -> np.ndarray:
    """Poses with few freedoms, knees bent forward, which linear maps can learn."""
    random = np.random.default_rng(1)
    modes = random.normal(size=(12, columns)) * 0.15
    poses = random.normal(size=(frames, 12)) @ modes
    poses[:, 3 * 4] += 0.5
    return poses.astype(np.float32)


def frames_of(pose: torch.Tensor) -> Frames:
    count = len(pose)
    held = torch.zeros(count, dtype=torch.bool)
    poses = Poses(pose, torch.ones(count), held, np.full(count, "a"), torch.zeros(count, 3))
    return Frames.of(poses, poses, seed=0)


def skeleton() -> Skeleton:
    return Skeleton.of(torch.from_numpy(REST).float())


@pytest.mark.parametrize("shape", [(400, 66), (400, 156), (400, 22, 3), (400, 24, 3)])
def test_poses_of_smpls_convention_are_taken_as_they_are(tmp_path, shape):
    poses = some_poses(columns=int(np.prod(shape[1:]))).reshape(shape)
    np.savez(tmp_path / "walk.npz", poses=poses, betas=np.zeros(16))
    found = read_poses(tmp_path / "walk.npz", REST)
    expected = torch.from_numpy(poses.reshape(400, -1)[:, :66])
    torch.testing.assert_close(found.body_pose, expected[:, 3:])
    torch.testing.assert_close(found.orientation, expected[:, :3])
    held = found.held_out.float()
    assert 0.05 < held.mean() < 0.15
    # Whole stretches are held out, not single frames that have their twins beside them.
    assert held.diff().abs().sum() < 20


def test_a_folder_is_split_by_file_and_files_without_poses_are_passed_over(tmp_path):
    (tmp_path / "someone").mkdir()
    for number in range(30):
        np.savez(tmp_path / "someone" / f"clip_{number}.npz", poses=some_poses(20))
    np.savez(tmp_path / "someone" / "shape.npz", betas=np.zeros(16))
    found = read_poses(tmp_path, REST)
    assert len(found.weight) == 600
    held = [found.held_out.numpy()[found.clip == clip] for clip in np.unique(found.clip)]
    assert len(held) == 30 and all(part.all() or not part.any() for part in held)
    assert 0 < sum(part.all() for part in held) < 15


def test_a_file_that_names_its_skeleton_is_re_referenced(tmp_path):
    poses = some_poses().reshape(-1, 22, 3)
    source = np.array(["cmu_daz", "cmu_iclone"])[np.arange(400) // 200]
    clip = np.arange(400) // 20
    np.savez(tmp_path / "ours.npz", poses=poses, parents=np.array(PARENTS), source=source, clip=clip)
    found = read_poses(tmp_path / "ours.npz", REST)
    assert found.body_pose[:200].isnan().any() and not found.body_pose[200:].isnan().any()
    assert bool(found.held_out.any()) and not bool(found.held_out.all())


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"betas": np.zeros(3)}, "no array `poses`"),
        ({"poses": np.zeros((400, 24))}, "66 or more"),
        ({"poses": np.zeros((20, 66))}, "at least 100"),
        ({"poses": np.full((400, 66), np.inf)}, "finite"),
        ({"poses": np.zeros((400, 66)), "weight": np.ones(3)}, "one value a pose"),
    ],
)
def test_other_files_are_refused_in_a_sentence(tmp_path, arrays, message):
    np.savez(tmp_path / "some.npz", **arrays)
    with pytest.raises(InputError, match=message):
        read_poses(tmp_path / "some.npz", REST)


def test_missing_and_unreadable_paths_are_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_poses(tmp_path / "none.npz", REST)
    with pytest.raises(InputError, match="holds no npz"):
        read_poses(tmp_path, REST)
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 no more")
    with pytest.raises(InputError, match="cannot be read"):
        read_poses(tmp_path / "bad.npz", REST)


def test_the_trained_networks_and_the_prior_are_the_same_map():
    frames = frames_of(torch.from_numpy(some_poses())[:, 3:])
    model = PoseAutoencoder(frames, TINY, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        prior = VariationalPosePrior.from_arrays(model.arrays() | {"left_over": torch.full((21,), 0.1)})
        pose = torch.from_numpy(some_poses())[:9, 3:]
        latent = prior.encode(pose)
        torch.testing.assert_close(latent, model.encode(frames.parts(torch.arange(9)))[0], rtol=1e-4, atol=1e-4)
        found = roma.rotvec_to_rotmat(prior.decode(latent).unflatten(1, (21, 3)))
        torch.testing.assert_close(found, model.decode(latent), rtol=1e-4, atol=1e-4)
    flipped = latent * torch.cat([torch.ones(16), -torch.ones(16)])
    torch.testing.assert_close(prior.encode(mirrored(pose)), flipped, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(prior.decode(flipped), mirrored(prior.decode(latent)), rtol=1e-4, atol=1e-4)


def test_even_and_odd_columns_are_an_orthonormal_basis():
    basis = torch.cat(mirrored_columns(), dim=1)
    torch.testing.assert_close(basis.T @ basis, torch.eye(126))
    pose = 0.5 * torch.randn(5, 63)
    even, odd = mirrored_columns()
    first, other = (roma.rotvec_to_rotmat(p.unflatten(1, (21, 3)))[..., :2].flatten(1) for p in (pose, mirrored(pose)))
    torch.testing.assert_close(other @ even, first @ even, rtol=0, atol=1e-6)
    torch.testing.assert_close(other @ odd, -first @ odd, rtol=0, atol=1e-6)


def test_it_learns_and_the_same_seed_gives_the_same_weights():
    frames = frames_of(torch.from_numpy(some_poses())[:, 3:])
    settings = Settings(steps=60, batch=64, width=16, depth=1, rate=5e-3)
    losses: list[float] = []
    first = train(frames, skeleton(), settings, lambda step, parts: losses.append(parts["rotation"]))
    again = train(frames, skeleton(), settings)
    assert len(losses) == 60 and np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])
    for name, value in first.arrays().items():
        assert torch.equal(value, again.arrays()[name])
    report = measure(first, frames, frames, skeleton(), seed=0)
    assert report.held_out.degrees < 0.3 * report.angles[:, 0].mean()
    assert 0.5 < report.spread.mean() < 1.5
    prior, arrays = prior_of(first, report)
    assert all(value.dtype == torch.float16 for value in arrays.values())
    assert prior.residual(prior.mean[None]).square().sum() < 60


def test_missing_joints_teach_nothing_and_break_nothing():
    pose = torch.from_numpy(some_poses())[:, 3:].clone()
    pose[::2, 27:33] = torch.nan
    frames = frames_of(pose)
    assert not bool(frames.rotations.isnan().any())
    assert frames.captured[0].sum() == 19 and frames.captured[1].sum() == 21
    model = train(frames, skeleton(), TINY)
    report = measure(model, frames, frames, skeleton(), seed=0)
    assert np.isfinite([report.held_out.degrees, report.held_out.millimetres, report.worst_mean]).all()


def test_losses_vanish_for_what_they_ask_for():
    generator = torch.Generator().manual_seed(0)
    shape = NormalShape(512, 32, generator)
    normal = torch.randn(512, 32, generator=generator)
    assert shape(normal) < 0.05 < shape(1.5 * normal)
    rotations = roma.rotvec_to_rotmat(0.4 * torch.randn(4000, 21, 3, generator=generator))
    likeness = Likeness(rotations, torch.ones(4000, 21))
    stiff = roma.rotvec_to_rotmat(0.2 * torch.randn(2000, 21, 3, generator=generator))
    assert likeness(rotations[:2000]) < 1 < likeness(stiff)


def test_the_command_writes_weights_that_a_recipe_can_use(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("fitkit.training.pose_prior_run.SHOWN", 2)
    monkeypatch.setattr("fitkit.training.pose_prior_report.SAMPLES", 500)
    np.savez(tmp_path / "walk.npz", poses=some_poses())
    out = tmp_path / "prior"
    assert cli.main(["train", "prior", str(tmp_path / "walk.npz"), "-o", str(out), "--steps", "2"]) == 0
    assert "degrees" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "pose_prior.safetensors", "samples.png"]
    prior = load_prior(out / "pose_prior.safetensors")
    assert isinstance(prior, VariationalPosePrior)
    assert "360 poses" not in (out / "README.md").read_text() and "400 poses" in (out / "README.md").read_text()


def test_an_interrupted_training_leaves_nothing_behind(tmp_path, monkeypatch, capsys):
    np.savez(tmp_path / "walk.npz", poses=some_poses())

    def interrupted(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("fitkit.training.pose_prior_run.train", interrupted)
    assert cli.main(["train", "prior", str(tmp_path / "walk.npz"), "-o", str(tmp_path / "out"), "--quiet"]) == 130
    assert list((tmp_path / "out").iterdir()) == []
    assert "Interrupted" in capsys.readouterr().err


def test_a_wrong_file_is_said_to_be_wrong(tmp_path, capsys):
    assert cli.main(["train", "prior", str(tmp_path / "none.npz")]) == 1
    assert "does not exist" in capsys.readouterr().err
