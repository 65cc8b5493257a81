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
from fitkit.solvers.ledger import Ledger
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
            run.start()
            run.ledger.tell(progress)
            while run.leave():
                run.advance()
                run.ledger.tell(progress)
            return run.ledger.solution()


class _Run:
    """One minimisation. `local` are indices in the batch, `rows` in x0."""

    def __init__(self, solver: LBFGS, objective: Objective, x0: Tensor) -> None:
        self.solver = solver
        self.precision = float(torch.finfo(x0.dtype).eps)
        self.ledger = Ledger(objective, x0)
        self.position: Any = as_array(self.ledger.x.clone())
        self.curvature = Curvature(self.ledger.x, solver.history)
        self.search = LineSearch(
            len(x0), c1=solver.c1, c2=solver.c2, max_trials=solver.max_line_search, precision=self.precision
        )
        self.small_changes = np.zeros(len(x0), dtype=np.int64)

    def start(self) -> None:
        """Evaluate every row at its start and choose the first directions."""
        ledger = self.ledger
        if not ledger.rows.size:
            return
        energy = self._evaluate(self.position)
        with np.errstate(all="ignore"):
            norm = np.sqrt(self.curvature.squared_gradient)
            ledger.energy, ledger.gradient_norm = energy.copy(), norm
            usable = np.isfinite(energy) & np.isfinite(norm)
            converged = usable & (norm <= self.solver.gradient_tolerance)
            ledger.end(~usable, Status.NON_FINITE)
            ledger.end(converged, Status.CONVERGED)
            if self.solver.max_iterations <= 0:
                ledger.end(ledger.running.copy(), Status.MAX_ITERATIONS)
            going = np.flatnonzero(ledger.running)
            if going.size:
                self.curvature.accept(going)
                self._search(going, self.curvature.direct(going))

    def advance(self) -> None:
        """Evaluate the batch once and let every row act on what it saw."""
        trial = self.curvature.trial(self.position, self.search.step)
        energy = self._evaluate(trial)
        with np.errstate(all="ignore"):
            accepted, failed = self.search.advance(energy, self.curvature.slope, self.ledger.running)
            self._accept(np.flatnonzero(accepted), trial, energy)
            self._fail(np.flatnonzero(failed))

    def _evaluate(self, trial: Any) -> np.ndarray:
        """Return the energy of every row of the batch, and let the curvature see the gradient."""
        energy, gradient = evaluate(self.ledger.objective, as_tensor(trial))
        self.ledger.evaluations[self.ledger.rows[self.ledger.running]] += 1
        with np.errstate(all="ignore"):
            return self.curvature.observe(energy, gradient)

    def _accept(self, local: np.ndarray, trial: Any, energy: np.ndarray) -> None:
        """Move rows to their trial point, test for the end, and give the others their next direction."""
        if not local.size:
            return
        solver, curvature, ledger, rows = self.solver, self.curvature, self.ledger, self.ledger.rows[local]
        self._move(local, trial)
        before, after, step = ledger.energy[rows], energy[local], self.search.step[local]
        small = before - after <= solver.change_tolerance * np.maximum(np.abs(before), np.abs(after))
        small |= step * np.sqrt(curvature.squared_direction[local]) <= solver.step_tolerance
        norm = np.sqrt(curvature.squared_gradient[local])
        ledger.energy[rows], ledger.gradient_norm[rows] = after, norm
        ledger.iterations[rows] += 1
        self.small_changes[local] = np.where(small, self.small_changes[local] + 1, 0)
        curvature.accept(local)
        spent = ledger.iterations[rows] >= solver.max_iterations
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
        if local.size == self.ledger.running.size:
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
        norm = self.ledger.gradient_norm[self.ledger.rows[local]]
        size = as_tensor(self.position)[self.ledger.on_device(local)].norm(dim=-1).cpu().double().numpy()
        noise = self.precision * np.maximum(100 * np.abs(energy), 10 * size * norm)
        resolved = -slope > np.maximum(self.solver.change_tolerance * np.abs(energy), noise)
        retry = resolved & (self.curvature.pairs[local] > 0)
        finite = np.isfinite(self.search.high[1, local])
        self._end(local[~resolved], Status.STALLED)
        self._end(local[resolved & ~retry & finite], Status.LINE_SEARCH_FAILED)
        self._end(local[resolved & ~retry & ~finite], Status.NON_FINITE)
        if retry.any():
            self.curvature.descend(local[retry])
            self._search(local[retry], -(norm[retry] ** 2))

    def _search(self, local: np.ndarray, slope: np.ndarray) -> None:
        """Begin a search of rows along their directions, unless it promises less than the precision resolves."""
        rows = self.ledger.rows[local]
        norm, energy = self.ledger.gradient_norm[rows], self.ledger.energy[rows]
        step = np.where(self.curvature.pairs[local] > 0, 1.0, np.minimum(1.0, 1.0 / norm))
        self.search.begin(local, energy, slope, step)
        hopeless = -slope * step <= self.precision * np.abs(energy)
        if hopeless.any():
            self._end(local[hopeless], Status.STALLED)

    def _end(self, local: np.ndarray, status: Status) -> None:
        """Close rows; while still in the batch they stay where they are."""
        self.ledger.end(local, status)
        self.search.step[local] = 0.0

    def leave(self) -> bool:
        """Let finished rows leave the batch when that pays; return whether any row is left."""
        solver = self.solver
        keep = self.ledger.leave(as_tensor(self.position), share=solver.compact_share, above=solver.compact_above)
        if keep is not None and keep.size:
            self.search.take(keep)
            self.curvature.take(keep)
            self.small_changes = self.small_changes[keep]
            self.position = self.position[self.curvature.index(keep)]
        return bool(self.ledger.rows.size)
