"""Train the learned pose priors from motion capture: priors/data/{student,gaussian_mixture,joint_limits}.npz, a card.

    python tools/train_pose_prior.py --data train.npz [--out priors/data] [--seed 0] [--quick]

The data: `poses (N, 22, 3)` local axis-angle against an ideal T-pose, `parents`, `source`, `clip`, optionally `weight`
(see `fitkit.training.motion_capture`). Takes some five minutes of one core. Same data, seed and versions: same numbers.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from mocap_prior import card
from torch import Tensor

from fitkit.priors.gaussian_mixture import GaussianMixturePosePrior
from fitkit.priors.joint_limits import JointLimits
from fitkit.priors.mirror import mirrored
from fitkit.priors.relaxed import RelaxedPosePrior
from fitkit.training.mixture import Mixture, Settings, completed, fit, negative_log_likelihood
from fitkit.training.motion_capture import RARE, Poses, load_poses

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = ROOT / "fitkit/models/data/anny_neutral.npz"
CHOSEN = Settings(components=32, degrees=20.0, floor=0.08, shrinkage=200.0, iterations=15)
TRIED_COMPONENTS = (1, 8, 16, 24, 32)
TRIED_DEGREES = (math.inf, 50.0, 20.0, 8.0)
RARELY, MARGIN = 0.002, 0.05
"""Share of the weighted frames that lie beyond either limit before it is widened, and by how many radians it is."""


def main() -> None:
    """Train, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "priors/data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="few components and frames, to test the script")
    options = parser.parse_args()
    with np.load(TEMPLATE, allow_pickle=False) as file:
        joints_rest = file["J_template"].astype(float)
    poses = load_poses(options.data, joints_rest)
    settings = replace(CHOSEN, components=4, iterations=4) if options.quick else CHOSEN
    subset, used = (800, 800) if options.quick else (15000, 60000)
    train = sample(poses, ~poses.held_out, used, options.seed)
    held = sample(poses, poses.held_out, used, options.seed)

    def score(model: Mixture) -> float:
        return weighted_mean(negative_log_likelihood(model, held.body_pose), held.weight)

    def trained(rows: Poses, chosen: Settings) -> Mixture:
        return fit(rows.body_pose, rows.weight, chosen, torch.Generator().manual_seed(options.seed))

    part = sample(poses, ~poses.held_out, subset, options.seed)
    selection = [] if options.quick else select(lambda chosen: score(trained(part, chosen)), settings)
    densities = {
        "relaxed": relaxed_density(),
        "single Gaussian": trained(train, replace(settings, components=1, degrees=math.inf)),
        "student": trained(train, replace(settings, components=1)),
        "mixture": trained(train, settings),
    }
    arrays = {"student": density_arrays(densities["student"]), "gaussian_mixture": density_arrays(densities["mixture"])}
    arrays["joint_limits"] = limit_arrays(poses)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, content in arrays.items():
        np.savez(options.out / f"{name}.npz", **content)
    scores = [
        (name, score(model), weighted_mean(negative_log_likelihood(model, part.body_pose), part.weight))
        for name, model in densities.items()
    ]
    facts = {
        "scores": card.table(("density", "held out", "training"), scores),
        "selection": card.table(("components", "degrees of freedom", "held out"), selection),
        **measured(densities["mixture"], arrays, held, options.seed),
        **sizes(poses),
        "components": settings.components,
        "degrees": settings.degrees,
        "floor": settings.floor,
        "iterations": settings.iterations,
        "used": len(train.weight),
        "subset": subset,
        "seed": options.seed,
        "rare": RARE,
        "command": f"`python tools/train_pose_prior.py --data train.npz --seed {options.seed}`",
    }
    card.write_card(options.out / "README.md", facts)
    print(facts["scores"], facts["energies"], sep="\n")


def sample(poses: Poses, keep: Tensor, count: int, seed: int) -> Poses:
    """Return at most `count` of the frames to keep, drawn without regard to their weights."""
    rows = keep.nonzero()[:, 0]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    return poses.select(rows[order[:count]])


def weighted_mean(values: Tensor, weight: Tensor) -> float:
    """Return the mean of rows by their weights."""
    return float((values * weight).sum() / weight.sum())


