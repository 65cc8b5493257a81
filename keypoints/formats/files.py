"""Reading and writing a keypoint file of any format; the format is told by the content."""

from __future__ import annotations

import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fitkit.errors import InputError, UsageError
from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.formats.base import KeypointFormat, Recorded, describe
from fitkit.registry import Registry

FORMATS = Registry(
    "keypoint format",
    {
        "openpose": "fitkit.keypoints.formats.openpose:FORMAT",
        "alphapose": "fitkit.keypoints.formats.alphapose:FORMAT",
        "mmpose": "fitkit.keypoints.formats.mmpose:FORMAT",
        "coco-wholebody": "fitkit.keypoints.formats.coco:FORMAT",
        "npz": "fitkit.keypoints.formats.npz:FORMAT",
    },
)
"""Keypoint file formats by name, in the order in which a file is tried: those that ask for more come first."""
WRITABLE: tuple[str, ...] = ("openpose", "coco-wholebody", "npz")
"""Names of the formats that `write_keypoints` knows."""


def read_keypoints(
    path: str | os.PathLike[str], image: str | os.PathLike[str] | None = None, image_size: tuple[int, int] | None = None
) -> list[Keypoints]:
    """Return the keypoints of each picture that a file records; `source` is the picture's name.

    Formats are told by the content: OpenPose, COCO and COCO-WholeBody, MMPose, AlphaPose JSON, and fitkit's npz. Pixel
    coordinates are kept as the file has them, although tools differ by half a pixel in what they call 0.

    Args:
        path: the file.
        image: take only this picture (by its name, its stem or the number it ends with).
        image_size: (width, height) of the picture in pixels, where the file does not record it.

    Raises:
        InputError: the file cannot be used, or was made for a picture of another size.
    """
    path = Path(path)
    recorded = open_keypoints(path)
    if image is not None and any(entry.image is not None for entry in recorded):
        recorded = select_image(recorded, Path(image))
    return [unpack(entry, path, image_size) for entry in recorded]


def write_keypoints(
    path: str | os.PathLike[str], keypoints: Keypoints | Sequence[Keypoints], format: str = "npz"
) -> Path:
    """Write keypoints to a file and return its path; nothing is left behind when that fails.

    OpenPose gets its 137 points and COCO-WholeBody its 133, found by name (see `fitkit.keypoints.conversion`); the npz
    keeps everything. COCO-WholeBody alone takes several pictures.

    Args:
        path: the file; its folder must exist.
        keypoints: of one picture or, where the format takes them, of several.
        format: one of `WRITABLE`.

    Raises:
        UsageError: no such format, or the format cannot be written.
        OutputError: the file cannot be written.
    """
    writer = _writable(format)
    assert writer.write is not None
    writer.write(Path(path), [keypoints] if isinstance(keypoints, Keypoints) else list(keypoints))
    return Path(path)


def file_name(image: str | os.PathLike[str], format: str = "npz") -> str:
    """Return what a picture's keypoint file is called in a format, so that `find_keypoints` finds it."""
    return Path(image).stem + _writable(format).suffix


def _writable(format: str) -> KeypointFormat:
    chosen: KeypointFormat = FORMATS.get(format)
    if chosen.write is None:
        raise UsageError(f"Keypoints cannot be written as '{format}'; choose one of {', '.join(WRITABLE)}.")
    return chosen


def open_keypoints(path: Path) -> list[Recorded]:
    """Return the pictures that a file records, not yet unpacked.

    Raises:
        InputError: the file is missing or broken, or of no known format.
    """
    document = _parse(path)
    if document == []:  # what MMPose and AlphaPose write of a picture without people
        return [Recorded(None, lambda: _nobody())]
    formats = [FORMATS.get(name) for name in FORMATS]
    for candidate in formats:
        if candidate.recognises(document):
            with _explaining(path):
                entries: list[Recorded] = candidate.read(document, path)
            return entries
    accepted = "; ".join(candidate.summary for candidate in formats)
    raise InputError(f"{path} holds {describe(document)}, which is no known keypoint format. Known are {accepted}.")


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    """Turn what a value of the wrong kind, deep in a file, makes Python raise into one sentence."""
    try:
        yield
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise InputError(f"{path} has a value of the wrong kind: {' '.join(str(error).split())}.") from error


