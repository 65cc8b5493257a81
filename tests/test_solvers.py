"""Solvers: the minimum is found, rows are independent, and nothing that happens to one row is an exception."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.optimize import minimize as scipy_minimise
from torch import Tensor

from fitkit.robust import geman_mcclure
from fitkit.solvers import LBFGS, Adam, RowwiseFunction, Solution, Solver, Status, evaluate, minimise


@dataclass(frozen=True)
class Rows:
    """An objective with data per row."""

    function: Callable[..., Tensor]
    data: tuple[Tensor, ...]

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x, *self.data)

    def select(self, rows: Tensor) -> Rows:
        return Rows(self.function, tuple(part[rows] for part in self.data))


@dataclass(frozen=True)
class Case:
    """A problem: objective, start and, where it is known, each row's least energy."""

    objective: Rows | RowwiseFunction
    x0: Tensor
    least: Tensor | None
    gentle: bool
    """Whether first-order steps get there too."""


# Products are written as sums: torch's matrix products may round a row differently in batches of another size.


def _quadratic_energy(x: Tensor, stiffness: Tensor, mixing: Tensor, target: Tensor) -> Tensor:
    mixed = (mixing * (x - target)[:, None]).sum(-1)
    return (stiffness * mixed * mixed).sum(-1)


def _rosenbrock_energy(x: Tensor) -> Tensor:
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(-1)


def _beale_energy(x: Tensor) -> Tensor:
    a, b = x[:, 0], x[:, 1]
    return (1.5 - a + a * b) ** 2 + (2.25 - a + a * b**2) ** 2 + (2.625 - a + a * b**3) ** 2


def _robust_energy(x: Tensor, design: Tensor, observed: Tensor) -> Tensor:
    residual = (design * x[:, None]).sum(-1) - observed
    return geman_mcclure(residual**2, 2.0).sum(-1)


def _logistic_energy(x: Tensor, design: Tensor, label: Tensor) -> Tensor:
    margin = label * (design * x[:, None]).sum(-1)
    return torch.log1p(torch.exp(-margin)).sum(-1) + 0.05 * (x * x).sum(-1)


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _quadratic(rows: int = 6, size: int = 12) -> Case:
    """Condition numbers from 1 to 10^4, one per row."""
    mixing = torch.linalg.qr(_random(rows, size, size, seed=1))[0]
    exponents = torch.linspace(0, 4, rows, dtype=torch.float64)[:, None]
    stiffness = 10 ** (exponents * torch.linspace(-1, 0, size, dtype=torch.float64))
    objective = Rows(_quadratic_energy, (stiffness, mixing, _random(rows, size, seed=2)))
    return Case(objective, torch.zeros(rows, size, dtype=torch.float64), torch.zeros(rows, dtype=torch.float64), False)


def _rosenbrock(size: int, rows: int = 5) -> Case:
    x0 = 1 + 0.4 * _random(rows, size, seed=size)
    return Case(RowwiseFunction(_rosenbrock_energy), x0, torch.zeros(rows, dtype=torch.float64), False)


def _beale() -> Case:
    x0 = torch.tensor([[1.0, 1.0], [2.0, 0.0], [0.0, 0.0], [2.5, 0.7]], dtype=torch.float64)
    return Case(RowwiseFunction(_beale_energy), x0, torch.zeros(4, dtype=torch.float64), False)


def _robust(rows: int = 8, size: int = 10) -> Case:
    """Linear regression; a fifth of the observations are far off."""
    design, truth = _random(rows, 60, size, seed=5), _random(rows, size, seed=6)
    outlier = torch.arange(60) % 5 == 0
    observed = (design * truth[:, None]).sum(-1) + torch.where(outlier, 30.0, 0.02) * _random(rows, 60, seed=7)
    return Case(Rows(_robust_energy, (design, observed)), truth + 0.3 * _random(rows, size, seed=8), None, True)


def _logistic(rows: int = 5, size: int = 6) -> Case:
    design = _random(rows, 80, size, seed=9)
    label = torch.sign((design * _random(rows, size, seed=10)[:, None]).sum(-1) + _random(rows, 80, seed=11))
    return Case(Rows(_logistic_energy, (design, label)), torch.zeros(rows, size, dtype=torch.float64), None, True)


