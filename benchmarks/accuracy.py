"""How far fits are from the truth in space, on synthetic people whose focal length the fitter does not know.

    python benchmarks/accuracy.py [--poses train.npz] [--people 96] [--cases all body] [--methods full] [--save]

People: poses are samples of the pose prior that ships or, with `--poses FILE`, frames of motion capture (layout:
`fitkit/training/motion_capture.py`), of clips alone that its split keeps from training. Shapes, hands, faces, headings
all round, camera pitch (0.15 rad deviation) and fields of view of 35 to 70 degrees are drawn; a person fills three
quarters of a picture of 1000 px. Each point's confidence is drawn from 0.5 to 1, and its noise is inversely
proportional to it, `--noise` pixels by root mean square along each axis. All is fixed by `--seed`.

Cases: `--help` lists them, `accuracy_cases.py` says exactly what each hides or spoils. Without `--cases` and `--noise`
every case is run at 2 px, and `all` at 0 and 5 px, too.

Methods: `published` is the published recipe (mean pose facing the camera, flip test, focal length 5000, five stages),
solved by our batched L-BFGS; `mean pose` the default recipe from the geometric start (`--init mean`); `full` the recipe
of `--recipe` as it stands; `network` that recipe's initialiser alone, nothing minimised. Any other word is a recipe:
the name of one that ships, or a yaml file. `--published N` adds the published procedure itself, one person at a time
through `smplx` (`published.py`), for the first N people of each case.

Errors: `accuracy_metrics.METRICS` defines them; the table shows "mean / median". Standard errors and 90th percentiles
are in the json that `--save` writes. The targets (`accuracy_targets.py`) are for 2 px and an unknown focal length.

From Python: `run(Settings(people=100, cases=("all",)), {"mine": fitted("mine.yaml")})`; a method is any function from a
list of `Keypoints`, one person each, to an `Estimate`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from accuracy_cases import CASES, Case, People, draw_people, observe
from accuracy_metrics import METRICS, Estimate, score, summarise
from accuracy_poses import captured_poses, prior_poses, read_frames
from accuracy_targets import TARGET_NOISE, comparisons, target_column
from measure import arguments, machine, save, table, timed
from problems import make_model
from published import PublishedFitter

import fitkit
from fitkit.api import choose_device
from fitkit.errors import FitkitError, UsageError
from fitkit.keypoints.containers import Keypoints
from fitkit.model_files import load_model
from fitkit.models.arrays import ModelChoice
from fitkit.models.smpl_family import SMPLFamilyModel
from fitkit.parameters import Parameters
from fitkit.people import Person, make_problem
from fitkit.recipe import Recipe, load_recipe
from fitkit.registry import did_you_mean

Method: TypeAlias = Callable[[Sequence[Keypoints]], Estimate]
Report: TypeAlias = Callable[[dict[str, Any]], None]
ONE_BY_ONE = "published, one by one"
"""The published procedure itself."""
COLUMNS = ("case", "noise px", "method", *METRICS, "CPU ms", "targets")
METHODS = ("published", "mean pose", "network", "full")
"""What is compared when no methods are named."""
GRID = (*((case, TARGET_NOISE) for case in CASES), ("all", 0.0), ("all", 5.0))
"""Cases and noises, pixels, that are run when none are named."""


@dataclass(frozen=True)
class Settings:
    """Who is fitted, and from what."""

    poses: Path | None = None
    """Motion capture whose held-out clips give the poses; None for samples of the pose prior."""
    people: int = 96
    """People in each case."""
    cases: tuple[str, ...] = ()
    """Names of cases; empty for all that these poses allow."""
    noises: tuple[float, ...] = ()
    """Pixels; empty for 2, and, for the case `all`, also 0 and 5 where no cases are named."""
    seed: int = 1
    """Of all that is drawn."""
    shape: float = 1.0
    """Standard deviation of the shape coefficients, of which the body's own population has 1."""
    known_focal: bool = False
    """Whether the fitter is told the true focal length."""
    published: int = 0
    """How many people of each case the published procedure itself fits, one by one."""
    device: str = "cpu"
    """Where the published procedure runs."""

    @property
    def grid(self) -> list[tuple[str, float]]:
        """Cases and noises to run, in order."""
        for name in self.cases:
            if name not in CASES:
                raise UsageError(f"Unknown case {name!r}.{did_you_mean(name, CASES)} Known: {', '.join(CASES)}.")
        if not self.cases and not self.noises:
            named = list(GRID)
        else:
            noises = self.noises or (TARGET_NOISE,)
            named = [(case, noise) for noise in noises for case in self.cases or CASES]
        if self.poses is None and not self.cases:
            named = [(case, noise) for case, noise in named if not CASES[case].needs_capture]
        return named


