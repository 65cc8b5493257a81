"""MMPose's JSON, as its inferencer and its demos save predictions.

Three shapes: a list of instances (the inferencer, one file per picture, named as the picture), an object with meta_info
and instance_info (the demos, one picture), and a list of frames, each with frame_id and instances (a video). An
instance has keypoints (K pairs), keypoint_scores (K) and a bbox (x0, y0, x1, y1). Points are named by meta_info where
it is there, else by their number: 17 COCO, 26 Halpe, 133 COCO-WholeBody, 136 Halpe.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fitkit.errors import InputError
from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.conventions import COCO_17
from fitkit.keypoints.formats.base import (
    BY_COUNT,
    KeypointFormat,
    Recorded,
    clean_confidence,
    describe,
    stack_people,
    to_array,
)

_FINGERS = {"forefinger": "index", "middle_finger": "middle", "ring_finger": "ring", "pinky_finger": "pinky"}
_WORDS = {"head": "head_top", "top_head": "head_top", "hip": "mid_hip", "root": "mid_hip", "pelvis": "mid_hip"}


def _recognises(document: object) -> bool:
    if isinstance(document, dict):
        return any(isinstance(document.get(key), list) for key in ("instance_info", "instances", "predictions"))
    if not isinstance(document, list):
        return False
    first = document[0] if document else {"keypoint_scores": []}
    return isinstance(first, dict) and (
        "keypoint_scores" in first
        or {"frame_id", "instances"} <= set(first)
        or {"keypoints", "bbox_score"} <= set(first)
    )


def _read(document: Any, path: Path) -> list[Recorded]:
    names: tuple[str, ...] | None = None
    entries = document
    if isinstance(document, dict):
        names = _named(document.get("meta_info"))
        entries = next(
            document[k] for k in ("instance_info", "instances", "predictions") if document.get(k) is not None
        )
    if len(entries) == 1 and isinstance(entries[0], list):
        entries = entries[0]  # the inferencer's return value holds one list per picture of the batch
    if not (entries and isinstance(entries[0], dict) and "instances" in entries[0]):
        return [Recorded(None, lambda: _unpack(entries, names, str(path)))]
    frames = [(f"frame {entry.get('frame_id')}", entry["instances"]) for entry in entries if "instances" in entry]
    return [Recorded(label, partial(_unpack, people, names, f"{path}, {label}")) for label, people in frames]


def _named(meta: object) -> tuple[str, ...] | None:
    """Return the names that meta_info gives to the points, in fitkit's words; None when it gives none."""
    table = meta.get("keypoint_id2name") if isinstance(meta, dict) else None
    if not isinstance(table, dict) or not table:
        return None
    named = [_translate(str(name)) for _, name in sorted(table.items(), key=lambda item: int(item[0]))]
    return tuple(named) if len(set(named)) == len(named) else None


def _translate(name: str) -> str:
    """Return fitkit's word for a point of MMPose's."""
    face = re.fullmatch(r"face[-_](\d+)", name)
    if face:
        return f"face_{int(face[1]):02d}"
    finger = re.fullmatch(r"(left|right)_(thumb|forefinger|middle_finger|ring_finger|pinky_finger)([1-4])", name)
    if finger:
        joint = "_tip" if finger[3] == "4" else finger[3]
        return f"{finger[1]}_{_FINGERS.get(finger[2], finger[2])}{joint}"
    return _WORDS.get(name, name)


def _unpack(people: Sequence[Any], names: tuple[str, ...] | None, what: str) -> Keypoints:
    parsed = [_parse(person, names, f"{what}, person {number}") for number, person in enumerate(people)]
    names, triples = stack_people(parsed, names or COCO_17, what)
    boxes = [np.asarray(person.get("bbox") or [], dtype=np.float64).reshape(-1)[:4] for person in people]
    scores = [person.get("bbox_score") for person in people]
    return Keypoints(
        names,
        triples[..., :2],
        triples[..., 2],
        scores=np.clip(np.array(scores, dtype=np.float64), 0.0, 1.0) if people and None not in scores else None,
        boxes=np.stack(boxes) if people and all(len(box) == 4 for box in boxes) else None,
    )


def _parse(person: object, names: tuple[str, ...] | None, what: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names and the triples (K, 3) of an instance."""
    if not isinstance(person, dict) or "keypoints" not in person:
        raise InputError(f"{what}: expected an instance with keypoints; got {describe(person)}.")
    points = to_array(person["keypoints"], f"{what}, keypoints")
    if points.ndim != 2 or points.shape[1] != 2:
        raise InputError(f"{what}, keypoints: expected pairs x, y; got {describe(points)}.")
    names = names if names and len(names) == len(points) else BY_COUNT.get(len(points))
    if names is None:
        raise InputError(f"{what}: got {len(points)} keypoints; expected {', '.join(map(str, BY_COUNT))}.")
    scores = np.ones(len(points))
    if person.get("keypoint_scores") is not None:
        scores = to_array(person["keypoint_scores"], f"{what}, keypoint_scores").reshape(-1)
    if len(scores) != len(points):
        raise InputError(f"{what}: got {len(scores)} keypoint_scores for {len(points)} keypoints.")
    return names, np.column_stack([points, clean_confidence(points, scores)])


FORMAT = KeypointFormat(
    summary='MMPose (instances with "keypoints" and "keypoint_scores")', recognises=_recognises, read=_read
)
"""MMPose predictions."""
