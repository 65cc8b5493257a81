"""Row-wise batched minimisers: they know `x (B, D)`, a function, and nothing of bodies."""

from fitkit.solvers.adam import Adam
from fitkit.solvers.base import Objective, Progress, RowwiseFunction, Solution, Solver, Status, evaluate, minimise
from fitkit.solvers.lbfgs import LBFGS

__all__ = [
    "LBFGS",
    "Adam",
    "Objective",
    "Progress",
    "RowwiseFunction",
    "Solution",
    "Solver",
    "Status",
    "evaluate",
    "minimise",
]
