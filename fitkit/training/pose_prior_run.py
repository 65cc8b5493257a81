"""From a file of poses to a folder with a trained prior, its page and a sheet of samples."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from fitkit.files import atomic_write, make_folder
from fitkit.model_files import load_model
from fitkit.models.arrays import ModelChoice
from fitkit.progress import ProgressBar
from fitkit.training.motion_capture import Poses
from fitkit.training.pose_files import read_poses
from fitkit.training.pose_losses import Skeleton
from fitkit.training.pose_prior import Frames, Settings, train
from fitkit.training.pose_prior_report import Report, described, measure, prior_of
from fitkit.training.pose_sheet import draw_poses, encode_png

WEIGHTS, CARD, SHEET = "pose_prior.safetensors", "README.md", "samples.png"
"""Names of what is written."""
SHOWN = 40
"""Samples on the sheet."""

TEXT = """# Pose prior with a latent space

`{weights}`: a variational autoencoder in the manner of VPoser (Pavlakos et al. 2019): {latents} latent values with a
standard normal prior, 21 body joints out, each as six numbers made orthonormal. In a recipe: `prior: {weights}` in a
`pose_prior` term, or `pose_latent: {weights}` under `model` for stages that free `pose_latent`.

## Data

{frames} poses of {clips} clips from {source}; {held_frames} of them, {held_clips} whole clips, were held out: nothing
was trained on them. Frames are drawn by their weights. The networks are built so that a mirrored pose has the mirrored
latent vector (half of the values the same, half with the other sign), which is worth as much as mirrored copies of all
frames. {mixed:.0%} of the frames got their legs, arms or head from another frame. Joints that a source did not capture
({missing:.1%} of all) count in no error; the encoder reads what the captured ones let expect of them.

## Training

{steps} steps of {batch} frames, seed {seed}; two networks of {depth} inner layers of {width} units, with a linear map
beside them that begins as principal components. Losses: mean angle (radians), mean distance of joints (metres, weight
{joints:g}), divergence of the posteriors (nats, weight {divergence:g}), sliced Wasserstein distance of all latent
values from a normal sample (weight {shape:g}), differences between decoded samples and the data in means, deviations
and covariances (weight {likeness:g}). The weights are averages over the last steps, stored in half precision.

Last losses: {losses}.

## Measured

{figures}

`{sheet}` shows {shown} decoded samples of the standard normal, drawn by fitkit's own renderer.
"""


@dataclass(frozen=True)
class Trained:
    """What a run has written, and what it is worth."""

    weights: Path
    """The file of weights."""
    report: Report
    """Its measurements."""


def train_to_folder(data: Path, out: Path, settings: Settings, quiet: bool = False) -> Trained:
    """Train a prior and write its weights, page and samples; an interrupted run leaves nothing behind.

    Args:
        data: npz file of poses, or a folder of them (see `pose_files.read_poses`).
        out: folder, made where it is missing.
        settings: how to train.
        quiet: show no progress bar.

    Raises:
        InputError: the data cannot be used. OutputError: the folder cannot be written.
    """
    model = load_model(ModelChoice("anny", "anny"))
    joints_rest = model.shape.J_template
    poses = read_poses(data, joints_rest.double().numpy())
    make_folder(out)
    training, held = (poses.select(rows.nonzero()[:, 0]) for rows in (~poses.held_out, poses.held_out))
    frames = Frames.of(training, training, settings.seed)
    held_frames = Frames.of(held, training, settings.seed)
    skeleton = Skeleton.of(joints_rest.float())
    last: dict[str, float] = {}
    with ProgressBar("Training the pose prior", total=settings.steps, quiet=quiet) as bar:

        def progress(step: int, losses: dict[str, float]) -> None:
            last.update(losses)
            bar.advance()

        trained = train(frames, skeleton, settings, progress)
    report = measure(trained, frames, held_frames, skeleton, settings.seed)
    prior, arrays = prior_of(trained, report)
    generator = torch.Generator().manual_seed(settings.seed)
    samples = prior.decode(torch.randn(SHOWN, prior.latents, generator=generator))
    facts = _facts(poses, data, settings) | {
        "losses": ", ".join(f"{name} {value:.4g}" for name, value in last.items()),
        "figures": described(report),
        "latents": prior.latents,
    }
    metadata = {"made_by": "fitkit train prior", "seed": str(settings.seed), "steps": str(settings.steps)}
    _write(out / WEIGHTS, save(arrays, metadata))
    _write(out / SHEET, encode_png(draw_poses(model, samples)))
    _write(out / CARD, TEXT.format(**facts).encode())
    return Trained(out / WEIGHTS, report)


def _facts(poses: Poses, data: Path, settings: Settings) -> dict[str, object]:
    held = poses.held_out.numpy()
    missing = float(poses.body_pose.isnan().float().mean())
    return asdict(settings) | {
        "weights": WEIGHTS,
        "sheet": SHEET,
        "shown": SHOWN,
        "source": f"`{data.name}`",
        "frames": len(held),
        "clips": len(np.unique(poses.clip)),
        "held_frames": int(held.sum()),
        "held_clips": len(np.unique(poses.clip[held])),
        "missing": missing,
        "width": 2 * settings.width,
    }


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
