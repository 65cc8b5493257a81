"""Whose limb is it: points of one person that lie on a limb of another are doubted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fitkit.keypoints.detectors.masks import mask_at
from fitkit.keypoints.detectors.person import Person, near_people

BONES = np.array(
    [(11, 13), (13, 15), (12, 14), (14, 16), (15, 19), (16, 20)]
    + [(23, 25), (25, 27), (24, 26), (26, 28), (27, 31), (28, 32)]
)
"""(12, 2) the limbs' bones, in the body's 33 points."""
ARMS, LEGS = slice(13, 23), slice(25, 33)
"""The points of the arms and of the legs."""
THICKNESS = 0.025
"""Half of a limb's thickness over the side of the region."""
RIVAL_BONE = 0.5
"""Confidence from which a bone is really another one's."""
DOUBT = np.ones(33)
"""(33,) factor on the confidence of a point on another person's limb: hands do meet, legs rarely do."""
DOUBT[ARMS], DOUBT[LEGS] = 0.5, 0.3


def doubt_borrowed_limbs(people: Sequence[Person]) -> list[Person]:
    """Return the people with those points doubted that were probably put on another one's limb.

    A point is, when a surer bone of another person passes there and the other one's mask claims the place no less.
    """
    doubted = []
    for person in people:
        others = near_people(person, [other for other in people if other is not person])
        doubted.append(replace(person, confidence=_doubt(person, others)))
    return doubted


def _doubt(person: Person, others: Sequence[Person]) -> np.ndarray:
    """Return the confidence (33,) of a person's points among others."""
    confidence = person.confidence.copy()
    own = mask_at(person.mask, person.region, person.points)
    for other in others:
        sure = other.confidence[BONES].min(-1)
        away = _distance(person.points, other.points[BONES[:, 0]], other.points[BONES[:, 1]])
        on_limb = (away < THICKNESS * other.region.side) & (sure > np.maximum(confidence[:, None], RIVAL_BONE))
        claimed = mask_at(other.mask, other.region, person.points)
        borrowed = on_limb.any(-1) & (claimed > 0.0) & (claimed >= own)
        confidence[borrowed] *= DOUBT[borrowed]
    return confidence


def _distance(points: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the distance (K, M) of points (K, 2) from segments, starts and ends (M, 2)."""
    along = ends - starts
    length = np.maximum((along**2).sum(-1), 1e-9)
    share = np.clip(((points[:, None] - starts) * along).sum(-1) / length, 0.0, 1.0)
    return np.hypot(*np.moveaxis(points[:, None] - starts - share[..., None] * along, -1, 0))
