"""The network: a residual perceptron over masked keypoints, with heads for parameters and for their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fitkit.regression.crop import INPUTS

JOINTS = 22
"""Joints whose rotation is predicted: the pelvis, then the body's, all in crop axes: how a limb lies in the picture
tells its own rotation, whatever the trunk's is."""
BODY_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)
"""Parent of each of these joints, the same in all models of the family."""
HAND_VALUES = 12
"""Coefficients of each hand in the hand space that the network was trained with."""


@dataclass(frozen=True)
class NetworkShape:
    """Sizes of a network."""

    width: int = 1024
    """Features."""
    blocks: int = 3
    """Residual blocks of two layers each."""
    alternatives: int = 3
    """Further hypotheses of the pose, beside the mean."""
    betas: int = 20
    """Shape coefficients."""
    expressions: int = 38
    """Expression coefficients."""

    @property
    def believed(self) -> int:
        """Number of values with an uncertainty: joints' rotations, betas, hands, log focal length.

        The rotations are in crop axes, in which a view tells them: surely about the line of sight, poorly towards it.
        """
        return 3 * JOINTS + self.betas + 2 * HAND_VALUES + 1

    @property
    def heads(self) -> dict[str, int]:
        """Name -> size of each output, in order."""
        return {
            "rotations": 6 * JOINTS,
            "betas": self.betas,
            "hands": 2 * HAND_VALUES,
            "jaw": 3,
            "expression": self.expressions,
            "root": 2,
            "log_extent": 1,
            "log_focal": 1,
            "alternatives": self.alternatives * 6 * JOINTS,
            "likelihoods": self.alternatives + 1,
        }


class KeypointNetwork(nn.Module):
    """From a crop's inputs (M, I) to named outputs (M, size): see `NetworkShape.heads`, and `log_deviations`.

    The deviations are read from the features by a head of their own that does not train them.
    """

    def __init__(self, shape: NetworkShape) -> None:
        """Make a network with random weights."""
        super().__init__()
        self.shape = shape
        self.entry = nn.Linear(INPUTS, shape.width)
        self.blocks = nn.ModuleList(_Block(shape.width) for _ in range(shape.blocks))
        self.norm = nn.LayerNorm(shape.width)
        self.exit = nn.Linear(shape.width, sum(shape.heads.values()))
        self.deviations = nn.Linear(shape.width, shape.believed)

    def forward(self, inputs: Float[Tensor, "M I"]) -> dict[str, Float[Tensor, "M _"]]:
        """Return the outputs by name."""
        features = self.entry(inputs)
        for block in self.blocks:
            features = block(features)
        features = self.norm(features)
        heads = self.shape.heads
        outputs = dict(zip(heads, self.exit(features).split(list(heads.values()), dim=1), strict=True))
        return outputs | {"log_deviations": self.deviations(features.detach())}


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.outer(nn.functional.gelu(self.inner(self.norm(features)), approximate="tanh"))


def rotations_of(values: Float[Tensor, "M _"]) -> Float[Tensor, "M J 3 3"]:
    """Return rotation matrices from six numbers each: two columns, made orthonormal (Zhou et al. 2019)."""
    first, second = values.unflatten(-1, (-1, 2, 3)).unbind(-2)
    x = nn.functional.normalize(first, dim=-1)
    y = nn.functional.normalize(second - (x * second).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=-1)


def relative(rotations: Float[Tensor, "*M J 3 3"], parents: Sequence[int]) -> Float[Tensor, "*M J 3 3"]:
    """Return rotations relative to the parents', the pelvis' as it is, from rotations in common axes."""
    above = rotations[..., list(parents[1:JOINTS]), :, :]
    return torch.cat([rotations[..., :1, :, :], above.mT @ rotations[..., 1:, :, :]], dim=-3)


def absolute(rotations: Float[Tensor, "*M J 3 3"], parents: Sequence[int]) -> Float[Tensor, "*M J 3 3"]:
    """Return rotations in the axes of the pelvis' from those relative to the parents': undoes `relative`."""
    found = [rotations[..., 0, :, :]]
    for joint in range(1, JOINTS):
        found.append(found[parents[joint]] @ rotations[..., joint, :, :])
    return torch.stack(found, dim=-3)
