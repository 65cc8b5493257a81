"""Every benchmark, one after the other, all results saved, and the README's tables at the end.

    python benchmarks/run_all.py [--mocap train.npz] [--photos FOLDER] [--only fit scaling] [--quick] [--tables]

Give it a quiet machine, for hours on two cores: the published procedure, the ten thousand problems and the large
batches take most of them. --quick runs each on a few people, to see that it works, and saves nothing. --tables runs
nothing and prints the tables of what is saved. Without --mocap, poses are samples of our own prior; without --photos,
real photos are left out.

Each runs in a process of its own, whose threads wait without spinning (OMP_WAIT_POLICY=PASSIVE), as those of `fitkit`'s
command line do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import RESULTS, arguments, table

HERE = Path(__file__).parent
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Benchmark:
    """A script of this folder."""

    name: str
    """Its name, and that of its results."""
    full: tuple[str, ...] = ()
    """Options of the run that counts."""
    quick: tuple[str, ...] = ()
    """Options of a run that only shows that it works."""
    common: bool = True
    """Whether it knows the options that `measure.arguments` adds."""
    needs: str = ""
    """The option of ours without which it is left out; it prints, and saves nothing."""


BENCHMARKS = (
    Benchmark("forward", quick=("--batches", "1")),
    Benchmark("jacobian", quick=("--batches", "1")),
    Benchmark("fit", quick=("--batches", "1", "--published", "0", "--solvers", "LM")),
    Benchmark("scaling", quick=("--batches", "1", "2", "--repeats", "1", "--least", "2", "--stream", "8")),
    Benchmark("degenerate", quick=("--problems", "8", "--batch", "4")),
    Benchmark("accuracy", quick=("--people", "2", "--cases", "body", "--methods", "full")),
    Benchmark("initialiser", quick=("--batches", "1", "--repeats", "1")),
    Benchmark("ablation", quick=("--people", "2", "--cases", "body")),
    Benchmark("camera_size", quick=("--people", "3")),
    Benchmark("recovery", quick=("--people", "2"), common=False),
    Benchmark("photos", common=False, needs="photos"),
)


def main() -> int:
    """Run what is asked for, print the tables, and return how many benchmarks failed."""
    parser = arguments(__doc__)
    names = [entry.name for entry in BENCHMARKS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="these alone")
    parser.add_argument("--mocap", type=Path, help="motion capture for `accuracy`, `ablation`, `camera_size` (npz)")
    parser.add_argument("--photos", type=Path, help="a folder of photos of people")
    parser.add_argument("--quick", action="store_true", help="a few people each; saves nothing")
    parser.add_argument("--tables", action="store_true", help="print the tables of the results that are there")
    options = parser.parse_args()
    failed = []
    for benchmark in BENCHMARKS if not options.tables else ():
        if benchmark.name in options.only and not _run(benchmark, options):
            failed.append(benchmark.name)
    print(*tables(), sep="\n\n")
    if failed:
        print(f"\nFailed: {', '.join(failed)}.", file=sys.stderr)
    return len(failed)


def _run(benchmark: Benchmark, options: argparse.Namespace) -> bool:
    """Run a benchmark and return whether it went well; one that lacks its data is left out."""
    needed = getattr(options, benchmark.needs) if benchmark.needs else None
    if benchmark.needs and needed is None:
        print(f"{benchmark.name}: left out, it needs --{benchmark.needs}", flush=True)
        return True
    command = [sys.executable, str(HERE / f"{benchmark.name}.py"), *([str(needed)] if needed else [])]
    command += benchmark.quick if options.quick else benchmark.full
    command += [] if options.quick or needed else ["--save"]
    if benchmark.common:
        command += ["--device", options.device, "--threads", str(options.threads), "--seed", str(options.seed)]
    if benchmark.name in ("accuracy", "ablation", "camera_size") and options.mocap:
        command += ["--poses", str(options.mocap)]
    # The files of the results name no folder of this machine.
    print(f"\n{benchmark.name}: {' '.join(Path(part).name for part in command[1:])}", flush=True)
    began = time.monotonic()
    environment = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(options.threads), **os.environ}
    done = subprocess.run(command, env=environment, check=False).returncode == 0
    print(f"{benchmark.name}: {'done' if done else 'FAILED'} in {(time.monotonic() - began) / 60:.1f} min", flush=True)
    return done


def tables() -> list[str]:
    """Return the README's tables, each with its title, of the results that are saved."""
    found = []
    for name, (title, make) in TABLES.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            report = json.loads(path.read_text(encoding="utf-8"))
            rows = make(report)
            found.append(f"{title} (`benchmarks/{name}.py`; {_machine(report)})\n\n{table(rows, _columns(rows))}")
    return found


