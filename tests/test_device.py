"""Fits on devices: nothing inside an iteration waits for the host, and single precision is as good as it can be.

Most of it runs on a CPU: there every operation of an iteration is seen by a dispatch mode, and those that would read a
number back from a device, or send one there, are named with the line that asked for them.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fitting_world import model_of, people_of, problem_of, quick, random_parameters
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import fitkit
from fitkit.chart import Chart
from fitkit.energy import Energy, WeightedTerm
from fitkit.fitting import Fit, fit
from fitkit.people import Person, fit_people, make_problem
from fitkit.prior_files import load_prior
from fitkit.problem import Belief, Problem
from fitkit.recipe import load_recipe
from fitkit.results import FitResult
from fitkit.scene import Scene
from fitkit.solvers import LevenbergMarquardt, Solution, Status, from_residuals
from fitkit.solvers.resident import CHECK, ResidentRun, minimise_resident
from fitkit.terms import TERMS

READS = {
    "aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::equal", "aten::nonzero",
    "aten::masked_select", "aten::_unique2", "aten::unique_dim", "aten::bincount",
}  # fmt: skip
"""Operations whose answer, or the shape of it, the host must wait for."""
SENDS = {"aten::lift_fresh", "aten::lift_fresh_copy"}
"""Operations by which numbers of the host become tensors."""
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_"}
"""Operations that wait where they are given masks."""


PACKAGE = str(Path(fitkit.__file__).parent)
"""Where fitkit's own lines are; the checkout itself may be called so, too."""


class Watch(TorchDispatchMode):
    """Notes the operations that a predicate takes, with the lines of fitkit that asked for them."""

    def __init__(self, notes: Callable[[str, tuple[Any, ...], Any], bool]) -> None:
        super().__init__()
        self.notes, self.found, self.calls = notes, [], 0

    def __torch_dispatch__(self, function, kinds, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        self.calls += 1
        if self.notes(function._schema.name, arguments, result):
            lines = [frame for frame in traceback.extract_stack() if frame.filename.startswith(PACKAGE)]
            where = f"{lines[-1].filename.rsplit('/', 2)[-2:]}:{lines[-1].lineno}" if lines else "?"
            self.found.append(f"{function._schema.name} at {where}")
        return result


def _waits(name: str, arguments: tuple[Any, ...], result: Any) -> bool:
    if name in INDEXING:
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in arguments[1])
    if name == "aten::_to_copy":
        # On a device this is a copy from the host, unless it is a mask that becomes numbers.
        return arguments[0].dtype not in (torch.bool, result.dtype)
    return name in READS | SENDS


@pytest.fixture
def resident(monkeypatch) -> None:
    """Let Levenberg-Marquardt keep its state in tensors, as it does on a GPU."""

    def minimise(self, objective, x0, progress=None) -> Solution:
        with torch.no_grad():
            return minimise_resident(self, objective, x0, progress)

    monkeypatch.setattr(LevenbergMarquardt, "minimise", minimise)


# ---------------------------------------------------------------------------------------------- no waiting


def test_no_iteration_waits_for_the_host(resident, monkeypatch):
    """All stages of the default recipe, all of its terms; what is prepared once is prepared by a first fit."""
    recipe = quick("default", 3)
    problem = problem_of(people_of("anny", 3).keypoints)
    fit(problem, recipe.initialiser, recipe.stages)
    watch, advance = Watch(_waits), ResidentRun.advance

    def watched(self: ResidentRun) -> None:
        with watch:
            advance(self)

    monkeypatch.setattr(ResidentRun, "advance", watched)
    fit(problem, recipe.initialiser, recipe.stages)
    assert watch.calls > 1000 and watch.found == []


@pytest.mark.parametrize("name", TERMS.names())
def test_no_term_waits_for_the_host(name):
    """Every term, linearised where all leaves are free, as in the iterations of a solver."""
    problem = _believed(problem_of(people_of("anny", 2).keypoints))
    term = TERMS.get(name)().observe(replace(problem, priors={"relaxed": load_prior("student")}))
    free = tuple(problem.start)
    parameters = random_parameters(problem.model, 2)

    def work() -> None:
        scene = Scene(problem.model, parameters, problem.camera)
        Energy((WeightedTerm(name, 1.0, term),)).normal_equations(scene, Chart(scene, free))
        term(scene)

    with torch.no_grad():
        work()
        with Watch(_waits) as watch:
            work()
    assert watch.calls > 0 and watch.found == []


