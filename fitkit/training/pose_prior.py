"""Training of the pose prior with a latent space: a variational autoencoder that knows left and right to be alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fitkit.errors import InputError
from fitkit.priors.mirror import mirrored_columns
from fitkit.training.mixture import Settings as MixtureSettings
from fitkit.training.mixture import completed, fit
from fitkit.training.motion_capture import Poses
from fitkit.training.pose_losses import (
    LIMBS,
    Likeness,
    NormalShape,
    Skeleton,
    captured_joints,
    decoded,
    divergence,
    joint_error,
    rotation_error,
    usual_step,
)
from fitkit.training.symmetric_network import Sizes, SymmetricNetwork

Progress = Callable[[int, dict[str, float]], None]
"""Called as (steps done, losses of the last one)."""
HALF = 16
"""Latent values of either part; 32 in all."""


@dataclass(frozen=True)
class Settings:
    """How to train."""

    steps: int = 5000
    """Of the optimiser."""
    seed: int = 0
    """Of all draws."""
    batch: int = 512
    """Frames a step, drawn by their weights."""
    width: int = 256
    """Half the width of the networks."""
    depth: int = 2
    """Inner layers of each."""
    rate: float = 1.5e-3
    """Highest learning rate."""
    joints: float = 3.0
    """Weight of a metre of joint error against a radian."""
    divergence: float = 1.5e-4
    """Weight of a nat: small, for the latent vectors to keep what a pose is; shape and likeness do the rest."""
    shape: float = 0.03
    """Weight of the distance of all latent vectors together from a normal sample."""
    likeness: float = 0.02
    """Weight of the distance of decoded samples from the data."""
    mixed: float = 0.2
    """Share of the frames that get their legs, arms or head from another frame: poses that nobody had captured."""


@dataclass(frozen=True)
class Frames:
    """Poses as the networks see them."""

    rotations: Float[Tensor, "N 21 3 3"]
    """Missing joints drawn from what the captured ones say of them."""
    captured: Float[Tensor, "N 21"]
    """1 for captured joints, 0 for drawn ones."""
    weight: Float[Tensor, " N"]
    """Sampling weights."""

    @classmethod
    def of(cls, poses: Poses, known: Poses, seed: int) -> Frames:
        """Return frames whose missing joints are drawn given a small mixture fitted to `known` ones."""
        captured = captured_joints(poses)
        pose = poses.body_pose
        if bool((captured == 0).any()):
            generator = torch.Generator().manual_seed(seed)
            rows = torch.randperm(len(known.weight), generator=generator)[:10000]
            settings = MixtureSettings(components=8, degrees=20.0, iterations=8)
            mixture = fit(known.body_pose[rows], known.weight[rows], settings, generator)
            pose = completed(mixture, pose, generator)
        rotations = roma.rotvec_to_rotmat(pose.unflatten(1, (21, 3)))
        return cls(rotations, captured, poses.weight)

    def parts(self, rows: Tensor | slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Return the even and the odd part of frames' numbers."""
        return even_and_odd(self.rotations[rows])

    def select(self, rows: Tensor) -> Frames:
        """Return some of the frames."""
        return Frames(self.rotations[rows], self.captured[rows], self.weight[rows])

    def drawn(self, count: int, generator: torch.Generator) -> Tensor:
        """Return rows drawn by their weights."""
        return torch.multinomial(self.weight, count, replacement=True, generator=generator)


def even_and_odd(rotations: Float[Tensor, "M 21 3 3"]) -> tuple[Float[Tensor, "M 63"], Float[Tensor, "M 63"]]:
    """Return what a mirror leaves alone, and what it turns round, of the first two columns of rotations."""
    numbers = rotations[..., :2].flatten(1)
    even, odd = mirrored_columns()
    return numbers @ even, numbers @ odd