def run(settings: Settings, methods: Mapping[str, Method], report: Report | None = None) -> list[dict[str, Any]]:
    """Return a row per case, noise and method: `metrics` (name -> mean, median, ...), `errors` (P,), times, targets.

    Args:
        settings: who is fitted, and from what.
        methods: functions from evidence to estimates, by the names that their rows get.
        report: called with each row as soon as it is there.
    """
    model = load_model(ModelChoice("anny", "anny", dtype=torch.float64))
    draw = _People(settings, model)
    rows = []
    for name, noise in settings.grid:
        case = CASES[name]
        people = draw(case)
        evidence = observe(people, case, noise, settings.seed, settings.known_focal)
        tried = [(method, call, settings.people) for method, call in methods.items()]
        if settings.published:
            tried.append((ONE_BY_ONE, _one_by_one(settings.device), min(settings.published, settings.people)))
        for method, call, count in tried:
            chosen = people.first(count)
            found, times = _measured(call, evidence[:count])
            errors = score(model, chosen, case, evidence[:count], found)
            row = {"case": name, "noise px": noise, "method": method, "people": count}
            row |= {"known focal": settings.known_focal, "pose distance m": people.pose_distance}
            row |= times | {"non finite": int(found.failed.sum()), "metrics": summarise(errors), "errors": errors}
            row["targets"] = target_column(row)
            rows.append(row)
            if report:
                report(row)
    return rows


class _People:
    """Draws the people of each case; cases that differ in the evidence alone share them."""

    def __init__(self, settings: Settings, model: SMPLFamilyModel) -> None:
        self.settings, self.model = settings, model
        self.frames = read_frames(settings.poses, model) if settings.poses else None
        self.drawn: dict[tuple[Any, ...], People] = {}

    def __call__(self, case: Case) -> People:
        """Return the people of a case."""
        count, seed, key = self.settings.people, self.settings.seed, (case.far, case.captured_root, case.pitch)
        if key not in self.drawn:
            if self.frames is None:
                if case.needs_capture:
                    raise UsageError(f"{case.about[0].upper()}{case.about[1:]}: give motion capture, --poses FILE.")
                poses = prior_poses(count, seed)
            else:
                poses = captured_poses(self.frames, self.model, count, seed, case.far)
            self.drawn[key] = draw_people(self.model, poses, case, seed, self.settings.shape)
        return self.drawn[key]


def fitted(recipe: str | Path | Recipe, device: str = "cpu", **options: Any) -> Method:
    """Return the method that fits by a recipe, with the freedoms of the body that it names, as `fitkit fit` does.

    Args:
        recipe: a recipe, its name, or a yaml file.
        device: cpu (in double precision), cuda or mps.
        options: further arguments of `fitkit.fit`.
    """
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    freedoms = chosen.model
    dtype = torch.float64 if device == "cpu" else torch.float32
    sizes = (freedoms.betas, freedoms.expressions, freedoms.hand_components)
    model = load_model(ModelChoice("anny", "anny", "neutral", *sizes, dtype=dtype, device=device))

    def method(evidence: Sequence[Keypoints]) -> Estimate:
        return Estimate.from_results(fitkit.fit(list(evidence), model=model, recipe=chosen, device=device, **options))

    return method


def start_alone(recipe: str | Path | Recipe) -> Recipe:
    """Return a recipe that minimises nothing: of what the initialiser proposes, that of least energy stays."""
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    last = chosen.stages[-1]
    return replace(chosen, stages=(replace(last, name="start alone", free=(), propose=None, when="always"),))


