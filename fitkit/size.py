"""How large a person appears: pixels per metre, from whatever limbs are seen."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.body import BodyModel
from fitkit.parameters import zeros
from fitkit.problem import Observations

_SIDES = ("left", "right")
SPANS: tuple[tuple[str, str], ...] = (
    *((f"{s}_shoulder", f"{s}_hip") for s in _SIDES),
    *((f"{s}_hip", f"{s}_knee") for s in _SIDES),
    *((f"{s}_knee", f"{s}_ankle") for s in _SIDES),
    *((f"{s}_shoulder", f"{s}_elbow") for s in _SIDES),
    *((f"{s}_elbow", f"{s}_wrist") for s in _SIDES),
    *((f"{s}_wrist", f"{s}_middle1") for s in _SIDES),
    ("left_shoulder", "right_shoulder"),
    ("nose", "left_shoulder"),
    ("nose", "right_shoulder"),
    *(("nose", f"{s}_ear") for s in _SIDES),
    ("left_ear", "right_ear"),
    ("left_eye", "right_eye"),
)
"""Pairs of landmarks whose distance hardly depends on the pose."""
_QUANTILE = 0.8
# Foreshortening only ever makes a span look shorter, so that the true size lies near the top of the estimates; not
# at the very top, since one misplaced point would set it.


def pixels_per_metre(model: BodyModel, observations: Observations) -> Float[Tensor, "B N"]:
    """Return each person's apparent size: a high, confidence-weighted quantile of seen over actual span lengths.

    A person of whom no span is seen gets the extent of the seen points over half a body's height, or 1 where
    not even two points are seen.
    """
    place = observations.places
    spans = [(a, b) for a, b in SPANS if a in place and b in place]
    points, confidence = observations.points, observations.confidence
    if not spans:
        return _from_extent(points, confidence)
    first, second = ([place[pair[end]] for pair in spans] for end in (0, 1))
    landmarks = tuple(observations.landmarks[place[name]] for pair in spans for name in pair)
    rest = model(zeros(model.layout, 1, like=points)).landmarks(landmarks)[0, 0]
    actual = (rest[0::2] - rest[1::2]).norm(dim=-1)
    seen = (points[..., first, :] - points[..., second, :]).norm(dim=-1)
    ratios, order = (seen / actual).sort(dim=-1)
    weights = (confidence[..., first] * confidence[..., second] * actual).gather(-1, order)
    reached = weights.cumsum(-1) >= _QUANTILE * weights.sum(-1, keepdim=True) - 1e-12
    size = ratios.gather(-1, reached.int().argmax(-1, keepdim=True))[..., 0]
    usable = (weights.sum(-1) > 0) & (size > 0)
    return torch.where(usable, size, _from_extent(points, confidence))


def _from_extent(points: Float[Tensor, "B N K 2"], confidence: Float[Tensor, "B N K"]) -> Float[Tensor, "B N"]:
    seen = (confidence > 0)[..., None]
    low = torch.where(seen, points, torch.inf).amin(-2)
    high = torch.where(seen, points, -torch.inf).amax(-2)
    extent = (high - low).norm(dim=-1) / 0.85
    return torch.where(torch.isfinite(extent) & (extent > 0), extent, 1.0)