def _nobody() -> Keypoints:
    return Keypoints(("nose",), np.zeros((0, 1, 2)), np.zeros((0, 1)))


def unpack(entry: Recorded, path: Path, image_size: tuple[int, int] | None = None) -> Keypoints:
    """Return one recorded picture's keypoints, checked, with its name and size."""
    with _explaining(path):
        keypoints = entry.unpack()
    recorded = keypoints.image_size
    if recorded is not None and image_size is not None and tuple(recorded) != tuple(image_size):
        raise InputError(
            f"{path} holds keypoints of a picture of {recorded[0]} x {recorded[1]} pixels, but the picture has "
            f"{image_size[0]} x {image_size[1]}; detect them on this very picture."
        )
    _refuse_normalised(keypoints, path)
    return replace(
        keypoints, image_size=recorded or image_size, source=entry.image or keypoints.source or stem_of(path)
    )


def stem_of(path: Path) -> str:
    """Return the stem of the picture that a keypoint file is named after."""
    return path.stem.removesuffix("_keypoints")


def _refuse_normalised(keypoints: Keypoints, path: Path) -> None:
    """Raise when the coordinates are plainly not pixels: several points, all of them within a pixel of the corner."""
    seen = keypoints.points[keypoints.confidence > 0.0]
    if len(seen) > 3 and (np.abs(seen) <= 1.0).all():
        raise InputError(
            f"{path}: all coordinates lie between -1 and 1, so they are shares of the picture and not pixels; "
            "write pixels (OpenPose: --keypoint_scale 0)."
        )


def select_image(recorded: Sequence[Recorded], image: Path) -> list[Recorded]:
    """Return the one entry recorded for a picture, or none.

    The best of these wins: the same path (as far as the file gives it), the same name, the same stem, the number that
    the picture's name ends with.

    Raises:
        InputError: two entries are equally good.
    """
    rated = [(rate_name(entry.image, image), entry) for entry in recorded if entry.image is not None]
    best = max((rate for rate, _ in rated), default=0)
    if best == 0:
        return []
    chosen = [entry for rate, entry in rated if rate == best]
    if len(chosen) > 1:
        names = " and ".join(str(entry.image) for entry in chosen[:2])
        raise InputError(f"The keypoint file records {names}, and both may be {image}; rename the picture.")
    return chosen


def rate_name(recorded: str | None, image: Path) -> int:
    """Return how well a recorded name fits a picture: 0 not at all; more is better."""
    if recorded is None:
        return 0
    parts = Path(recorded.replace("\\", "/")).parts
    if not parts:
        return 0
    if parts[-1] == image.name:
        same = 0
        while same < min(len(parts), len(image.parts)) and parts[-1 - same] == image.parts[-1 - same]:
            same += 1
        return 3 + same
    if Path(parts[-1]).stem == image.stem or recorded == image.stem:
        return 3
    return 2 if recorded.isdecimal() and without_zeros(image.stem.rpartition("_")[2]) == without_zeros(recorded) else 0


def without_zeros(stem: str) -> str:
    """Return a number without its leading zeros, and any other text as it is."""
    return (stem.lstrip("0") or "0") if stem.isdecimal() else stem


def _parse(path: Path) -> Any:
    """Return a file's content: JSON, or the arrays of an npz as a dict."""
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder; name a keypoint file.")
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"There is no keypoint file {path}.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    if content.startswith(b"PK"):
        return _parse_npz(content, path)
    if not content.strip():
        raise InputError(f"{path} is empty.")
    if content.startswith((b"\x80", b"\x93NUMPY")):
        raise InputError(f"{path} is a pickle or a bare array, which is not read; give JSON or an npz of fitkit's.")
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}.") from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InputError(f"{path} is neither JSON nor an npz.") from error


def _parse_npz(content: bytes, path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except ValueError as error:
        if "pickle" in str(error):
            raise InputError(
                f"{path} holds Python objects (pickles), which are not read; write plain arrays."
            ) from error
        raise InputError(f"{path} is not a readable npz: {error}.") from error
    except (OSError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise InputError(f"{path} is damaged or cut short: {error}.") from error
