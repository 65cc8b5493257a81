"""How far estimates are from the truth: whole mesh, joints, hands, face, keypoints, heading, focal length, height."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import roma
import torch
from accuracy_cases import SIZE, Case, People
from torch import Tensor

from fitkit.camera import Camera
from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.conventions import FACE_68, correspondence
from fitkit.models.smpl_family import SMPLFamilyModel
from fitkit.parameters import Parameters
from fitkit.results import FitResult

VERTEX_STEP = 7
"""Every so manieth vertex of the mesh is compared."""
HAND_STEP = 3
"""The same within a hand."""
METRICS = {
    "PA-MPJPE": "mm, mean over the case's joints after the best similarity (Procrustes)",
    "MPJPE": "mm, mean over the case's joints with the root joints brought together",
    "PA-V2V": f"mm, mean over every {VERTEX_STEP}th vertex of the whole mesh after the best similarity",
    "hands PA": f"mm, mean over every {HAND_STEP}rd vertex of a hand after that hand's best similarity; both hands",
    "face PA": "mm, mean over the 51 inner face points after their best similarity",
    "reprojection": "px at 1000 px, median over the shown keypoints, against what was shown",
    "facing wrong": "%, global orientation more than 90 degrees off",
    "focal error": "% of the true focal length",
    "height error": "mm, of the standing height that the shape has",
    "iterations": "of the solver, all stages, of the hypothesis that was kept",
}
"""Every metric and its unit."""


@dataclass(frozen=True)
class Estimate:
    """What a method says of P people, in the camera's axes."""

    joints: Tensor
    """(P, J, 3) metres."""
    vertices: Tensor
    """(P, V, 3) metres."""
    betas: Tensor
    """(P, S) shape coefficients."""
    global_orient: Tensor
    """(P, 3) axis-angle, radians."""
    focal: Tensor
    """(P,) pixels."""
    iterations: Tensor
    """(P,) of the solver; zero for a method without one."""
    failed: Tensor
    """(P,) whether the method itself says that it has no answer."""

    @classmethod
    def from_results(cls, results: Sequence[FitResult]) -> Estimate:
        """Return the estimate that fits amount to."""

        def stacked(values: Sequence[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.stack(values).astype(np.float64))

        return cls(
            stacked([result.joints for result in results]),
            stacked([result.vertices for result in results]),
            stacked([result.params["betas"] for result in results]),
            stacked([result.params["global_orient"] for result in results]),
            torch.tensor([result.camera.focal_length for result in results], dtype=torch.float64),
            torch.tensor([float(result.iterations) for result in results], dtype=torch.float64),
            torch.tensor([result.status == "non_finite" for result in results]),
        )

    @classmethod
    def from_parameters(
        cls, model: SMPLFamilyModel, parameters: Parameters, focal: Tensor, iterations: Tensor
    ) -> Estimate:
        """Return the estimate that parameters (P, 1, size) of a model and focal lengths (P,) amount to."""
        body = model(parameters)
        joints, vertices = body.joints[:, 0].double().cpu(), body.vertices[:, 0].double().cpu()
        betas = parameters["betas"][:, 0].double().cpu()
        orient = parameters["global_orient"][:, 0].double().cpu()
        failed = ~joints.isfinite().all(-1).all(-1)
        return cls(joints, vertices, betas, orient, focal.double().cpu(), iterations.double().cpu(), failed)


def score(
    model: SMPLFamilyModel, people: People, case: Case, evidence: Sequence[Keypoints], found: Estimate
) -> dict[str, np.ndarray]:
    """Return each of `METRICS` for each person, (P,)."""
    true = Estimate.from_parameters(
        model, people.parameters, people.camera.focal_length[:, 0, 0], torch.zeros(len(people.points))
    )
    chosen = list(case.joints)
    joints, actual = found.joints[:, chosen], true.joints[:, chosen]
    rooted = joints - found.joints[:, case.root, None] - (actual - true.joints[:, case.root, None])
    hands = [_procrustes(found.vertices[:, rows], true.vertices[:, rows]) for rows in _hands(model)]
    face = [surface_points(model, one.vertices, one.joints, FACE_68[17:]) for one in (found, true)]
    turned = roma.rotvec_geodesic_distance(found.global_orient, true.global_orient)
    taller = heights(model, found.betas) - heights(model, true.betas)
    return {
        name: values.numpy()
        for name, values in {
            "PA-MPJPE": _procrustes(joints, actual),
            "MPJPE": 1000 * rooted.norm(dim=-1).mean(-1),
            "PA-V2V": _procrustes(found.vertices[:, ::VERTEX_STEP], true.vertices[:, ::VERTEX_STEP]),
            "hands PA": (hands[0] + hands[1]) / 2,
            "face PA": _procrustes(*face),
            "reprojection": _reprojection(model, found, evidence),
            "facing wrong": 100.0 * (turned > torch.pi / 2),
            "focal error": 100 * (found.focal / true.focal - 1).abs(),
            "height error": 1000 * taller.abs(),
            "iterations": found.iterations,
        }.items()
    }


def summarise(values: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Return mean, its standard error, median and 90th percentile of each metric over the people."""
    return {
        name: {
            "mean": float(column.mean()),
            "standard error": float(column.std() / np.sqrt(len(column))),
            "median": float(np.median(column)),
            "90 %": float(np.quantile(column, 0.9)),
        }
        for name, column in values.items()
    }


def aligned(points: Tensor, onto: Tensor) -> Tensor:
    """Return points (P, K, 3) after the similarity that brings each row nearest to the other."""
    rotation, translation, scale = roma.rigid_points_registration(points, onto, compute_scaling=True)
    return scale[:, None, None] * (points @ rotation.mT) + translation[:, None]


def heights(model: SMPLFamilyModel, betas: Tensor) -> Tensor:
    """Return the standing heights (P,) in metres of shapes (P, S), coefficients that are not given being zero."""
    size = next(leaf.size for leaf in model.layout if leaf.name == "betas")
    padded = torch.nn.functional.pad(betas, (0, size - betas.shape[1]))[:, None].to(model.shape.v_template)
    upright = model(Parameters({"betas": padded, "transl": torch.zeros_like(padded[..., :3])})).vertices[:, 0, :, 1]
    return (upright.amax(-1) - upright.amin(-1)).double().cpu()


def surface_points(model: SMPLFamilyModel, vertices: Tensor, joints: Tensor, names: Sequence[str]) -> Tensor:
    """Return the keypoints (P, K, 3) of bodies of which vertices and joints are given."""
    found = correspondence(names, model.landmark_names)
    points = []
    for name in (model.landmark_names[i] for i in found.indices):
        if name in model.surface:
            rows, weights = (part.cpu() for part in model.surface[name])
            points.append(torch.einsum("k,pkc->pc", weights.to(vertices), vertices[:, rows]))
        else:
            points.append(joints[:, model.joint_names.index(name.removeprefix("joint/"))])
    return torch.stack(points, dim=1)


def _procrustes(points: Tensor, onto: Tensor) -> Tensor:
    return 1000 * (aligned(points, onto) - onto).norm(dim=-1).mean(-1)


def _hands(model: SMPLFamilyModel) -> list[Tensor]:
    """Return for each hand every third of the vertices that follow its wrist and fingers more than anything else."""
    bones = {
        side: [f"{side}_{name}" for name in ("wrist", "index", "middle", "pinky", "ring", "thumb")] for side in _SIDES
    }
    weights = model.shape.weights.cpu()
    found = []
    for names in bones.values():
        mine = torch.tensor([any(joint.startswith(name) for name in names) for joint in model.joint_names])
        found.append((weights[:, mine].sum(-1) > 0.5).nonzero()[::HAND_STEP, 0])
    return found


_SIDES = ("left", "right")


def _reprojection(model: SMPLFamilyModel, found: Estimate, evidence: Sequence[Keypoints]) -> Tensor:
    points = surface_points(model, found.vertices, found.joints, evidence[0].names)
    intrinsics = torch.zeros(len(points), 1, 3, 3, dtype=points.dtype)
    intrinsics[:, 0, (0, 1), (0, 1)] = found.focal[:, None]
    intrinsics[:, 0, :2, 2] = SIZE / 2
    seen = Camera(intrinsics, torch.full((len(points), 1, 2), float(SIZE))).project(points[:, None])[:, 0]
    shown = torch.from_numpy(np.concatenate([one.confidence for one in evidence])) > 0
    target = torch.from_numpy(np.concatenate([one.points for one in evidence]))
    return torch.where(shown, (seen - target).norm(dim=-1), torch.nan).nanmedian(dim=-1).values
