"""What a trained pose autoencoder is worth, measured on clips that it has not seen, and the page that says so."""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.priors.mirror import OTHER_SIDE
from fitkit.priors.vae import VariationalPosePrior
from fitkit.training.pose_losses import Skeleton
from fitkit.training.pose_prior import HALF, Frames, PoseAutoencoder

JOINTS = (
    "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle", "spine3",
    "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist",
)  # fmt: skip
SAMPLES = 20000
FLOOR = 0.08
"""Radians added, in squares, to the deviation of what the decoder leaves over, as the other learned priors have it: so
that evidence can move what the data hold still, and a fit gets past poses that are not quite anybody's."""


@dataclass(frozen=True)
class Reconstruction:
    """Errors of poses that went through the latent space, missing joints left out."""

    degrees: float
    """Mean angle over frames and joints."""
    degrees_weighted: float
    """The same, frames counted by their sampling weights, which favour rare poses."""
    millimetres: float
    """Mean distance of all 21 joints, the pelvis held still."""
    left_over: Float[Tensor, " 21"]
    """Deviation of each joint's rotation per axis, radians, left and right alike."""


@dataclass(frozen=True)
class Report:
    """Everything that the page shows."""

    held_out: Reconstruction
    """Of clips kept from training."""
    training: Reconstruction
    """Of frames of the training clips."""
    spread: Float[Tensor, " 32"]
    """Deviation of each latent value over held-out frames and their mirror images, posterior spread included."""
    spread_training: Float[Tensor, " 32"]
    """The same of training frames."""
    squared_length: float
    """Mean |z|^2 of held-out frames; 32 of normal ones."""
    angles: Float[Tensor, "21 2"]
    """Mean and deviation of each joint's angle over training frames by their weights, degrees."""
    angles_sampled: Float[Tensor, "21 2"]
    """The same over decoded samples of the standard normal."""

    @property
    def worst_mean(self) -> float:
        """Largest relative difference of a joint's mean angle between samples and data."""
        return float((self.angles_sampled[:, 0] / self.angles[:, 0] - 1).abs().max())

    @property
    def worst_deviation(self) -> float:
        """Largest relative difference of the deviation of a joint's angle between samples and data."""
        return float((self.angles_sampled[:, 1] / self.angles[:, 1] - 1).abs().max())


@torch.no_grad()
def left_over(reconstructed: Reconstruction) -> Float[Tensor, " 21"]:
    """Return the deviations that a prior divides by: those measured, and a floor."""
    return (reconstructed.left_over.square() + FLOOR**2).sqrt()


@torch.no_grad()
def measure(model: PoseAutoencoder, training: Frames, held: Frames, skeleton: Skeleton, seed: int) -> Report:
    """Return the report of a trained model."""
    generator = torch.Generator().manual_seed(seed)
    some = training.select(training.drawn(min(SAMPLES, len(training.weight)), generator))
    spread, squared_length = _spread(model, held)
    sampled = model.decode(torch.randn(SAMPLES, 2 * HALF, generator=generator))
    captured = torch.where(some.captured > 0, _degrees(some.rotations), torch.nan)
    return Report(
        held_out=_reconstruction(model, held, skeleton),
        training=_reconstruction(model, some, skeleton),
        spread=spread,
        spread_training=_spread(model, some)[0],
        squared_length=squared_length,
        angles=_statistics(captured),
        angles_sampled=_statistics(_degrees(sampled)),
    )


def _degrees(rotations: Float[Tensor, "M 21 3 3"]) -> Float[Tensor, "M 21"]:
    return torch.rad2deg(roma.rotmat_geodesic_distance(rotations, torch.eye(3).expand_as(rotations)))


def _statistics(angles: Float[Tensor, "M 21"]) -> Float[Tensor, "21 2"]:
    """Return mean and deviation of each joint's angle and its mirror image's, without what is missing."""
    both = torch.cat([angles, angles[:, OTHER_SIDE]])
    mean = both.nanmean(0)
    return torch.stack([mean, (both - mean).square().nanmean(0).sqrt()], dim=1)


