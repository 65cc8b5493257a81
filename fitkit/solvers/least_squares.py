"""What Levenberg-Marquardt asks of an objective beyond its energy, and the simplest objective that has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fitkit.solvers.base import Objective

Bounds = tuple[Tensor, Tensor]
"""Least and greatest value of every unknown, each (D,) or (B, D); infinite where there is none."""


@dataclass(frozen=True)
class Linearisation:
    """An energy to second order around a point, per row."""

    energy: Float[Tensor, " B"]
    """The energy at the point."""
    gradient: Float[Tensor, "B D"]
    """Its gradient (energy per unit of x)."""
    curvature: Float[Tensor, "B D D"]
    """Symmetric, positive semi-definite approximation of its Hessian: Gauss-Newton's is 2 J^T J."""
    owned: bool = False
    """Whether nobody else holds the curvature, so that whoever has this may write to it."""

    def select(self, rows: Int[Tensor, " M"]) -> Linearisation:
        """Return the rows at these indices."""
        return Linearisation(self.energy[rows], self.gradient[rows], self.curvature[rows], owned=True)

    def replace(self, rows: Int[Tensor, " M"], other: Linearisation) -> Linearisation:
        """Return itself with the rows at these indices taken from another, in order; written over where owned."""
        copied = self.curvature.index_copy_ if self.owned else self.curvature.index_copy
        return Linearisation(
            self.energy.index_copy(0, rows, other.energy),
            self.gradient.index_copy(0, rows, other.gradient),
            copied(0, rows, other.curvature),
            owned=True,
        )


@runtime_checkable
class LeastSquaresObjective(Objective, Protocol):
    """An objective that knows its own second-order model.

    It may also have `bounds`, a pair as `Bounds` describes: the box in which the minimum is sought. The solver asks for
    it once, of the objective of all rows.
    """

    def linearise(self, x: Float[Tensor, "B D"]) -> Linearisation:
        """Return energy, gradient and curvature of every row; `energy` as the call would give it.

        Called under `no_grad`. Where all rows of the batch accepted their step, x is the very tensor of the last call
        for the energy, so that an objective may keep and reuse what it computed there.
        """
        ...

    def select(self, rows: Int[Tensor, " M"]) -> LeastSquaresObjective:
        """Return the same function for the rows at these indices (of this objective), in the order given."""
        ...


@dataclass(frozen=True)
class RowwiseResiduals:
    """The sum of squares of a function's values, with the Jacobian from automatic differentiation."""

    residuals: Callable[..., Tensor]
    """Maps x (B, D) and the data to residuals (B, R), for any B; rows are independent of each other."""
    data: tuple[Tensor, ...] = ()
    """Further arguments of `residuals`, each with one row per problem."""
    bounds: Bounds | None = None
    """The box in which the minimum is sought; None: everywhere."""

    def __call__(self, x: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
        """Return the sum of squared residuals of every row."""
        return self.residuals(x, *self.data).square().sum(-1)

    def linearise(self, x: Float[Tensor, "B D"]) -> Linearisation:
        """Return energy, gradient 2 J^T r and curvature 2 J^T J of every row."""
        value, pull = torch.func.vjp(lambda at: self.residuals(at, *self.data), x)[:2]
        basis = torch.eye(value.shape[-1], dtype=x.dtype, device=x.device)
        (jacobian,) = torch.func.vmap(lambda one: pull(one.expand_as(value)), out_dims=1)(basis)
        value, jacobian = value.detach(), jacobian.detach()
        doubled = 2 * jacobian.mT
        return Linearisation(value.square().sum(-1), (doubled @ value[..., None])[..., 0], doubled @ jacobian)

    def select(self, rows: Int[Tensor, " M"]) -> RowwiseResiduals:
        """Return the problems at these indices."""
        data = tuple(part[rows] for part in self.data)
        if self.bounds is None:
            return RowwiseResiduals(self.residuals, data)
        lower, upper = (side if side.ndim == 1 else side[rows] for side in self.bounds)
        return RowwiseResiduals(self.residuals, data, (lower, upper))


def from_residuals(residuals: Callable[..., Tensor], *data: Tensor, bounds: Bounds | None = None) -> RowwiseResiduals:
    """Return the objective whose energy is the sum of squares of `residuals(x, *data)`.

    Args:
        residuals: maps x (B, D) and the data to residuals (B, R), for any B; rows are independent of each other.
        data: further arguments of `residuals`, each with one row per problem.
        bounds: least and greatest value of every unknown, each (D,) or (B, D).
    """
    return RowwiseResiduals(residuals, data, bounds)
