"""Levenberg-Marquardt, batched by rows: every row has its own damping, acceptance, convergence test and status.

Each iteration factorises the damped curvature of all rows at once and tries one step of each. Rows whose trial is
accepted move and are linearised anew; the others keep their linearisation and raise their damping, so no row waits for
another's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.solvers.base import Objective, Progress, Solution, Status
from fitkit.solvers.box import Box
from fitkit.solvers.least_squares import LeastSquaresObjective, Linearisation
from fitkit.solvers.ledger import Ledger
from fitkit.solvers.resident import minimise_resident

LOWEST_FACTOR = 0.1
"""Factor of the damping after a step that did what was foretold; Nielsen's 1/3 takes more steps to the end."""
MOST = 0.8
"""All rows are linearised where they were tried when more than this share of them moves: what the objective computed
there serves again, and no row need be taken out of it."""
TINY = 1e-30
"""Curvature of a row that has none, against damping of zero."""


@dataclass(frozen=True)
class LevenbergMarquardt:
    """Damped Gauss-Newton steps (Levenberg 1944), for sums of squares and whatever else knows its own curvature.

    All unknowns of a row are damped alike, so that they should be of one magnitude; the damping follows the gain ratio
    (Nielsen 1999, Damping Parameter in Marquardt's Method).

    Bounds are hard where the objective has them: unknowns at a bound that the gradient presses against are held, and
    steps are projected into the box. Fits of bodies have none. Their recipes bound softly, by terms that grow with the
    square of the excess and pass through every solver: `bounds` for expressions, `pose_prior` with `joint_limits` for
    joints, `focal_prior` for the logarithm of the focal length. So a start beyond a limit is no error, evidence can
    outvote a limit learned from others, and the curvature at a limit stays that of the energy. Terms that are no sums
    of squares come by `Term.linearise`.
    """

    max_iterations: int = 50
    """Steps tried per row at most, accepted or not: each costs a factorisation."""
    damping: float = 1e-3
    """Damping of the first step, as a share of the greatest curvature along any unknown."""
    minimum_gain: float = 1e-3
    """Share of the decrease foretold by the linearisation that a step must reach."""
    gradient_tolerance: float = 1e-7
    """A row is CONVERGED when its gradient's Euclidean norm is at most this (energy per unit of x)."""
    change_tolerance: float = 1e-9
    """A row is STALLED when its energy falls by at most this share of itself, `patience` times in a row."""
    step_tolerance: float = 0.0
    """A row is STALLED when its step's Euclidean norm is at most this, `patience` times in a row (units of x)."""
    patience: int = 2
    """Consecutive small changes that end a row."""
    end_gradient: bool = True
    """Measure the gradient where rows end, too. Off, rows that end by small changes or at the budget are spared their
    last linearisation, and the gradient told of them is that of the point before the last step."""
    whole_up_to: int = 16
    """Batches of at most this many rows are linearised whole, whichever rows move: what is small costs as much."""
    compact_share: float = 0.75
    """Finished rows leave the batch once at most this share of it is active."""
    compact_above: int = 1
    """Batches of at most this many rows are not compacted."""

    def minimise(self, objective: Objective, x0: Float[Tensor, "B D"], progress: Progress | None = None) -> Solution:
        """Return the minimum of every row of an objective, starting at x0.

        Args:
            objective: a LeastSquaresObjective; must be finite at x0 for a row to be fitted, and may be NaN or infinite
                elsewhere (the damping rises). Where it has `bounds`, the minimum within them is sought, from the
                point within them that is nearest to x0.
            x0: start of every row; float32 or float64, any device. Not written to.
            progress: called as (iterations of the furthest row, rows still active).

        Returns:
            The best finite point of every row, on x0's device; `gradient_norm` leaves out what bounds hold back (of
            the point before the last step where `end_gradient` is off).

        Raises:
            TypeError: the objective cannot be linearised.
        """
        if not callable(getattr(objective, "linearise", None)):
            raise TypeError(
                "Levenberg-Marquardt needs an objective with `linearise`, such as a sum of squares (`from_residuals`); "
                f"got {type(objective).__name__}. Minimise it with L-BFGS instead."
            )
        with torch.no_grad():
            if x0.device.type != "cpu" and len(x0):
                return minimise_resident(self, cast(LeastSquaresObjective, objective), x0, progress)
            run = _Run(self, cast(LeastSquaresObjective, objective), x0)
            while run.leave():
                run.advance()
                run.ledger.tell(progress)
            return run.ledger.solution()


