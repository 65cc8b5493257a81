"""Terms that measure how badly a scene explains the evidence or the priors, and their weighted sum."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fitkit.chart import Chart, Linear, Linearised
from fitkit.problem import Problem
from fitkit.scene import Scene

TermType = TypeVar("TermType", bound="Term")


def evidence(default: Any = None) -> Any:
    """Declare a dataclass field that `observe` binds and no recipe sets; tensors in it have one row per problem."""
    return field(default=default, repr=False, metadata={"evidence": True})


def select_evidence(term: TermType, rows: Int[Tensor, " M"]) -> TermType:
    """Return the term with the observations of some of the problems."""
    held = {f.name: getattr(term, f.name) for f in fields(term) if f.metadata.get("evidence")}  # type: ignore[arg-type]
    return replace(term, **{name: value[rows] for name, value in held.items() if isinstance(value, Tensor)})  # type: ignore[type-var]


class Term:
    """One summand of the energy: a frozen dataclass whose fields are its settings and its evidence.

    Settings come from a recipe (their names are the schema); fields declared with `evidence()` are tensors with
    one row per problem, bound by `observe`. L-BFGS and Adam differentiate the call by autograd; Levenberg-Marquardt
    asks for `linearise`, which every term has: sums of squares as residuals (`ResidualTerm`), anything else as below.
    Limits are terms too (`bounds`, `joint_limits`, `focal_prior`): soft, so that all solvers minimise the same energy.
    """

    def observe(self: TermType, problem: Problem) -> TermType:
        """Return the term with what it needs of the problem bound; a prior needs nothing."""
        return self

    def __call__(self, scene: Scene) -> Float[Tensor, " B"]:
        """Return the energy of each problem."""
        raise NotImplementedError

    def linearise(self, scene: Scene, chart: Chart) -> list[Linearised]:
        """Return the term's linear residuals for Gauss-Newton steps.

        This default is for energies that are no sums of squares, of either sign: the gradient is exact, by autograd;
        of the curvature it takes what there is along the gradient, by its magnitude (so that steps are finite where
        the energy is concave), and leaves all else to the other terms and to the solver's damping.
        """
        _, gradient = chart.gradient(self)
        steepness = torch.linalg.vector_norm(gradient, dim=-1, keepdim=True)
        direction = gradient / steepness.clamp_min(1e-30)
        bend = chart.bend(self, gradient, direction).abs()[:, None]
        # A residual r with slope s has the gradient 2 r s and the curvature 2 s^2.
        slope = (0.5 * torch.maximum(bend, 1e-6 * steepness)).sqrt().clamp_min(1e-15)
        residual = 0.5 * steepness / slope
        return [Linear(residual, (slope * direction)[:, None], slice(0, chart.size))]


class ResidualTerm(Term):
    """A term that is a sum of squares, robust kernels included: what Levenberg-Marquardt can use."""

    def residual(self, scene: Scene) -> Float[Tensor, "B R"]:
        """Return the residuals whose squares sum to the energy."""
        raise NotImplementedError

    def __call__(self, scene: Scene) -> Float[Tensor, " B"]:
        """Return the sum of squared residuals of each problem."""
        return self.residual(scene).square().sum(-1)

    def linearise(self, scene: Scene, chart: Chart) -> list[Linearised]:
        """Return residuals and their Jacobian, by autograd unless a term knows better (see `terms.reprojection`)."""
        return [chart.jacobian(self.residual)]


@dataclass(frozen=True)
class WeightedTerm:
    """A term with its name and weight; the weight multiplies the energy once."""

    name: str
    """Name in the recipe."""
    weight: float
    """Factor of the term in the sum."""
    term: Term
    """The term, its evidence bound."""


@dataclass(frozen=True)
class Energy:
    """The weighted sum of terms."""

    terms: tuple[WeightedTerm, ...]
    """The summands."""

    def parts(self, scene: Scene) -> dict[str, Float[Tensor, " B"]]:
        """Return each term's weighted energy by name."""
        return {entry.name: entry.weight * entry.term(scene) for entry in self.terms}

    def __call__(self, scene: Scene) -> Float[Tensor, " B"]:
        """Return the total energy of each problem; zero without terms."""
        nothing = scene.parameters["transl"].new_zeros(scene.parameters.problems)
        return torch.stack([nothing, *self.parts(scene).values()]).sum(0)

    def linearise(
        self, scene: Scene, chart: Chart
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, "B D"], Float[Tensor, "B D D"]]:
        """Return the energy, its gradient and its Gauss-Newton curvature with respect to the chart's free values."""
        return self(scene), *self.normal_equations(scene, chart)

    def normal_equations(self, scene: Scene, chart: Chart) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D D"]]:
        """Return the energy's gradient and Gauss-Newton curvature with respect to the chart's free values."""
        linearised = [(entry.weight, part) for entry in self.terms for part in entry.term.linearise(scene, chart)]
        return chart.normal_equations(linearised)

    def select(self, rows: Int[Tensor, " M"]) -> Energy:
        """Return the energy of some of the problems."""
        return Energy(tuple(replace(entry, term=select_evidence(entry.term, rows)) for entry in self.terms))
