"""Ten thousand random problems, degenerate ones among them: what ends how, and whether anything is not finite.

    python benchmarks/degenerate.py [--problems 10000] [--batch 64] [--save]

Synthetic people are fitted by the default recipe in mixed batches, in double and in single precision. A third are good
evidence; the others are spoilt in one of the ways that `SPOILT` names, or start from nowhere (`ASTRAY`). Counted are
problems with a number in their result that is not finite, statuses for each kind, good people whose answer differs
from that of the same person fitted alone, and ends that claim a minimum although the last stage, begun anew, falls on.
In single precision rounding alone now and then decides between hypotheses that are almost equally good, so that only
double precision promises the same answer.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from measure import arguments, machine, save, table
from synthetic import sample_people

from fitkit.api import choose_device
from fitkit.fitting import Fit, fit
from fitkit.initialisers.given import GivenInitialiser
from fitkit.keypoints.containers import Keypoints
from fitkit.model_files import load_model
from fitkit.models.arrays import ModelChoice
from fitkit.models.smpl_family import SMPLFamilyModel
from fitkit.parameters import Parameters
from fitkit.people import Person, make_problem, make_results
from fitkit.problem import Initialiser, Problem, Proposal
from fitkit.recipe import Recipe, load_recipe
from fitkit.results import FitResult
from fitkit.solvers.base import Status
from fitkit.terms.reprojection import Reprojection

Random = np.random.Generator
SIZE, SAME, FURTHER = 1000, 1e-4, 0.01
"""Side of the pictures in pixels; largest difference of an answer from the same person's alone, float64 (metres,
radians); share by which an energy may still fall after an end that claims a minimum."""
GOOD_SHARE = 1 / 3


def _only(keypoints: Keypoints, kept: np.ndarray) -> Keypoints:
    shown = np.zeros(len(keypoints.names))
    shown[kept] = 1.0
    return replace(keypoints, confidence=keypoints.confidence * shown)


def _some(keypoints: Keypoints, random: Random, value: float) -> Keypoints:
    """Return the keypoints with a random share of their numbers replaced, confidence left as it is."""
    spoilt = random.random(keypoints.points.shape) < random.uniform(0.05, 1.0)
    return replace(keypoints, points=np.where(spoilt, value, keypoints.points))


def _resized(keypoints: Keypoints, factor: float, size: tuple[int, int]) -> Keypoints:
    focal = factor * float(keypoints.focal_length or SIZE)
    return replace(keypoints, points=factor * keypoints.points, image_size=size, focal_length=focal)


def _confidence(keypoints: Keypoints, value: np.ndarray | float) -> Keypoints:
    return replace(keypoints, confidence=keypoints.confidence * value)


def _points(keypoints: Keypoints, points: np.ndarray) -> Keypoints:
    return replace(keypoints, points=np.broadcast_to(points, keypoints.points.shape))


def _world(keypoints: Keypoints, random: Random, size: float) -> Keypoints:
    return replace(keypoints, world=size * random.standard_normal((*keypoints.points.shape[:2], 3)))


SPOILT: dict[str, Callable[[Keypoints, Random], Keypoints]] = {
    "one keypoint": lambda k, r: _only(k, r.integers(len(k.names), size=1)),
    "two keypoints": lambda k, r: _only(k, r.integers(len(k.names), size=2)),
    "three keypoints": lambda k, r: _only(k, r.integers(len(k.names), size=3)),
    "a tenth of the keypoints": lambda k, r: _only(k, np.flatnonzero(r.random(len(k.names)) < 0.1)),
    "all points equal": lambda k, r: _points(k, r.uniform(0, SIZE, 2)),
    "all points on a line": lambda k, r: _points(k, k.points * r.permutation([0.0, 1.0])),
    "all points at the origin": lambda k, _: _points(k, np.zeros(2)),
    "zero confidence": lambda k, _: _confidence(k, 0.0),
    "tiny confidence": lambda k, r: _confidence(k, 10.0 ** r.uniform(-320, -3)),
    "random confidence": lambda k, r: _confidence(k, r.random(len(k.names)) ** 4),
    "a million pixels away": lambda k, r: _points(k, k.points + 1e6 * r.choice([-1.0, 1.0], 2)),
    "some a million pixels away": lambda k, r: _some(k, r, 1e6),
    "some 1e30 pixels away": lambda k, r: _some(k, r, float(r.choice([-1e30, 1e30]))),
    "NaN": lambda k, r: _some(k, r, np.nan),
    "infinite": lambda k, r: _some(k, r, float(r.choice([-np.inf, np.inf]))),
    "a picture of one pixel": lambda k, _: _resized(k, 1 / SIZE, (1, 1)),
    "a picture of a million pixels": lambda k, _: _resized(k, 1e3, (1000 * SIZE, 1000 * SIZE)),
    "one pixel, points as they were": lambda k, _: replace(k, image_size=(1, 1), focal_length=1.2),
    "absurd focal length": lambda k, r: replace(k, focal_length=float(10.0 ** r.choice([-6, -3, -1, 1, 6, 9, 12]))),
    "mirrored": lambda k, _: _points(k, k.points * (-1, 1) + (SIZE, 0)),
    "upside down": lambda k, _: _points(k, SIZE - k.points),
    "a pixel tall": lambda k, _: _points(k, k.points / SIZE),
    "random points": lambda k, r: _points(k, r.uniform(0, SIZE, k.points.shape)),
    "left for right": lambda k, r: _points(k, k.points[:, r.permutation(len(k.names))]),
    "nonsense in space": lambda k, r: _world(k, r, float(10.0 ** r.choice([-30, -3, 0, 3, 30]))),
}
"""How evidence is spoilt."""
ASTRAY: dict[str, Callable[[Parameters], Parameters]] = {
    "behind the camera at the start": lambda p: p.replace({"transl": p["transl"] * -1.0}),
    "in the camera at the start": lambda p: p.replace({"transl": p["transl"] * 0.0}),
    "a kilometre away at the start": lambda p: p.replace({"transl": p["transl"] * 300.0}),
    "pose of many turns at the start": lambda p: p.replace({"body_pose": p["body_pose"] + 40.0}),
    "monstrous shape at the start": lambda p: p.replace({"betas": p["betas"] + 50.0}),
}
"""How starts are spoilt; the evidence is good."""
KINDS = ("good", *SPOILT, *ASTRAY)


@dataclass(frozen=True)
class Astray:
    """Another initialiser's proposal, spoilt for some problems."""

    usual: Initialiser
    """The initialiser."""
    kinds: tuple[str, ...]
    """Kind of each problem."""

    def __call__(self, problem: Problem) -> Proposal:
        """Return the proposal; every hypothesis of a spoilt problem is spoilt."""
        proposal = self.usual(problem)
        parameters = proposal.parameters
        for name in sorted(ASTRAY.keys() & set(self.kinds)):
            chosen = torch.tensor([kind == name for kind in self.kinds], device=parameters["transl"].device)
            parameters = ASTRAY[name](parameters).where(chosen.repeat_interleave(proposal.hypotheses), parameters)
        return replace(proposal, parameters=parameters)