class _Run:
    """One minimisation. `local` are indices in the batch, `rows` in x0."""

    def __init__(self, solver: LevenbergMarquardt, objective: LeastSquaresObjective, x0: Tensor) -> None:
        count = len(x0)
        self.solver, self.ledger = solver, Ledger(objective, x0)
        self.precision = float(torch.finfo(x0.dtype).eps)
        bounds = getattr(objective, "bounds", None)
        self.box = None if bounds is None else Box(*(side.to(x0).expand_as(x0) for side in bounds))
        self.trials = 0
        self.damping = np.zeros(count)
        self.growth = np.full(count, 2.0)
        self.promise = np.zeros(count)
        self.small_changes = np.zeros(count, dtype=np.int64)
        self.position = self.ledger.x.clone()
        if count:
            self._start(self.position if self.box is None else self.box.clip(self.position))

    def _start(self, position: Tensor) -> None:
        """Linearise every row at its start."""
        ledger, count = self.ledger, len(position)
        self.at = _linearise(ledger.objective, position)
        if self.at.energy.shape != (count,):
            raise ValueError(
                f"An objective must return one energy per row, shape ({count},); got {tuple(self.at.energy.shape)}."
            )
        ledger.energy, ledger.gradient_norm, self.steepest = _measure(self.at, position, self.box)
        ledger.evaluations += 1
        self.damping = self.solver.damping * self.steepest
        usable = np.isfinite(ledger.energy) & np.isfinite(ledger.gradient_norm) & np.isfinite(self.steepest)
        ledger.end(~usable, Status.NON_FINITE)
        ledger.end(usable & (ledger.gradient_norm <= self.solver.gradient_tolerance), Status.CONVERGED)
        if self.solver.max_iterations <= 0:
            ledger.end(ledger.running.copy(), Status.MAX_ITERATIONS)
        self.position = torch.where(ledger.on_device(usable)[:, None], position, ledger.x)

    def advance(self) -> None:
        """Try one step of every row, and let every row act on what it saw."""
        ledger = self.ledger
        step, foretold, factored = self._step()
        trial = self.position + step
        if self.box is not None:
            trial = self.box.clip(trial)
            step = trial - self.position
            bent = (self.at.curvature @ step[..., None])[..., 0]
            foretold = -(step * (self.at.gradient + 0.5 * bent)).sum(-1)
        energy = ledger.objective(trial)
        seen = _on_host(torch.stack((energy, foretold, torch.linalg.vector_norm(step, dim=-1), factored)))
        ledger.evaluations[ledger.rows[ledger.running]] += 1
        self.trials += 1
        with np.errstate(all="ignore"):
            self._judge(trial, seen)
        if self.trials >= self.solver.max_iterations:
            ledger.end(ledger.running.copy(), Status.MAX_ITERATIONS)

    def _step(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return every row's damped step, the decrease that it should bring, and whether there is one (1 or 0).

        Factorising in float64 what was linearised in float32 gains nothing: the rounding is in the curvature itself.
        """
        gradient, matrix = self.at.gradient, self.at.curvature
        if self.box is not None:
            free = self.box.free(self.position, gradient)
            gradient = gradient * free
            matrix = matrix * (free[:, :, None] & free[:, None, :])
        elif not self.at.owned:
            matrix = matrix.clone()
        damping = self.ledger.on_device(self.damping)[:, None]
        diagonal = matrix.diagonal(dim1=-2, dim2=-1)
        kept = diagonal.clone()
        diagonal.add_(damping)
        factor, failure = torch.linalg.cholesky_ex(matrix)
        # The matrix may be the linearisation's own, which a row that stays keeps.
        diagonal.copy_(kept)
        half = torch.linalg.solve_triangular(factor, gradient[..., None], upper=False)
        against = torch.linalg.solve_triangular(factor.mT, half, upper=True)[..., 0]
        factored = failure == 0
        step = torch.where(factored[:, None], -against, 0.0)
        foretold = 0.5 * (step * (damping * step - gradient)).sum(-1)
        return step, foretold, factored.to(step.dtype)

    def _judge(self, trial: Tensor, seen: np.ndarray) -> None:
        """Accept or reject every row's trial: seen are (energy, foretold decrease, size of the step, factored)."""
        ledger, (energy, foretold, _, factored) = self.ledger, seen
        decrease = ledger.energy[ledger.rows] - energy
        good = (decrease > 0) & (decrease >= self.solver.minimum_gain * foretold)
        better = np.flatnonzero(ledger.running & (factored > 0) & np.isfinite(energy) & good)
        last = self._last(better, seen)
        self._settle(better[last], trial)
        moved = np.sort(np.concatenate([better[last], self._move(better[~last], trial)]))
        rejected = ledger.running.copy()
        rejected[moved] = False
        self._accept(moved, seen[:, moved])
        self._reject(np.flatnonzero(rejected), seen[:, rejected])

    def _last(self, local: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Return which of the rows that step end there for sure, whatever the gradient is, where that matters."""
        if self.solver.end_gradient:
            return np.zeros(local.size, dtype=bool)
        if self.trials >= self.solver.max_iterations:
            return np.ones(local.size, dtype=bool)
        return self.small_changes[local] + self._small(local, seen[:, local]) >= self.solver.patience

    def _small(self, local: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Return what to add to the rows' counts of small changes: 1, or what brings them back to 0."""
        (energy, _, size, _), before = seen, self.ledger.energy[self.ledger.rows[local]]
        small = before - energy <= self.solver.change_tolerance * np.maximum(np.abs(before), np.abs(energy))
        small |= size <= self.solver.step_tolerance
        return np.where(small, 1, -self.small_changes[local])

    def _settle(self, local: np.ndarray, trial: Tensor) -> None:
        """Move rows to their trial without linearising them there."""
        if local.size == self.ledger.running.size:
            self.position = trial
        elif local.size:
            index = self.ledger.on_device(local)
            self.position = self.position.index_copy(0, index, trial[index])

    def _move(self, local: np.ndarray, trial: Tensor) -> np.ndarray:
        """Move rows to their trial and linearise them there; return those of them where that is finite."""
        if not local.size:
            return local
        ledger, count = self.ledger, self.ledger.running.size
        index = ledger.on_device(local)
        if local.size == count or count <= self.solver.whole_up_to or local.size > MOST * count:
            at = _linearise(ledger.objective, trial)
            measured = _measure(at, trial, self.box)
            norm, steepest = measured[1][local], measured[2][local]
        else:
            moved = trial[index]
            at = _linearise(ledger.objective.select(index), moved)
            _, norm, steepest = _measure(at, moved, self.box and self.box.select(index))
        usable = np.isfinite(norm) & np.isfinite(steepest)
        if not usable.all():
            local, norm, steepest = local[usable], norm[usable], steepest[usable]
        self._take(at, trial, local, np.flatnonzero(usable))
        ledger.gradient_norm[ledger.rows[local]] = norm
        self.steepest[local] = steepest
        return local

    def _take(self, at: Linearisation, trial: Tensor, local: np.ndarray, places: np.ndarray) -> None:
        """Enter the trial and its linearisation for some rows, of all rows or of those at `places`."""
        ledger, count = self.ledger, self.ledger.running.size
        if local.size == count:
            self.position, self.at = trial, at
            return
        index = ledger.on_device(local)
        self.position = self.position.index_copy(0, index, trial[index])
        if len(at.energy) == count:
            others = np.ones(count, dtype=bool)
            others[local] = False
            rest = ledger.on_device(np.flatnonzero(others))
            self.at = at.replace(rest, self.at.select(rest))
        else:
            at = at if len(at.energy) == local.size else at.select(ledger.on_device(places))
            self.at = self.at.replace(index, at)

    def _accept(self, local: np.ndarray, seen: np.ndarray) -> None:
        """Enter the rows that have moved, end those that are done, and trust the others' linearisation by its merit."""
        ledger, solver, (energy, foretold, _, _) = self.ledger, self.solver, seen
        rows = ledger.rows[local]
        before = ledger.energy[rows]
        self.small_changes[local] += self._small(local, seen)
        ledger.energy[rows] = energy
        ledger.iterations[rows] += 1
        self.promise[local] = 0.0
        self.growth[local] = 2.0
        gain = (before - energy) / foretold
        self.damping[local] *= np.clip(1 - (2 * gain - 1) ** 3, LOWEST_FACTOR, 2.0)
        ledger.end(local[self.small_changes[local] >= solver.patience], Status.STALLED)
        ledger.end(local[ledger.gradient_norm[rows] <= solver.gradient_tolerance], Status.CONVERGED)

    def _reject(self, local: np.ndarray, seen: np.ndarray) -> None:
        """Raise the damping of rows whose trial was no good, and end those that hope for too little."""
        ledger, (energy, foretold, _, factored) = self.ledger, seen
        least = max(self.solver.change_tolerance, 10 * self.precision) * np.abs(ledger.energy[ledger.rows[local]])
        self.promise[local] = np.fmax(self.promise[local], foretold)
        hopeless = (factored > 0) & ~(np.abs(foretold) > least)
        finite = np.isfinite(energy)
        # Where the linearisation once promised far more than can be resolved, the energy does not follow it.
        broken = self.promise[local] > 1000 * least
        ledger.end(local[hopeless & ~broken], Status.STALLED)
        ledger.end(local[hopeless & broken], Status.LINE_SEARCH_FAILED)
        ledger.end(local[hopeless & ~finite], Status.NON_FINITE)
        # However well the last steps went, start again from where damping begins to matter.
        self.damping[local] = np.maximum(
            self.damping[local] * self.growth[local], self.precision * self.steepest[local]
        )
        self.growth[local] *= 2

    def leave(self) -> bool:
        """Let finished rows leave the batch when that pays; return whether any row is left."""
        keep = self.ledger.leave(self.position, share=self.solver.compact_share, above=self.solver.compact_above)
        if keep is not None and keep.size:
            index = self.ledger.on_device(keep)
            self.position, self.at = self.position[index], self.at.select(index)
            self.box = self.box and self.box.select(index)
            for name in ("damping", "growth", "promise", "small_changes", "steepest"):
                setattr(self, name, getattr(self, name)[keep])
        return bool(self.ledger.rows.size)


def _linearise(objective: Objective, x: Tensor) -> Linearisation:
    """Return the linearisation of the part of a LeastSquaresObjective that is still in the batch."""
    return cast(LeastSquaresObjective, objective).linearise(x)


def _measure(at: Linearisation, x: Tensor, box: Box | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return every row's energy, norm of the gradient where it may be followed, and greatest curvature; on the host."""
    gradient = at.gradient if box is None else at.gradient * box.free(x, at.gradient)
    greatest = at.curvature.diagonal(dim1=-2, dim2=-1).amax(-1)
    energy, norm, steepest = _on_host(torch.stack((at.energy, torch.linalg.vector_norm(gradient, dim=-1), greatest)))
    return energy, norm, np.maximum(steepest, TINY)


def _on_host(numbers: Tensor) -> np.ndarray:
    """Return numbers in float64 on the host."""
    return numbers.cpu().numpy().astype(np.float64)
