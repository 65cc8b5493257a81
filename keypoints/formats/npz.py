"""fitkit's own keypoint file: one picture, everything that `Keypoints` holds, an npz without pickles.

Arrays as in `Keypoints`: names, points, confidence and, where known, image_size, scores, boxes, world, genders ("" for
unknown), source; masks are packed to bits along the flattened picture, with mask_size (H, W) beside them; metadata is
JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fitkit.errors import InputError, UsageError
from fitkit.files import atomic_write
from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.formats.base import KeypointFormat, Recorded

VERSION = 1
"""Of the layout; files of a later one are refused."""


def _recognises(document: object) -> bool:
    required = {"names", "points", "confidence"}
    return isinstance(document, dict) and required <= set(document) and isinstance(document["points"], np.ndarray)


def _read(document: Mapping[str, np.ndarray], path: Path) -> list[Recorded]:
    if int(document.get("format_version", np.array(VERSION))) > VERSION:
        raise InputError(f"{path} was written by a newer fitkit; install that to read it.")
    source = str(document["source"]) if "source" in document else None
    return [Recorded(source, lambda: _unpack(document, path))]


def _unpack(arrays: Mapping[str, np.ndarray], path: Path) -> Keypoints:
    try:
        return _assemble(arrays)
    except (ValueError, TypeError, IndexError) as error:
        raise InputError(f"{path}: its arrays do not fit together ({error}).") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _assemble(arrays: Mapping[str, np.ndarray]) -> Keypoints:
    people = len(arrays["points"])
    for name in ("scores", "boxes", "world", "masks", "genders"):
        if name in arrays and len(arrays[name]) != people:
            raise ValueError(f"{name} of {len(arrays[name])} people, points of {people}")
    masks = None
    if "masks" in arrays:
        height, width = map(int, arrays["mask_size"])
        if arrays["masks"].shape[1:] != (-(-height * width // 8),):
            raise ValueError(f"masks of {arrays['masks'].shape[-1]} bytes for {height} x {width} pixels")
        bits = np.unpackbits(arrays["masks"], axis=1, count=height * width)
        masks = bits.reshape(people, height, width).astype(bool)
    size = arrays.get("image_size")
    return Keypoints(
        tuple(map(str, arrays["names"])),
        arrays["points"],
        arrays["confidence"],
        image_size=None if size is None else (int(size[0]), int(size[1])),
        scores=arrays.get("scores"),
        boxes=arrays.get("boxes"),
        world=arrays.get("world"),
        masks=masks,
        genders=tuple(str(gender) or None for gender in arrays.get("genders", ())),
        source=str(arrays["source"]) if "source" in arrays else None,
        metadata=json.loads(str(arrays["metadata"])) if "metadata" in arrays else {},
    )


def _write(path: Path, pictures: Sequence[Keypoints]) -> None:
    if len(pictures) != 1:
        raise UsageError(f"A keypoint npz holds one picture; got {len(pictures)}.")
    arrays = _arrays(pictures[0])
    # A file object, for np.savez would add ".npz" to a name without it.
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def _arrays(keypoints: Keypoints) -> dict[str, np.ndarray]:
    arrays = {
        "format_version": np.array(VERSION),
        "names": np.array(keypoints.names, dtype=np.str_),
        "points": keypoints.points,
        "confidence": keypoints.confidence,
    }
    optional = {"scores": keypoints.scores, "boxes": keypoints.boxes, "world": keypoints.world}
    arrays |= {name: np.asarray(array) for name, array in optional.items() if array is not None}
    if keypoints.image_size is not None:
        arrays["image_size"] = np.array(keypoints.image_size, dtype=np.int64)
    if keypoints.masks is not None:
        people, height, width = keypoints.masks.shape
        arrays["masks"] = np.packbits(keypoints.masks.reshape(people, height * width), axis=1)
        arrays["mask_size"] = np.array([height, width], dtype=np.int64)
    if keypoints.genders:
        arrays["genders"] = np.array([gender or "" for gender in keypoints.genders], dtype=np.str_)
    if keypoints.source is not None:
        arrays["source"] = np.array(keypoints.source, dtype=np.str_)
    if keypoints.metadata:
        arrays["metadata"] = np.array(json.dumps(keypoints.metadata, default=str), dtype=np.str_)
    return arrays


FORMAT = KeypointFormat(
    summary="fitkit's npz (names, points, confidence)",
    recognises=_recognises,
    read=_read,
    suffix=".npz",
    write=_write,
)
"""fitkit's own npz."""
