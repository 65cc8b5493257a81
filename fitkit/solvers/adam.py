"""Adam (Kingma & Ba 2015), batched by rows: each row keeps its best point, ends on its own, and retreats on its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.solvers.base import Objective, Progress, Solution, Status, evaluate
from fitkit.solvers.ledger import Ledger


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
            while run.leave():
                run.advance()
                run.ledger.tell(progress)
                run.step()
            return run.ledger.solution()

    def rate(self, iteration: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        share = 0.5 * (1 + math.cos(math.pi * min(1.0, iteration / max(1, self.max_iterations))))
        return self.learning_rate * (self.final_share + (1 - self.final_share) * share)


class _Run:
    """One minimisation. `local` are indices in the batch, `rows` in x0."""

    def __init__(self, solver: Adam, objective: Objective, x0: Tensor) -> None:
        count = len(x0)
        self.solver, self.ledger = solver, Ledger(objective, x0)
        self.iteration = 0
        self.position = self.best = self.ledger.x.clone()
        self.gradient = self.mean = self.square = torch.zeros_like(self.position)
        self.finite = np.ones(count, dtype=bool)
        self.scale = np.ones(count)
        self.retreats = np.zeros(count, dtype=np.int64)
        self.anchor = np.full(count, np.inf)
        self.waited = np.zeros(count, dtype=np.int64)

    def advance(self) -> None:
        """Evaluate the batch and judge every row."""
        ledger = self.ledger
        energy, self.gradient = evaluate(ledger.objective, self.position)
        squared = (self.gradient * self.gradient).sum(-1)
        seen = torch.stack((energy.to(squared.dtype), squared)).cpu().double().numpy()
        rows = ledger.rows[ledger.running]
        ledger.evaluations[rows] += 1
        ledger.iterations[rows] = self.iteration
        with np.errstate(all="ignore"):
            self.finite = np.isfinite(seen).all(0)
            self._remember(seen[0], np.sqrt(seen[1]))
            self._judge(np.sqrt(seen[1]))

    def _remember(self, energy: np.ndarray, norm: np.ndarray) -> None:
        """Keep the point of every row that is better than its best."""
        ledger = self.ledger
        if self.iteration == 0:
            ledger.energy, ledger.gradient_norm = energy.copy(), norm.copy()
            return
        better = ledger.running & self.finite & (energy < ledger.energy[ledger.rows])
        rows = ledger.rows[better]
        ledger.energy[rows], ledger.gradient_norm[rows] = energy[better], norm[better]
        self.best = self.position if better.all() else torch.where(self._mask(better), self.position, self.best)

    def _judge(self, norm: np.ndarray) -> None:
        """End the rows that are done or lost."""
        solver, ledger, finite = self.solver, self.ledger, self.finite
        best = ledger.energy[ledger.rows]
        progressed = best < self.anchor - solver.change_tolerance * np.abs(best)
        self.anchor = np.where(progressed, best, self.anchor)
        self.waited = np.where(progressed, 0, self.waited + 1)
        self.retreats += ~finite
        lost = ~finite & ((self.iteration == 0) | (self.retreats > solver.max_retreats))
        ledger.end(ledger.running & lost, Status.NON_FINITE)
        ledger.end(ledger.running & finite & (norm <= solver.gradient_tolerance), Status.CONVERGED)
        ledger.end(ledger.running & (self.waited >= solver.patience), Status.STALLED)
        if self.iteration >= solver.max_iterations:
            ledger.end(ledger.running.copy(), Status.MAX_ITERATIONS)

    def step(self) -> None:
        """Move every running row: along its mean gradient, or back to its best point where it is non-finite."""
        running, solver = self.ledger.running, self.solver
        if not running.any():
            return
        first, second = solver.betas
        self.iteration += 1
        self.scale = np.where(self.finite, self.scale, 0.5 * self.scale)
        good = self._mask(self.finite)
        gradient = torch.where(good, self.gradient, 0.0)
        self.mean = torch.where(good, self.mean * first + gradient * (1 - first), 0.0)
        self.square = torch.where(good, self.square * second + gradient * gradient * (1 - second), self.square)
        root = self.square.sqrt() / math.sqrt(1 - second**self.iteration) + solver.epsilon
        rate = solver.rate(self.iteration - 1) / (1 - first**self.iteration)
        sizes = self.ledger.on_device(np.where(running, rate * self.scale, 0.0))
        start = torch.where(good & self._mask(running), self.position, self.best)
        self.position = start - sizes[:, None] * (self.mean / root)

    def leave(self) -> bool:
        """Let finished rows leave the batch when that pays; return whether any row is left."""
        keep = self.ledger.leave(self.best, share=self.solver.compact_share, above=self.solver.compact_above)
        if keep is not None and keep.size:
            index = self.ledger.on_device(keep)
            for name in ("position", "best", "mean", "square"):
                setattr(self, name, getattr(self, name)[index])
            for name in ("scale", "retreats", "anchor", "waited"):
                setattr(self, name, getattr(self, name)[keep])
        return bool(self.ledger.rows.size)

    def _mask(self, which: np.ndarray) -> Tensor:
        """Return (B,) bool of the host as (B, 1) beside x0."""
        return self.ledger.on_device(which)[:, None]