CASES: dict[str, Callable[[], Case]] = {
    "quadratic": _quadratic,
    "rosenbrock_2": lambda: _rosenbrock(2),
    "rosenbrock_5": lambda: _rosenbrock(5),
    "rosenbrock_30": lambda: _rosenbrock(30),
    "beale": _beale,
    "robust": _robust,
    "logistic": _logistic,
}

SOLVERS: dict[str, Solver] = {
    "lbfgs": LBFGS(max_iterations=400, change_tolerance=0.0),
    "lbfgs_short_history": LBFGS(max_iterations=600, history=3, change_tolerance=0.0),
    "lbfgs_exact_search": LBFGS(max_iterations=400, c2=0.1, change_tolerance=0.0),
    "adam": Adam(max_iterations=200, learning_rate=0.15),
}


def _scipy(case: Case, row: int, history: int = 12) -> tuple[float, int, int]:
    """Return (energy, iterations, evaluations) of scipy's L-BFGS-B on one row."""
    objective = case.objective.select(torch.tensor([row]))

    def value(x: np.ndarray) -> tuple[float, np.ndarray]:
        energy, gradient = evaluate(objective, torch.from_numpy(x)[None])
        return energy.item(), gradient[0].numpy()

    options = {"maxiter": 2000, "maxfun": 5000, "maxcor": history, "ftol": 0.0, "gtol": 1e-8}
    found = scipy_minimise(value, case.x0[row].numpy(), jac=True, method="L-BFGS-B", options=options)
    return float(found.fun), int(found.nit), int(found.nfev)


def _check_consistent(case: Case, found: Solution) -> None:
    """What every solution of every solver must be."""
    energy, gradient = evaluate(case.objective, found.x)
    torch.testing.assert_close(found.energy, energy)
    torch.testing.assert_close(found.gradient_norm, gradient.norm(dim=-1))
    start, _ = evaluate(case.objective, case.x0)
    assert bool((found.energy <= start).all())
    assert bool((found.status != Status.RUNNING).all())
    assert bool((found.evaluations > found.iterations).all())
    assert found.x.dtype == case.x0.dtype and found.energy.dtype == case.x0.dtype


@pytest.mark.parametrize("case_name", CASES)
@pytest.mark.parametrize("solver_name", SOLVERS)
def test_every_solver_minimises_every_problem_that_suits_it(solver_name, case_name):
    case, solver = CASES[case_name](), SOLVERS[solver_name]
    before = case.x0.clone()
    found = minimise(case.objective, case.x0, solver)
    assert torch.equal(case.x0, before)
    _check_consistent(case, found)
    if solver_name == "adam" and not case.gentle:
        return
    least = case.least
    if least is None:
        least = torch.tensor([_scipy(case, row)[0] for row in range(len(case.x0))], dtype=torch.float64)
    tolerance = 1e-2 if solver_name == "adam" else 1e-10
    torch.testing.assert_close(found.energy, least, rtol=tolerance, atol=1e-10)
    if solver_name != "adam":
        assert bool(found.succeeded.all())


@pytest.mark.parametrize("case_name", CASES)
@pytest.mark.parametrize("solver_name", SOLVERS)
def test_a_row_alone_is_the_row_among_others(solver_name, case_name):
    case, solver = CASES[case_name](), SOLVERS[solver_name]
    together = solver.minimise(case.objective, case.x0)
    for row in (0, len(case.x0) - 1):
        alone = solver.minimise(case.objective.select(torch.tensor([row])), case.x0[row : row + 1])
        assert torch.equal(alone.x[0], together.x[row])
        for name in ("energy", "status", "iterations", "evaluations"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[row]), name


