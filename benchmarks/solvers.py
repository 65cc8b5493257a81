"""Cost of the solvers themselves. Usage: python benchmarks/solvers.py [--json FILE].

One robust regression (150 unknowns, of a keypoint fit's size and roughness) is solved by our L-BFGS in batches and by
torch.optim.LBFGS row by row. The processor time spent inside the objective is subtracted; what is left is what a
solver, with autograd's own start, adds: microseconds per iteration of the batch (ours) and of a row (both). Beside it
stand evaluations per iteration and the mean energy reached. Other work on the machine inflates all times alike.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from fitkit.robust import geman_mcclure
from fitkit.solvers import LBFGS

UNKNOWNS, OBSERVATIONS, ITERATIONS, HISTORY = 150, 240, 200, 12


@dataclass
class Stopwatch:
    """Processor seconds spent inside an objective, forwards and backwards, and its calls."""

    seconds: float = 0.0
    calls: int = 0

    def start(self, *_: Tensor) -> None:
        """Start; may be a tensor's hook."""
        self.seconds -= time.process_time()

    def stop(self, *_: Tensor) -> None:
        """Stop; may be a tensor's hook."""
        self.seconds += time.process_time()


@dataclass(frozen=True)
class Regression:
    """Robust nonlinear regression, one design and one set of observations per row."""

    design: Tensor
    observed: Tensor
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the energy of every row."""
        self.stopwatch.calls += 1
        self.stopwatch.start()
        inner = x.view_as(x)
        residual = torch.sin((self.design @ inner[..., None])[..., 0]) - self.observed
        energy = geman_mcclure(residual**2, 0.5).sum(-1) + 1e-3 * (inner * inner).sum(-1)
        self.stopwatch.stop()
        energy.register_hook(self.stopwatch.start)
        inner.register_hook(self.stopwatch.stop)
        return energy

    def select(self, rows: Tensor) -> Regression:
        """Return the objective of some rows."""
        return Regression(self.design[rows], self.observed[rows], self.stopwatch)


def make(rows: int, dtype: torch.dtype) -> tuple[Regression, Tensor]:
    """Return an objective of so many rows and its start."""
    generator = torch.Generator().manual_seed(0)
    decay = torch.logspace(0, -2, UNKNOWNS, dtype=torch.float64)
    design = torch.randn(rows, OBSERVATIONS, UNKNOWNS, generator=generator, dtype=torch.float64) * decay / 4
    truth = torch.randn(rows, UNKNOWNS, generator=generator, dtype=torch.float64)
    noise = 0.05 * torch.randn(rows, OBSERVATIONS, generator=generator, dtype=torch.float64)
    observed = torch.sin((design @ truth[..., None])[..., 0]) + noise
    start = truth + 0.3 * torch.randn(rows, UNKNOWNS, generator=generator, dtype=torch.float64)
    return Regression(design.to(dtype), observed.to(dtype)), start.to(dtype)


def run_ours(objective: Regression, x0: Tensor) -> dict[str, float]:
    """Return the numbers of one batched minimisation."""
    solver = LBFGS(max_iterations=ITERATIONS, history=HISTORY, gradient_tolerance=0.0, change_tolerance=0.0)
    begun = time.process_time()
    found = solver.minimise(objective, x0)
    seconds = time.process_time() - begun - objective.stopwatch.seconds
    return {
        "overhead_us_per_batch_iteration": 1e6 * seconds / float(found.iterations.max()),
        "overhead_us_per_row_iteration": 1e6 * seconds / float(found.iterations.sum()),
        "evaluations_per_iteration": float(found.evaluations.sum() / found.iterations.sum()),
        "energy": float(found.energy.mean()),
    }


def run_torch(objective: Regression, x0: Tensor) -> dict[str, float]:
    """Return the numbers of torch.optim.LBFGS, one row after another."""
    seconds, iterations, evaluations, energies = 0.0, 0, 0, []
    for row in range(len(x0)):
        alone = Regression(objective.design[row : row + 1], objective.observed[row : row + 1])
        x = x0[row : row + 1].clone().requires_grad_()
        optimiser = torch.optim.LBFGS(
            [x],
            max_iter=ITERATIONS,
            max_eval=10 * ITERATIONS,
            history_size=HISTORY,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            line_search_fn="strong_wolfe",
        )

        def closure(x: Tensor = x, alone: Regression = alone, optimiser: torch.optim.Optimizer = optimiser) -> Tensor:
            optimiser.zero_grad()
            energy = alone(x).sum()
            energy.backward()
            return energy

        begun = time.process_time()
        optimiser.step(closure)
        seconds += time.process_time() - begun - alone.stopwatch.seconds
        iterations += optimiser.state[x]["n_iter"]
        evaluations += alone.stopwatch.calls
        energies.append(float(alone(x).detach()))
    return {
        "overhead_us_per_batch_iteration": float("nan"),
        "overhead_us_per_row_iteration": 1e6 * seconds / iterations,
        "evaluations_per_iteration": evaluations / iterations,
        "energy": sum(energies) / len(energies),
    }


def main() -> None:
    """Print the table, and write it as json where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    parser.add_argument("--repeat", type=int, default=5, help="the fastest of so many runs counts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = []
    print(f"{'solver':<12}{'dtype':<9}{'rows':>5}{'us/batch it':>13}{'us/row it':>11}{'evals/it':>10}{'energy':>12}")
    for dtype in (torch.float32, torch.float64):
        for rows in (1, 4, 64):
            for name, run in (("fitkit", run_ours), ("torch.optim", run_torch)):
                if rows > 4 and run is run_torch:
                    continue
                runs = [run(*make(rows, dtype)) for _ in range(options.repeat)]
                best = min(runs, key=lambda numbers: numbers["overhead_us_per_row_iteration"])
                table.append({"solver": name, "dtype": str(dtype).split(".")[1], "rows": rows, **best})
                batch, row, evaluations, energy = best.values()
                print(
                    f"{name:<12}{table[-1]['dtype']:<9}{rows:>5}{batch:>13.0f}{row:>11.1f}{evaluations:>10.2f}{energy:>12.6f}"
                )
    if options.json:
        machine = {"processor": platform.processor(), "torch": torch.__version__, "threads": 1}
        options.json.write_text(json.dumps({"machine": machine, "results": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
