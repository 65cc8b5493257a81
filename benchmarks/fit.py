"""The same fits by the published procedure and by fitkit's three solvers. Usage: python benchmarks/fit.py [--save].

Synthetic people with 118 keypoints each are fitted by (a) SMPLify-X's procedure as published, one person at a time, the
whole mesh at every evaluation (`published.py`); (b) L-BFGS, (c) Adam and (d) Levenberg-Marquardt of fitkit, in batches.
All answers are judged by one energy, the published last stage's, and by how far the body's joints are from the truth.
(a) takes so long that it fits a few people only; its rate is per person and has no batches to gain from. Whoever is
slow fits the first of the people that the others fit: energies are compared of the same people only.

On a GPU, in single precision: python benchmarks/fit.py --device cuda --batches 1 512 4096 --solvers LM --published 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from measure import Spent, arguments, machine, save, table, timed
from problems import NOISE, judge, make_model, make_people, problem_of, recipe
from published import PublishedFitter

from fitkit.api import choose_device
from fitkit.fitting import Fit, fit
from fitkit.models.smpl_family import SMPLFamilyModel
from fitkit.parameters import Parameters
from fitkit.people import Person
from fitkit.recipe import Recipe
from fitkit.solvers.base import Status

SOLVERS = {"L-BFGS, published stages": "smplifyx", "L-BFGS": "lbfgs", "Adam": "adam", "LM": "lm"}
"""Row of the table -> recipe."""
PUBLISHED = "published"
WARM, ENOUGH, ENOUGH_SLOW = 2, 16, 4
"""People fitted before the clock starts, and people over whom a small batch's time is averaged: LM's, all others'."""
COLUMNS = (
    "solver", "batch", "people", "ms a fit", "CPU ms a fit", "fits/s", "times (a)", "iterations", "energy", "joints mm",
    "PA mm", "energy, (a)'s people", "joints mm, (a)'s people", "best within 0.1 %",
)  # fmt: skip