@pytest.mark.parametrize("compact", [{"compact_above": 0, "compact_share": 1.0}, {"compact_above": 10**6}])
@pytest.mark.parametrize("solver", [LBFGS(max_iterations=300), Adam(max_iterations=60, patience=5)])
def test_whether_finished_rows_leave_makes_no_difference(solver, compact):
    case = _robust(rows=16)
    fields = {name: getattr(solver, name) for name in solver.__dataclass_fields__}
    other = type(solver)(**{**fields, **compact})
    a, b = solver.minimise(case.objective, case.x0), other.minimise(case.objective, case.x0)
    assert torch.equal(a.x, b.x) and torch.equal(a.status, b.status) and torch.equal(a.evaluations, b.evaluations)


def test_finished_rows_leave_the_batch():
    sizes = []

    def energy(x: Tensor, stiffness: Tensor) -> Tensor:
        sizes.append(len(x))
        return (stiffness * x**2).sum(-1) + (x**4).sum(-1)

    stiffness = torch.stack([torch.logspace(0, k / 3, 8, dtype=torch.float64) for k in range(16)])
    found = LBFGS(max_iterations=500, compact_above=2).minimise(Rows(energy, (stiffness,)), _random(16, 8, seed=3))
    assert bool(found.succeeded.all())
    assert sizes[0] == 16 and sizes[-1] <= 4 and sizes == sorted(sizes, reverse=True)
    assert sum(sizes) < 0.85 * 16 * len(sizes)


@pytest.mark.parametrize("solver_name", SOLVERS)
def test_a_broken_row_is_a_status_and_not_its_neighbours_problem(solver_name):
    case, solver = _robust(), SOLVERS[solver_name]
    clean = solver.minimise(case.objective, case.x0)
    design, observed = case.objective.data
    observed = observed.clone()
    observed[2, 5] = torch.nan
    observed[4] = torch.inf
    x0 = case.x0.clone()
    x0[6, 1] = torch.nan
    found = solver.minimise(Rows(_robust_energy, (design, observed)), x0)
    broken = torch.tensor([2, 4, 6])
    assert found.status[broken].tolist() == [Status.NON_FINITE] * 3
    assert torch.equal(found.x[broken].nan_to_num(77.0), x0[broken].nan_to_num(77.0))
    assert found.iterations[broken].tolist() == [0, 0, 0] and found.evaluations[broken].tolist() == [1, 1, 1]
    others = torch.tensor([0, 1, 3, 5, 7])
    assert torch.equal(found.x[others], clean.x[others])
    assert torch.equal(found.status[others], clean.status[others])


@pytest.mark.parametrize("beyond", [torch.nan, torch.inf])
@pytest.mark.parametrize("solver", [LBFGS(max_iterations=200), Adam(learning_rate=0.3, max_iterations=300)])
def test_the_search_backs_off_from_a_wall(solver, beyond):
    """The minimum, at 0.01, lies just before a wall at 0 that full steps cross."""

    def energy(x: Tensor) -> Tensor:
        inside = x - 0.01 * torch.log(x.clamp(min=1e-12))
        return torch.where((x > 0).all(-1), inside.sum(-1), beyond)

    x0 = torch.tensor([[5.0, 1.0], [0.5, 3.0], [1.0, 1e-3]], dtype=torch.float64)
    found = solver.minimise(RowwiseFunction(energy), x0)
    assert bool(found.energy.isfinite().all())
    tolerance = 1e-5 if isinstance(solver, LBFGS) else 0.05
    torch.testing.assert_close(found.x, torch.full_like(x0, 0.01), rtol=0, atol=tolerance)


@pytest.mark.parametrize("solver", [LBFGS(), Adam()])
def test_a_row_that_can_go_nowhere_ends_as_non_finite_at_its_start(solver):
    x0 = torch.tensor([[1.0, 2.0], [1.0, 1.0]], dtype=torch.float64)

    def energy(x: Tensor, only: Tensor) -> Tensor:
        return torch.where((x == only).all(-1) | only.isnan().any(-1), (x**2).sum(-1), torch.nan)

    found = solver.minimise(Rows(energy, (torch.tensor([[1.0, 2.0], [torch.nan, 0.0]]).double(),)), x0)
    assert found.status[0] == Status.NON_FINITE
    assert torch.equal(found.x[0], x0[0]) and found.energy[0].item() == 5.0
    assert found.energy[1] < 1.0 and found.status[1] != Status.NON_FINITE


