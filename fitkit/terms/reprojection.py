"""Distance in the picture between the body's landmarks and the detected keypoints."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.chart import Chart, Linearised
from fitkit.energy import ResidualTerm, evidence
from fitkit.errors import UsageError
from fitkit.keypoints.conventions import part_of
from fitkit.problem import Problem
from fitkit.robust import ROBUST_LOSSES
from fitkit.scene import Scene

LEAST_SPREAD = 0.04
"""Share of `deviation` below which an adaptive term trusts no keypoint: 1 mm of 25."""
USUAL_POINTS = 15
"""Keypoints whose spread weighs as much as what is usual."""


@dataclass(frozen=True)
class Reprojection(ResidualTerm):
    """Robust, confidence-weighted reprojection error, measured in metres at the person's depth.

    E = sum over keypoints of (w c)^2 rho^2 r^2 / (r^2 + rho^2) with r the distance over `deviation` and rho
    `outlier` / `deviation` (Geman-McClure, as in SMPLify-X, equation 4; there in pixels), or another `loss`.
    Measured against the person's apparent size, the weights mean the same at every resolution.
    """

    deviation: float = 0.015
    """Metres at the person's depth that count as one standard deviation of a keypoint."""
    outlier: float = 0.15
    """Metres beyond which a keypoint hardly pulls any more."""
    loss: str = "geman_mcclure"
    """How far ones are let go: geman_mcclure, or welsch, which is nearer to the square up to there, and then drops."""
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
    """Shrink `deviation` to the spread of the residuals, times their confidence, when the stage begins, down to
    `LEAST_SPREAD` of it, so that keypoints that agree with the body are met exactly and noisy ones are not chased."""
    remaining: float = 1.0
    """With `adaptive`, the share of the keypoints' noise that is left in the residuals when the stage begins: a body
    with nearly as many freedoms as there are keypoints has followed the rest."""
    usual: float | None = None
    """With `adaptive`, the deviation of a usual detector, metres, that counts for as much as `USUAL_POINTS` keypoints
    do: a few keypoints do not tell how noisy they are."""
    spreads: float | None = None
    """With `adaptive`, a keypoint is an outlier from so many of those spreads, where that is nearer than `outlier`."""
    near: float = 0.0
    """Metres within which no keypoint is an outlier by its spreads: a limb that is still on its way is none."""
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
            near = self.near / self.outlier * rho
            rho = torch.minimum(rho, torch.maximum(self.spreads * shrunk, near))
        return replace(bound, weights=weights / shrunk, rho=rho)

    def __post_init__(self) -> None:
        """Refuse losses that there are not."""
        if self.loss not in ROBUST_LOSSES:
            raise UsageError(f"Unknown loss {self.loss!r} of reprojection; known: {', '.join(ROBUST_LOSSES)}.")

    def _weight(self, name: str) -> float:
        if (self.only and name not in self.only) or name in self.without:
            return 0.0
        part = part_of(name)
        return getattr(self, "hands" if part.endswith("hand") else part)

    def _spread(self, scene: Scene, deviation: Float[Tensor, "B N 1"]) -> Float[Tensor, "B N 1"]:
        """Return a robust standard deviation of a keypoint of full weight, at most `deviation` (pixels)."""
        assert self.points is not None and self.weights is not None
        distance = (scene.projected(self.landmarks) - self.points).norm(dim=-1).detach()
        seen = self.weights > 0
        relative = torch.where(seen, distance * self.weights, torch.inf).sort(dim=-1).values
        middle = (seen.sum(-1, keepdim=True) - 1).clamp_min(0) // 2
        # The median length of a 2D Gaussian of unit deviation is 1.18.
        spread = relative.gather(-1, middle) * deviation / (1.18 * self.remaining)
        if self.usual is not None:
            usual, count = self.usual / self.deviation * deviation, seen.sum(-1, keepdim=True)
            total = count * spread.square() + USUAL_POINTS * usual.square()
            spread = torch.where(count > 0, total / (count + USUAL_POINTS), torch.inf).sqrt()
        return spread.clamp(LEAST_SPREAD * deviation, deviation)

    def residual(self, scene: Scene) -> Float[Tensor, "B R"]:
        """Return weighted image offsets, scaled so that their squares sum to the robust energy."""
        if not self.landmarks:
            return scene.parameters["transl"].new_zeros(scene.parameters.problems, 1)
        assert self.points is not None and self.weights is not None and self.rho is not None
        offset = scene.projected(self.landmarks) - self.points
        squared = offset.square().sum(-1)
        scaling = ROBUST_LOSSES[self.loss].scaling(squared, self.rho)
        return (offset * (self.weights * scaling)[..., None]).flatten(1)

    def __call__(self, scene: Scene) -> Float[Tensor, " B"]:
        """Return the robust energy."""
        if not self.landmarks:
            return scene.parameters["transl"].new_zeros(scene.parameters.problems)
        assert self.points is not None and self.weights is not None and self.rho is not None
        squared = (scene.projected(self.landmarks) - self.points).square().sum(-1)
        return (self.weights.square() * ROBUST_LOSSES[self.loss].value(squared, self.rho)).flatten(1).sum(-1)

    def linearise(self, scene: Scene, chart: Chart) -> list[Linearised]:
        """Return reweighted residuals: the robust loss's slope times the plain offset.

        Offsets times the root of that slope give the exact gradient (iteratively reweighted least squares).
        """
        if not self.landmarks:
            return []
        assert self.points is not None and self.weights is not None and self.rho is not None
        offset = scene.projected(self.landmarks) - self.points
        scaling = self.weights * ROBUST_LOSSES[self.loss].root_slope(offset.square().sum(-1), self.rho)
        return chart.pixels(self.landmarks, offset * scaling[..., None], scaling)
