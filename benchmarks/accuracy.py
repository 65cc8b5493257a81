"""How far fits are from the truth in space, on synthetic people whose focal length the fitter does not know.

    python benchmarks/accuracy.py --mocap train.npz [--people 64] [--noise 2] [--points all] [--recipes default]

Poses are held-out clips of a motion-capture file (the split of tools/train_pose_prior.py), shapes and hands are drawn,
people face anywhere, the field of view is 35 to 70 degrees, and every keypoint gets Gaussian noise (pixels at 1000 px).
Prints mean and median errors in mm; writes benchmarks/results/accuracy.json with --save.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import roma
import torch
from scipy.linalg import orthogonal_procrustes
from synthetic import SyntheticPeople, keypoints_of, sample_people

import fitkit
from fitkit.camera import pinhole
from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.conventions import part_of
from fitkit.model_files import load_model
from fitkit.models.arrays import ModelChoice
from fitkit.models.smpl_family import SMPLFamilyModel
from fitkit.training.motion_capture import load_poses

RESULTS = Path(__file__).parent / "results"
SIZE = 1000
UPPER = (0, 3, 6, 9, *range(12, 22))
"""Body joints above the hips, and the pelvis."""
_LEGS = ("knee", "ankle", "toe", "heel", "hip")


def held_out_people(model: SMPLFamilyModel, mocap: Path, count: int, seed: int) -> SyntheticPeople:
    """Return people in held-out poses, their keypoints free of noise and ignorant of the focal length."""
    poses = load_poses(mocap, model.shape.J_template.numpy())
    held = poses.body_pose[poses.held_out]
    random = torch.Generator().manual_seed(seed)
    chosen = held[torch.randperm(len(held), generator=random)[:count]].double().nan_to_num(0.0)

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, generator=random, dtype=torch.float64)

    upright = roma.rotvec_to_rotmat(torch.tensor([math.pi, 0.0, 0.0], dtype=torch.float64))
    zero = torch.zeros(count, dtype=torch.float64)
    tilt = torch.stack([0.15 * torch.randn(count, generator=random, dtype=torch.float64), zero, zero], dim=-1)
    turn = torch.stack([zero, uniform(-math.pi, math.pi), zero], dim=-1)
    orient = upright @ roma.rotvec_to_rotmat(tilt) @ roma.rotvec_to_rotmat(turn)
    drawn = sample_people(model, count, seed).parameters
    leaves = {"global_orient": roma.rotmat_to_rotvec(orient)[:, None], "body_pose": chosen[:, None]}
    people = drawn.replace(leaves | {"transl": torch.zeros(count, 1, 3, dtype=torch.float64)})
    focal = SIZE / 2 / torch.tan(torch.deg2rad(uniform(35.0, 70.0)) / 2)
    joints = model(people).joints[:, 0]
    low, high = joints.amin(1), joints.amax(1)
    depth = focal * ((high - low)[:, :2].amax(-1) + 0.3) / (0.75 * SIZE)
    place = torch.stack([zero, zero, depth], dim=-1) - (low + high) / 2
    people = people.replace({"transl": place[:, None]})
    camera = pinhole(focal, torch.full((count, 2), float(SIZE), dtype=torch.float64))
    return SyntheticPeople(people, camera, keypoints_of(model, people, camera, SIZE))


def observed(keypoints: Keypoints, noise: float, points: str, random: np.random.Generator) -> Keypoints:
    """Return what a detector would see: noise on every point, some points hidden, the focal length unknown."""
    shown = np.ones(len(keypoints.names))
    if points == "body":
        shown = np.array([part_of(name) in ("body", "feet") for name in keypoints.names], float)
    if points == "upper":
        shown = np.array([not any(leg in name for leg in _LEGS) for name in keypoints.names], float)
    moved = keypoints.points + random.normal(scale=noise, size=keypoints.points.shape)
    return Keypoints(keypoints.names, moved, keypoints.confidence * shown, keypoints.image_size)


def aligned_error(found: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean distance in mm after the best similarity transform (Procrustes)."""
    a, b = found - found.mean(0), truth - truth.mean(0)
    rotation, scale = orthogonal_procrustes(a, b)
    if np.linalg.det(rotation) < 0:
        u, s, v = np.linalg.svd(a.T @ b)
        rotation, scale = u @ np.diag([1, 1, -1]) @ v, s @ [1, 1, -1]
    return 1000 * float(np.linalg.norm(a @ rotation * (scale / (a**2).sum()) - b, axis=-1).mean())


def measure(model: SMPLFamilyModel, people: SyntheticPeople, evidence: list[Keypoints], arguments: dict) -> dict:
    """Return mean and median errors of one recipe."""
    begin = time.process_time()
    results = fitkit.fit(evidence, model=model, recipe=arguments["recipe"])
    seconds = time.process_time() - begin
    truth = model(people.parameters)
    joints, vertices = truth.joints[:, 0].numpy(), truth.vertices[:, 0].numpy()
    chosen = list(UPPER if arguments["points"] == "upper" else range(22))
    rows = []
    for row, result in enumerate(results):
        found, true = result.joints[chosen].astype(float), joints[row][chosen]
        given = torch.as_tensor(result.params["global_orient"])
        turned = roma.rotvec_geodesic_distance(given, people.parameters["global_orient"][row, 0])
        rows.append(
            (
                aligned_error(found, true),
                1000 * np.linalg.norm(found - found[0] - (true - true[0]), axis=-1).mean(),
                aligned_error(result.vertices[::7].astype(float), vertices[row][::7]),
                result.reprojection_px,
                100.0 * (float(turned) > math.pi / 2),
            )
        )
    names = ("PA-MPJPE", "MPJPE", "PA-V2V", "reprojection px", "facing wrong %")
    table = np.array(rows)
    report = {name: [float(table[:, k].mean()), float(np.median(table[:, k]))] for k, name in enumerate(names)}
    return arguments | report | {"cpu seconds per person": seconds / len(results)}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mocap", type=Path, required=True)
    parser.add_argument("--people", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--noise", type=float, nargs="*", default=[2.0])
    parser.add_argument("--points", nargs="*", default=["all", "body", "upper"], choices=["all", "body", "upper"])
    parser.add_argument("--recipes", nargs="*", default=["default", "smplifyx"])
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    model = load_model(ModelChoice("anny", "anny", dtype=torch.float64))
    people = held_out_people(model, arguments.mocap, arguments.people, arguments.seed)
    reports = []
    for noise in arguments.noise:
        for points in arguments.points:
            random = np.random.default_rng(arguments.seed)
            evidence = [observed(keypoints, noise, points, random) for keypoints in people.keypoints]
            for recipe in arguments.recipes:
                chosen = {"recipe": recipe, "points": points, "noise px": noise, "people": arguments.people}
                reports.append(measure(model, people, evidence, chosen))
                print(
                    *(
                        f"{key} {value[0]:.1f}/{value[1]:.1f}" if isinstance(value, list) else f"{key} {value}"
                        for key, value in reports[-1].items()
                    ),
                    sep=", ",
                    flush=True,
                )
    if arguments.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "accuracy.json").write_text(json.dumps(reports, indent=2) + "\n")


if __name__ == "__main__":
    main()