def test_statuses_say_how_rows_ended():
    x0 = torch.full((3, 2), 3.0, dtype=torch.float64)
    bowl = RowwiseFunction(lambda x: ((x - 1) ** 2).sum(-1))
    valley = RowwiseFunction(_rosenbrock_energy)
    assert LBFGS().minimise(bowl, x0).status.tolist() == [Status.CONVERGED] * 3
    assert LBFGS().minimise(bowl, torch.ones_like(x0)).iterations.tolist() == [0, 0, 0]
    assert LBFGS(max_iterations=3).minimise(valley, x0).status.tolist() == [Status.MAX_ITERATIONS] * 3
    assert LBFGS(max_iterations=0).minimise(valley, x0).evaluations.tolist() == [1, 1, 1]
    offset = RowwiseFunction(lambda x: 1e6 + (x - 1).cosh().sum(-1))
    assert LBFGS(gradient_tolerance=0.0).minimise(offset, x0).status.tolist() == [Status.STALLED] * 3
    assert LBFGS(step_tolerance=0.5, patience=1).minimise(valley, x0).status.tolist() == [Status.STALLED] * 3
    kink = RowwiseFunction(lambda x: 1 + x.abs().sum(-1) - 2 * torch.where(x > 0, x.detach() - x, 0.0).sum(-1))
    assert LBFGS().minimise(kink, x0).status.tolist() == [Status.LINE_SEARCH_FAILED] * 3
    assert Adam(max_iterations=4).minimise(bowl, x0).status.tolist() == [Status.MAX_ITERATIONS] * 3
    assert Adam(patience=20, learning_rate=0.2).minimise(bowl, x0).status.tolist() == [Status.STALLED] * 3
    assert Adam().minimise(bowl, torch.ones_like(x0)).status.tolist() == [Status.CONVERGED] * 3
    assert Status.STALLED.succeeded and not Status.MAX_ITERATIONS.succeeded


def test_easy_rows_end_before_hard_ones():
    case = _quadratic()
    found = LBFGS(max_iterations=500).minimise(case.objective, case.x0)
    assert found.iterations[0] <= 3
    assert found.iterations[-1] > 10 * found.iterations[0]


def test_the_energy_never_rises():
    energies = []
    case = _robust(rows=3)

    class Watched(Rows):
        def __call__(self, x: Tensor) -> Tensor:
            value = super().__call__(x)
            energies.append(value.detach())
            return value

    found = LBFGS(max_iterations=60).minimise(Watched(_robust_energy, case.objective.data), case.x0)
    assert torch.equal(found.energy, torch.stack(energies).amin(0))


