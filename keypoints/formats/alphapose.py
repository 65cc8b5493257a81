"""AlphaPose's JSON: one list of people of many pictures, or an object of pictures.

A person has image_id (the picture's name), keypoints (x, y, confidence), score and, in newer versions, box (x, y,
width, height) and idx (a track). Conventions by number of points: COCO 17, Halpe 26 and 136, COCO-WholeBody 133, Halpe
without the face 68. A person's score sums three confidences, the last of them times 1.25 (AlphaPose's pPose_nms): 3.25
is a sure person's and becomes 1. Confidences of old versions reach 6 and are clipped to 1.

Also read: an object from picture to people, as for PoseTrack.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fitkit.errors import InputError
from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.conventions import COCO_17, HALPE_26, HAND_LEFT, HAND_RIGHT
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

_COUNTS = BY_COUNT | {68: (*HALPE_26, *HAND_LEFT, *HAND_RIGHT)}
_NOT_PICTURES = {"annotations", "instances", "instance_info", "predictions"}
"""Keys of other formats' objects, whose lists of people look the same."""
_BEST_SCORE = 3.25
"""Score of a person of whom everything is certain."""


def _recognises(document: object) -> bool:
    if isinstance(document, list):
        first = document[0] if document else None
        return isinstance(first, dict) and {"image_id", "keypoints"} <= set(first) and bool({"box", "idx"} & set(first))
    if not isinstance(document, dict) or not document or _NOT_PICTURES & set(document):
        return False
    return all(_is_picture(value) for value in document.values())


def _is_picture(value: object) -> bool:
    """Return whether this is what an object of pictures has for one: its people."""
    return isinstance(value, list) and all(isinstance(person, dict) and "keypoints" in person for person in value)


def _read(document: Any, path: Path) -> list[Recorded]:
    people: Mapping[str, list[dict[str, Any]]]
    if isinstance(document, dict):
        people = document
    else:
        people = defaultdict(list)
        for person in document:
            if not isinstance(person, dict) or "image_id" not in person:
                raise InputError(f"{path}: expected people with an image_id; got {describe(person)}.")
            people[str(person["image_id"])].append(person)
    return [Recorded(name, partial(_unpack, people[name], f"{path}, {name}")) for name in people]


def _unpack(people: Sequence[Mapping[str, Any]], what: str) -> Keypoints:
    parsed = [
        parse_triples(person.get("keypoints"), _COUNTS, f"{what}, person {number}, keypoints")
        for number, person in enumerate(people)
    ]
    names, triples = stack_people(parsed, COCO_17, what)
    keypoints = Keypoints(
        names,
        triples[..., :2],
        triples[..., 2],
        scores=scores_from(people, "score", _BEST_SCORE),
        boxes=boxes_from(people, "box", what),
    )
    tracks = [person.get("idx") for person in people]
    return replace(keypoints, metadata={"idx": tracks}) if any(track is not None for track in tracks) else keypoints


FORMAT = KeypointFormat(
    summary='AlphaPose (a list with "image_id", "keypoints" and "box" or "idx")', recognises=_recognises, read=_read
)
"""AlphaPose results."""
