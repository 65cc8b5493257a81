"""Directions of limbs and fingers in space, as a detector that guesses depth saw them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fitkit.chart import AtPoints, Chart, Linearised, tangents
from fitkit.energy import ResidualTerm, evidence
from fitkit.keypoints.conventions import part_of
from fitkit.problem import Observations, Problem
from fitkit.robust import geman_mcclure_scaling
from fitkit.scene import Scene

_SIDES = ("left", "right")
_CHAIN = ("1", "2", "3", "_tip")
BONES: tuple[tuple[str, str], ...] = (
    ("left_hip", "right_hip"),
    ("left_shoulder", "right_shoulder"),
    *((f"{s}_hip", f"{s}_shoulder") for s in _SIDES),
    *((f"{s}_{a}", f"{s}_{b}") for s in _SIDES for a, b in (("shoulder", "elbow"), ("elbow", "wrist"))),
    *((f"{s}_{a}", f"{s}_{b}") for s in _SIDES for a, b in (("hip", "knee"), ("knee", "ankle"))),
    *((f"{s}_heel", f"{s}_big_toe") for s in _SIDES),
    *((f"{s}_hand_root", f"{s}_{f}1") for s in _SIDES for f in ("index", "middle", "ring", "pinky")),
    *(
        (f"{s}_{f}{a}", f"{s}_{f}{b}")
        for s in _SIDES
        for f in ("thumb", "index", "middle", "ring", "pinky")
        for a, b in zip(_CHAIN, _CHAIN[1:], strict=False)
    ),
)
"""Pairs of landmarks along a bone, from near the trunk outwards."""


@dataclass(frozen=True)
class BoneDirections(ResidualTerm):
    """Robust difference of unit vectors along bones between the body and the detector's guess in space.

    Only directions are compared: the guess has no scale or place of its own. Its axes are taken as the
    camera's; a network that looks at a crop gives them as if the person stood on the optical axis, and the difference,
    the angle of the person's ray, is left to the outlier kernel.
    """

    deviation: float = 0.25
    """Length of the difference of unit vectors (about radians) that counts as one standard deviation."""
    outlier: float = 0.8
    """Difference beyond which a bone hardly pulls any more."""
    body: float = 1.0
    """Weight of body bones."""
    feet: float = 0.5
    """Weight of the feet."""
    hands: float = 0.5
    """Weight of the hands' bones."""
    bones: tuple[tuple[str, str], ...] = evidence(())
    """Landmarks at the ends of the bones that the detector placed in space."""
    directions: Float[Tensor, "B N K 3"] | None = evidence()
    """Unit vectors along the bones, camera axes."""
    weights: Float[Tensor, "B N K"] | None = evidence()
    """Weight times confidence over one standard deviation."""

    def observe(self, problem: Problem) -> BoneDirections:
        """Return the term with the bones whose ends the detector placed in space; none without such a guess."""
        observed = problem.observations
        if observed.world is None:
            return self
        place = observed.places
        pairs = tuple((a, b) for a, b in BONES if a in place and b in place and self._weight(a) > 0)
        if not pairs:
            return self
        vectors, weights = _bones(observed, [place[a] for a, _ in pairs], [place[b] for _, b in pairs])
        weights = weights * weights.new_tensor([self._weight(a) for a, _ in pairs]) / self.deviation
        bones = tuple((observed.landmarks[place[a]], observed.landmarks[place[b]]) for a, b in pairs)
        return replace(self, bones=bones, directions=vectors, weights=weights)

    def _weight(self, name: str) -> float:
        part = part_of(name)
        return getattr(self, {"left_hand": "hands", "right_hand": "hands", "feet": "feet"}.get(part, "body"))

    def _measured(self, scene: Scene) -> tuple[Float[Tensor, "B N K 1"], Float[Tensor, "B N K 3"]]:
        """Return the lengths of the body's bones and unit vectors along them; energy and derivatives share them."""
        return scene.shared(("bones", self.bones), lambda: self._measure(scene))

    def _measure(self, scene: Scene) -> tuple[Float[Tensor, "B N K 1"], Float[Tensor, "B N K 3"]]:
        points = scene.landmarks(tuple(dict.fromkeys(name for pair in self.bones for name in pair)))
        first, second = points.index_select(-2, _ends(self.bones, points.device)).chunk(2, dim=-2)
        bones = second - first
        length = torch.linalg.vector_norm(bones, dim=-1, keepdim=True).clamp_min(1e-6)
        return length, bones / length

    def residual(self, scene: Scene) -> Float[Tensor, "B R"]:
        """Return weighted differences of unit vectors, scaled so that their squares sum to the robust energy."""
        if not self.bones:
            return scene.parameters["transl"].new_zeros(scene.parameters.problems, 1)
        assert self.directions is not None and self.weights is not None
        offset = self._measured(scene)[1] - self.directions
        scaling = geman_mcclure_scaling(offset.square().sum(-1), self.outlier)
        return (offset * (self.weights * scaling)[..., None]).flatten(1)

    def linearise(self, scene: Scene, chart: Chart) -> list[Linearised]:
        """Return reweighted residuals, as `terms.reprojection` does.

        Turning a bone moves its unit vector across the bone only, so two residuals across it say all.
        """
        if not self.bones:
            return []
        assert self.directions is not None and self.weights is not None
        length, units = self._measured(scene)
        robust = geman_mcclure_scaling((units - self.directions).square().sum(-1), self.outlier).square()
        across = tangents(units) * (self.weights * robust)[..., None, None]
        residual = -(across @ self.directions[..., None])[..., 0]
        return [AtPoints(self.bones, residual, across / length[..., None])]


@lru_cache(maxsize=64)
def _ends(bones: tuple[tuple[str, str], ...], device: torch.device) -> Int[Tensor, " _"]:
    """Return which of the landmarks, each counted once in the bones' order, begin each bone, then which end it."""
    place = {name: k for k, name in enumerate(dict.fromkeys(name for pair in bones for name in pair))}
    return torch.tensor([place[pair[end]] for end in (0, 1) for pair in bones], device=device)


def _bones(
    observed: Observations, first: list[int], second: list[int]
) -> tuple[Float[Tensor, "B N K 3"], Float[Tensor, "B N K"]]:
    """Return unit vectors along bones and their weights: the lesser confidence of the ends, 0 where unknown."""
    assert observed.world is not None
    vectors = observed.world[..., second, :] - observed.world[..., first, :]
    length = vectors.norm(dim=-1)
    known = torch.isfinite(length) & (length > 1e-4)
    units = torch.where(known[..., None], vectors / length.clamp_min(1e-4)[..., None], 0.0).nan_to_num(0.0)
    weights = torch.minimum(observed.confidence[..., first], observed.confidence[..., second])
    return units, torch.where(known, weights, 0.0)