@dataclass(frozen=True)
class Mixed:
    """A batch of people, good and bad."""

    kinds: tuple[str, ...]
    """Kind of each."""
    people: tuple[Person, ...]
    """Who is to be fitted."""

    def solve(self, model: SMPLFamilyModel, recipe: Recipe) -> tuple[Fit, list[FitResult]]:
        """Return the fit of all, and the results that users get."""
        problem = make_problem(self.people, model, recipe)
        solved = fit(problem, Astray(recipe.initialiser, self.kinds), recipe.stages)
        return solved, make_results(self.people, model, recipe, solved)

    def select(self, rows: Sequence[int]) -> Mixed:
        """Return some of the people."""
        return Mixed(tuple(self.kinds[row] for row in rows), tuple(self.people[row] for row in rows))


def mixed_batch(model: SMPLFamilyModel, kinds: Sequence[str], seed: int) -> Mixed:
    """Return a batch of synthetic people, turned any way, spoilt as their kinds say."""
    random = np.random.default_rng(seed)
    people = []
    for kind, keypoints in zip(kinds, sample_people(model, len(kinds), seed, yaw=3.1).keypoints, strict=True):
        noisy = replace(keypoints, points=keypoints.points + 2.0 * random.standard_normal(keypoints.points.shape))
        with np.errstate(all="ignore"):
            spoilt = SPOILT[kind](noisy, random) if kind in SPOILT else noisy
        focal = float(spoilt.focal_length or SIZE)
        # The two ways in which users give people: a known focal length, or one that is refined.
        people.append(Person(spoilt, 0, focal, "default", refine_focal=True))
    return Mixed(tuple(kinds), tuple(people))


def random_kinds(count: int, random: Random) -> list[str]:
    """Return kinds of which so many are good as `GOOD_SHARE` says, the others any."""
    bad = random.random(count) > GOOD_SHARE
    return [str(kind) if spoilt else "good" for kind, spoilt in zip(random.choice(KINDS[1:], count), bad, strict=True)]


def not_finite(result: FitResult) -> list[str]:
    """Return the fields of a result that hold a number which is not finite."""
    arrays = {
        **result.params,
        "vertices": result.vertices,
        "joints": result.joints,
        "joint_deviation": result.joint_deviation,
        "intrinsics": result.camera.intrinsics,
        "points": result.points,
        "confidence": result.confidence,
        "energies": np.array(list(result.energies.values())),
        "reprojection": np.array(list(result.reprojection.values())),
        "height_px": np.array(result.height_px),
    }
    return [name for name, values in arrays.items() if not np.isfinite(values).all()]


def difference(first: FitResult, second: FitResult) -> float:
    """Return the largest difference of two results' parameters (metres, radians, deviations)."""
    return max(float(np.abs(first.params[name] - second.params[name]).max()) for name in first.params)


