"""Levenberg-Marquardt: least squares are solved, rows are independent, and no row's trouble is another's."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fitkit.solvers import LevenbergMarquardt, RowwiseFunction, RowwiseResiduals, Status, evaluate, from_residuals

Case = tuple[RowwiseResiduals, Tensor]
"""An objective and a start."""


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _rosenbrock_residuals(x: Tensor) -> Tensor:
    return torch.cat((10 * (x[:, 1:] - x[:, :-1] ** 2), 1 - x[:, :-1]), -1)


def _rosenbrock(size: int = 10, rows: int = 5) -> Case:
    return from_residuals(_rosenbrock_residuals), 1 + 0.4 * _random(rows, size, seed=11)


def _exponential_residuals(x: Tensor, observed: Tensor) -> Tensor:
    time = torch.linspace(0, 4, observed.shape[-1], dtype=x.dtype, device=x.device)
    a, fast, b, slow = x[..., None].unbind(1)
    return a * torch.exp(-fast * time) + b * torch.exp(-slow * time) - observed


def _exponential(rows: int = 6) -> Case:
    truth = torch.tensor([1.0, 0.3, 1.0, 2.0]) + 0.2 * _random(rows, 4, seed=1).abs()
    observed = _exponential_residuals(truth, torch.zeros(rows, 25)) + 0.01 * _random(rows, 25, seed=2)
    start = torch.tensor([[1.0, 0.1, 1.0, 1.0]], dtype=torch.float64)
    return from_residuals(_exponential_residuals, observed), start.repeat(rows, 1)


CASES: dict[str, Callable[[], Case]] = {"rosenbrock": _rosenbrock, "exponential": _exponential}


@pytest.mark.parametrize("name", CASES)
def test_it_minimises(name):
    objective, x0 = CASES[name]()
    found = LevenbergMarquardt().minimise(objective, x0)
    energy, gradient = evaluate(objective, found.x)
    torch.testing.assert_close(found.energy, energy)
    assert bool(found.succeeded.all()) and bool((gradient.norm(dim=-1) < 1e-6).all())


@pytest.mark.parametrize("name", CASES)
def test_a_row_alone_is_the_row_among_others(name):
    objective, x0 = CASES[name]()
    together = LevenbergMarquardt().minimise(objective, x0)
    for row in range(len(x0)):
        alone = LevenbergMarquardt().minimise(objective.select(torch.tensor([row])), x0[row : row + 1])
        torch.testing.assert_close(alone.x[0], together.x[row], rtol=0, atol=1e-8)


def test_a_nan_is_a_status_and_not_its_neighbours_problem():
    objective, x0 = _rosenbrock()
    clean = LevenbergMarquardt().minimise(objective, x0)
    x0[2, 3] = math.nan
    found = LevenbergMarquardt().minimise(objective, x0)
    assert found.status[2] == Status.NON_FINITE and torch.equal(found.x[2].isnan(), x0[2].isnan())
    others = torch.tensor([0, 1, 3, 4])
    torch.testing.assert_close(found.x[others], clean.x[others], rtol=0, atol=1e-8)


def test_a_plain_function_is_refused():
    with pytest.raises(TypeError, match="linearise"):
        LevenbergMarquardt().minimise(RowwiseFunction(lambda x: x.sum(-1)), torch.zeros(2, 3))
