"""COCO keypoint and COCO-WholeBody JSON: annotation files, and lists of results.

An annotation's visibility flag becomes a confidence: 0 (not labelled) 0, 1 (labelled, occluded) 0.5, 2 (visible) 1. In
the hands and face of COCO-WholeBody, 1 is what most visible points have (its data_format.md: "v>0 means that the
keypoint is reliable"): there it counts as 1 unless the same part also has a 2. Values between 0 and 1 are scores and
stay. Crowds and people of whom nothing is labelled are left out. In a list of results the third value is a score.

COCO-WholeBody counts pixels from 0; coordinates are kept as they are.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fitkit.errors import InputError
from fitkit.files import atomic_write
from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.conventions import (
    COCO_17,
    COCO_WHOLEBODY_133,
    FACE_68,
    FEET_6,
    HAND_LEFT,
    HAND_RIGHT,
    part_of,
)
from fitkit.keypoints.conversion import convert
from fitkit.keypoints.formats.base import (
    BY_COUNT,
    KeypointFormat,
    Recorded,
    boxes_from,
    describe,
    parse_triples,
    scores_from,
    stack_people,
)

OCCLUDED = 0.5
"""Confidence of a point that was labelled but is not visible."""
_EXTRAS = {
    "foot": ("foot_kpts", FEET_6),
    "face": ("face_kpts", FACE_68),
    "lefthand": ("lefthand_kpts", HAND_LEFT),
    "righthand": ("righthand_kpts", HAND_RIGHT),
}
"""COCO-WholeBody's parts in the order of its 133 points: field and names; `<part>_valid` says if it was labelled."""


def confidence_from_flags(names: Sequence[str], flags: np.ndarray) -> np.ndarray:
    """Return confidences (K,) for visibility flags or scores (K,); see the module's text."""
    confidence = np.where(flags >= 2.0, 1.0, np.where(flags == 1.0, OCCLUDED, flags))
    parts = np.array([{"contour": "face", "feet": "body"}.get(part_of(name), part_of(name)) for name in names])
    for part in ("face", "left_hand", "right_hand"):
        inside = parts == part
        if not (flags[inside] >= 2.0).any():
            confidence[inside & (flags == 1.0)] = 1.0
    return confidence


def _recognises(document: object) -> bool:
    if isinstance(document, list):
        first = document[0] if document else None
        return isinstance(first, dict) and {"image_id", "keypoints"} <= set(first)
    return isinstance(document, dict) and isinstance(document.get("annotations"), list)


def _read(document: Any, path: Path) -> list[Recorded]:
    if isinstance(document, list):
        return _read_results(document, path)
    images = {image.get("id"): image for image in document.get("images") or [] if isinstance(image, dict)}
    people: dict[Any, list[dict[str, Any]]] = {number: [] for number in images}
    for annotation in document["annotations"]:
        if not isinstance(annotation, dict) or "image_id" not in annotation:
            raise InputError(f"{path}: expected annotations with an image_id; got {describe(annotation)}.")
        people.setdefault(annotation["image_id"], []).append(annotation)

    def recorded(number: Any) -> Recorded:
        image = images.get(number, {})
        name = str(image.get("file_name") or number)
        return Recorded(name, partial(_unpack_annotations, people[number], image, f"{path}, {name}"))

    return [recorded(number) for number in people]


def _read_results(results: Sequence[Any], path: Path) -> list[Recorded]:
    people: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in results:
        if not isinstance(result, dict) or "image_id" not in result:
            raise InputError(f"{path}: expected results with an image_id; got {describe(result)}.")
        people[str(result["image_id"])].append(result)
    return [Recorded(name, partial(_unpack_results, people[name], f"{path}, {name}")) for name in people]


def _unpack_results(people: Sequence[Mapping[str, Any]], what: str) -> Keypoints:
    """Return the keypoints of the results (people) of one picture."""
    parsed = [_parse_person(person, f"{what}, person {k}") for k, person in enumerate(people)]
    names, triples = stack_people(parsed, COCO_17, what)
    return Keypoints(
        names,
        triples[..., :2],
        triples[..., 2],
        scores=scores_from(people, "score"),
        boxes=boxes_from(people, "bbox", what),
    )


