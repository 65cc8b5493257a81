"""The book that a host-driven solver keeps: what is known of every row, and which rows are still in the batch."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.solvers.base import Objective, Progress, Solution, Status


class Ledger:
    """Results of all rows of x0, and the batch of those that are not done.

    `rows` are indices in x0, `local` ones in the batch. Finished rows stay in the batch, not running, until it pays to
    leave them out.
    """

    def __init__(self, objective: Objective, x0: Float[Tensor, "B D"]) -> None:
        """Open the book with every row of x0 running."""
        count = len(x0)
        self.x = x0.detach().clone()
        """(B, D): the start, then the best point of the rows that have left."""
        self.energy = np.full(count, np.nan)
        self.gradient_norm = np.full(count, np.nan)
        self.status = np.full(count, int(Status.RUNNING))
        self.iterations = np.zeros(count, dtype=np.int64)
        self.evaluations = np.zeros(count, dtype=np.int64)
        self.rows = np.arange(count)
        """Index in x0 of each row of the batch."""
        self.running = np.ones(count, dtype=bool)
        """Which rows of the batch are not done."""
        self.objective = objective
        """The function of the rows of the batch."""
        self._whole = objective
        self._told = (0, count)

    def end(self, local: np.ndarray, status: Status) -> None:
        """Close rows of the batch, given by indices or a mask."""
        self.status[self.rows[local]] = status
        self.running[local] = False

    def leave(self, position: Tensor, *, share: float, above: int) -> np.ndarray | None:
        """Let finished rows leave the batch when that pays, and all of them at the end.

        Args:
            position: (batch, D) best point of each row of the batch.
            share: rows leave once at most this share of the batch is running.
            above: batches of at most this many rows stay whole.

        Returns:
            Indices in the old batch of the rows of the new one, or None when nothing has changed.
        """
        active, count = int(np.count_nonzero(self.running)), self.running.size
        if active and (count <= above or active > share * count):
            return None
        self.x[self.on_device(self.rows)] = position
        keep = np.flatnonzero(self.running)
        self.rows, self.running = self.rows[keep], self.running[keep]
        if active:
            self.objective = self._whole.select(self.on_device(self.rows))
        return keep

    def tell(self, progress: Progress | None) -> None:
        """Report iterations of the furthest row and rows still running, where either has changed."""
        if progress is None:
            return
        reached = int(self.iterations.max(initial=0)), int(np.count_nonzero(self.running))
        if reached != self._told:
            self._told = reached
            progress(*reached)

    def on_device(self, array: np.ndarray) -> Tensor:
        """Return an array of the host as a tensor beside x0; numbers in x0's precision."""
        tensor = torch.from_numpy(array)
        return (tensor.to(self.x.dtype) if tensor.is_floating_point() else tensor).to(self.x.device)

    def solution(self) -> Solution:
        """Return the results of all rows."""
        return Solution(
            x=self.x,
            energy=self.on_device(self.energy),
            gradient_norm=self.on_device(self.gradient_norm),
            status=self.on_device(self.status),
            iterations=self.on_device(self.iterations),
            evaluations=self.on_device(self.evaluations),
        )
