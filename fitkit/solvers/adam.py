"""Adam (Kingma & Ba 2015), batched by rows: each row keeps its best point, ends on its own, and retreats on its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.solvers.base import Objective, Progress, Solution, Status, evaluate


@dataclass(frozen=True)
class Adam:
    """First-order steps of bounded size, for energies too rough for line searches."""

    learning_rate: float = 0.01
    """Step per unknown and iteration at the start (units of x)."""
    final_share: float = 0.01
    """Share of the learning rate left at `max_iterations`; cosine decay leads there. 1 keeps it constant."""
    max_iterations: int = 500
    """Steps per row at most."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""
    epsilon: float = 1e-8
    """Added to the root of the mean square, against division by zero (energy per unit of x)."""
    gradient_tolerance: float = 1e-7
    """A row is CONVERGED when its gradient's Euclidean norm is at most this (energy per unit of x)."""
    change_tolerance: float = 1e-7
    """A row is STALLED when its best energy falls by at most this share of itself within `patience` iterations."""
    patience: int = 50
    """Iterations without progress that end a row."""
    max_retreats: int = 8
    """Times that a row may meet a non-finite energy, return to its best point and halve its rate."""
    compact_share: float = 0.75
    """Finished rows leave the batch once at most this share of it is active."""
    compact_above: int = 4
    """Batches of at most this many rows are not compacted: fewer rows would cost as much."""

    def minimise(self, objective: Objective, x0: Float[Tensor, "B D"], progress: Progress | None = None) -> Solution:
        """Return the best point of every row of an objective that Adam meets, starting at x0.

        Args:
            objective: energy per row.
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

    def rate(self, iteration: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        share = 0.5 * (1 + math.cos(math.pi * min(1.0, iteration / max(1, self.max_iterations))))
        return self.learning_rate * (self.final_share + (1 - self.final_share) * share)


class _Run:
    """One minimisation: the rows still in the batch, and the results of all.

    `local` are indices in the batch, `rows` in x0.
    """

    def __init__(self, solver: Adam, objective: Objective, x0: Tensor) -> None:
        count = len(x0)
        self.solver, self.whole, self.objective = solver, objective, objective
        self.iteration = 0
        self.x = x0.detach().clone()
        self.energy = np.full(count, np.nan)
        self.gradient_norm = np.full(count, np.nan)
        self.status = np.full(count, int(Status.RUNNING))
        self.iterations = np.zeros(count, dtype=np.int64)
        self.evaluations = np.zeros(count, dtype=np.int64)
        # The batch: what follows shrinks as rows leave.
        self.rows = np.arange(count)
        self.running = np.ones(count, dtype=bool)
        self.position, self.best = self.x, self.x
        self.mean, self.square = torch.zeros_like(self.x), torch.zeros_like(self.x)
        self.scale = np.ones(count)
        self.retreats = np.zeros(count, dtype=np.int64)
        self.anchor = np.full(count, np.inf)
        self.waited = np.zeros(count, dtype=np.int64)

    def advance(self, progress: Progress | None) -> None:
        """Evaluate the batch, judge every row, and step."""
        energy, gradient = evaluate(self.objective, self.position)
        self.evaluations[self.rows[self.running]] += 1
        seen = torch.stack((energy.to(self.x.dtype), (gradient * gradient).sum(-1))).cpu().double().numpy()
        with np.errstate(all="ignore"):
            finite = np.isfinite(seen).all(0)
            self._remember(seen[0], np.sqrt(seen[1]), finite)
            self._judge(np.sqrt(seen[1]), finite)
        reached = self.iteration
        if reached >= self.solver.max_iterations:
            self._end(self.running, Status.MAX_ITERATIONS)
        if self.running.any():
            self._step(gradient, finite)
        if progress is not None and (reached or not self.running.all()):
            progress(reached, int(self.running.sum()))
        self._compact()

    def _remember(self, energy: np.ndarray, norm: np.ndarray, finite: np.ndarray) -> None:
        """Keep the point of every row that is better than its best."""
        if self.iteration == 0:
            self.energy, self.gradient_norm = energy.copy(), norm.copy()
            better = self.running & finite
        else:
            better = self.running & finite & (energy < self.energy[self.rows])
            self.energy[self.rows[better]] = energy[better]
            self.gradient_norm[self.rows[better]] = norm[better]
        self.best = self.position if better.all() else torch.where(self._mask(better), self.position, self.best)

    def _judge(self, norm: np.ndarray, finite: np.ndarray) -> None:
        """End the rows that are done or lost."""
        solver = self.solver
        best = self.energy[self.rows]
        progressed = best < self.anchor - solver.change_tolerance * np.abs(best)
        self.anchor = np.where(progressed, best, self.anchor)
        self.waited = np.where(progressed, 0, self.waited + 1)
        self.retreats += ~finite
        lost = ~finite & ((self.iteration == 0) | (self.retreats > solver.max_retreats))
        self._end(self.running & lost, Status.NON_FINITE)
        self._end(self.running & finite & (norm <= solver.gradient_tolerance), Status.CONVERGED)
        self._end(self.running & (self.waited >= solver.patience), Status.STALLED)

    def _step(self, gradient: Tensor, finite: np.ndarray) -> None:
        """Move every running row: along its mean gradient, or back to its best point where it is non-finite."""
        first, second = self.solver.betas
        self.scale = np.where(finite, self.scale, 0.5 * self.scale)
        good = self._mask(finite)
        gradient = torch.where(good, gradient, 0.0)
        self.mean = torch.where(good, self.mean * first + gradient * (1 - first), 0.0)
        self.square = torch.where(good, self.square * second + gradient * gradient * (1 - second), self.square)
        rate = self.solver.rate(self.iteration)
        self.iteration += 1
        self.iterations[self.rows[self.running]] += 1
        unbias = math.sqrt(1 - second**self.iteration)
        root = self.square.sqrt() / unbias + self.solver.epsilon
        sizes = self._beside(np.where(self.running, rate * self.scale / (1 - first**self.iteration), 0.0))
        start = torch.where(good & self._mask(self.running), self.position, self.best)
        self.position = start - sizes.to(self.x.dtype)[:, None] * (self.mean / root)

    def _end(self, which: np.ndarray, status: Status) -> None:
        """Close the rows of the batch that a mask marks."""
        if which.any():
            self.status[self.rows[which]] = status
            self.running = self.running & ~which

    def _compact(self) -> None:
        """Let finished rows leave the batch when that pays, and all of them at the end."""
        active, count = int(self.running.sum()), self.running.size
        worthwhile = count > self.solver.compact_above and active <= self.solver.compact_share * count
        if active and not worthwhile:
            return
        self.x = self.x.index_copy(0, self._beside(self.rows), self.best)
        keep = np.flatnonzero(self.running)
        self.rows = self.rows[keep]
        if active:
            index = self._beside(keep)
            for name in ("position", "best", "mean", "square"):
                setattr(self, name, getattr(self, name)[index])
            for name in ("running", "scale", "retreats", "anchor", "waited"):
                setattr(self, name, getattr(self, name)[keep])
            self.objective = self.whole.select(self._beside(self.rows))

    def _beside(self, array: np.ndarray) -> Tensor:
        """Return an array of the host as a tensor beside x0."""
        return torch.from_numpy(array).to(self.x.device)

    def _mask(self, which: np.ndarray) -> Tensor:
        """Return (B,) bool of the host as (B, 1) beside x0."""
        return self._beside(which)[:, None]

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
