"""How far a trained initialiser is from the truth, on people that a good detector sees."""

from __future__ import annotations

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.camera import focal_from_field_of_view
from fitkit.keypoints.conventions import BODY_25, SMPLIFYX_118
from fitkit.models.lbs import blend, pose_joints
from fitkit.regression.crop import GUESSED_FIELD_OF_VIEW, VOCABULARY, View
from fitkit.regression.estimate import estimate
from fitkit.regression.network import JOINTS
from fitkit.regression.regressor import KeypointRegressor
from fitkit.training.synthetic_people import LONGER_SIDE, Population, SyntheticPeople

_NOISE = 0.003
"""Standard deviation of each point, share of the box: 2 pixels of a person of 700."""
_PEOPLE = 2048
_CONVENTIONS = {"118 points": SMPLIFYX_118, "25 points": BODY_25}


def scores_of(regressor: KeypointRegressor, population: Population, seed: int) -> dict[str, dict[str, float]]:
    """Return mean errors for all points and for the body's: joints in mm, degrees, shares."""
    random = torch.Generator().manual_seed(seed)
    people = population.sample(_PEOPLE, random)
    scores = {}
    for label, names in _CONVENTIONS.items():
        with torch.no_grad():
            found = estimate(regressor.network, _seen(people, names, random))
        true = _joints(people.rotations, people.parameters["betas"][:, 0], population)
        guess = _joints(found.rotations[:, 0], found.betas, population)
        turn = roma.rotmat_geodesic_distance(found.rotations[:, 0, 0], people.rotations[:, 0])
        guessed = focal_from_field_of_view(GUESSED_FIELD_OF_VIEW, LONGER_SIDE)
        focal = found.log_focal[:, 0] - torch.log(people.intrinsics[:, 0, 0] / guessed)
        scores[label] = {
            "MPJPE mm": 1000 * float((guess - true).norm(dim=-1).mean()),
            "PA-MPJPE mm": 1000 * float((_aligned(guess, true) - true).norm(dim=-1).mean()),
            "orientation degrees": float(torch.rad2deg(turn).mean()),
            "facing wrong %": 100 * float((turn > torch.pi / 2).float().mean()),
            "focal error, median %": 100 * float(focal.abs().median().expm1()),
        }
    return scores


def _seen(people: SyntheticPeople, names: tuple[str, ...], random: torch.Generator) -> View:
    """Return what a good detector sees, the focal length unknown."""
    box = (people.points.amax(1) - people.points.amin(1)).amax(-1)
    noise = _NOISE * box[:, None, None] * torch.randn(people.points.shape, generator=random)
    shown = torch.tensor([name in names for name in VOCABULARY]).float().expand(len(box), -1)
    intrinsics = people.intrinsics.clone()
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal_from_field_of_view(GUESSED_FIELD_OF_VIEW, LONGER_SIDE)
    unknown = torch.zeros(len(box), dtype=torch.bool)
    return View(people.points + noise, shown, intrinsics, people.image_size, unknown)


def _joints(
    rotations: Float[Tensor, "M 22 3 3"], betas: Float[Tensor, "M S"], population: Population
) -> Float[Tensor, "M 22 3"]:
    """Return body joints relative to the pelvis, metres."""
    model = population.model
    rest = blend(model.shape.J_template, model.shape.J_shapedirs[:, :, : betas.shape[1]], betas)
    still = torch.eye(3).expand(len(rest), rest.shape[1] - JOINTS, 3, 3)
    posed = pose_joints(torch.cat([rotations, still], dim=1), rest, model.tree)[1][:, :JOINTS]
    return posed - posed[:, :1]


def _aligned(points: Float[Tensor, "M J 3"], onto: Float[Tensor, "M J 3"]) -> Float[Tensor, "M J 3"]:
    """Return points after the similarity that brings them nearest to the others."""
    rotation, translation, scale = roma.rigid_points_registration(points, onto, compute_scaling=True)
    return scale[:, None, None] * (points @ rotation.mT) + translation[:, None]
