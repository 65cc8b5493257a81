"""Row-wise batched minimisers: they know `x (B, D)`, a function, and nothing of bodies."""

from fitkit.registry import Registry
from fitkit.solvers.adam import Adam
from fitkit.solvers.base import Objective, Progress, RowwiseFunction, Solution, Solver, Status, evaluate, minimise
from fitkit.solvers.lbfgs import LBFGS

SOLVERS = Registry("solver", {"lbfgs": "fitkit.solvers.lbfgs:LBFGS", "adam": "fitkit.solvers.adam:Adam"})
"""Names that recipes use for the solvers."""

__all__ = [
    "LBFGS",
    "SOLVERS",
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