def select(score: Callable[[Settings], float], settings: Settings) -> list[tuple[object, ...]]:
    """Return (components, degrees, held-out score) of what was tried."""
    tried = [replace(settings, components=count) for count in TRIED_COMPONENTS]
    tried += [replace(settings, degrees=nu) for nu in TRIED_DEGREES if nu != settings.degrees]
    rows: list[tuple[object, ...]] = []
    for chosen in tried:
        rows.append((chosen.components, f"{chosen.degrees:g}", score(chosen)))
        print(*rows[-1], flush=True)
    return rows


def density_arrays(mixture: Mixture) -> dict[str, np.ndarray]:
    """Return the arrays of a weights file: one of each mirrored pair, lower triangles of the whitening matrices."""
    half = max(1, len(mixture.weights) // 2)
    factors = torch.linalg.cholesky(mixture.scales[:half])
    whitening = torch.linalg.solve_triangular(factors, torch.eye(63).expand(half, -1, -1), upper=False)
    rows, columns = torch.tril_indices(63, 63)
    return {
        "means": mixture.means[:half].numpy(),
        "whitening": whitening[:, rows, columns].numpy(),
        "weights": mixture.weights[:half].numpy(),
        "degrees": np.array(mixture.degrees, np.float32),
        "paired": np.array(len(mixture.weights) > 1),
    }


def limit_arrays(poses: Poses) -> dict[str, np.ndarray]:
    """Return lower and upper limit and the weighted mean of all poses, (63,) each, symmetric."""
    both = torch.cat([poses.body_pose, mirrored(poses.body_pose)]).numpy()
    weight = poses.weight.repeat(2).numpy()
    columns = []
    for column in both.T:
        order = np.argsort(column[np.isfinite(column)])
        values, mass = (array[np.isfinite(column)][order] for array in (column, weight))
        # Half of a frame's own weight lies below it: so counted, mirrored columns have mirrored limits.
        share = (np.cumsum(mass, dtype=np.float64) - mass / 2) / mass.sum(dtype=np.float64)
        low, high = np.interp([RARELY, 1 - RARELY], share, values)
        columns.append((low - MARGIN, high + MARGIN, (values * mass).sum() / mass.sum()))
    return dict(zip(("lower", "upper", "mean"), np.array(columns, np.float32).T, strict=True))


def relaxed_density() -> Mixture:
    """Return the analytic prior as a Gaussian density, without its walls."""
    prior = RelaxedPosePrior()
    deviation = 1 / prior.linearise(prior.mean[None])[1][0, :63].diagonal()
    return Mixture(torch.ones(1), prior.mean[None], deviation.square().diag()[None], 0.0, math.inf)


def measured(mixture: Mixture, arrays: dict, held: Poses, seed: int) -> dict[str, object]:
    """Return percentiles of the priors' energies over held-out poses, and the share of angles within the limits."""
    pose = completed(mixture, held.body_pose, torch.Generator().manual_seed(seed))
    drawn = pose[torch.multinomial(held.weight, 20000, replacement=True, generator=torch.Generator().manual_seed(seed))]
    tensors = {name: {k: torch.from_numpy(v) for k, v in content.items()} for name, content in arrays.items()}
    priors = {
        "relaxed": RelaxedPosePrior(),
        "student": GaussianMixturePosePrior.from_arrays(tensors["student"]),
        "mixture": GaussianMixturePosePrior.from_arrays(tensors["gaussian_mixture"]),
        "joint_limits": JointLimits.from_arrays(tensors["joint_limits"]),
    }
    rows = []
    for name, prior in priors.items():
        energy = torch.cat([prior.residual(chunk).square().sum(-1) for chunk in drawn.split(1000)])
        quantiles = energy.quantile(torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95, 0.99])).tolist()
        rows.append((name, float(energy.mean()), *quantiles))
    header = ("prior", "mean", "5 %", "25 %", "50 %", "75 %", "95 %", "99 %")
    inside = (priors["joint_limits"].residual(drawn) == 0).float().mean()
    return {"energies": card.table(header, rows), "inside": 100 * float(inside)}


def sizes(poses: Poses) -> dict[str, object]:
    """Return numbers of frames and clips."""
    return {
        "frames": len(poses.weight),
        "clips": len(np.unique(poses.clip)),
        "held_frames": int(poses.held_out.sum()),
        "held_clips": len(np.unique(poses.clip[poses.held_out.numpy()])),
    }


if __name__ == "__main__":
    main()
