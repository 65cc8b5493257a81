"""A pose prior with a latent space: a variational autoencoder of body poses, in the manner of VPoser.

Pavlakos et al. 2019, "Expressive body capture", section 3.3: an encoder, a decoder to 21 rotations of six numbers each,
and a latent vector whose prior is the standard normal, so that |z|^2 is twice its negative log density.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.priors.mirror import mirrored_columns
from fitkit.priors.network import SILU, Layer, Network
from fitkit.priors.rotations import (
    first_columns_slopes,
    orthonormal,
    orthonormal_slopes,
    right_jacobian,
    right_jacobian_inverse,
    rotation_vectors,
)


@dataclass(frozen=True)
class Autoencoder:
    """The two networks of a variational autoencoder; what the encoder says of its own spread is not kept."""

    encoder: Network
    """From poses to the mean of their latent vectors."""
    decoder: Network
    """From latent vectors to six numbers for each of 21 joints: two columns of a rotation, before they are made so."""
    reads_rotations: bool
    """Whether the encoder reads the first two columns of each rotation, 126 numbers, or the rotation vectors, 63."""
    latents: int = 32
    """Length of a latent vector."""


class VariationalPosePrior:
    """Poses as latent vectors of a standard normal density, and what the latent vectors cannot say as noise.

    As a density of poses: with z the encoder's mean for a pose and D its decoding, the residuals are z and, joint by
    joint, the rotation from D to the pose in units of what the decoder usually leaves over.
    """

    def __init__(self, networks: Autoencoder, left_over: Float[Tensor, " 21"]) -> None:
        """Make a prior.

        Args:
            networks: encoder and decoder.
            left_over: deviation of each joint's rotation about its decoding, per axis, radians.
        """
        self._networks, self._left_over = networks, left_over
        # Rotation vectors are ambiguous by whole turns: `decode` gives those nearest to the pose of latent zero.
        self._mean = torch.zeros(63)
        middle = self._pose(torch.zeros(1, networks.latents))[0]
        self._mean = middle

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Tensor]) -> VariationalPosePrior:
        """Return the prior of a weights file made by `fitkit train prior`.

        Args:
            arrays: `left_over` (21,), and for the encoder and the decoder the layers that `mirror_symmetric` takes.
        """
        encoder = mirror_symmetric("encoder", arrays)
        decoder = mirror_symmetric("decoder", arrays)
        latents = arrays["decoder.0.even"].shape[1] + arrays["decoder.0.odd"].shape[1]
        return cls(Autoencoder(encoder, decoder, True, latents), arrays["left_over"].float())

    @property
    def latents(self) -> int:
        """Length of a latent vector."""
        return self._networks.latents

    @property
    def mean(self) -> Float[Tensor, " 63"]:
        """The pose of latent zero, radians."""
        return self._mean

    def encode(self, body_pose: Float[Tensor, "M 63"]) -> Float[Tensor, "M L"]:
        """Return the latent vectors that the encoder takes for the likeliest of poses given as axis-angle, radians."""
        return self._networks.encoder(self._read(body_pose))

    def decode(self, latent: Float[Tensor, "M L"]) -> Float[Tensor, "M 63"]:
        """Return the poses of latent vectors, axis-angle, radians."""
        return self._pose(latent)

    def decode_linearised(self, latent: Float[Tensor, "M L"]) -> tuple[Float[Tensor, "M 63"], Float[Tensor, "M 63 L"]]:
        """Return the poses of latent vectors, and their derivatives: radians per unit."""
        rotations, turns = self._decoded_linearised(latent)
        pose = self._nearest(rotation_vectors(rotations))
        return pose.flatten(1), (right_jacobian_inverse(pose) @ turns).flatten(1, 2)

    def residual(self, body_pose: Float[Tensor, "M 63"]) -> Float[Tensor, "M R"]:
        """Return the latent vector, and the rotations that it leaves over in units of their deviation."""
        latent = self.encode(body_pose)
        decoded = orthonormal(self._networks.decoder(latent).unflatten(1, (21, 6)))
        rest = rotation_vectors(decoded.mT @ roma.rotvec_to_rotmat(body_pose.unflatten(1, (21, 3))))
        return torch.cat([latent, (rest / self._left_over.to(rest)[:, None]).flatten(1)], dim=1)

    def linearise(self, body_pose: Float[Tensor, "M 63"]) -> tuple[Float[Tensor, "M R"], Float[Tensor, "M R 63"]]:
        """Return the residuals and their derivatives through both networks."""
        vectors = body_pose.unflatten(1, (21, 3))
        own = right_jacobian(vectors)
        rotations = roma.rotvec_to_rotmat(vectors)
        latent, slopes = self._networks.encoder.linearise(self._read(body_pose))
        if self._networks.reads_rotations:
            reading = first_columns_slopes(rotations) @ own
            slopes = (slopes.unflatten(2, (21, 6)).transpose(1, 2) @ reading).transpose(1, 2).flatten(2)
        decoded, turns = self._decoded_linearised(latent)
        rest = rotation_vectors(decoded.mT @ rotations)
        inverse = right_jacobian_inverse(rest)
        # log(D^T R): R's own turn enters from the right; D's, with the opposite sign, from the left.
        through = -inverse.mT @ (turns @ slopes[:, None])
        by_itself = torch.diag_embed((inverse @ own).permute(0, 2, 3, 1)).permute(0, 3, 1, 4, 2).flatten(3)
        scale = self._left_over.to(rest)[:, None]
        jacobian = ((through + by_itself) / scale[..., None]).flatten(1, 2)
        residual = torch.cat([latent, (rest / scale).flatten(1)], dim=1)
        return residual, torch.cat([slopes, jacobian], dim=1)

    def _read(self, body_pose: Float[Tensor, "M 63"]) -> Float[Tensor, "M I"]:
        if not self._networks.reads_rotations:
            return body_pose
        return roma.rotvec_to_rotmat(body_pose.unflatten(1, (21, 3)))[..., :2].flatten(1)

    def _pose(self, latent: Float[Tensor, "M L"]) -> Float[Tensor, "M 63"]:
        rotations = orthonormal(self._networks.decoder(latent).unflatten(1, (21, 6)))
        return self._nearest(rotation_vectors(rotations)).flatten(1)

    def _decoded_linearised(
        self, latent: Float[Tensor, "M L"]
    ) -> tuple[Float[Tensor, "M 21 3 3"], Float[Tensor, "M 21 3 L"]]:
        """Return decoded rotations, and how each turns in its own axes as the latent vector moves."""
        numbers, slopes = self._networks.decoder.linearise(latent)
        six = numbers.unflatten(1, (21, 6))
        rotations = orthonormal(six)
        return rotations, orthonormal_slopes(six, rotations) @ slopes.unflatten(1, (21, 6))

    def _nearest(self, vectors: Float[Tensor, "M 21 3"]) -> Float[Tensor, "M 21 3"]:
        """Return of the two shortest vectors of each rotation the one nearer to the mean pose's."""
        mean = self._mean.to(vectors).unflatten(0, (21, 3))
        angle = vectors.norm(dim=-1, keepdim=True)
        other = vectors - 2 * torch.pi * vectors / angle.clamp_min(1e-9)
        is_nearer = (other - mean).square().sum(-1) < (vectors - mean).square().sum(-1)
        return torch.where((is_nearer & (angle[..., 0] > 0.5 * torch.pi))[..., None], other, vectors)