def _believed(problem: Problem) -> Problem:
    """Return the problem with a height and with what an initialiser thinks of it."""
    random = torch.Generator().manual_seed(0)
    mean = torch.rand(2, 1, 66, generator=random, dtype=torch.float64)
    whitening = torch.rand(2, 1, 66, 66, generator=random, dtype=torch.float64)
    belief = Belief(("global_orient", "body_pose"), (3, 63), mean, whitening)
    return replace(problem, belief=belief, heights=torch.full((2, 1), 1.7, dtype=torch.float64))


def test_the_watch_sees_what_waits():
    values = torch.arange(3.0, dtype=torch.float64)
    some: list[Callable[[], Any]] = [
        lambda: values[values > 1], lambda: float(values[0]), lambda: bool((values > 1).any()),
        lambda: values.nonzero(), lambda: torch.tensor([1.0, 2.0]), lambda: values.to(torch.float32),
    ]  # fmt: skip
    for wait in some:
        with Watch(_waits) as watch:
            wait()
        assert watch.found
    with Watch(_waits) as watch:
        torch.where(values > 1, values, 0.0).index_select(0, torch.arange(2)).sum()
    assert not watch.found


def test_the_host_looks_every_few_iterations_only():
    looks = []
    objective = from_residuals(lambda x: torch.cat((10 * (x[:, 1:] - x[:, :-1] ** 2), 1 - x[:, :-1]), -1))
    solver = LevenbergMarquardt(max_iterations=3 * CHECK, change_tolerance=0.0, gradient_tolerance=0.0, patience=99)
    with torch.no_grad():
        minimise_resident(solver, objective, torch.full((2, 2), -1.2).double(), lambda *told: looks.append(told))
    assert len(looks) == 3


# ---------------------------------------------------------------------------------------------- the same answers


@dataclass(frozen=True)
class _Case:
    residuals: Callable[[torch.Tensor], torch.Tensor]
    start: list[list[float]]
    bounds: tuple[float, float] | None = None


CASES = {
    "rosenbrock": _Case(
        lambda x: torch.cat((10 * (x[:, 1:] - x[:, :-1] ** 2), 1 - x[:, :-1]), -1),
        [[-1.2, 1.0], [3.0, -2.0], [1.0, 1.0]],
    ),
    "within bounds": _Case(lambda x: torch.cat((x - 3, 0.1 * x**2), -1), [[0.0, 0.0], [9.0, -9.0]], (-1.0, 2.0)),
    "not finite": _Case(lambda x: (x - 4).sqrt(), [[5.0, 9.0], [3.0, 9.0], [torch.nan, 5.0], [4.0, 4.0]]),
    "overflow": _Case(lambda x: torch.exp(x * x) - 2, [[1.0], [30.0], [3.0]]),
    "flat": _Case(lambda x: 0 * x + 1, [[1.0, 2.0], [0.0, 0.0]]),
    "no least": _Case(lambda x: torch.exp(-x), [[0.0], [5.0]]),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CASES)
def test_both_runs_of_levenberg_marquardt_agree(name, dtype):
    case = CASES[name]
    start = torch.tensor(case.start, dtype=dtype)
    bounds = None if case.bounds is None else tuple(torch.full_like(start[0], bound) for bound in case.bounds)
    objective, solver = from_residuals(case.residuals, bounds=bounds), LevenbergMarquardt(max_iterations=60)
    host = solver.minimise(objective, start)
    with torch.no_grad():
        found = minimise_resident(solver, objective, start)
    tolerance = 1e-9 if dtype == torch.float64 else 1e-3
    torch.testing.assert_close(found.x, host.x, rtol=tolerance, atol=tolerance, equal_nan=True)
    torch.testing.assert_close(found.energy, host.energy, rtol=tolerance, atol=tolerance, equal_nan=True)
    if dtype == torch.float64:
        assert found.status.tolist() == host.status.tolist()
        assert found.iterations.tolist() == host.iterations.tolist()
        assert found.evaluations.tolist() == host.evaluations.tolist()


def test_both_runs_fit_people_alike(monkeypatch, request):
    recipe = quick("default", 6).with_known_focal()
    problem = problem_of(people_of("anny", 2).keypoints)
    host = fit(problem, recipe.initialiser, recipe.stages)
    request.getfixturevalue("resident")
    found = fit(problem, recipe.initialiser, recipe.stages)
    assert found.status.tolist() == host.status.tolist() and found.iterations.tolist() == host.iterations.tolist()
    _assert_close(found, host, 1e-6)


def test_a_row_alone_is_the_row_among_others(resident):
    recipe = quick("default", 5)
    pictures = people_of("anny", 3).keypoints
    together = fit(problem_of(pictures), recipe.initialiser, recipe.stages)
    alone = fit(problem_of(pictures[2:3]), recipe.initialiser, recipe.stages)
    for name in alone.parameters:
        torch.testing.assert_close(alone.parameters[name][0], together.parameters[name][2], rtol=0, atol=1e-4)


