"""How far a body is from what the initialiser thinks, in the initialiser's own deviations."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.chart import Chart, Linear, Linearised
from fitkit.energy import ResidualTerm, evidence
from fitkit.models.jacobian import left_jacobian_transposed
from fitkit.problem import Belief, Problem
from fitkit.scene import Scene


@dataclass(frozen=True)
class BeliefTerm(ResidualTerm):
    """Twice the negative log density of a multivariate t around the initialiser's proposal, up to a constant.

    Near the proposal it is the squared Mahalanobis distance m^2; where evidence contradicts the initialiser it grows
    but with the logarithm: (v + D) log(1 + m^2 / v). Nothing where the initialiser does not say how sure it is.
    """

    degrees: float = 30.0
    """v, degrees of freedom."""
    names: tuple[str, ...] = evidence(())
    """The leaves of which something is thought."""
    sizes: tuple[int, ...] = evidence(())
    """Number of values of each."""
    mean: Float[Tensor, "B N D"] | None = evidence()
    """The proposed values."""
    whitening: Float[Tensor, "B N D D"] | None = evidence()
    """Takes differences from the mean to deviations."""

    def observe(self, problem: Problem) -> BeliefTerm:
        """Return the term with what the initialiser thinks."""
        belief: Belief | None = problem.belief
        if belief is None:
            return self
        return replace(self, names=belief.names, sizes=belief.sizes, mean=belief.mean, whitening=belief.whitening)

    def residual(self, scene: Scene) -> Float[Tensor, "B R"]:
        """Return deviations in each direction, scaled such that their squares sum to the energy."""
        if self.mean is None:
            return scene.parameters["transl"].new_zeros(scene.parameters.problems, 1)
        raw = self._whitened(scene)
        square = raw.square().sum(-1, keepdim=True).clamp_min(1e-12)
        energy = (self.degrees + raw.shape[-1]) * torch.log1p(square / self.degrees)
        return (raw * (energy / square).sqrt()).flatten(1)

    def linearise(self, scene: Scene, chart: Chart) -> list[Linearised]:
        """Return deviations and their slopes, weighted by the t density's: the gradient is exact."""
        if self.mean is None or not any(name in chart.free for name in self.names):
            return []
        raw = self._whitened(scene)
        weight = (self.degrees + raw.shape[-1]) / (self.degrees + raw.square().sum(-1, keepdim=True))
        root = weight.sqrt()
        slopes = (root[..., None] * self._slopes(scene, chart)).flatten(1, 2)
        return [Linear((raw * root).flatten(1), slopes, slice(0, chart.size))]

    def _whitened(self, scene: Scene) -> Float[Tensor, "B N D"]:
        """Return the differences from the mean in deviations."""
        assert self.mean is not None and self.whitening is not None
        bodies, apart = self.mean.shape[1], []
        for name, size, proposed in zip(self.names, self.sizes, self.mean.split(self.sizes, dim=-1), strict=True):
            value = scene.parameters[name][..., :size].expand(-1, bodies, -1)
            apart.append(_turn(proposed, value) if name == "global_orient" else value - proposed)
        return (self.whitening @ torch.cat(apart, dim=-1)[..., None])[..., 0]

    def _slopes(self, scene: Scene, chart: Chart) -> Float[Tensor, "B N D P"]:
        """Return the derivative of the whitened differences with respect to the P free values."""
        assert self.mean is not None and self.whitening is not None
        slopes = self.whitening.new_zeros(*self.whitening.shape[:3], chart.size)
        pieces = zip(self.names, self.whitening.split(self.sizes, -1), self.mean.split(self.sizes, -1), strict=True)
        for name, columns, proposed in pieces:
            place = chart.columns(name)
            if place is None:
                continue
            value = scene.parameters[name]
            if name == "global_orient":
                columns = columns @ _turn_slopes(proposed, value)
            for body in range(columns.shape[1]):
                start = place.start + (body * value.shape[2] if value.shape[1] > 1 else 0)
                slopes[:, body, :, start : start + columns.shape[-1]] = columns[:, body]
        return slopes


def _turn(proposed: Float[Tensor, "B N 3"], value: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N 3"]:
    """Return the rotation vector from one orientation to another, in the body's axes.

    By quaternions and without branches: roma's logarithm picks rows, for which a GPU would have to wait.
    """
    (a, u), (b, v) = ((half[..., :1], half[..., 1:]) for half in (_quaternions(-proposed), _quaternions(value)))
    real = a * b - (u * v).sum(-1, keepdim=True)
    rest = a * v + b * u + torch.linalg.cross(u, v)
    rest, real = torch.where(real < 0, -rest, rest), real.abs()
    sine = rest.square().sum(-1, keepdim=True).clamp_min(torch.finfo(rest.dtype).tiny).sqrt()
    return 2 * torch.atan2(sine, real) / sine * rest


def _quaternions(rotation_vectors: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N 4"]:
    """Return unit quaternions, the real part first."""
    half = 0.5 * torch.linalg.vector_norm(rotation_vectors, dim=-1, keepdim=True)
    return torch.cat([torch.cos(half), 0.5 * torch.sinc(half / math.pi) * rotation_vectors], dim=-1)


def _turn_slopes(proposed: Float[Tensor, "B N 3"], value: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N 3 3"]:
    """Return the derivative of `_turn` with respect to the value: J_r(turn)^-1 J_r(value).

    The right Jacobian is the transpose of the left one (Sola et al. 2018, equations 143 to 146).
    """
    turn = _turn(proposed, value)
    return torch.linalg.solve_ex(left_jacobian_transposed(turn), left_jacobian_transposed(value)).result
