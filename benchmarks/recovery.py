"""How well known people are recovered from their own noise-free keypoints.

    python benchmarks/recovery.py [--people 64] [--recipe default] [--yaw 0.6] [--model anny]

Prints the reprojection error at 1000 px, the error in space against the truth, solver statuses and the time; writes the
same to benchmarks/results/recovery.json with --save.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from synthetic import sample_people

import fitkit
from fitkit.api import choose_device
from fitkit.keypoints.conventions import correspondence
from fitkit.model_files import load_model
from fitkit.models.arrays import ModelChoice
from fitkit.models.smpl_family import SMPLFamilyModel
from fitkit.results import FitResult

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=64)
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--model", default="anny")
    parser.add_argument("--yaw", type=float, default=0.6, help="radians")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    model = load_model(ModelChoice(arguments.model, arguments.model, dtype=torch.float64, device=choose_device("auto")))
    people = sample_people(model, arguments.people, arguments.seed, yaw=arguments.yaw)
    begin = time.perf_counter()
    results = fitkit.fit(people.keypoints, model=model, recipe=arguments.recipe)
    seconds = time.perf_counter() - begin
    truth = model(people.parameters)
    joints = truth.joints[:, 0].numpy()
    pixels, space = [], []
    for row, result in enumerate(results):
        found = _landmarks(model, result)
        pixels.append(np.linalg.norm(result.camera.project(found) - result.points, axis=-1))
        space.append(1000 * np.linalg.norm(result.joints - joints[row], axis=-1)[:22].mean())
    medians = np.array([np.median(row) for row in pixels])
    report = {
        "people": arguments.people,
        "recipe": arguments.recipe,
        "yaw": arguments.yaw,
        "reprojection_median_px": float(np.median(np.concatenate(pixels))),
        "reprojection_worst_person_median_px": float(medians.max()),
        "reprojection_worst_person_mean_px": float(max(row.mean() for row in pixels)),
        "people_above_2px": int((medians > 2).sum()),
        "joints_mean_mm": float(np.mean(space)),
        "status": dict(Counter(result.status for result in results)),
        "iterations_median": float(np.median([result.iterations for result in results])),
        "seconds": seconds,
        "milliseconds_per_person": 1000 * seconds / len(results),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    for key, value in report.items():
        print(f"{key:40s} {value:.3f}" if isinstance(value, float) else f"{key:40s} {value}")
    if arguments.save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "recovery.json").write_text(json.dumps(report, indent=2) + "\n")


def _landmarks(model: SMPLFamilyModel, result: FitResult) -> np.ndarray:
    """Return the fitted body's landmarks (K, 3) for the result's keypoints, from its mesh and joints."""
    found = correspondence(result.names, model.landmark_names)
    rows = []
    for name in (model.landmark_names[i] for i in found.indices):
        if name in model.surface:
            vertices, weights = model.surface[name]
            rows.append(weights.numpy() @ result.vertices[vertices.numpy()])
        else:
            rows.append(result.joints[model.joint_names.index(name.removeprefix("joint/"))])
    return np.array(rows)


if __name__ == "__main__":
    main()
