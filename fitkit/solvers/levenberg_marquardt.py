"""Levenberg-Marquardt, batched by rows: every row has its own damping, acceptance, convergence test and status.

Each iteration factorises the damped curvature of all rows at once and tries one step of each. Rows whose trial is
accepted move; the others keep their linearisation and raise their damping, so no row waits for another's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.solvers.base import Objective, Progress, Solution, Status
from fitkit.solvers.least_squares import (
    LeastSquaresObjective,
    Linearisation,
    RowwiseResiduals,
    from_residuals,
)

__all__ = ["LeastSquaresObjective", "LevenbergMarquardt", "Linearisation", "RowwiseResiduals", "from_residuals"]


@dataclass(frozen=True)
class LevenbergMarquardt:
    """Damped Gauss-Newton steps (Marquardt 1963), for energies that are sums of squares.

    The damping of a row follows its gain ratio (Nielsen 1999: Damping Parameter in Marquardt's Method).
    """

    max_iterations: int = 50
    """Steps tried per row at most, accepted or not: each costs a factorisation."""
    damping: float = 1e-3
    """Damping at the start, in units of the curvature."""
    scaled: bool = True
    """Damp each unknown in proportion to the greatest curvature along it so far (More 1978), and not all alike."""
    lowest_factor: float = 0.1
    """Factor of the damping after a step that did what the model foretold, at the least; Nielsen's is 1/3."""
    minimum_gain: float = 1e-3
    """Share of the decrease foretold by the model that a step must reach."""
    gradient_tolerance: float = 1e-7
    """A row is CONVERGED when its gradient's Euclidean norm is at most this (energy per unit of x)."""
    change_tolerance: float = 1e-9
    """A row is STALLED when its energy falls by at most this share of itself, `patience` times in a row."""
    step_tolerance: float = 0.0
    """A row is STALLED when its step's Euclidean norm is at most this, `patience` times in a row (units of x)."""
    patience: int = 2
    """Consecutive small changes that end a row."""
    compact_share: float = 0.75
    """Finished rows leave the batch once at most this share of it is active."""
    compact_above: int = 4
    """Batches of at most this many rows are not compacted: fewer rows would cost as much."""

    def minimise(self, objective: Objective, x0: Float[Tensor, "B D"], progress: Progress | None = None) -> Solution:
        """Return the minimum of every row of an objective, starting at x0.

        Args:
            objective: a LeastSquaresObjective; must be finite at x0 for a row to be fitted, and may be NaN or infinite
                elsewhere (the damping rises). Where it has `bounds`, the minimum within them is sought, and the
                gradient counts only where the bounds leave it free.
            x0: start of every row; float32 or float64, any device. Not written to.
            progress: called as (iterations of the furthest row, rows still active).

        Returns:
            The best finite point of every row, on x0's device.

        Raises:
            TypeError: the objective cannot be linearised.
        """
        if not isinstance(objective, LeastSquaresObjective):
            raise TypeError(
                "Levenberg-Marquardt needs an objective with `linearise` (a sum of squares, see `from_residuals`); got "
                f"{type(objective).__name__}. Minimise other energies with LBFGS."
            )
        with torch.no_grad():
            run = _Run(self, objective, x0)
            while run.rows.size:
                run.advance(progress)
            return run.solution()


class _Run:
    """One minimisation: the rows still in the batch, and the results of all.

    `local` are indices in the batch, `rows` in x0.
    """

    def __init__(self, solver: LevenbergMarquardt, objective: LeastSquaresObjective, x0: Tensor) -> None:
        count = len(x0)
        self.solver, self.whole, self.objective = solver, objective, objective
        self.precision = float(torch.finfo(x0.dtype).eps)
        self.x = x0.detach().clone()
        self.energy = np.full(count, np.nan)
        self.gradient_norm = np.full(count, np.nan)
        self.status = np.full(count, int(Status.RUNNING))
        self.iterations = np.zeros(count, dtype=np.int64)
        self.evaluations = np.zeros(count, dtype=np.int64)
        self.trials = 0
        self.reached = 0, count
        # The batch: what follows shrinks as rows leave.
        self.rows = np.arange(count)
        self.running = np.ones(count, dtype=bool)
        self.small_changes = np.zeros(count, dtype=np.int64)
        self.damping = np.full(count, float(solver.damping))
        self.growth = np.full(count, 2.0)
        self.promise = np.full(count, np.nan)
        bounds = getattr(objective, "bounds", None)
        self.bounds = None if bounds is None else tuple(side.to(x0).expand_as(x0) for side in bounds)
        self.position = self._clip(self.x)
        if count:
            self._start()

    def _start(self) -> None:
        """Linearise every row at its start."""
        self.at = self.objective.linearise(self.position)
        self._check(self.at)
        self.evaluations += 1
        diagonal = self.at.curvature.diagonal(dim1=-2, dim2=-1)
        self.scale = torch.zeros_like(diagonal)
        norm = self._free_gradient(self.at.gradient, self.position)
        seen = torch.stack((self.at.energy, norm, diagonal.sum(-1))).cpu().double().numpy()
        usable = np.isfinite(seen).all(0)
        self.energy, self.gradient_norm = seen[0].copy(), seen[1].copy()
        self._rescale(None)
        self._end(np.flatnonzero(~usable), Status.NON_FINITE)
        self._end(np.flatnonzero(usable & (seen[1] <= self.solver.gradient_tolerance)), Status.CONVERGED)
        if self.solver.max_iterations <= 0:
            self._end(np.flatnonzero(self.running), Status.MAX_ITERATIONS)
        self._compact()

    def _check(self, at: Linearisation) -> None:
        """Raise unless there is one energy per row."""
        if at.energy.shape != self.position.shape[:1]:
            raise ValueError(
                "An objective must return one energy per row, shape "
                f"{tuple(self.position.shape[:1])}; got {tuple(at.energy.shape)}."
            )

    def advance(self, progress: Progress | None) -> None:
        """Try one step of every row, and let every row act on what it saw."""
        step, foretold, failed = self._step()
        trial = self._clip(self.position + step)
        if self.bounds is not None:
            step = trial - self.position
            bent = (self.at.curvature @ step[..., None])[..., 0]
            foretold = -(step * (self.at.gradient + 0.5 * bent)).sum(-1)
        energy = self.objective(trial)
        self.evaluations[self.rows[self.running]] += 1
        self.trials += 1
        size = torch.linalg.vector_norm(step, dim=-1)
        seen = torch.stack((energy, foretold, size, failed.to(energy.dtype))).cpu().double().numpy()
        with np.errstate(all="ignore"):
            self._judge(trial, seen)
        if self.trials >= self.solver.max_iterations:
            self._end(np.flatnonzero(self.running), Status.MAX_ITERATIONS)
        reached = int(self.iterations.max(initial=0)), int(self.running.sum())
        if progress is not None and reached != self.reached:
            progress(*reached)
        self.reached = reached
        self._compact()

    def _step(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return every row's damped step (B, D), the decrease it should bring (B,), and where there is none (B,)."""
        dtype = torch.float64
        gradient, matrix = self.at.gradient, self.at.curvature
        if self.bounds is not None:
            free = self._free(gradient, self.position)
            gradient = gradient * free
            matrix = matrix * (free[:, None] & free[:, :, None])
        damping = self._beside(self.damping).to(dtype)[:, None] * self.scale
        matrix = matrix.to(dtype, copy=self.bounds is None)
        matrix.diagonal(dim1=-2, dim2=-1).add_(damping)
        factor, info = torch.linalg.cholesky_ex(matrix)
        half = torch.linalg.solve_triangular(factor, gradient.to(dtype)[..., None], upper=False)
        step = torch.linalg.solve_triangular(factor.mT, half, upper=True)[..., 0].neg()
        failed = info != 0
        step = torch.where(failed[:, None], 0.0, step)
        foretold = 0.5 * (step * (damping * step - gradient)).sum(-1)
        return step.to(self.x.dtype), foretold.to(self.x.dtype), failed

    def _judge(self, trial: Tensor, seen: np.ndarray) -> None:
        """Accept or reject every row's trial, given (energy, foretold decrease, size of the step, no factor)."""
        solver, (energy, foretold, size, failed) = self.solver, seen
        before = self.energy[self.rows]
        gain = (before - energy) / foretold
        accepted = self.running & (failed == 0) & np.isfinite(energy) & (gain > solver.minimum_gain)
        accepted &= before > energy
        local = np.flatnonzero(accepted)
        if local.size:
            norm, usable = self._move(local, trial)
            local, norm = local[usable], norm[usable]
            accepted[:] = False
            accepted[local] = True
            self._accept(local, norm, energy[local], gain[local], size[local])
        rejected = np.flatnonzero(self.running & ~accepted)
        local = np.flatnonzero(accepted)
        self._lower(local, gain[local])
        if rejected.size:
            self._reject(rejected, seen[:, rejected])
        small = np.flatnonzero(accepted & self.running & (self.small_changes >= solver.patience))
        self._end(small, Status.STALLED)
        done = accepted & self.running & (self.gradient_norm[self.rows] <= solver.gradient_tolerance)
        self._end(np.flatnonzero(done), Status.CONVERGED)

    def _move(self, local: np.ndarray, trial: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Move rows to their trial and linearise there; return their gradient norms, and which of them are finite."""
        index = self._beside(local)
        if local.size <= 0.75 * self.running.size:
            return self._merge(local, index, trial, self.objective.select(index).linearise(trial[index]))
        found = self.objective.linearise(trial)
        if local.size < self.running.size:
            found = Linearisation(found.energy[index], found.gradient[index], found.curvature[index])
        return self._merge(local, index, trial, found)

    def _merge(
        self, local: np.ndarray, index: Tensor, trial: Tensor, part: Linearisation
    ) -> tuple[np.ndarray, np.ndarray]:
        moved = trial if local.size == self.running.size else trial[index]
        norm = self._free_gradient(part.gradient, moved, index)
        seen = torch.stack((norm, part.curvature.diagonal(dim1=-2, dim2=-1).sum(-1))).cpu().double().numpy()
        usable = np.isfinite(seen).all(0)
        if not usable.all():
            keep = self._beside(np.flatnonzero(usable))
            index, moved = index[keep], moved[keep]
            part = Linearisation(part.energy[keep], part.gradient[keep], part.curvature[keep])
        if len(index) == self.running.size:
            self.position, self.at = moved, part
        else:
            self.position = self.position.index_copy(0, index, moved)
            self.at = Linearisation(
                self.at.energy.index_copy(0, index, part.energy),
                self.at.gradient.index_copy(0, index, part.gradient),
                self.at.curvature.index_copy(0, index, part.curvature),
            )
        self._rescale(index)
        return seen[0], usable

    def _accept(self, local, norm, energy, gain, size) -> None:
        solver, rows = self.solver, self.rows[local]
        before = self.energy[rows]
        small = before - energy <= solver.change_tolerance * np.maximum(np.abs(before), np.abs(energy))
        small |= size <= solver.step_tolerance
        self.energy[rows], self.gradient_norm[rows] = energy, norm
        self.iterations[rows] += 1
        self.small_changes[local] = np.where(small, self.small_changes[local] + 1, 0)
        self.promise[local] = np.nan

    def _lower(self, local: np.ndarray, gain: np.ndarray) -> None:
        """Adapt the damping of accepted rows to how well the model foretold the decrease."""
        factor = np.clip(1 - (2 * gain - 1) ** 3, self.solver.lowest_factor, 2.0)
        self.damping[local] = np.maximum(self.damping[local] * factor, 10 * self.precision)
        self.growth[local] = 2.0

    def _reject(self, local: np.ndarray, seen: np.ndarray) -> None:
        """Raise the damping of rows, and end those that no damping helps."""
        energy, foretold, size, failed = seen
        before = self.energy[self.rows[local]]
        factored = failed == 0
        self.promise[local] = np.fmax(self.promise[local], np.where(factored, foretold, np.nan))
        threshold = np.maximum(self.solver.change_tolerance, 10 * self.precision) * np.abs(before)
        hopeless = factored & ~(foretold > threshold)
        hopeless |= self.damping[local] > 1e30
        honest = ~(self.promise[local] > 1e3 * threshold)
        finite = np.isfinite(energy)
        self._end(local[hopeless & finite & honest], Status.STALLED)
        self._end(local[hopeless & finite & ~honest], Status.LINE_SEARCH_FAILED)
        self._end(local[hopeless & ~finite], Status.NON_FINITE)
        self.damping[local] *= self.growth[local]
        self.growth[local] *= 2

    def _rescale(self, index: Tensor | None) -> None:
        """Update the unit of the damping of every unknown from the curvature of rows that moved."""
        diagonal = self.at.curvature.diagonal(dim1=-2, dim2=-1)
        if not self.solver.scaled:
            if index is None:
                self.scale = diagonal.amax(-1, keepdim=True).expand_as(diagonal).clamp(min=1e-30)
            return
        least = (1e-8 * diagonal.amax(-1, keepdim=True)).clamp(min=1e-30)
        self.scale = torch.maximum(self.scale, diagonal)
        self.scale = torch.maximum(self.scale, least)

    def _clip(self, x: Tensor) -> Tensor:
        """Return x moved into the bounds."""
        return x if self.bounds is None else torch.minimum(torch.maximum(x, self.bounds[0]), self.bounds[1])

    def _free(self, gradient: Tensor, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Return (B, D) bool: unknowns not held at a bound."""
        assert self.bounds is not None
        lower, upper = self.bounds if index is None else (side[index] for side in self.bounds)
        return ~(((x <= lower) & (gradient > 0)) | ((x >= upper) & (gradient < 0)))

    def _free_gradient(self, gradient: Tensor, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Return (B,) the norm of the gradient where the bounds leave x free."""
        if self.bounds is not None:
            gradient = gradient * self._free(gradient, x, index)
        return torch.linalg.vector_norm(gradient, dim=-1)

    def _end(self, local: np.ndarray, status: Status) -> None:
        """Close rows; while still in the batch they stay where they are."""
        self.status[self.rows[local]] = status
        self.running[local] = False

    def _compact(self) -> None:
        """Let finished rows leave the batch when that pays, and all of them at the end."""
        active, count = int(self.running.sum()), self.running.size
        worthwhile = count > self.solver.compact_above and active <= self.solver.compact_share * count
        if active and not worthwhile:
            return
        moved = self._beside(np.flatnonzero(self.iterations[self.rows] > 0))
        self.x[self._beside(self.rows)[moved]] = self.position[moved]
        keep = np.flatnonzero(self.running)
        self.rows = self.rows[keep]
        if active:
            index = self._beside(keep)
            for name in ("running", "small_changes", "damping", "growth", "promise"):
                setattr(self, name, getattr(self, name)[keep])
            self.position, self.scale = self.position[index], self.scale[index]
            self.at = Linearisation(self.at.energy[index], self.at.gradient[index], self.at.curvature[index])
            if self.bounds is not None:
                self.bounds = tuple(side[index] for side in self.bounds)
            self.objective = self.whole.select(self._beside(self.rows))

    def _beside(self, array: np.ndarray) -> Tensor:
        """Return an array of the host as a tensor beside x0."""
        return torch.from_numpy(array).to(self.x.device)

    def solution(self) -> Solution:
        """Return the results of all rows."""
        return Solution(
            x=self.x,
            energy=torch.from_numpy(self.energy).to(self.x),
            gradient_norm=torch.from_numpy(self.gradient_norm).to(self.x),
            status=self._beside(self.status),
            iterations=self._beside(self.iterations),
            evaluations=self._beside(self.evaluations),
        )