@pytest.mark.parametrize("case_name", CASES)
def test_float32_ends_well_and_near_the_minimum(case_name):
    case = CASES[case_name]()
    objective = case.objective
    if isinstance(objective, Rows):
        objective = Rows(objective.function, tuple(part.float() for part in objective.data))
    found = LBFGS(max_iterations=500).minimise(objective, case.x0.float())
    reference = LBFGS(max_iterations=500).minimise(case.objective, case.x0)
    assert found.x.dtype == torch.float32 and bool(found.succeeded.all())
    torch.testing.assert_close(found.energy.double(), reference.energy, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case_name", CASES)
def test_work_is_that_of_scipy(case_name):
    case = CASES[case_name]()
    found = LBFGS(max_iterations=2000, gradient_tolerance=1e-8, change_tolerance=0.0).minimise(case.objective, case.x0)
    reference = np.array([_scipy(case, row) for row in range(len(case.x0))])
    assert found.iterations.numpy().mean() <= 1.3 * reference[:, 1].mean() + 3
    assert found.evaluations.numpy().mean() <= 1.3 * reference[:, 2].mean() + 5


def test_most_steps_take_one_evaluation():
    case = _rosenbrock(30)
    found = LBFGS(max_iterations=400).minimise(case.objective, case.x0)
    assert (found.evaluations / found.iterations).mean() < 1.3


def test_adam_is_the_published_one():
    case = _rosenbrock(5)
    steps = 40
    solver = Adam(learning_rate=0.01, final_share=1.0, max_iterations=steps, change_tolerance=0.0)
    found = solver.minimise(case.objective, case.x0)
    x = case.x0.clone().requires_grad_()
    reference = torch.optim.Adam([x], lr=0.01)
    least = torch.full((len(x),), torch.inf, dtype=torch.float64)
    for _ in range(steps + 1):
        reference.zero_grad()
        energy = case.objective(x)
        least = torch.minimum(least, energy.detach())
        energy.sum().backward()
        reference.step()
    torch.testing.assert_close(found.energy, least)


@pytest.mark.parametrize("solver_name", SOLVERS)
def test_an_empty_batch_gives_an_empty_solution(solver_name):
    found = SOLVERS[solver_name].minimise(RowwiseFunction(_rosenbrock_energy), torch.zeros(0, 4))
    assert found.x.shape == (0, 4) and len(found) == 0 and found.status.shape == (0,)


@pytest.mark.parametrize("solver_name", SOLVERS)
def test_an_objective_that_ignores_its_unknowns_is_converged(solver_name):
    constant = RowwiseFunction(lambda x: x.new_ones(len(x)))
    found = SOLVERS[solver_name].minimise(constant, torch.zeros(2, 3))
    assert found.status.tolist() == [Status.CONVERGED] * 2


@pytest.mark.parametrize("solver_name", SOLVERS)
def test_progress_tells_iterations_and_active_rows(solver_name):
    told = []
    case = _beale()
    found = SOLVERS[solver_name].minimise(case.objective, case.x0, lambda *reached: told.append(reached))
    iterations, active = zip(*told, strict=True)
    assert set(iterations) == set(range(1, int(found.iterations.max()) + 1)) and list(iterations) == sorted(iterations)
    assert active[0] == 4 and active[-1] == 0 and list(active) == sorted(active, reverse=True)
    assert len(set(told)) == len(told)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("solver_name", SOLVERS)
def test_exceptions_of_the_objective_pass_through(solver_name, error):
    calls = []

    def energy(x: Tensor) -> Tensor:
        calls.append(len(x))
        if len(calls) == 3:
            raise error
        return _rosenbrock_energy(x)

    with pytest.raises(error):
        SOLVERS[solver_name].minimise(RowwiseFunction(energy), torch.zeros(2, 4))
    assert torch.is_grad_enabled()


def test_an_objective_must_give_one_energy_per_row():
    with pytest.raises(ValueError, match="one energy per row"):
        LBFGS().minimise(Rows(lambda x: x.sum(), ()), torch.zeros(2, 4))


def test_solvers_work_within_no_grad():
    with torch.no_grad():
        found = LBFGS().minimise(RowwiseFunction(lambda x: ((x - 2) ** 2).sum(-1)), torch.zeros(2, 4))
    torch.testing.assert_close(found.x, torch.full((2, 4), 2.0))
    assert not found.x.requires_grad


@pytest.mark.parametrize("case_name", CASES)
def test_the_way_of_other_devices_is_that_of_the_cpu(case_name, monkeypatch):
    """On the CPU the products are numpy's; elsewhere they are torch's, in the same lines."""
    case, solver = CASES[case_name](), LBFGS(max_iterations=30)
    reference = solver.minimise(case.objective, case.x0)
    for module in ("curvature", "lbfgs"):
        monkeypatch.setattr(f"fitkit.solvers.{module}.as_array", lambda tensor: tensor)
    found = solver.minimise(case.objective, case.x0)
    torch.testing.assert_close(found.energy, reference.energy, rtol=1e-3, atol=1e-6)
    assert (found.iterations - reference.iterations).abs().max() <= 3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("solver_name", SOLVERS)
def test_a_device_gives_the_same_answer(solver_name):
    case, solver = _robust(), SOLVERS[solver_name]
    there = Rows(_robust_energy, tuple(part.cuda() for part in case.objective.data))
    found, reference = solver.minimise(there, case.x0.cuda()), solver.minimise(case.objective, case.x0)
    assert found.x.is_cuda and found.status.is_cuda
    torch.testing.assert_close(found.x.cpu(), reference.x, rtol=0, atol=1e-6)
