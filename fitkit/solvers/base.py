"""What a solver minimises, what it hands back, and how its rows end.

A solver knows a function of `x (B, D)` that gives one energy per row, and nothing of bodies or pictures. Rows never
mix: row b's energy depends on row b alone, so one backward pass through the sum gives every row's gradient.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

Progress = Callable[[int, int], None]
"""Called as (iterations of the furthest row, rows still active) whenever either changes."""


class Status(enum.IntEnum):
    """How a row ended (or that it has not)."""

    RUNNING = 0
    """Not finished; never in a Solution."""
    CONVERGED = 1
    """The gradient is as small as asked."""
    STALLED = 2
    """Energy or step changes less than asked, or less than the precision resolves: also a good end."""
    MAX_ITERATIONS = 3
    """The budget ran out first."""
    LINE_SEARCH_FAILED = 4
    """No step along the last direction lowers the energy enough; the best point so far is returned."""
    NON_FINITE = 5
    """Energy or gradient is NaN or infinite at the start, or wherever the row goes from its best point."""

    @property
    def succeeded(self) -> bool:
        """Whether the row ended at a minimum as far as the tolerances tell."""
        return self in (Status.CONVERGED, Status.STALLED)


@runtime_checkable
class Objective(Protocol):
    """An energy per row, differentiable by autograd, whose rows are independent of each other."""

    def __call__(self, x: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
        """Return the energy of every row."""
        ...

    def select(self, rows: Int[Tensor, " M"]) -> Objective:
        """Return the same function for the rows at these indices (of this objective), in the order given."""
        ...


@dataclass(frozen=True)
class RowwiseFunction:
    """An Objective made of a plain function that treats every row alike (it holds no data per row)."""

    function: Callable[[Tensor], Tensor]
    """Maps (B, D) to (B,), for any B."""

    def __call__(self, x: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
        """Return the function's value for every row."""
        return self.function(x)

    def select(self, rows: Int[Tensor, " M"]) -> RowwiseFunction:
        """Return itself: all rows share the function."""
        return self


@dataclass(frozen=True)
class Solution:
    """The best finite point of every row, and how the solver got there."""

    x: Float[Tensor, "B D"]
    """The best point of each row whose energy and gradient are finite; the start where there is none."""
    energy: Float[Tensor, " B"]
    """Energy at `x`."""
    gradient_norm: Float[Tensor, " B"]
    """Euclidean norm of the gradient at `x`."""
    status: Int[Tensor, " B"]
    """A `Status` per row."""
    iterations: Int[Tensor, " B"]
    """Steps accepted."""
    evaluations: Int[Tensor, " B"]
    """Evaluations of energy and gradient that the row took part in before it was done."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.x)

    @property
    def succeeded(self) -> Tensor:
        """(B,) bool: rows that ended at a minimum as far as the tolerances tell."""
        return (self.status == Status.CONVERGED) | (self.status == Status.STALLED)


@runtime_checkable
class Solver(Protocol):
    """Minimises an objective, every row on its own."""

    def minimise(self, objective: Objective, x0: Float[Tensor, "B D"], progress: Progress | None = None) -> Solution:
        """Return the best point found for every row, starting at x0."""
        ...


def minimise(
    objective: Objective, x0: Float[Tensor, "B D"], solver: Solver, progress: Progress | None = None
) -> Solution:
    """Return the minimum of every row of an objective, found by a solver from x0."""
    return solver.minimise(objective, x0, progress)


def evaluate(objective: Objective, x: Float[Tensor, "B D"]) -> tuple[Float[Tensor, " B"], Float[Tensor, "B D"]]:
    """Return (energy (B,), gradient (B, D)) of every row at x, both detached.

    Raises:
        ValueError: the objective does not return one energy per row.
    """
    with torch.enable_grad():
        leaf = x.detach().requires_grad_(True)
        energy = objective(leaf)
        if energy.shape != x.shape[:1]:
            raise ValueError(
                f"An objective must return one energy per row, shape {tuple(x.shape[:1])}; got {tuple(energy.shape)}."
            )
        if not energy.requires_grad:
            return energy, torch.zeros_like(x)
        (gradient,) = torch.autograd.grad(energy.sum(), leaf, allow_unused=True)
    return energy.detach(), torch.zeros_like(x) if gradient is None else gradient
