"""Levenberg-Marquardt whose whole state stays on the device: for GPUs, which wait for the host at every number it asks.

The same steps, tests and ends as the run of `levenberg_marquardt`, row by row, but decided by masks: every iteration
does the same operations on all rows of the batch, linearises at the trial itself, and neither reads a number back nor
sends one. Only every `CHECK` iterations the host asks which rows still run, to end or to let the others leave.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fitkit.solvers.base import Progress, Solution, Status
from fitkit.solvers.box import Box
from fitkit.solvers.least_squares import LeastSquaresObjective, Linearisation

if TYPE_CHECKING:
    from fitkit.solvers.levenberg_marquardt import LevenbergMarquardt

CHECK = 4
"""Iterations between two looks at which rows still run: finished rows cost so much more at most."""
LOWEST_FACTOR = 0.1
"""As in `levenberg_marquardt`: factor of the damping after a step that did what was foretold."""
GREATEST = 1e30
"""Damping at most: doubled ever faster, single precision would overflow."""
TINY = 1e-30
"""Curvature of a row that has none, against damping of zero."""


@dataclass(frozen=True)
class Rows:
    """What is known of the rows of a batch, on its device."""

    position: Float[Tensor, "B D"]
    """Best point."""
    energy: Float[Tensor, " B"]
    """Energy there."""
    gradient_norm: Float[Tensor, " B"]
    """Norm of the gradient where it may be followed."""
    steepest: Float[Tensor, " B"]
    """Greatest curvature along any unknown."""
    damping: Float[Tensor, " B"]
    """Damping of the next step."""
    growth: Float[Tensor, " B"]
    """Factor of the damping should it be rejected."""
    promise: Float[Tensor, " B"]
    """Greatest decrease foretold since the last step that was accepted."""
    small_changes: Int[Tensor, " B"]
    """Consecutive small changes."""
    status: Int[Tensor, " B"]
    """A `Status`."""
    iterations: Int[Tensor, " B"]
    """Steps accepted."""
    evaluations: Int[Tensor, " B"]
    """Evaluations while running."""

    def select(self, rows: Int[Tensor, " M"]) -> Rows:
        """Return the rows at these indices."""
        return Rows(**{entry.name: getattr(self, entry.name)[rows] for entry in fields(self)})

    def put(self, rows: Int[Tensor, " M"], other: Rows) -> Rows:
        """Return itself with the rows at these indices taken from another, in order."""
        pairs = {entry.name: (getattr(self, entry.name), getattr(other, entry.name)) for entry in fields(self)}
        return Rows(**{name: mine.index_copy(0, rows, theirs) for name, (mine, theirs) in pairs.items()})

    def where(self, mask: Bool[Tensor, " B"], changes: Mapping[str, Tensor | float | int]) -> Rows:
        """Return itself with the named fields changed where a mask is true."""
        changed = {name: torch.where(mask, value, getattr(self, name)) for name, value in changes.items()}
        return replace(self, **changed)


class ResidentRun:
    """One minimisation of a batch of rows."""

    def __init__(self, solver: LevenbergMarquardt, objective: LeastSquaresObjective, x0: Float[Tensor, "B D"]) -> None:
        """Linearise every row at its start."""
        self.solver, self.objective = solver, objective
        self.precision = float(torch.finfo(x0.dtype).eps)
        bounds = getattr(objective, "bounds", None)
        self.box = None if bounds is None else Box(*(side.to(x0).expand_as(x0) for side in bounds))
        position = x0.detach().clone() if self.box is None else self.box.clip(x0.detach())
        self.at = objective.linearise(position)
        if self.at.energy.shape != x0.shape[:1]:
            raise ValueError(
                f"An objective must return one energy per row, shape {tuple(x0.shape[:1])}; "
                f"got {tuple(self.at.energy.shape)}."
            )
        norm, steepest = self._measure(position, self.at)
        usable = torch.isfinite(self.at.energy) & torch.isfinite(norm) & torch.isfinite(steepest)
        counts = torch.zeros(len(x0), dtype=torch.long, device=x0.device)
        status = torch.where(norm <= solver.gradient_tolerance, int(Status.CONVERGED), counts)
        self.rows = Rows(
            position=torch.where(usable[:, None], position, x0),
            energy=self.at.energy,
            gradient_norm=norm,
            steepest=steepest,
            damping=solver.damping * steepest,
            growth=torch.full_like(norm, 2.0),
            promise=torch.zeros_like(norm),
            small_changes=counts,
            status=torch.where(usable, status, int(Status.NON_FINITE)),
            iterations=counts,
            evaluations=counts + 1,
        )

    def advance(self) -> None:
        """Try one step of every row, and let every row act on what it saw; nothing is read back."""
        rows = self.rows
        step, foretold, factored = self._step()
        trial = rows.position + step
        if self.box is not None:
            trial = self.box.clip(trial)
            step = trial - rows.position
            bent = (self.at.curvature @ step[..., None])[..., 0]
            foretold = -(step * (self.at.gradient + 0.5 * bent)).sum(-1)
        there = self.objective.linearise(trial)
        norm, steepest = self._measure(trial, there)
        running = rows.status == int(Status.RUNNING)
        decrease = rows.energy - there.energy
        good = (decrease > 0) & (decrease >= self.solver.minimum_gain * foretold)
        usable = torch.isfinite(there.energy) & torch.isfinite(norm) & torch.isfinite(steepest)
        moved = running & factored & good & usable
        rejected = running & ~moved
        finite = torch.isfinite(there.energy)
        self.rows = replace(rows, evaluations=rows.evaluations + running)
        self._reject(rejected, foretold, factored, finite)
        size = torch.linalg.vector_norm(step, dim=-1)
        self._accept(moved, there.energy, foretold, size)
        self.rows = self.rows.where(moved, {"energy": there.energy, "gradient_norm": norm, "steepest": steepest})
        self.rows = replace(self.rows, position=torch.where(moved[:, None], trial, rows.position))
        converged = moved & (norm <= self.solver.gradient_tolerance)
        self.rows = self.rows.where(converged, {"status": int(Status.CONVERGED)})
        self.at = Linearisation(
            self.rows.energy,
            torch.where(moved[:, None], there.gradient, self.at.gradient),
            torch.where(moved[:, None, None], there.curvature, self.at.curvature),
        )

    def _step(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return every row's damped step, the decrease that it should bring, and whether there is one."""
        gradient, matrix = self.at.gradient, self.at.curvature
        if self.box is None:
            matrix = matrix.clone()
        else:
            free = self.box.free(self.rows.position, gradient)
            gradient = gradient * free
            matrix = matrix * (free[:, :, None] & free[:, None, :])
        damping = self.rows.damping[:, None]
        matrix.diagonal(dim1=-2, dim2=-1).add_(damping)
        factor, failure = torch.linalg.cholesky_ex(matrix)
        half = torch.linalg.solve_triangular(factor, gradient[..., None], upper=False)
        against = torch.linalg.solve_triangular(factor.mT, half, upper=True)[..., 0]
        factored = failure == 0
        step = torch.where(factored[:, None], -against, 0.0)
        return step, 0.5 * (step * (damping * step - gradient)).sum(-1), factored

    def _accept(self, moved: Tensor, energy: Tensor, foretold: Tensor, size: Tensor) -> None:
        """Enter the rows that have moved, and trust the others' linearisation by its merit."""
        rows, solver = self.rows, self.solver
        decrease = rows.energy - energy
        small = decrease <= solver.change_tolerance * torch.maximum(rows.energy.abs(), energy.abs())
        small = small | (size <= solver.step_tolerance)
        counted = torch.where(small, rows.small_changes + 1, 0)
        factor = (1 - (2 * decrease / foretold - 1) ** 3).clamp(LOWEST_FACTOR, 2.0)
        stalled = moved & (counted >= solver.patience)
        rows = rows.where(moved, {"small_changes": counted, "promise": 0.0, "growth": 2.0})
        rows = rows.where(moved, {"damping": rows.damping * factor})
        rows = replace(rows, iterations=rows.iterations + moved)
        self.rows = rows.where(stalled, {"status": int(Status.STALLED)})

    def _reject(self, rejected: Tensor, foretold: Tensor, factored: Tensor, finite: Tensor) -> None:
        """Raise the damping of rows whose trial was no good, and end those that hope for too little."""
        rows = self.rows
        least = max(self.solver.change_tolerance, 10 * self.precision) * rows.energy.abs()
        promise = torch.fmax(rows.promise, foretold)
        hopeless = rejected & factored & ~(foretold.abs() > least)
        broken = promise > 1000 * least
        end = torch.where(broken, int(Status.LINE_SEARCH_FAILED), int(Status.STALLED))
        end = torch.where(finite, end, int(Status.NON_FINITE))
        raised = torch.maximum(rows.damping * rows.growth, self.precision * rows.steepest).clamp_max(GREATEST)
        rows = rows.where(rejected, {"promise": promise, "damping": raised, "growth": 2 * rows.growth})
        self.rows = rows.where(hopeless, {"status": end})

    def _measure(self, position: Tensor, at: Linearisation) -> tuple[Tensor, Tensor]:
        """Return every row's norm of the gradient where it may be followed, and greatest curvature."""
        gradient = at.gradient if self.box is None else at.gradient * self.box.free(position, at.gradient)
        greatest = at.curvature.diagonal(dim1=-2, dim2=-1).amax(-1)
        # Not a number stays so: such a row is not usable.
        return torch.linalg.vector_norm(gradient, dim=-1), torch.where(greatest < TINY, TINY, greatest)

    def keep(self, local: Int[Tensor, " M"]) -> None:
        """Keep the rows of the batch at these indices alone."""
        self.rows, self.at = self.rows.select(local), self.at.select(local)
        self.objective = self.objective.select(local)
        self.box = self.box and self.box.select(local)


def minimise_resident(
    solver: LevenbergMarquardt,
    objective: LeastSquaresObjective,
    x0: Float[Tensor, "B D"],
    progress: Progress | None = None,
) -> Solution:
    """Return the minimum of every row, as `LevenbergMarquardt.minimise` says; called under `no_grad`."""
    run = ResidentRun(solver, objective, x0)
    everything = run.rows
    places = torch.arange(len(x0), device=x0.device)
    for trial in range(solver.max_iterations):
        if trial % CHECK == 0:
            local = (run.rows.status == int(Status.RUNNING)).nonzero()[:, 0]
            if progress is not None:
                progress(int(run.rows.iterations.max()) if len(run.rows.iterations) else 0, len(local))
            if len(local) <= solver.compact_share * len(places):
                everything = everything.put(places, run.rows)
                places = places[local]
                run.keep(local)
            if not len(local):
                break
        run.advance()
    everything = everything.put(places, run.rows)
    spent = everything.status == int(Status.RUNNING)
    return Solution(
        x=everything.position,
        energy=everything.energy,
        gradient_norm=everything.gradient_norm,
        status=torch.where(spent, int(Status.MAX_ITERATIONS), everything.status),
        iterations=everything.iterations,
        evaluations=everything.evaluations,
    )
