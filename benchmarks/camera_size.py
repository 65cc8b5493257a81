"""What knowing a person's height or the focal length buys, and what people of one photo tell of it together.

    python benchmarks/camera_size.py [--poses train.npz] [--people 96] [--recipe default] [--save]

People and keypoints are those of `accuracy.py`'s case `all` at 2 px. First each is alone in a picture, and the fitter
is told nothing, the true height, the true focal length (35 to 70 degrees of field of view), or both. Then threes of
them stand before the camera of the first, and are fitted in one picture, alone, or with 50 degrees assumed.

Prints, and writes benchmarks/results/camera_size.json with --save: height (root mean square, mm), focal length and
distance of the pelvis (median, %), distances of three people relative to each other (deviation, %), root-aligned joint
error (mean, mm), and the calibration of focal lengths' deviations (root mean square of error over deviation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy_cases import CASES, People, draw_people, observe
from accuracy_poses import captured_poses, prior_poses, read_frames
from measure import arguments, machine, save, table

import fitkit
from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.conventions import correspondence
from fitkit.model_files import load_model
from fitkit.models.arrays import ModelChoice
from fitkit.models.smpl_family import SMPLFamilyModel
from fitkit.results import FitResult

NOISE = 2.0
"""Pixels."""
TOGETHER = 3
"""People of one picture."""
BODY = 22
"""Joints without hands and face."""


def figures(model: SMPLFamilyModel, people: People, results: Sequence[FitResult]) -> dict[str, Any]:
    """Return the errors of fits."""
    true = model(people.parameters).joints[:, 0].numpy()
    found = np.stack([result.joints.astype(float) for result in results])
    betas = torch.tensor(np.stack([result.params["betas"] for result in results]))
    tall = (model.standing_height(betas)[0] - model.standing_height(people.parameters["betas"][:, 0])[0]).numpy()
    focal = np.array([result.camera.focal_length for result in results])
    off = np.log(focal / people.camera.focal_length[:, 0, 0].numpy())
    known = np.array([result.camera.focal_deviation or np.nan for result in results]) / focal
    far = np.log(found[:, 0, 2] / true[:, 0, 2])
    apart = far.reshape(-1, TOGETHER) - far.reshape(-1, TOGETHER).mean(1, keepdims=True)
    rooted = found - found[:, :1] - (true - true[:, :1])
    scores = (off / known)[np.isfinite(known)]
    return {
        "height mm": 1000 * float(np.sqrt((tall**2).mean())),
        "focal %": 100 * float(np.median(np.abs(np.expm1(off)))),
        "distance %": 100 * float(np.median(np.abs(np.expm1(far)))),
        "relative distance %": 100 * float(apart.std()),
        "MPJPE mm": 1000 * float(np.linalg.norm(rooted[:, :BODY], axis=-1).mean()),
        "focal error / deviation": float(np.sqrt((scores**2).mean())) if len(scores) else None,
        "refined %": 100 * float(np.mean([result.camera.focal_source == "refined" for result in results])),
    }


def before_one_camera(people: People, model: SMPLFamilyModel) -> People:
    """Return the people with the focal length of the first of each three, moved so as to look as large."""
    focal = people.camera.focal_length[:, 0, 0]
    first = focal.reshape(-1, TOGETHER)[:, :1].expand(-1, TOGETHER).reshape(-1)
    depth = model(people.parameters).joints[:, 0, 0, 2]
    place = people.parameters["transl"].clone()
    place[:, 0, 2] += depth * (first / focal - 1)
    moved = people.parameters.replace({"transl": place})
    camera = people.camera.with_focal_length(first[:, None, None])
    landmarks = tuple(model.landmark_names[i] for i in correspondence(people.names, model.landmark_names).indices)
    points = camera.project(model(moved).landmarks(landmarks))[:, 0].numpy()
    return replace(people, parameters=moved, camera=camera, points=points)


def _pictures(evidence: Sequence[Keypoints]) -> list[Keypoints]:
    """Return pictures of three people each."""
    pictures = []
    for start in range(0, len(evidence), TOGETHER):
        part = evidence[start : start + TOGETHER]
        points, confidence = (np.concatenate([getattr(one, name) for one in part]) for name in ("points", "confidence"))
        pictures.append(replace(part[0], points=points, confidence=confidence))
    return pictures


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.set_defaults(seed=1)
    parser.add_argument("--poses", type=Path, help="motion capture (npz); without it, samples of the pose prior")
    parser.add_argument("--people", type=int, default=96, help="a multiple of three")
    parser.add_argument("--recipe", default="default")
    options = parser.parse_args()
    if options.people < 1 or options.people % TOGETHER:
        parser.error(f"--people must be a multiple of {TOGETHER}; got {options.people}.")
    torch.set_num_threads(options.threads)
    case, model = CASES["all"], load_model(ModelChoice("anny", "anny", dtype=torch.float64))
    if options.poses:
        poses = captured_poses(read_frames(options.poses, model), model, options.people, options.seed)
    else:
        poses = prior_poses(options.people, options.seed)
    people = draw_people(model, poses, case, options.seed)
    tall = model.standing_height(people.parameters["betas"][:, 0])[0].tolist()
    rows: list[dict[str, Any]] = []

    def fit(name: str, who: People, pictures: list[Keypoints], **told: Any) -> None:
        results = fitkit.fit(pictures, model=model, recipe=options.recipe, **told)
        rows.append({"told": name} | figures(model, who, results))
        print(table(rows[-1:], list(rows[0])).splitlines()[-1], flush=True)

    blind, seeing = (observe(people, case, NOISE, options.seed, known_focal=known) for known in (False, True))
    fit("nothing", people, blind)
    fit("height", people, blind, height=tall)
    fit("focal length", people, seeing)
    fit("both", people, seeing, height=tall)
    together = before_one_camera(people, model)
    evidence = observe(together, case, NOISE, options.seed)
    fit("three in one picture", together, _pictures(evidence))
    fit("the same, alone", together, evidence)
    fit("the same, 50 degrees assumed", together, _pictures(evidence), fov=50.0)
    print("\n" + table(rows, list(rows[0])))
    if options.save:
        told = {"people": options.people, "seed": options.seed, "noise px": NOISE, "recipe": options.recipe}
        told["poses"] = options.poses.name if options.poses else "samples of the pose prior"
        save("camera_size", {"machine": machine("cpu"), "settings": told, "rows": rows})


if __name__ == "__main__":
    main()
