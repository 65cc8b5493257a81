"""Cost a person against the size of the batch and against their number. Usage: python benchmarks/scaling.py [--save].

Batches: the same few synthetic people (118 keypoints, focal length unknown) are fitted again and again, so that every
person costs the same work whatever the batch: users' way, from keypoints to results. Batch sizes take turns, and the
least time of each counts. Stream: `fitkit.fit_stream` over a generator of people that are never held together; the
rate and the resident memory of each quarter of the stream say whether they stay as they are, and if so what 100,000
take. --full fits all the 100,000 instead. Times are processor time on a CPU, the clock's on a GPU.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from measure import arguments, machine, save, table, timed
from synthetic import sample_people

import fitkit
from fitkit.api import choose_device
from fitkit.keypoints.containers import Keypoints
from fitkit.model_files import load_model
from fitkit.models.arrays import ModelChoice
from fitkit.models.smpl_family import SMPLFamilyModel
from fitkit.people import Person, fit_people
from fitkit.recipe import load_recipe

DIFFERENT = 32
"""Different people; batches repeat them."""
ALL = 100_000
ALLOWED = 1.05
"""Times that doubling the batch may raise the cost a person."""


def main() -> None:
    """Run both parts, print them, and write them down where asked."""
    parser = arguments(__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024])
    parser.add_argument("--repeats", type=int, default=3, help="times that each batch size takes its turn")
    parser.add_argument("--least", type=int, default=DIFFERENT, help="people of a turn, at least")
    parser.add_argument("--stream", type=int, default=4096, help="people streamed; 0 for none")
    parser.add_argument("--full", action="store_true", help=f"stream {ALL} people")
    parser.add_argument("--recipe", default="default")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    dtype = torch.float64 if device == "cpu" else torch.float32
    model = load_model(ModelChoice("anny", "anny", dtype=dtype, device=device))
    pictures = sample_people(load_model(ModelChoice("anny", "anny", dtype=torch.float64)), DIFFERENT, options.seed)
    batches = _batches(options, model, pictures.keypoints, device)
    stream = _stream(options, model, pictures.keypoints, device) if options.stream or options.full else {}
    report = {"machine": machine(device), "settings": vars(options), "batches": batches, "stream": stream}
    print(table(batches, ["batch", "ms a person", "times half the batch", "wall ms a person"]))
    _tell(batches, stream)
    if options.save:
        save("scaling", report)


def _batches(
    options: argparse.Namespace, model: SMPLFamilyModel, pictures: list[Keypoints], device: str
) -> list[dict[str, Any]]:
    """Return a row for each batch size."""
    recipe = load_recipe(options.recipe)
    # As users' photos of one person: the focal length is refined.
    people = [Person(one, 0, 1.2 * 1000, "default", refine_focal=True) for one in pictures]
    least: dict[int, tuple[float, float]] = {}
    fit_people(people[:2], model, recipe)
    for turn in range(options.repeats):
        for batch in options.batches:
            some = (people * -(-max(batch, options.least) // DIFFERENT))[: max(batch, options.least)]

            def work(some: list[Person] = some, batch: int = batch) -> None:
                for first in range(0, len(some) - batch + 1, batch):
                    fit_people(some[first : first + batch], model, recipe, meshes=False)

            _, spent = timed(work, device, batch)
            each = (spent.cpu if device == "cpu" else spent.wall, spent.wall)
            count = len(some) - len(some) % batch
            found = 1000 * each[0] / count, 1000 * each[1] / count
            least[batch] = min(least.get(batch, found), found)
            print(f"turn {turn}, batch {batch}: {found[0]:.1f} ms a person", flush=True)
    rows = []
    for batch, (cost, wall) in least.items():
        half = least.get(batch // 2)
        times = cost / half[0] if half else None
        rows.append({"batch": batch, "ms a person": cost, "times half the batch": times, "wall ms a person": wall})
    return rows


def _stream(
    options: argparse.Namespace, model: SMPLFamilyModel, pictures: list[Keypoints], device: str
) -> dict[str, Any]:
    """Return the rate and the memory of each quarter of a stream."""
    count = ALL if options.full else options.stream

    def endless() -> Iterator[Keypoints]:
        for number in range(count):
            yield pictures[number % DIFFERENT]

    quarters: list[dict[str, Any]] = []
    began, wall, good = time.process_time(), time.perf_counter(), 0
    # A quarter is some windows of the stream, which hands people out by the window.
    batch = None if count >= 4096 else max(1, count // 16)
    stream = fitkit.fit_stream(endless(), model=model, recipe=options.recipe, batch_size=batch)
    for number, results in enumerate(stream, start=1):
        good += sum(result.status != "non_finite" for result in results)
        if number % (count // 4) == 0:
            now, clock = time.process_time(), time.perf_counter()
            spent = now - began if device == "cpu" else clock - wall
            row = {
                "people": number,
                "ms a person": 4000 * spent / count,
                "wall ms a person": 4000 * (clock - wall) / count,
            }
            quarters.append({**row, "resident MB": _resident(), "peak MB": _peak()})
            print(", ".join(f"{key} {value:.4g}" for key, value in quarters[-1].items()), flush=True)
            began, wall = now, clock
    costs = [quarter["ms a person"] for quarter in quarters]
    walls = [quarter["wall ms a person"] for quarter in quarters]
    return {
        "people": count,
        "with a finite answer": good,
        "quarters": quarters,
        "last over first quarter": costs[-1] / costs[0],
        "spread of the quarters": max(costs) / min(costs),
        f"hours of the clock for {ALL}": sum(walls) / 4 * ALL / 3.6e6,
        f"processor hours for {ALL}" if device == "cpu" else f"hours for {ALL}": sum(costs) / 4 * ALL / 3.6e6,
        "measured in full": count >= ALL,
    }


def _resident() -> float:
    """Return the resident memory in MB; not a number where the system does not tell."""
    statistics = Path("/proc/self/statm")
    if not statistics.exists():
        return float("nan")
    return int(statistics.read_text().split()[1]) * resource.getpagesize() / 1e6


def _peak() -> float:
    """Return the greatest resident memory so far in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def _tell(batches: list[dict[str, Any]], stream: dict[str, Any]) -> None:
    """Print what the figures say."""
    raised = [row for row in batches if (row["times half the batch"] or 0) > ALLOWED]
    said = ", ".join(f"{row['batch']} by {100 * (row['times half the batch'] - 1):.0f} %" for row in raised)
    print(f"Doubling raises the cost a person by more than 5 % at: {said or 'no batch'}.")
    if stream:
        hours = stream[f"hours of the clock for {ALL}"]
        how = "measured" if stream["measured in full"] else f"extrapolated from {stream['people']} people"
        spread = stream["spread of the quarters"]
        print(f"{ALL} fits take {hours:.2f} h ({how}; the dearest quarter costs {spread:.2f} times the cheapest).")


if __name__ == "__main__":
    main()