def falls_further(solved: Fit, recipe: Recipe) -> tuple[list[bool], list[bool]]:
    """Return which rows claim a minimum of the last stage, and which of these fall on when it is begun anew.

    The stage's own energy adapts to where the stage begins; here it must not, so that both runs mean the same.
    """
    last = recipe.stages[-1]
    terms = [
        replace(entry, term=replace(entry.term, adaptive=False)) if isinstance(entry.term, Reprojection) else entry
        for entry in last.terms
    ]
    last = replace(last, terms=tuple(terms), when="always")
    first = fit(solved.problem, GivenInitialiser(solved.parameters), [last])
    again = fit(solved.problem, GivenInitialiser(first.parameters), [last])
    before, after = (torch.stack(list(found.energies.values())).sum(0) for found in (first, again))
    claimed = (first.status == Status.CONVERGED) | (first.status == Status.STALLED)
    return claimed.tolist(), (claimed & (before - after > FURTHER * before.abs())).tolist()


class Tally:
    """What happened in one precision."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.statuses: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
        self.unfinished: Counter[str] = Counter()
        self.failures: list[str] = []
        self.differences: list[float] = []
        self.falling: Counter[str] = Counter()
        self.claims = 0

    def add(self, batch: Mixed, results: Sequence[FitResult]) -> None:
        """Count a batch's results."""
        for kind, result in zip(batch.kinds, results, strict=True):
            self.statuses[kind][result.status] += 1
            wrong = not_finite(result)
            if wrong:
                self.unfinished[kind] += 1
                self.failures.append(f"{kind}: {', '.join(wrong)} not finite, status {result.status}")

    def report(self, seconds: float) -> dict[str, Any]:
        """Return all counts as plain data."""
        total = sum(sum(counts.values()) for counts in self.statuses.values())
        return {
            "problems": total,
            "not finite": sum(self.unfinished.values()),
            "failures": sorted(set(self.failures)),
            "good people compared with their fit alone": len(self.differences),
            "median difference": float(np.median(self.differences or [0.0])),
            "largest difference": max(self.differences, default=0.0),
            "differing by more than 1e-4": sum(one > SAME for one in self.differences),
            "ends that claim a minimum, tried anew": self.claims,
            "of these, fell on by more than 1 %": dict(self.falling),
            "CPU ms a problem": 1000 * seconds / max(1, total),
            "statuses": {kind: dict(counts) for kind, counts in self.statuses.items()},
        }


def run(dtype: torch.dtype, problems: int, batch: int, seed: int, device: str, check: int) -> dict[str, Any]:
    """Return what happened to so many problems; of every `check`-th batch, rows are compared and ends are tried."""
    model = load_model(ModelChoice("anny", "anny", dtype=dtype, device=device))
    sampler = load_model(ModelChoice("anny", "anny", dtype=torch.float64))
    recipe, tally, spent = load_recipe("default"), Tally(), 0.0
    random = np.random.default_rng(seed)
    for number, first in enumerate(range(0, problems, batch)):
        kinds = random_kinds(min(batch, problems - first), random)
        mixed = mixed_batch(sampler, kinds, seed + first)
        began = time.process_time()
        solved, results = mixed.solve(model, recipe)
        spent += time.process_time() - began
        tally.add(mixed, results)
        if number % check == 0:
            _check(mixed, solved, results, (model, recipe), tally)
        done = first + len(kinds)
        lost = sum(tally.unfinished.values())
        print(f"{dtype}: {done} problems, {lost} not finite, {1000 * spent / done:.0f} CPU ms each", flush=True)
    return tally.report(spent)


def _check(
    mixed: Mixed, solved: Fit, results: Sequence[FitResult], how: tuple[SMPLFamilyModel, Recipe], tally: Tally
) -> None:
    """Compare two good people with their fits alone, and begin the last stage anew."""
    good = [row for row, kind in enumerate(mixed.kinds) if kind == "good"][:2]
    for row in good:
        (alone,) = mixed.select([row]).solve(*how)[1]
        tally.differences.append(difference(results[row], alone))
    claimed, falling = falls_further(solved, how[1])
    tally.claims += sum(claimed)
    tally.falling.update(kind for kind, fell in zip(mixed.kinds, falling, strict=True) if fell)


def main() -> None:
    """Run the benchmark in both precisions."""
    parser = arguments(__doc__)
    parser.add_argument("--problems", type=int, default=10000, help="in each precision")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--check", type=int, default=8, help="every how many batches rows are compared with others")
    parser.add_argument("--precisions", nargs="+", default=["float64", "float32"], choices=["float64", "float32"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    found = {
        name: run(getattr(torch, name), options.problems, options.batch, options.seed, device, options.check)
        for name in options.precisions
    }
    names = [
        "problems",
        "not finite",
        "median difference",
        "largest difference",
        "differing by more than 1e-4",
        "CPU ms a problem",
    ]
    rows = [{"precision": name, **{key: counts[key] for key in names}} for name, counts in found.items()]
    print(table(rows, ["precision", *names]))
    for name, counts in found.items():
        print(name, *counts["failures"], f"fell on: {counts['of these, fell on by more than 1 %']}", sep="\n  ")
    if options.save:
        save("degenerate", {"machine": machine(device), "settings": vars(options), **found})


if __name__ == "__main__":
    main()