class PoseAutoencoder(nn.Module):
    """Encoder with means and variances, decoder; begins as principal components."""

    def __init__(self, frames: Frames, settings: Settings, generator: torch.Generator) -> None:
        """Set the linear maps to whitened principal components of frames drawn by their weights."""
        super().__init__()
        latent, pose = Sizes(HALF, HALF), Sizes(63, 63)
        self.encoder = SymmetricNetwork(pose, Sizes(3 * HALF, HALF), settings.width, settings.depth)
        self.decoder = SymmetricNetwork(latent, pose, settings.width, settings.depth)
        even, odd = frames.parts(frames.drawn(20000, generator))
        self.centre = even.mean(0)
        with torch.no_grad():
            for name, part in (("even", even - self.centre), ("odd", odd)):
                values, vectors = torch.linalg.eigh(part.T @ part / len(part))
                scale, vectors = values[-HALF:].clamp_min(1e-6).sqrt(), vectors[:, -HALF:]
                getattr(self.encoder.direct, name)[:HALF] = (vectors / scale).T
                getattr(self.decoder.direct, name).copy_(vectors * scale)
            self.encoder.direct.bias[HALF:] = -4.0
            self.decoder.direct.bias.copy_(self.centre)

    def encode(self, parts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return means and log variances (M, 32): even part, odd part."""
        even, odd = self.encoder(parts[0] - self.centre, parts[1])
        return torch.cat([even[:, :HALF], odd], dim=1).float(), even[:, HALF:].float().clamp(-12.0, 4.0)

    def decode(self, latent: Tensor) -> Float[Tensor, "M 21 3 3"]:
        """Return the rotations of latent vectors."""
        even, odd = self.decoder(latent[:, :HALF], latent[:, HALF:])
        with torch.autocast("cpu", enabled=False):
            return decoded(even, odd)

    def arrays(self) -> dict[str, Tensor]:
        """Return the weights as `VariationalPosePrior.from_arrays` takes them, without `left_over`."""
        encoder = self.encoder.arrays(self.centre, HALF)
        decoder = self.decoder.arrays(torch.zeros(HALF))
        named = {f"encoder.{name}": value for name, value in encoder.items()}
        return named | {f"decoder.{name}": value for name, value in decoder.items()}


def train(frames: Frames, skeleton: Skeleton, settings: Settings, progress: Progress | None = None) -> PoseAutoencoder:
    """Return an autoencoder trained on frames, its weights averaged over the last thousand steps or so.

    Same frames, settings and kind of processor: same weights.

    Raises:
        InputError: the losses became infinite, as of frames that are no poses.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = PoseAutoencoder(frames, settings, generator)
        averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=_ema)
        optimiser = torch.optim.AdamW(model.parameters(), lr=settings.rate, betas=(0.9, 0.99), weight_decay=1e-3)
        losses = _Losses(frames, skeleton, settings, generator)
        fast = _bfloat16_pays()
        for step in range(settings.steps):
            for group in optimiser.param_groups:
                group["lr"] = settings.rate * usual_step((step + 1) / settings.steps)
            with torch.autocast("cpu", torch.bfloat16, enabled=fast):
                loss, parts = losses(model)
            if not bool(loss.isfinite()):
                raise InputError("Training diverged: are all poses axis-angle in radians?")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            averaged.update_parameters(model)
            if progress is not None:
                progress(step + 1, parts)
    trained = averaged.module
    assert isinstance(trained, PoseAutoencoder)
    return trained


@torch.no_grad()
def _ema(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
    """Move the averages, ever more slowly: by a tenth at first, by a thousandth in the end."""
    keep = min(0.999, (1 + float(count)) / (10 + float(count)))
    for mean, value in zip(averaged, current, strict=True):
        mean.lerp_(value, 1 - keep)


class _Losses:
    """The loss of a batch drawn anew at each call."""

    def __init__(self, frames: Frames, skeleton: Skeleton, settings: Settings, generator: torch.Generator) -> None:
        self._frames, self._skeleton, self._settings, self._generator = frames, skeleton, settings, generator
        self._shape = NormalShape(settings.batch, 2 * HALF, generator)
        drawn = frames.drawn(40000, generator)
        self._likeness = Likeness(frames.rotations[drawn], frames.captured[drawn])
        flipped = torch.ones(settings.batch, 2 * HALF)
        flipped[::2, HALF:] = -1
        self._flipped = flipped

    def __call__(self, model: PoseAutoencoder) -> tuple[Tensor, dict[str, float]]:
        settings, frames = self._settings, self._frames
        truth, captured = self._mixed(frames.drawn(settings.batch, self._generator))
        with torch.autocast("cpu", enabled=False):
            parts = even_and_odd(truth)
        mean, log_variance = model.encode(parts)
        noise = torch.randn(mean.shape, generator=self._generator)
        latent = mean + noise * (0.5 * log_variance).exp()
        normal = torch.randn(settings.batch // 2, 2 * HALF, generator=self._generator)
        found, sampled = model.decode(torch.cat([latent, normal])).split([len(latent), len(normal)])
        with torch.autocast("cpu", enabled=False):
            rotation = rotation_error(found, truth, captured)
            joints = joint_error(*self._skeleton.positions(torch.cat([found, truth])).chunk(2))
            nats = divergence(mean, log_variance)
            # Every other frame as its mirror image: the latent vectors of both must be normal together.
            shape = self._shape(latent * self._flipped)
            likeness = self._likeness(sampled)
            loss = rotation + settings.joints * joints + settings.divergence * nats
            loss = loss + settings.shape * shape + settings.likeness * likeness
        summands = {"rotation": rotation, "joints": joints, "divergence": nats, "shape": shape, "likeness": likeness}
        return loss, {name: float(value.detach()) for name, value in summands.items()}

    def _mixed(self, rows: Tensor) -> tuple[Float[Tensor, "M 21 3 3"], Float[Tensor, "M 21"]]:
        """Return rotations and captured joints of frames, some with limbs of others."""
        rotations, captured = self._frames.rotations[rows], self._frames.captured[rows]
        count = int(self._settings.mixed * len(rows))
        limbs = LIMBS[torch.randint(len(LIMBS), (count,), generator=self._generator)]
        # Rows are drawn independently of each other: the last ones are as good as any for the first ones' limbs.
        rotations[:count] = torch.where(limbs[:, :, None, None], rotations[len(rows) - count :], rotations[:count])
        captured[:count] = torch.where(limbs, captured[len(rows) - count :], captured[:count])
        return rotations, captured


def _bfloat16_pays() -> bool:
    """Return whether this processor multiplies half-precision matrices itself: others emulate it, slowly.

    Not found out by the clock, which a busy machine may turn: the same processor must give the same weights.
    """
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in asked)