def mirror_symmetric(name: str, arrays: Mapping[str, Tensor]) -> Network:
    """Return a network for which the mirrored input gives the mirrored output.

    Its values are kept as an even part, which a mirror leaves alone, and an odd one, whose sign it turns: dense layers
    act on each apart. The activation acts on the sum and on the difference of both, which a mirror exchanges.

    Args:
        name: "encoder" or "decoder".
        arrays: `<name>.<k>.even`, `.odd` and `.bias` (of the even part) for layers k, and `<name>.direct.even`, `.odd`.
            Poses are given as six numbers a joint; their parts are those of `mirrored_columns`.
    """
    arrays = {
        key.removeprefix(f"{name}."): value.float() for key, value in arrays.items() if key.startswith(f"{name}.")
    }
    count = 1 + max(int(key.split(".")[0]) for key in arrays if key.split(".")[0].isdecimal())
    even, odd = mirrored_columns()
    poses = torch.cat([even, odd], dim=1)
    first, last = (poses.T, None) if name == "encoder" else (None, poses)
    layers = []
    for k in range(count):
        matrix = torch.block_diag(arrays[f"{k}.even"], arrays[f"{k}.odd"])
        bias = torch.cat([arrays[f"{k}.bias"], torch.zeros(len(arrays[f"{k}.odd"]))])
        if k == 0:
            matrix = matrix if first is None else matrix @ first
        else:
            matrix = matrix @ _sums_and_differences(matrix.shape[1])
        if k < count - 1:
            exchange = _sums_and_differences(len(matrix))
            matrix, bias = exchange @ matrix, exchange @ bias
        elif last is not None:
            matrix, bias = last @ matrix, last @ bias
        inner = 0 < k < count - 1
        layers.append(Layer(matrix, bias, SILU if k < count - 1 else None, inner))
    direct = torch.block_diag(arrays["direct.even"], arrays["direct.odd"])
    direct = direct if first is None else direct @ first
    return Network(tuple(layers), direct if last is None else last @ direct)


def _sums_and_differences(size: int) -> Float[Tensor, "S S"]:
    """Return the orthonormal matrix between (even, odd) and the two values that a mirror exchanges; its own inverse."""
    unit = torch.eye(size // 2)
    return torch.cat([torch.cat([unit, unit], 1), torch.cat([unit, -unit], 1)]) * 0.5**0.5
