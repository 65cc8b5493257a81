"""Terms that measure how badly a scene explains the evidence or the priors, and their weighted sum."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

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
    one row per problem, bound by `observe`.
    """

    def observe(self: TermType, problem: Problem) -> TermType:
        """Return the term with what it needs of the problem bound; a prior needs nothing."""
        return self

    def __call__(self, scene: Scene) -> Float[Tensor, " B"]:
        """Return the energy of each problem."""
        raise NotImplementedError


class ResidualTerm(Term):
    """A term that is a sum of squares, robust kernels included: what Levenberg-Marquardt can use."""

    def residual(self, scene: Scene) -> Float[Tensor, "B R"]:
        """Return the residuals whose squares sum to the energy."""
        raise NotImplementedError

    def __call__(self, scene: Scene) -> Float[Tensor, " B"]:
        """Return the sum of squared residuals of each problem."""
        return self.residual(scene).square().sum(-1)


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
        """Return the total energy of each problem."""
        return torch.stack(list(self.parts(scene).values())).sum(0)

    def select(self, rows: Int[Tensor, " M"]) -> Energy:
        """Return the energy of some of the problems."""
        return Energy(tuple(replace(entry, term=select_evidence(entry.term, rows)) for entry in self.terms))
