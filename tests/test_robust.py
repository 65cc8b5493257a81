"""Robust losses: equal to the square for small residuals, gentler for large ones, smooth and finite everywhere."""

from __future__ import annotations

import math

import pytest
import torch

from fitkit.robust import ROBUST_LOSSES, cauchy, geman_mcclure, huber, pseudo_huber, welsch

LOSSES = [geman_mcclure, welsch, cauchy, huber, pseudo_huber]


def _squares(*values: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_small_residuals_give_their_square(loss, scale):
    squared = _squares(0.0, 1e-6, 1e-5) * scale**2
    torch.testing.assert_close(loss(squared, scale), squared, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("loss", LOSSES)
def test_large_residuals_cost_less_than_their_square_and_never_less_than_smaller_ones(loss):
    squared = torch.logspace(-8, 8, 400, dtype=torch.float64)
    value = loss(squared, 0.7)
    assert bool((value <= squared * (1 + 1e-12)).all())
    assert bool((value.diff() >= 0).all())


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (geman_mcclure, 4.0 * 9.0 / 13.0),
        (welsch, 4.0 * (1 - math.exp(-9.0 / 4.0))),
        (cauchy, 4.0 * math.log(1 + 9.0 / 4.0)),
        (huber, 2 * 2.0 * 3.0 - 4.0),
        (pseudo_huber, 8.0 * (math.sqrt(1 + 9.0 / 4.0) - 1)),
    ],
)
def test_formula_at_residual_3_and_scale_2(loss, expected):
    assert loss(_squares(9.0), 2.0).item() == pytest.approx(expected, rel=1e-14)


def test_geman_mcclure_is_bounded_by_the_squared_scale():
    assert geman_mcclure(_squares(1e12), 3.0).item() == pytest.approx(9.0)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_right(loss):
    squared = _squares(0.0, 1e-4, 0.3, 0.9, 1.1, 7.0, 1e3).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss(s + 1e-3, 1.0), (squared,))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_gradient_are_finite_from_zero_to_huge(loss, dtype):
    squared = _squares(0.0, 1e-30, 1.0, 1e12, 1e30, dtype=dtype).requires_grad_()
    value = loss(squared, 0.1)
    (gradient,) = torch.autograd.grad(value.sum(), squared)
    assert bool(value.isfinite().all()) and bool(gradient.isfinite().all())
    assert gradient[0].item() == pytest.approx(1.0)
    assert bool((gradient >= 0).all())


@pytest.mark.parametrize("loss", LOSSES)
def test_scale_broadcasts_and_may_be_a_tensor(loss):
    squared = _squares(0.5, 2.0)
    together = loss(squared, _squares(1.0, 3.0))
    torch.testing.assert_close(together, torch.cat([loss(squared[:1], 1.0), loss(squared[1:], 3.0)]))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_unit_does_not_matter(loss):
    squared = _squares(0.01, 0.5, 2.0, 50.0)
    torch.testing.assert_close(loss(squared * 1e6, 1000.0), loss(squared, 1.0) * 1e6)


@pytest.mark.parametrize("name", sorted(ROBUST_LOSSES))
def test_scaling_and_slope_are_those_of_the_loss(name):
    loss, scale = ROBUST_LOSSES[name], torch.tensor(0.7, dtype=torch.float64)
    squared = _squares(0.0, 1e-12, 1e-9, 1e-6, 0.3, 0.9, 7.0, 60.0).requires_grad_()
    value = loss.value(squared, scale)
    torch.testing.assert_close(squared * loss.scaling(squared, scale).square(), value, rtol=1e-8, atol=1e-20)
    slope = torch.autograd.grad(value.sum(), squared)[0]
    torch.testing.assert_close(loss.root_slope(squared, scale).square(), slope, rtol=1e-8, atol=1e-20)
    # The factor's own slope is finite at nothing, too, for solvers that differentiate residuals.
    factor = loss.scaling(squared, scale).sum()
    assert bool(torch.autograd.grad(factor, squared)[0].isfinite().all())
