"""What the readers and writers of keypoint files share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fitkit.errors import InputError
from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.conventions import COCO_17, COCO_WHOLEBODY_133, FEET_6, HALPE_26, HALPE_136

BY_COUNT: dict[int, tuple[str, ...]] = {
    17: COCO_17,
    23: (*COCO_17, *FEET_6),
    26: HALPE_26,
    133: COCO_WHOLEBODY_133,
    136: HALPE_136,
}
"""The conventions of files that do not name their points, by the number of points."""


@dataclass(frozen=True)
class Recorded:
    """One picture's keypoints in a file, not yet unpacked."""

    image: str | None
    """The picture's name or number as the file gives it; None when it gives none."""
    unpack: Callable[[], Keypoints]
    """Makes the keypoints; raises InputError."""


@dataclass(frozen=True)
class KeypointFormat:
    """A file format for keypoints."""

    summary: str
    """What it looks like, in a few words, for messages."""
    recognises: Callable[[Any], bool]
    """Whether a parsed file (of JSON, or a dict of arrays of an npz) is of this format."""
    read: Callable[[Any, Path], list[Recorded]]
    """Finds the pictures in a parsed file; the path is for messages."""
    suffix: str = ".json"
    """What follows a picture's stem in the name of its file."""
    write: Callable[[Path, Sequence[Keypoints]], None] | None = None
    """Writes pictures to a path; None when fitkit only reads the format."""


def parse_triples(
    values: object, counts: Mapping[int, tuple[str, ...]], what: str
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names that so many values stand for, and the values as (K, 3): x, y (pixels) and a confidence or flag.

    Missing values (null, NaN, or -1 for both coordinates) make a point's confidence 0.

    Args:
        values: a flat list x0, y0, c0, x1, ..., or a list of K such triples.
        counts: the conventions that the list may be in, by number of points.
        what: the file and the field, for messages.
    """
    array = to_array(values, what).reshape(-1)
    names = counts.get(len(array) // 3) if len(array) % 3 == 0 else None
    if names is None:
        expected = " or ".join(f"{3 * count} ({count} points)" for count in counts)
        raise InputError(f"{what}: got {len(array)} values; expected {expected}.")
    triples = array.reshape(-1, 3)
    return names, np.column_stack([triples[:, :2], clean_confidence(triples[:, :2], triples[:, 2])])


def to_array(values: object, what: str) -> np.ndarray:
    """Return a list of numbers as float64; null becomes NaN."""
    if not isinstance(values, list):
        raise InputError(f"{what}: expected a list of numbers; got {describe(values)}.")
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        pass
    try:
        return np.array([np.nan if v is None else float(v) for v in _flatten(values)], dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{what}: expected a list of numbers; {error}.") from error


def _flatten(values: Iterable[object]) -> list[Any]:
    flat: list[Any] = []
    for value in values:
        flat.extend(_flatten(value) if isinstance(value, list) else [value])
    return flat


def clean_confidence(points: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Return (..., K) confidences that are 0 where a point (..., K, 2) or its confidence is missing."""
    missing = ~np.isfinite(points).all(-1) | ~np.isfinite(confidence) | (points == -1.0).all(-1)
    return np.where(missing, 0.0, confidence)


def stack_people(
    people: Sequence[tuple[tuple[str, ...], np.ndarray]], default: tuple[str, ...], what: str
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names that all people of a picture share, and their triples as (P, K, 3)."""
    if not people:
        return default, np.zeros((0, len(default), 3))
    names = people[0][0]
    for number, (other, _) in enumerate(people):
        if other != names:
            raise InputError(f"{what}: person {number} has {len(other)} points where the first has {len(names)}.")
    return names, np.stack([triples for _, triples in people])


def boxes_from(people: Sequence[Mapping[str, Any]], key: str, what: str) -> np.ndarray | None:
    """Return (P, 4) x0, y0, x1, y1 of boxes given as x, y, width, height; None unless every person has one."""
    if not people or any(not person.get(key) for person in people):
        return None
    boxes = [to_array(person[key], f"{what}, {key}").reshape(-1) for person in people]
    if any(len(box) < 4 for box in boxes):
        raise InputError(f"{what}, {key}: expected x, y, width and height; got {min(map(len, boxes))} values.")
    xywh = np.stack([box[:4] for box in boxes])
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def scores_from(people: Sequence[Mapping[str, Any]], key: str, best: float = 1.0) -> np.ndarray | None:
    """Return (P,) person scores in [0, 1], or None unless every person has one; `best` is what a sure one has."""
    try:
        scores = np.array([float(person[key]) for person in people], dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        return None
    return np.clip(np.nan_to_num(scores) / best, 0.0, 1.0) if len(scores) else None


def describe(document: object) -> str:
    """Return what a parsed file is, in a few words."""
    if isinstance(document, dict):
        keys = ", ".join(map(str, list(document)[:6])) + (", ..." if len(document) > 6 else "")
        return f"an object with the keys {keys}" if document else "an empty object"
    if isinstance(document, list):
        return f"a list of {describe(document[0])}" if document else "an empty list"
    if isinstance(document, np.ndarray):
        return f"an array {document.shape}"
    return {str: "a text", type(None): "null", bool: "a truth value"}.get(type(document), "a number")
