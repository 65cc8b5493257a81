"""Limited-memory BFGS, batched by rows: every row has its own curvature, step length, convergence test and status.

Each evaluation of the batch advances every row by one trial of its line search; rows whose trial is accepted take their
next direction at once, the others try again, so no row waits for another's search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.solvers.base import Objective, Progress, Solution, Status, evaluate
from fitkit.solvers.curvature import Curvature, as_array, as_tensor
from fitkit.solvers.line_search import LineSearch


@dataclass(frozen=True)
class LBFGS:
    """Limited-memory BFGS with a strong-Wolfe line search (Nocedal & Wright 2006, chapters 3 and 7)."""

    max_iterations: int = 100
    """Steps accepted per row at most."""
    history: int = 12
    """Curvature pairs kept per row."""
    gradient_tolerance: float = 1e-7
    """A row is CONVERGED when its gradient's Euclidean norm is at most this (energy per unit of x)."""
    change_tolerance: float = 1e-9
    """A row is STALLED when its energy falls by at most this share of itself, `patience` times in a row."""
    step_tolerance: float = 0.0
    """A row is STALLED when its step's Euclidean norm is at most this, `patience` times in a row (units of x)."""
    patience: int = 2
    """Consecutive small changes that end a row."""
    max_line_search: int = 20
    """Evaluations of one line search at most; it then settles for the best step that it has seen."""
    c1: float = 1e-4
    """Share of the predicted decrease that a step must reach."""
    c2: float = 0.9
    """Share of the initial slope, in magnitude, that may remain after a step."""
    compact_share: float = 0.75
    """Finished rows leave the batch once at most this share of it is active."""
    compact_above: int = 4
    """Batches of at most this many rows are not compacted: fewer rows would cost as much."""

    def minimise(self, objective: Objective, x0: Float[Tensor, "B D"], progress: Progress | None = None) -> Solution:
        """Return the minimum of every row of an objective, starting at x0.

        Args:
            objective: energy per row; must be finite at x0 for a row to be fitted, and may be NaN or infinite elsewhere
                (steps are shortened).
            x0: start of every row; float32 or float64, any device. Not written to.
            progress: called as (iterations of the furthest row, rows still active).

        Returns:
            The best finite point of every row, on x0's device.
        """
        with torch.no_grad():
            run = _Run(self, objective, x0)
            while run.rows.size:
                run.advance(progress)
            return run.solution()