def _columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _machine(report: Any) -> str:
    machine = report.get("machine") if isinstance(report, dict) else None
    if not machine:
        return "machine not recorded"
    where = machine["processor"] if machine["device"] == "cpu" else machine["device"]
    return f"{where}, {machine['threads']} threads, load {machine['load_average']}"


def _picked(rows: Rows, columns: dict[str, str]) -> Rows:
    """Return rows with some columns, renamed."""
    return [{new: row.get(old) for old, new in columns.items()} for row in rows]


def _fit(report: dict[str, Any]) -> Rows:
    kept = ("solver", "batch", "ms a fit", "CPU ms a fit", "fits/s", "times (a)", "iterations", "energy", "joints mm")
    return _picked(report["rows"], {name: name for name in kept})


def _jacobian(report: dict[str, Any]) -> Rows:
    return _picked(
        report["results"],
        {"batch": "batch", "ours_ms": "ours ms", "jacfwd_ms": "jacfwd ms", "jacfwd_over_ours": "times faster"},
    )


def _forward(report: dict[str, Any]) -> Rows:
    columns = {
        "batch": "batch",
        "landmarks_ms": "landmarks ms",
        "mesh_ms": "mesh ms",
        "smplx_ms": "smplx ms",
        "smplx_over_landmarks": "smplx / landmarks",
        "smplx_over_mesh": "smplx / mesh",
        "mesh_over_floor": "mesh / bandwidth floor",
    }
    return _picked(report["results"], columns)


def _scaling(report: dict[str, Any]) -> Rows:
    kept = ("batch", "ms a person", "times half the batch")
    return _picked(report["batches"], {name: name for name in kept})


def _degenerate(report: dict[str, Any]) -> Rows:
    kept = ("problems", "not finite", "differing by more than 1e-4", "CPU ms a problem")
    both = [name for name in ("float64", "float32") if name in report]
    return [{"precision": name, **{key: report[name][key] for key in kept}} for name in both]


def _recovery(report: dict[str, Any]) -> Rows:
    kept = ("people", "reprojection_median_px", "reprojection_worst_person_median_px", "milliseconds_per_person")
    return [{name.replace("_", " "): report[name] for name in kept}]


def _ablation(report: dict[str, Any]) -> Rows:
    rows = []
    for without in dict.fromkeys(row["without"] for row in report["rows"]):
        mine = {row["case"]: row for row in report["rows"] if row["without"] == without}
        errors = {f"{case}, mm": f"{row['PA-MPJPE']:.1f} / {row['MPJPE']:.1f}" for case, row in mine.items()}
        first = next(iter(mine.values()))
        rows.append({"without": without} | errors | {"iterations": first["iterations"], "CPU ms": first["CPU ms"]})
    return rows


TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], Rows]]] = {
    "fit": ("The same fits by all solvers", _fit),
    "jacobian": ("Closed-form derivatives", _jacobian),
    "forward": ("Bodies", _forward),
    "scaling": ("Cost a person", _scaling),
    "degenerate": ("Degenerate problems", _degenerate),
    "recovery": ("Recovery", _recovery),
    "initialiser": ("The network's proposal", lambda report: report["rows"]),
    "ablation": ("What each part buys: PA-MPJPE / MPJPE", _ablation),
}
"""Results -> title of the table, and its rows. `accuracy.py` prints its own, which is long."""


if __name__ == "__main__":
    sys.exit(main())