def _reconstruction(model: PoseAutoencoder, frames: Frames, skeleton: Skeleton) -> Reconstruction:
    found = model.decode(model.encode(frames.parts())[0])
    angle = roma.rotmat_geodesic_distance(found, frames.rotations) * frames.captured
    count = frames.captured.sum(1)
    weight = frames.weight * (count > 0)
    apart = skeleton.positions(found) - skeleton.positions(frames.rotations)
    squares, counts = angle.square().sum(0), frames.captured.sum(0)
    squares, counts = squares + squares[list(OTHER_SIDE)], counts + counts[list(OTHER_SIDE)]
    # Of joints that were never captured nothing is known; they are as badly decoded as all others together.
    usual = squares.sum() / counts.sum()
    variance = torch.where(counts > 0, squares / counts.clamp_min(1), usual) / 3
    return Reconstruction(
        degrees=float(torch.rad2deg(angle.sum() / frames.captured.sum())),
        degrees_weighted=float(torch.rad2deg((angle.sum(1) / count.clamp_min(1) * weight).sum() / weight.sum())),
        millimetres=1000 * float(apart.norm(dim=-1).mean()),
        left_over=variance.sqrt(),
    )


def _spread(model: PoseAutoencoder, frames: Frames) -> tuple[Float[Tensor, " 32"], float]:
    """Return the deviation of the aggregate posterior per latent value, and the mean |z|^2."""
    mean, log_variance = model.encode(frames.parts())
    # Mirrored copies leave the even values as they are and turn the odd ones' signs, whose mean thus vanishes.
    centre = torch.cat([mean[:, :HALF].mean(0), torch.zeros(HALF)])
    variance = (mean - centre).square().mean(0) + log_variance.exp().mean(0)
    return variance.sqrt(), float(mean.square().sum(1).mean())


def prior_of(model: PoseAutoencoder, report: Report) -> tuple[VariationalPosePrior, dict[str, Tensor]]:
    """Return the prior, and its arrays in half precision as they are stored."""
    arrays = {name: value.half().contiguous() for name, value in model.arrays().items()}
    arrays["left_over"] = left_over(report.held_out).half()
    return VariationalPosePrior.from_arrays(arrays), arrays


def described(report: Report) -> str:
    """Return the figures in Markdown."""
    held, trained = report.held_out, report.training
    lines = [
        "| | held-out clips | training clips, by weight |",
        "|---|---|---|",
        f"| reconstruction, mean angle per joint | {held.degrees:.2f} degrees | {trained.degrees:.2f} degrees |",
        f"| the same, frames by their weights | {held.degrees_weighted:.2f} | {trained.degrees_weighted:.2f} |",
        f"| reconstruction, mean over joints | {held.millimetres:.1f} mm | {trained.millimetres:.1f} mm |",
        f"| deviation of the aggregate posterior, mean over latents | {_mean(report.spread)} |"
        f" {_mean(report.spread_training)} |",
        f"| smallest and largest of them | {_range(report.spread)} | {_range(report.spread_training)} |",
        f"| mean length squared of latents (32 if normal) | {report.squared_length:.1f} | |",
        "",
        "Angles of joints, degrees, mean and deviation, over the data by its weights and over decoded samples of the",
        f"standard normal; means differ by {100 * report.worst_mean:.0f} % at most, deviations by"
        f" {100 * report.worst_deviation:.0f} %:",
        "",
        "| joint | data | samples | left over by the decoder, held out, per axis |",
        "|---|---|---|---|",
    ]
    for k, name in enumerate(JOINTS):
        if not name.startswith("right_"):
            data, sampled = report.angles[k], report.angles_sampled[k]
            rest = float(torch.rad2deg(held.left_over[k]))
            lines.append(
                f"| {name.removeprefix('left_')} | {data[0]:.1f}, {data[1]:.1f} | {sampled[0]:.1f}, {sampled[1]:.1f}"
                f" | {rest:.1f} |"
            )
    return "\n".join(lines)


def _mean(values: Tensor) -> str:
    return f"{float(values.square().mean().sqrt()):.3f}"


def _range(values: Tensor) -> str:
    return f"{float(values.min()):.2f} to {float(values.max()):.2f}"