def _one_by_one(device: str) -> Method:
    """Return the published procedure as a method."""
    recipe, model = load_recipe("smplifyx"), make_model()
    fitter = PublishedFitter(recipe, device)
    focal = recipe.camera.focal_length
    assert focal is not None

    def method(evidence: Sequence[Keypoints]) -> Estimate:
        found = [fitter.fit(make_problem([Person(one, 0, focal, "default")], model, recipe)) for one in evidence]
        leaves = {name: torch.cat([one.parameters[name] for one in found]) for name in found[0].parameters}
        parameters = Parameters(leaves).map(lambda leaf: leaf.to(model.dtype))
        iterations = torch.tensor([float(one.iterations) for one in found])
        return Estimate.from_parameters(model, parameters, torch.full((len(found),), focal), iterations)

    return method


def _measured(call: Method, evidence: Sequence[Keypoints]) -> tuple[Estimate, dict[str, float]]:
    """Return the estimate, and wall and CPU milliseconds a person (after a first call, where there are many)."""
    if len(evidence) > 16:
        call(evidence[:1])
    found, spent = timed(lambda: call(evidence), "cpu", len(evidence))
    each = 1000 / len(evidence)
    return found, {"wall ms": each * spent.wall, "CPU ms": each * spent.cpu}


def methods_of(options: argparse.Namespace) -> dict[str, Method]:
    """Return the methods that the command line asks for, by name."""
    known: dict[str, Callable[[], Method]] = {
        "published": lambda: fitted("smplifyx", options.device),
        "mean pose": lambda: fitted("default", options.device, init="mean"),
        "network": lambda: fitted(start_alone(options.recipe), options.device),
        "full": lambda: fitted(options.recipe, options.device),
    }
    return {name: known[name]() if name in known else fitted(name, options.device) for name in options.methods}


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as the table shows it: "mean / median", the targets."""
    cells = {name: f"{value['mean']:.1f} / {value['median']:.1f}" for name, value in row["metrics"].items()}
    for name in ("facing wrong", "iterations"):
        cells[name] = f"{row['metrics'][name]['mean']:.1f}"
    return row | cells | {"CPU ms": f"{row['CPU ms']:.0f}"}


def main() -> None:
    """Run the benchmark."""
    legend = "; ".join(f"{name}: {case.about}" for name, case in CASES.items())
    parser = arguments(__doc__)
    parser.epilog = f"Cases: {legend}."
    parser.set_defaults(seed=1, device="cpu", threads=1)
    parser.add_argument("--poses", type=Path, help="motion capture (npz); without it, samples of the pose prior")
    parser.add_argument("--people", type=int, default=96)
    parser.add_argument("--cases", nargs="*", default=[], help="by name; all of them by default")
    parser.add_argument("--noise", type=float, nargs="*", default=[], help="pixels; 2 by default")
    parser.add_argument("--methods", nargs="*", default=METHODS, help="names, or recipes")
    parser.add_argument("--recipe", default="default", help="the recipe of the method `full`")
    parser.add_argument("--shape", type=float, default=1.0, help="deviation of the shape coefficients")
    parser.add_argument("--known-focal", action="store_true", help="tell the fitter the true focal length")
    parser.add_argument("--published", type=int, default=0, help="people for the published procedure itself")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    try:
        options.device = choose_device(options.device)
        settings = Settings(
            options.poses, options.people, tuple(options.cases), tuple(options.noise), options.seed, options.shape,
            options.known_focal, options.published, options.device,
        )  # fmt: skip
        rows = run(
            settings, methods_of(options), lambda row: print(table([shown(row)], COLUMNS).splitlines()[-1], flush=True)
        )
    except FitkitError as error:
        parser.error(str(error))
    print("\n" + table([shown(row) for row in rows], COLUMNS) + "\n")
    print(*comparisons(rows), sep="\n")
    if options.save:
        kept = [{key: value for key, value in row.items() if key != "errors"} for row in rows]
        told = asdict(settings) | {"poses": options.poses.name if options.poses else "samples of the pose prior"}
        report = {
            "machine": machine(options.device),
            "settings": told,
            "recipe": str(options.recipe),
            "metrics": METRICS,
        }
        save("accuracy", report | {"cases": {name: CASES[name].about for name in CASES}, "rows": kept})


if __name__ == "__main__":
    main()