def main() -> None:
    """Run the benchmark, print the table, and write it down where asked."""
    parser = arguments(__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64, 512])
    parser.add_argument("--published", type=int, default=5, help="people that the published procedure fits")
    parser.add_argument("--slow", type=int, default=64, help="largest batch of all solvers but LM")
    parser.add_argument("--solvers", nargs="+", default=list(SOLVERS), choices=list(SOLVERS))
    parser.add_argument("--noise", type=float, default=NOISE, help="deviation of keypoints, pixels of 1000")
    parser.add_argument("--single", action="store_true", help="single precision (always so on a GPU)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    dtype = torch.float32 if options.single or device != "cpu" else torch.float64
    model = make_model(dtype, device)
    people, truth = make_people(model, max(*options.batches, options.published), options.seed, options.noise)
    rows, quality = _ours(options, model, people, truth, device)
    if options.published:
        row, quality[PUBLISHED] = _published(options.published, model, people, truth, device)
        rows.insert(0, row)
    report = {"machine": machine(device), "settings": vars(options), "rows": _compared(rows, quality)}
    report["verdicts"] = _verdicts(rows, quality)
    print(table(rows, COLUMNS))
    print("\n".join(report["verdicts"]))
    if options.save:
        save("fit", report)


def _ours(
    options: argparse.Namespace, model: SMPLFamilyModel, people: Sequence[Person], truth: Parameters, device: str
) -> tuple[list[dict[str, Any]], dict[str, dict[str, np.ndarray]]]:
    """Return a row for each solver and batch, and each solver's answers to all the people that it fitted."""
    rows, quality = [], {}
    for label in options.solvers:
        chosen = recipe(SOLVERS[label])
        _solve(people[:WARM], model, chosen)
        for batch in options.batches:
            if batch > options.slow and label != "LM":
                continue
            row, found = _batch(label, chosen, model, people, truth, batch, device)
            rows.append(row)
            print(f"{label}, batch {batch}: {row['ms a fit']:.1f} ms a fit", flush=True)
            if label not in quality or len(found["energy"]) > len(quality[label]["energy"]):
                quality[label] = found
    return rows, quality


def _batch(
    label: str,
    chosen: Recipe,
    model: SMPLFamilyModel,
    people: Sequence[Person],
    truth: Parameters,
    batch: int,
    device: str,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the row of a solver at one batch size, and its answers."""
    count = max(batch, min(ENOUGH if label == "LM" else ENOUGH_SLOW, len(people)))
    answers, wall, cpu, statuses = [], 0.0, 0.0, []
    if device != "cpu":
        _solve(people[:batch], model, chosen)  # memory that a batch needs first is asked for once
    for first in range(0, count - count % batch, batch):
        some = people[first : first + batch]
        solved, spent = timed(lambda some=some: _solve(some, model, chosen), device, batch)
        wall, cpu = wall + spent.wall, cpu + spent.cpu
        part = truth.select(torch.arange(first, first + batch))
        answers.append(judge(solved.problem, solved.parameters, part) | {"iterations": solved.iterations.cpu().numpy()})
        statuses += solved.status.tolist()
    found = {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
    row = _row(label, batch, Spent(wall, cpu), found)
    return row | {"statuses": {Status(s).name.lower(): statuses.count(s) for s in set(statuses)}}, found


def _solve(people: Sequence[Person], model: SMPLFamilyModel, chosen: Recipe) -> Fit:
    return fit(problem_of(list(people), model, chosen), chosen.initialiser, chosen.stages)


def _published(
    count: int, model: SMPLFamilyModel, people: Sequence[Person], truth: Parameters, device: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the row of the published procedure over a few people, and its answers."""
    chosen = recipe("smplifyx")
    fitter = PublishedFitter(chosen, device)
    answers, wall, cpu, evaluations, overflows = [], 0.0, 0.0, 0, 0
    for row in range(count):
        problem = problem_of([people[row]], model, chosen)
        # All threads: this is how the published code runs.
        found, spent = timed(lambda problem=problem: fitter.fit(problem), device, 1 << 30)
        wall, cpu, evaluations = wall + spent.wall, cpu + spent.cpu, evaluations + found.evaluations
        overflows += found.overflows > 0
        here = found.parameters.map(lambda leaf: leaf.to(device=device, dtype=model.dtype))
        judged = judge(problem, here, truth.select(torch.tensor([row])))
        answers.append(judged | {"iterations": np.array([found.iterations])})
        print(f"published, person {row}: {spent.wall:.1f} s, {found.evaluations} evaluations", flush=True)
    found = {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
    row = _row(PUBLISHED, 1, Spent(wall, cpu), found)
    return row | {"evaluations": evaluations / count, "people with overflows": overflows}, found


def _row(label: str, batch: int, spent: Spent, found: dict[str, np.ndarray]) -> dict[str, Any]:
    count = len(found["energy"])
    return {
        "solver": label,
        "batch": batch,
        "people": count,
        "ms a fit": 1000 * spent.wall / count,
        "CPU ms a fit": 1000 * spent.cpu / count,
        "fits/s": count / spent.wall,
        "iterations": float(np.median(found["iterations"])),
        "energy": float(np.median(found["energy"])),
        "joints mm": float(np.median(found["rooted"])),
        "PA mm": float(np.median(found["aligned"])),
    }


def _compared(rows: list[dict[str, Any]], quality: dict[str, dict[str, np.ndarray]]) -> list[dict[str, Any]]:
    """Enter, into each row, its rate over the published one's, and its answers beside the others' to the same people.

    The share of the answers that are the best counts the people that all of fitkit's solvers fitted; the published
    procedure's answers are among the rivals where there are any.
    """
    count = min(len(found["energy"]) for name, found in quality.items() if name != PUBLISHED)
    best = np.full(count, np.inf)
    for found in quality.values():
        energy = found["energy"][:count]
        best[: len(energy)] = np.minimum(best[: len(energy)], energy)
    slow = next((row for row in rows if row["solver"] == PUBLISHED), None)
    for row in rows:
        found = quality[row["solver"]]
        energy = found["energy"][:count]
        row["compared"] = len(energy)
        row["best within 0.1 %"] = float((energy <= 1.001 * best[: len(energy)]).mean())
        if slow:
            row["times (a)"] = slow["ms a fit"] / row["ms a fit"]
            row["times (a), CPU"] = slow["CPU ms a fit"] / row["CPU ms a fit"]
            row["energy, (a)'s people"] = float(np.median(found["energy"][: slow["people"]]))
            row["joints mm, (a)'s people"] = float(np.median(found["rooted"][: slow["people"]]))
    return rows


def _verdicts(rows: list[dict[str, Any]], quality: dict[str, dict[str, np.ndarray]]) -> list[str]:
    """Return sentences: LM against the published procedure on the very people that both fitted."""
    lines = []
    if PUBLISHED in quality and "LM" in quality:
        theirs, ours = quality[PUBLISHED], quality["LM"]
        count = min(len(theirs["energy"]), len(ours["energy"]))
        for name in ("energy", "rooted", "aligned"):
            a, b = float(np.median(theirs[name][:count])), float(np.median(ours[name][:count]))
            lines.append(f"median {name} of the same {count} people: published {a:.1f}, LM {b:.1f}")
    lm = next((row for row in rows if row["solver"] == "LM"), None)
    if lm and len(quality) > 1:
        share = 100 * lm["best within 0.1 %"]
        lines.append(f"LM within 0.1 % of the best of all solvers: {share:.1f} % of {lm['compared']} people")
    for row in rows:
        if row["solver"] == "LM" and "times (a)" in row:
            ratio, cpu = row["times (a)"], row["times (a), CPU"]
            lines.append(f"LM at batch {row['batch']}: {ratio:.0f} times the published rate ({cpu:.0f} by CPU time)")
    return lines


if __name__ == "__main__":
    main()