class _Run:
    """One minimisation: the rows still in the batch, and the results of all.

    `local` are indices in the batch, `rows` in x0.
    """

    def __init__(self, solver: LBFGS, objective: Objective, x0: Tensor) -> None:
        count = len(x0)
        self.solver, self.whole, self.objective = solver, objective, objective
        self.precision = float(torch.finfo(x0.dtype).eps)
        self.x = x0.detach().clone()
        self.energy = np.full(count, np.nan)
        self.gradient_norm = np.full(count, np.nan)
        self.status = np.full(count, int(Status.RUNNING))
        self.iterations = np.zeros(count, dtype=np.int64)
        self.evaluations = np.zeros(count, dtype=np.int64)
        self.reached = 0, count
        self.started = False
        # The batch: what follows shrinks as rows leave.
        self.rows = np.arange(count)
        self.running = np.ones(count, dtype=bool)
        self.small_changes = np.zeros(count, dtype=np.int64)
        self.position: Any = as_array(self.x.clone())
        self.curvature = Curvature(self.x, solver.history)
        self.search = LineSearch(
            count, c1=solver.c1, c2=solver.c2, max_trials=solver.max_line_search, precision=self.precision
        )

    def advance(self, progress: Progress | None) -> None:
        """Evaluate the batch once and let every row act on what it saw."""
        trial = self.curvature.trial(self.position, self.search.step) if self.started else self.position
        energy, gradient = evaluate(self.objective, as_tensor(trial))
        self.evaluations[self.rows[self.running]] += 1
        with np.errstate(all="ignore"):
            seen = self.curvature.observe(energy, gradient)
            if self.started:
                accepted, failed = self.search.advance(seen, self.curvature.slope, self.running)
                self._accept(np.flatnonzero(accepted), trial, seen)
                self._fail(np.flatnonzero(failed))
            else:
                self._start(seen)
        reached = int(self.iterations.max(initial=0)), int(self.running.sum())
        if progress is not None and reached != self.reached:
            progress(*reached)
        self.reached = reached
        self._compact()

    def _start(self, energy: np.ndarray) -> None:
        """Take the first evaluation of every row as its origin."""
        self.started = True
        norm = np.sqrt(self.curvature.squared_gradient)
        self.energy, self.gradient_norm = energy.copy(), norm
        usable = np.isfinite(energy) & np.isfinite(norm)
        converged = norm <= self.solver.gradient_tolerance
        self._end(np.flatnonzero(~usable), Status.NON_FINITE)
        self._end(np.flatnonzero(usable & converged), Status.CONVERGED)
        going = np.flatnonzero(usable & ~converged)
        if self.solver.max_iterations <= 0:
            self._end(going, Status.MAX_ITERATIONS)
        elif going.size:
            self.curvature.accept(going)
            self._search(going, self.curvature.direct(going))

    def _accept(self, local: np.ndarray, trial: Any, energy: np.ndarray) -> None:
        """Move rows to their trial point, test for the end, and give the others their next direction."""
        if not local.size:
            return
        solver, curvature, rows = self.solver, self.curvature, self.rows[local]
        self._move(local, trial)
        before, after, step = self.energy[rows], energy[local], self.search.step[local]
        small = before - after <= solver.change_tolerance * np.maximum(np.abs(before), np.abs(after))
        small |= step * np.sqrt(curvature.squared_direction[local]) <= solver.step_tolerance
        norm = np.sqrt(curvature.squared_gradient[local])
        self.energy[rows], self.gradient_norm[rows] = after, norm
        self.iterations[rows] += 1
        self.small_changes[local] = np.where(small, self.small_changes[local] + 1, 0)
        curvature.accept(local)
        spent = self.iterations[rows] >= solver.max_iterations
        stalled = self.small_changes[local] >= solver.patience
        converged = norm <= solver.gradient_tolerance
        ended = spent | stalled | converged
        if ended.any():
            self._end(local[spent], Status.MAX_ITERATIONS)
            self._end(local[stalled], Status.STALLED)
            self._end(local[converged], Status.CONVERGED)
            local, step = local[~ended], step[~ended]
        if local.size:
            curvature.store(local, step)
            self._search(local, curvature.direct(local))

    def _move(self, local: np.ndarray, trial: Any) -> None:
        """Make the trial the position of rows, without writing into an array that the objective has seen."""
        if local.size == self.running.size:
            self.position = trial
            return
        index = self.curvature.index(local)
        self.position = self.position + 0
        self.position[index] = trial[index]

    def _fail(self, local: np.ndarray) -> None:
        """Send rows whose search failed down their gradient; end those that came from there or hoped for too little."""
        if not local.size:
            return
        _, energy, slope = self.search.origin[:, local]
        position = as_tensor(self.position)[self._on_device(local)]
        moved = self.precision * position.norm(dim=-1).cpu().double().numpy() * self.gradient_norm[self.rows[local]]
        noise = np.maximum(100 * self.precision * np.abs(energy), 10 * moved)
        resolved = -slope > np.maximum(self.solver.change_tolerance * np.abs(energy), noise)
        retry = resolved & (self.curvature.pairs[local] > 0)
        finite = np.isfinite(self.search.high[1, local])
        self._end(local[~resolved], Status.STALLED)
        self._end(local[resolved & ~retry & finite], Status.LINE_SEARCH_FAILED)
        self._end(local[resolved & ~retry & ~finite], Status.NON_FINITE)
        again = local[retry]
        if again.size:
            self.curvature.descend(again)
            self._search(again, -(self.gradient_norm[self.rows[again]] ** 2))

    def _search(self, local: np.ndarray, slope: np.ndarray) -> None:
        """Begin a search of rows along their directions, unless it promises less than the precision resolves."""
        rows = self.rows[local]
        step = np.where(self.curvature.pairs[local] > 0, 1.0, np.minimum(1.0, 1.0 / self.gradient_norm[rows]))
        energy = self.energy[rows]
        self.search.begin(local, energy, slope, step)
        hopeless = -slope * step <= self.precision * np.abs(energy)
        if hopeless.any():
            self._end(local[hopeless], Status.STALLED)

    def _end(self, local: np.ndarray, status: Status) -> None:
        """Close rows; while still in the batch they stay where they are."""
        self.status[self.rows[local]] = status
        self.running[local] = False
        self.search.step[local] = 0.0

    def _compact(self) -> None:
        """Let finished rows leave the batch when that pays, and all of them at the end."""
        active, count = int(self.running.sum()), self.running.size
        worthwhile = count > self.solver.compact_above and active <= self.solver.compact_share * count
        if active and not worthwhile:
            return
        keep = np.flatnonzero(self.running)
        self.x[self._on_device(self.rows)] = as_tensor(self.position)
        self.rows = self.rows[keep]
        if active:
            self.running, self.small_changes = self.running[keep], self.small_changes[keep]
            self.search.take(keep)
            self.curvature.take(keep)
            self.position = self.position[self.curvature.index(keep)]
            self.objective = self.whole.select(self._on_device(self.rows))

    def _on_device(self, array: np.ndarray) -> Tensor:
        """Return an array of the host as a tensor beside x0."""
        return torch.from_numpy(array).to(self.x.device)

    def solution(self) -> Solution:
        """Return the results of all rows."""
        return Solution(
            x=self.x,
            energy=torch.from_numpy(self.energy).to(self.x),
            gradient_norm=torch.from_numpy(self.gradient_norm).to(self.x),
            status=self._on_device(self.status),
            iterations=self._on_device(self.iterations),
            evaluations=self._on_device(self.evaluations),
        )
