"""One focal length for all people of a photo, where nothing but they can tell it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from fitkit.camera import GUESSED
from fitkit.people import FOUND_FOCAL, Person
from fitkit.results import FitResult

LEAST_DEVIATION = 0.08
"""Least deviation of the logarithm of a focal length that people agree on: they have the priors' errors in common."""


def share_focals(people: Sequence[Person], fit: Callable[[list[Person]], list[FitResult]]) -> list[Person]:
    """Return the people with the focal length of their picture, where it is guessed and they are several.

    Each is fitted alone first, and refines the focal length for themself; the mean of the logarithms, weighted by how
    sure each is, then holds for all: otherwise they would be shuffled in depth.

    Args:
        people: of any number of pictures.
        fit: returns the fits of people, their focal lengths refined.
    """
    pictures: dict[int, list[int]] = {}
    for row, person in enumerate(people):
        if person.focal_source == GUESSED:
            pictures.setdefault(id(person.keypoints), []).append(row)
    groups = [rows for rows in pictures.values() if len(rows) > 1]
    found = iter(fit([replace(people[row], refine_focal=True) for rows in groups for row in rows]) if groups else ())
    settled = list(people)
    for rows in groups:
        agreed = _agreed([next(found) for _ in rows])
        if agreed is None:
            continue
        focal, deviation = agreed
        source = "refined" if deviation < FOUND_FOCAL else "guessed"
        for row in rows:
            settled[row] = replace(people[row], focal=focal, focal_source=source, focal_deviation=deviation)
    return settled


def _agreed(results: Sequence[FitResult]) -> tuple[float, float] | None:
    """Return the focal length in pixels that fits agree on, and the deviation of its logarithm; None of lost fits."""
    lengths = [(result.camera.focal_length, result.camera.focal_deviation) for result in results]
    known = [(math.log(focal), (focal / deviation) ** 2) for focal, deviation in lengths if deviation and deviation > 0]
    if not known:
        return None
    precision = sum(weight for _, weight in known)
    mean = sum(log * weight for log, weight in known) / precision
    return math.exp(mean), max(LEAST_DEVIATION, precision**-0.5)
