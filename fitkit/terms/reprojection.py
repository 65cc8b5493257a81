"""Distance in the picture between the body's landmarks and the detected keypoints."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.chart import Chart, Linearised
from fitkit.energy import ResidualTerm, evidence
from fitkit.keypoints.conventions import part_of
from fitkit.problem import Problem
from fitkit.robust import geman_mcclure, geman_mcclure_scaling
from fitkit.scene import Scene

LEAST_SPREAD = 0.04
"""Share of `deviation` below which an adaptive term trusts no keypoint: 1 mm of 25."""


@dataclass(frozen=True)
class Reprojection(ResidualTerm):
    """Robust, confidence-weighted reprojection error, measured in metres at the person's depth.

    E = sum over keypoints of (w c)^2 rho^2 r^2 / (r^2 + rho^2) with r the distance over `deviation` and rho
    `outlier` / `deviation` (Geman-McClure, as in SMPLify-X, equation 4; there in pixels).
    Measured against the person's apparent size, the weights mean the same at every resolution.
    """

    deviation: float = 0.015
    """Metres at the person's depth that count as one standard deviation of a keypoint."""
    outlier: float = 0.15
    """Metres beyond which a keypoint hardly pulls any more."""
    body: float = 1.0
    """Weight of body points."""
    feet: float = 1.0
    """Weight of toes and heels."""
    hands: float = 1.0
    """Weight of the hands' points."""
    face: float = 1.0
    """Weight of the face's inner points."""
    contour: float = 0.0
    """Weight of the face's outline."""
    only: tuple[str, ...] = ()
    """Keypoints to use; empty for all."""
    without: tuple[str, ...] = ()
    """Keypoints to leave out."""
    adaptive: bool = False
    """Shrink `deviation` to the spread of the residuals when the stage begins, down to `LEAST_SPREAD` of it, so that
    keypoints that agree with the body are met exactly and noisy ones are not chased."""
    spreads: float | None = None
    """With `adaptive`, a keypoint is an outlier from so many of those spreads, where that is nearer than `outlier`."""
    image_scaled: bool = False
    """Measure in thousandths of the picture's height, not in metres at the person: the published energy."""
    landmarks: tuple[str, ...] = evidence(())
    """Landmarks with keypoints that carry weight."""
    points: Float[Tensor, "B N K 2"] | None = evidence()
    """Detected points, pixels."""
    weights: Float[Tensor, "B N K"] | None = evidence()
    """Weight times confidence over one standard deviation of a point, in 1 / pixels."""
    rho: Float[Tensor, "B N 1"] | None = evidence()
    """Outlier distance, pixels."""

    def observe(self, problem: Problem) -> Reprojection:
        """Return the term with the keypoints of the problem that carry weight."""
        observed = problem.observations
        part_weights = torch.tensor([self._weight(name) for name in observed.names]).to(observed.points)
        weights = part_weights * observed.confidence
        used = (weights > 0).flatten(0, 1).any(0).nonzero()[:, 0].tolist()
        landmarks = tuple(observed.landmarks[k] for k in used)
        points, weights = observed.points[..., used, :], weights[..., used]
        if self.image_scaled:
            pixels = problem.camera.image_size[..., 1] / 1000
        else:
            pixels = problem.pixels_per_metre
        deviation = (self.deviation * pixels)[..., None]
        rho = (self.outlier * pixels)[..., None]
        bound = replace(self, landmarks=landmarks, points=points, weights=weights / deviation, rho=rho)
        if not self.adaptive or not landmarks:
            return bound
        shrunk = bound._spread(Scene(problem.model, problem.start, problem.camera), deviation)
        if self.spreads is not None:
            rho = torch.minimum(rho, self.spreads * shrunk)
        return replace(bound, weights=weights / shrunk, rho=rho)

    def _weight(self, name: str) -> float:
        if (self.only and name not in self.only) or name in self.without:
            return 0.0
        part = part_of(name)
        return getattr(self, "hands" if part.endswith("hand") else part)

    def _spread(self, scene: Scene, deviation: Float[Tensor, "B N 1"]) -> Float[Tensor, "B N 1"]:
        """Return a robust standard deviation of the confident residuals, at most `deviation` (pixels)."""
        assert self.points is not None and self.weights is not None
        distance = (scene.projected(self.landmarks) - self.points).norm(dim=-1).detach()
        distance, order = distance.sort(dim=-1)
        weights = self.weights.gather(-1, order)
        half = weights.cumsum(-1) >= 0.5 * weights.sum(-1, keepdim=True)
        median = distance.gather(-1, half.int().argmax(-1, keepdim=True))
        # The median length of a 2D Gaussian of unit deviation is 1.18.
        return (median / 1.18).clamp(LEAST_SPREAD * deviation, deviation)

    def residual(self, scene: Scene) -> Float[Tensor, "B R"]:
        """Return weighted image offsets, scaled so that their squares sum to the robust energy."""
        if not self.landmarks:
            return scene.parameters["transl"].new_zeros(scene.parameters.problems, 1)
        assert self.points is not None and self.weights is not None and self.rho is not None
        offset = scene.projected(self.landmarks) - self.points
        squared = offset.square().sum(-1)
        scaling = geman_mcclure_scaling(squared, self.rho)
        return (offset * (self.weights * scaling)[..., None]).flatten(1)

    def __call__(self, scene: Scene) -> Float[Tensor, " B"]:
        """Return the robust energy."""
        if not self.landmarks:
            return scene.parameters["transl"].new_zeros(scene.parameters.problems)
        assert self.points is not None and self.weights is not None and self.rho is not None
        squared = (scene.projected(self.landmarks) - self.points).square().sum(-1)
        return (self.weights.square() * geman_mcclure(squared, self.rho)).flatten(1).sum(-1)

    def linearise(self, scene: Scene, chart: Chart) -> list[Linearised]:
        """Return reweighted residuals: the robust loss's slope times the plain offset.

        With s the scaling of `residual`, the loss's slope is s^4 times the quadratic's, so that offsets times w s^2
        give the exact gradient, and a curvature that never underestimates the loss (iteratively reweighted squares).
        """
        if not self.landmarks:
            return []
        assert self.points is not None and self.weights is not None and self.rho is not None
        offset = scene.projected(self.landmarks) - self.points
        scaling = self.weights * geman_mcclure_scaling(offset.square().sum(-1), self.rho).square()
        return chart.pixels(self.landmarks, offset * scaling[..., None], scaling)
