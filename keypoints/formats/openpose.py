"""OpenPose's JSON, one file per picture: people with body (BODY_25 or COCO-18), hands and face.

Read as documented in OpenPose's doc/02_output.md for versions 1.0 (without the "_2d" in the names) to 1.3, with the
gender_gt and gender_pd that SMPLify-X adds to a person; 3D points are ignored. Hand and face confidences exceed 1 now
and then, and are clipped. What AlphaPose writes with `--format open` and `--format
cmu` ("bodies" with "joints"), for one picture or for many by name, is read too.

Coordinates are kept as they are (`--keypoint_scale 0`, pixels of the picture).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fitkit.errors import InputError, UsageError
from fitkit.files import atomic_write
from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.conventions import (
    BODY_25,
    COCO_18,
    FACE_68,
    FACE_70,
    HAND_LEFT,
    HAND_RIGHT,
    OPENPOSE_137,
)
from fitkit.keypoints.conversion import convert
from fitkit.keypoints.formats.base import KeypointFormat, Recorded, describe, parse_triples, stack_people

_FIELDS: dict[str, dict[int, tuple[str, ...]]] = {
    "pose_keypoints": {25: BODY_25, 18: COCO_18},
    "hand_left_keypoints": {21: HAND_LEFT},
    "hand_right_keypoints": {21: HAND_RIGHT},
    "face_keypoints": {70: FACE_70, 68: FACE_68},
}
"""Fields of a person without their "_2d": the conventions that each may be in, by number of points."""
_LAYOUT = {25: "BODY_25", 18: "COCO-18"}


def _recognises(document: object) -> bool:
    if not isinstance(document, dict) or not document:
        return False
    return _is_picture(document) or all(_is_picture(value) for value in document.values())


def _is_picture(document: object) -> bool:
    return isinstance(document, dict) and any(isinstance(document.get(key), list) for key in ("people", "bodies"))


def _read(document: Mapping[str, Any], path: Path) -> list[Recorded]:
    if _is_picture(document):
        return [Recorded(None, partial(_unpack, document, path))]
    return [Recorded(image, partial(_unpack, picture, path)) for image, picture in document.items()]


def _unpack(picture: Mapping[str, Any], path: Path) -> Keypoints:
    people = picture.get("people") or picture.get("bodies") or []
    parts = [_parse_person(person, f"{path}, person {number}") for number, person in enumerate(people)]
    used = {field: counts for field, counts in _FIELDS.items() if any(field in person for person in parts)}
    columns = [_stack_field(field, parts, path) for field in used] or [(BODY_25, np.zeros((len(people), 25, 3)))]
    names = tuple(name for field_names, _ in columns for name in field_names)
    triples = np.concatenate([values for _, values in columns], axis=1)
    genders = tuple(_gender(person) for person in people)
    return Keypoints(
        names,
        triples[..., :2],
        triples[..., 2],
        genders=genders if any(genders) else (),
    )


def _parse_person(person: object, what: str) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Return names and (K, 3) triples of each field that a person has."""
    if not isinstance(person, dict):
        raise InputError(f"{what}: expected an object; got {describe(person)}.")
    parsed = {}
    for field, counts in _FIELDS.items():
        key = next((key for key in (f"{field}_2d", field) if person.get(key)), None)
        if key is None and field == "pose_keypoints" and person.get("joints"):
            key = "joints"
        if key is not None:
            parsed[field] = _parse_field(person[key], counts, what, key)
    if not parsed and "pose_keypoints_2d" not in person and "pose_keypoints" not in person:
        raise InputError(f"{what}: expected pose_keypoints_2d; got {describe(person)}.")
    return parsed


def _parse_field(
    values: object, counts: Mapping[int, tuple[str, ...]], what: str, key: str
) -> tuple[tuple[str, ...], np.ndarray]:
    if isinstance(values, list) and len(values) not in {3 * count for count in counts} and values:
        expected = " or ".join(f"{3 * n}" + (f" ({_LAYOUT[n]})" if n in _LAYOUT else "") for n in counts)
        raise InputError(f"{what}: got {len(values)} values for {key}; expected {expected}.")
    return parse_triples(values, counts, f"{what}, {key}")


def _stack_field(
    field: str, people: Sequence[Mapping[str, tuple[tuple[str, ...], np.ndarray]]], path: Path
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return one field's names and the triples (P, K, 3) of all people, zeros for those who lack it."""
    names = next(person[field][0] for person in people if field in person)
    absent = (names, np.zeros((len(names), 3)))
    return stack_people([person.get(field, absent) for person in people], names, f"{path}, {field}")


def _gender(person: Mapping[str, Any]) -> str | None:
    """Return the annotated gender of a person, else the predicted one, else None."""
    for key in ("gender_gt", "gender_pd", "gender"):
        value = str(person.get(key) or "").strip().lower()
        if value in ("neutral", "female", "male"):
            return value
    return None


def _write(path: Path, pictures: Sequence[Keypoints]) -> None:
    if len(pictures) != 1:
        raise UsageError(f"An OpenPose file holds one picture; got {len(pictures)}.")
    keypoints = convert(pictures[0], OPENPOSE_137)
    people = [_person(keypoints, number) for number in range(len(keypoints))]
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps({"version": 1.3, "people": people}, allow_nan=False) + "\n", encoding="utf-8")


def _person(keypoints: Keypoints, number: int) -> dict[str, object]:
    """Return one person as OpenPose writes it; a part of which nothing was seen is an empty list."""
    person: dict[str, object] = {"person_id": [-1]}
    start = 0
    for field, counts in (("pose", BODY_25), ("hand_left", HAND_LEFT), ("hand_right", HAND_RIGHT), ("face", FACE_70)):
        part = slice(start, start + len(counts))
        seen = keypoints.confidence[number, part]
        triples = np.column_stack([np.where(seen[:, None] > 0.0, keypoints.points[number, part], 0.0), seen])
        keep = field == "pose" or bool(seen.any())
        person[f"{field}_keypoints_2d"] = np.round(triples, 4).ravel().tolist() if keep else []
        start = part.stop
    person |= {f"{field}_keypoints_3d": [] for field in ("pose", "face", "hand_left", "hand_right")}
    if keypoints.genders and keypoints.genders[number]:
        person["gender_pd"] = keypoints.genders[number]
    return person


FORMAT = KeypointFormat(
    summary='OpenPose (an object with "people")',
    recognises=_recognises,
    read=_read,
    suffix="_keypoints.json",
    write=_write,
)
"""OpenPose 1.x JSON."""
