"""How fast derivatives in closed form are, beside automatic ones and beside the product J^T J alone.

    python benchmarks/jacobian.py [--batches 1 8 64] [--dtype float64] [--device auto] [--save]

People with 118 keypoints, and the stage of the recipe with most free values. Four pieces of work on the same problem:

  ours       pixels of all keypoints, their Jacobian by groups, and its J^T J
  jacfwd     torch.func.jacfwd of the same pixels (all its directions and problems at once), and J^T J
  iteration  gradient and curvature of the whole energy, forward pass included: what a step of Levenberg-Marquardt takes
  gradient   energy and gradient by autograd's backward pass: what a step of L-BFGS takes

Times are milliseconds for the whole batch, the least of several runs, on one thread: processor time on a CPU, the
clock's on a GPU. --save writes benchmarks/results/jacobian.json.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from clock import columns, least
from measure import arguments, machine, save
from synthetic import sample_people

from fitkit.api import choose_device
from fitkit.chart import Chart
from fitkit.energy import Energy
from fitkit.fitting import Stage
from fitkit.model_files import load_model
from fitkit.models.arrays import ModelChoice
from fitkit.people import Person, make_problem
from fitkit.problem import Problem
from fitkit.recipe import load_recipe
from fitkit.scene import Scene
from fitkit.solvers import evaluate


@dataclass(frozen=True)
class Work:
    """A stage of the fit of some people, near their true parameters."""

    problem: Problem
    energy: Energy
    free: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def x(self) -> Tensor:
        """The free values (B, D)."""
        return self.problem.start.pack(self.free)

    def scene(self, x: Tensor) -> Scene:
        """Return the scene of free values."""
        return Scene(self.problem.model, self.problem.start.unpack(self.free, x), self.problem.camera)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the energy of every row."""
        return self.energy(self.scene(x))

    def pixels(self, x: Tensor) -> Tensor:
        """Return all pixels of every row (B, R)."""
        return self.scene(x).projected(self.names).flatten(1)

    def closed(self) -> tuple[Tensor, Tensor]:
        """Return the pixels' gradient for unit residuals, and J^T J, in closed form."""
        scene = self.scene(self.x)
        ones = torch.ones_like(scene.projected(self.names))
        chart = Chart(scene, self.free)
        return chart.normal_equations([(0.5, part) for part in chart.pixels(self.names, ones, ones[..., 0])])

    def automatic(self) -> tuple[Tensor, Tensor]:
        """Return the same by forward-mode differentiation: problems are independent, so one shift serves all."""
        jacobian = torch.func.jacfwd(lambda shift: self.pixels(self.x + shift))(torch.zeros_like(self.x[0]))
        return jacobian.sum(1), jacobian.mT @ jacobian

    def iteration(self) -> tuple[Tensor, Tensor]:
        """Return gradient and curvature of the energy."""
        scene = self.scene(self.x)
        return self.energy.normal_equations(scene, Chart(scene, self.free))

    def gradient(self) -> tuple[Tensor, Tensor]:
        """Return the energy and its gradient by autograd."""
        return evaluate(self, self.x)


def prepare(batch: int, dtype: torch.dtype, device: str, recipe_name: str) -> Work:
    """Return the work on a batch of people."""
    people = sample_people(load_model(ModelChoice("anny", "anny", dtype=dtype)), batch)
    model = load_model(ModelChoice("anny", "anny", dtype=dtype, device=device))
    recipe = load_recipe(recipe_name)
    seen = [Person(one, 0, one.focal_length or 1000.0, "given") for one in people.keypoints]
    problem = make_problem(seen, model, recipe)
    random = torch.Generator().manual_seed(0)
    start = people.parameters.map(lambda leaf: leaf + 0.03 * torch.randn(leaf.shape, generator=random).to(leaf))
    start = start.map(lambda leaf: leaf.to(device))
    world = model(start).landmarks(problem.observations.landmarks)
    focal = {"focal_length": problem.camera.focal_length}
    problem = replace(problem, start=start.replace(focal), observations=replace(problem.observations, world=world))
    stage: Stage = max(recipe.stages, key=lambda one: len(one.free))
    terms = tuple(replace(entry, term=entry.term.observe(problem)) for entry in stage.terms if entry.weight)
    free = tuple(name for name in stage.free if name in problem.start)
    return Work(problem, Energy(terms), free, problem.observations.landmarks)


def measure(batch: int, dtype: torch.dtype, device: str, recipe: str) -> dict[str, float]:
    """Return times and ratios at one batch size."""
    work = prepare(batch, dtype, device, recipe)
    with torch.no_grad():
        ours, theirs = work.closed(), work.automatic()
        off = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, theirs, strict=True))
        jacobian = torch.randn(batch, work.pixels(work.x).shape[1], work.x.shape[1], dtype=dtype, device=device)
        product = least(lambda: jacobian.mT @ jacobian, device)
        closed, automatic = least(work.closed, device), least(work.automatic, device)
        iteration = least(work.iteration, device)
    gradient = least(work.gradient, device)
    return {
        "batch": batch,
        "unknowns": work.x.shape[1],
        "rows": jacobian.shape[1],
        "ours_ms": closed,
        "jacfwd_ms": automatic,
        "jacfwd_over_ours": automatic / closed,
        "product_ms": product,
        "ours_over_product": closed / product,
        "iteration_ms": iteration,
        "gradient_ms": gradient,
        "iteration_over_gradient": iteration / gradient,
        "largest_relative_difference": off,
    }


def main() -> None:
    """Print the table, and write it as json where asked."""
    parser = arguments(__doc__)
    parser.set_defaults(threads=1)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float64")
    parser.add_argument("--recipe", default="default")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = str(choose_device(options.device))
    rows = [measure(batch, getattr(torch, options.dtype), device, options.recipe) for batch in options.batches]
    print(columns(rows))
    if options.save:
        settings = {"dtype": options.dtype, "recipe": options.recipe}
        save("jacobian", {"machine": machine(device), **settings, "results": rows})


if __name__ == "__main__":
    main()
