"""Row-wise batched minimisers: they know `x (B, D)`, a function, and nothing of bodies."""

from fitkit.registry import Registry
from fitkit.solvers.adam import Adam
from fitkit.solvers.base import Objective, Progress, RowwiseFunction, Solution, Solver, Status, evaluate, minimise
from fitkit.solvers.lbfgs import LBFGS
from fitkit.solvers.least_squares import Bounds, LeastSquaresObjective, Linearisation, RowwiseResiduals, from_residuals
from fitkit.solvers.levenberg_marquardt import LevenbergMarquardt

SOLVERS = Registry(
    "solver",
    {
        "lbfgs": "fitkit.solvers.lbfgs:LBFGS",
        "adam": "fitkit.solvers.adam:Adam",
        "levenberg_marquardt": "fitkit.solvers.levenberg_marquardt:LevenbergMarquardt",
    },
)
"""Names that recipes use for the solvers."""

__all__ = [
    "LBFGS",
    "SOLVERS",
    "Adam",
    "Bounds",
    "LeastSquaresObjective",
    "LevenbergMarquardt",
    "Linearisation",
    "Objective",
    "Progress",
    "RowwiseFunction",
    "RowwiseResiduals",
    "Solution",
    "Solver",
    "Status",
    "evaluate",
    "from_residuals",
    "minimise",
]
