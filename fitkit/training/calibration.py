"""How a trained initialiser's errors go together: what makes its deviations a density."""

from __future__ import annotations

from dataclasses import dataclass

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.regression.estimate import Estimate, estimate
from fitkit.regression.network import BODY_PARENTS, KeypointNetwork, absolute
from fitkit.terms.belief import BeliefTerm
from fitkit.training.detections import Detector
from fitkit.training.synthetic_people import Population, SyntheticPeople, standard_hands

DEGREES = BeliefTerm.degrees
"""Degrees of freedom of the density: those of the term that fits hold to it by."""
_ROUNDS = 15
_RIDGE = 1e-3


@dataclass(frozen=True)
class Calibration:
    """What an initialiser's errors on people with known parameters say."""

    correlation: Float[Tensor, "D D"]
    """Scatter of the errors in the network's own deviations."""
    within: float
    """Mean squared Mahalanobis distance over the number of values: about 1."""


def calibrated(
    network: KeypointNetwork, population: Population, detector: Detector, count: int, random: torch.Generator
) -> Calibration:
    """Return how the errors on that many people go together.

    The scatter is the maximum-likelihood one of a multivariate t density (Lange, Little and Taylor 1989), so that a
    few views that the network misread do not widen what it believes of all others.
    """
    deviations = []
    with torch.no_grad():
        for first in range(0, count, 1024):
            people = population.sample(min(1024, count - first), random)
            view = detector(people, random)
            found = estimate(network, view)
            wrong = errors_of(found, people, population)
            log_ratio = torch.log(people.intrinsics[:, :1, 0] / view.intrinsics[:, :1, 0]) - found.log_focal
            deviations.append(torch.cat([wrong, log_ratio], dim=1) * torch.exp(-found.log_deviations))
    z = torch.cat(deviations).double()
    scatter = scatter_of(z)
    distance = (torch.linalg.solve(scatter, z.T) * z.T).sum(0)
    return Calibration(scatter.float(), float(distance.mean()) / z.shape[1])


def errors_of(found: Estimate, people: SyntheticPeople, population: Population) -> Float[Tensor, "M E"]:
    """Return truth less estimate of the joints' rotations (crop axes, axis-angle), betas and hands."""
    guessed = absolute(found.rotations[:, 0], BODY_PARENTS)
    to_crop = found.R_camera_crop.mT[:, None]
    turns = roma.rotmat_to_rotvec(to_crop @ people.joint_rotations @ guessed.mT @ to_crop.mT).flatten(1)
    hands = standard_hands(people, population.model) - found.hands.flatten(1)
    return torch.cat([turns, people.parameters["betas"][:, 0] - found.betas, hands], dim=1)


def scatter_of(z: Float[Tensor, "M D"]) -> Float[Tensor, "D D"]:
    """Return the scatter matrix of a t density with `DEGREES` about zero, a little of its diagonal added."""
    size = z.shape[1]
    scatter = torch.eye(size, dtype=z.dtype)
    for _ in range(_ROUNDS):
        distance = (torch.linalg.solve(scatter, z.T) * z.T).sum(0)
        weight = (DEGREES + size) / (DEGREES + distance)
        scatter = (z * weight[:, None]).T @ z / len(z)
        scatter = scatter + _RIDGE * torch.diag(scatter.diagonal())
    return scatter