def _parse_person(person: Mapping[str, Any], what: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names and triples (K, 3) of an annotation or result, with COCO-WholeBody's parts where it has them."""
    names, triples = parse_triples(person.get("keypoints"), BY_COUNT, f"{what}, keypoints")
    if names != COCO_17 or not any(field in person for field, _ in _EXTRAS.values()):
        return names, triples
    columns = [triples]
    for part, (field, part_names) in _EXTRAS.items():
        values = np.zeros((len(part_names), 3))
        if person.get(field) and person.get(f"{part}_valid", True):
            values = parse_triples(person[field], {len(part_names): part_names}, f"{what}, {field}")[1]
        columns.append(values)
    return COCO_WHOLEBODY_133, np.concatenate(columns)


def _unpack_annotations(annotations: Sequence[Mapping[str, Any]], image: Mapping[str, Any], what: str) -> Keypoints:
    kept, parsed = [], []
    for number, annotation in enumerate(annotations):
        if annotation.get("iscrowd") or not annotation.get("keypoints"):
            continue
        names, triples = _parse_person(annotation, f"{what}, person {number}")
        if not (triples[:, 2] > 0.0).any():
            continue
        triples[:, 2] = _annotated_confidence(annotation, names, triples[:, 2])
        kept.append(annotation)
        parsed.append((names, triples))
    names, triples = stack_people(parsed, COCO_17, what)
    size = (image.get("width"), image.get("height"))
    return Keypoints(
        names,
        triples[..., :2],
        triples[..., 2],
        image_size=(int(size[0]), int(size[1])) if size[0] and size[1] else None,
        scores=scores_from(kept, "score"),
        boxes=boxes_from(kept, "bbox", what),
    )


def _annotated_confidence(annotation: Mapping[str, Any], names: Sequence[str], flags: np.ndarray) -> np.ndarray:
    """Return a person's confidences: the `keypoint_scores` that fitkit writes beside the flags, else from the flags."""
    scores = annotation.get("keypoint_scores")
    if isinstance(scores, list) and len(scores) == len(names):
        return np.where(flags > 0.0, np.array(scores, dtype=np.float64), 0.0)
    return confidence_from_flags(names, flags)


def _write(path: Path, pictures: Sequence[Keypoints]) -> None:
    images, annotations = [], []
    for number, picture in enumerate(pictures, start=1):
        keypoints = convert(picture, COCO_WHOLEBODY_133)
        width, height = keypoints.image_size or (0, 0)
        name = keypoints.source or f"{number:012d}.jpg"
        images.append({"id": number, "file_name": Path(name).name, "width": int(width), "height": int(height)})
        annotations += [_annotation(keypoints, k, number) for k in range(len(keypoints))]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    category = {"supercategory": "person", "id": 1, "name": "person", "keypoints": list(COCO_17), "skeleton": []}
    document = {"images": images, "annotations": annotations, "categories": [category]}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(document, allow_nan=False) + "\n", encoding="utf-8")


def _annotation(keypoints: Keypoints, person: int, image_id: int) -> dict[str, Any]:
    """Return a person as COCO-WholeBody has it: flag 2 for sure points, 1 for unsure ones, the scores beside them."""
    confidence = keypoints.confidence[person]
    flags = np.where(confidence >= OCCLUDED, 2, np.where(confidence > 0.0, 1, 0))
    points = np.round(np.where(flags[:, None] > 0, keypoints.points[person], 0.0), 4)
    x0, y0, x1, y1 = _box(points, flags) if keypoints.boxes is None else keypoints.boxes[person].tolist()
    annotation: dict[str, Any] = {
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0),
        "num_keypoints": int((flags[:17] > 0).sum()),
        "keypoints": _flat(points[:17], flags[:17]),
    }
    start = 17
    for part, (field, names) in _EXTRAS.items():
        inside = slice(start, start + len(names))
        annotation[field] = _flat(points[inside], flags[inside])
        annotation[f"{part}_valid"] = bool(flags[inside].any())
        if part != "foot":
            left, top, right, bottom = _box(points[inside], flags[inside])
            annotation[f"{part}_box"] = [left, top, right - left, bottom - top]
        start = inside.stop
    annotation["keypoint_scores"] = np.round(confidence, 5).tolist()
    if keypoints.scores is not None:
        annotation["score"] = round(float(keypoints.scores[person]), 5)
    return annotation


def _flat(points: np.ndarray, flags: np.ndarray) -> list[float | int]:
    return [value for (x, y), v in zip(points.tolist(), flags.tolist(), strict=True) for value in (x, y, v)]


def _box(points: np.ndarray, flags: np.ndarray) -> list[float]:
    """Return x0, y0, x1, y1 around the points that were seen; zeros when none was."""
    seen = points[flags > 0]
    return [0.0, 0.0, 0.0, 0.0] if not len(seen) else [*seen.min(0).tolist(), *seen.max(0).tolist()]


FORMAT = KeypointFormat(
    summary='COCO or COCO-WholeBody (an object with "annotations", or a list with "image_id" and "keypoints")',
    recognises=_recognises,
    read=_read,
    write=_write,
)
"""COCO keypoints and COCO-WholeBody."""