def test_no_rows_are_no_trouble():
    objective = from_residuals(lambda x: x)
    with torch.no_grad():
        assert len(minimise_resident(LevenbergMarquardt(), objective, torch.zeros(0, 3))) == 0


def _assert_close(first: Fit, second: Fit, tolerance: float) -> None:
    for name in first.parameters:
        torch.testing.assert_close(first.parameters[name], second.parameters[name], rtol=0, atol=tolerance)


# ---------------------------------------------------------------------------------------------- single precision


def _people(count: int, refine: bool = False) -> list[Person]:
    pictures = people_of("anny", count).keypoints
    return [Person(one, 0, float(one.focal_length or 0), "given", refine_focal=refine) for one in pictures]


@pytest.fixture(scope="module")
def in_both() -> Iterator[tuple[list[FitResult], list[FitResult]]]:
    """The default recipe's fits of 16 people in both precisions, from the same best headings on."""
    recipe = load_recipe("default")
    yield tuple(fit_people(_people(16), model_of("anny", dtype), recipe) for dtype in (torch.float64, torch.float32))


def test_single_precision_finds_what_double_precision_finds(in_both):
    """Of two minima that are almost equally deep rounding may choose either: a row in sixteen is allowed that."""
    moved, pixels = [], []
    for double, single in zip(*in_both, strict=True):
        moved.append(1000 * np.abs((single.joints - single.joints[:1]) - (double.joints - double.joints[:1])).max())
        pixels.append(abs(single.reprojection_px - double.reprojection_px))
    assert np.median(moved) < 1 and np.sort(moved)[-2] < 10, np.round(moved, 2)
    assert np.median(pixels) < 0.1 and np.sort(pixels)[-2] < 0.5, np.round(pixels, 3)


def test_single_precision_asks_no_device_for_double():
    """MPS has none: beside numbers of the host and a prior's constants, only the uncertainty is found in double."""

    def doubled(name: str, arguments: tuple[Any, ...], result: Any) -> bool:
        tensors = [one for one in tree_leaves(result) if isinstance(one, torch.Tensor)]
        return name not in SENDS and any(one.dtype == torch.float64 for one in tensors)

    model, recipe = model_of("anny", torch.float32), quick("default", 2)
    fit_people(_people(2, refine=True), model, recipe)
    with Watch(doubled) as watch:
        fit_people(_people(2, refine=True), model, recipe)
    allowed = ("uncertainty.py", "gaussian_mixture.py", "files.py")
    assert [line for line in watch.found if not any(name in line for name in allowed)] == []


# ---------------------------------------------------------------------------------------------- GPUs


def _on_gpu() -> Any:
    from fitkit.model_files import load_model
    from fitkit.models.arrays import ModelChoice

    return load_model(ModelChoice("anny", "anny", dtype=torch.float32, device="cuda"))


@pytest.mark.gpu
def test_a_gpu_finds_what_the_cpu_finds(in_both):
    found = fit_people(_people(16), _on_gpu(), load_recipe("default"))
    moved = [
        1000 * np.abs((one.joints - one.joints[:1]) - (double.joints - double.joints[:1])).max()
        for one, double in zip(found, in_both[0], strict=True)
    ]
    assert np.median(moved) < 1 and np.sort(moved)[-2] < 10, np.round(moved, 2)


@pytest.mark.gpu
def test_no_iteration_on_a_gpu_waits_for_the_host(monkeypatch):
    model, recipe = _on_gpu(), quick("default", 3)
    problem = make_problem(_people(8), model, recipe.with_known_focal())
    fit(problem, recipe.initialiser, recipe.stages)
    advance = ResidentRun.advance

    def strict(self: ResidentRun) -> None:
        torch.cuda.set_sync_debug_mode("error")
        try:
            advance(self)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(ResidentRun, "advance", strict)
    found = fit(problem, recipe.initialiser, recipe.stages)
    assert not bool((found.status == Status.NON_FINITE).any())


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_a_gpu_solves_what_the_cpu_solves(name):
    case = CASES[name]
    start = torch.tensor(case.start, dtype=torch.float64)
    bounds = None if case.bounds is None else tuple(torch.full_like(start[0], bound) for bound in case.bounds)
    objective, solver = from_residuals(case.residuals, bounds=bounds), LevenbergMarquardt(max_iterations=60)
    host, found = solver.minimise(objective, start), solver.minimise(objective, start.cuda())
    assert found.status.tolist() == host.status.tolist()
    torch.testing.assert_close(found.x.cpu(), host.x, rtol=1e-6, atol=1e-6, equal_nan=True)
