"""Saving one person's fit and loading it back: an npz without pickles, and meshes."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fitkit.errors import InputError, UsageError
from fitkit.files import atomic_write, make_folder
from fitkit.registry import did_you_mean
from fitkit.results import FORMATS, MESH_FORMATS, FitResult, PinholeCamera

PARAMS_FILE = "params.npz"
_PLAIN = (
    "status", "energies", "reprojection", "height_px", "seen", "model", "gender", "model_hash", "recipe", "settings",
    "iterations", "image", "person", "version",
)  # fmt: skip
_ARRAYS = ("vertices", "faces", "joints", "joint_deviation", "points", "confidence")
FORMAT_VERSION = 1


def save_result(result: FitResult, folder: Path, formats: Sequence[str] = ("npz", "glb")) -> list[Path]:
    """Write a result into a folder, each file whole or not at all, and return the paths; see `FitResult.save`."""
    for name in formats:
        if name not in FORMATS:
            raise UsageError(
                f"Unknown output format {name!r}.{did_you_mean(name, FORMATS)} Known: {', '.join(FORMATS)}."
            )
        if name in MESH_FORMATS and not len(result.vertices):
            raise UsageError(f"This result has no mesh to write as {name}; fit with meshes=True, or save npz alone.")
    folder = make_folder(folder)
    written = []
    for name in dict.fromkeys(formats):
        path = folder / (PARAMS_FILE if name == "npz" else f"mesh.{name}")
        if name == "npz":
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **_as_arrays(result))  # type: ignore[arg-type]
        else:
            from fitkit.meshes import write_mesh

            write_mesh(path, result.vertices, result.faces, f"person_{result.person:02d}")
        written.append(path)
    return written


def _as_arrays(result: FitResult) -> dict[str, np.ndarray]:
    """Return the arrays of the npz: parameters by smplx's names, geometry, camera, and the rest as json text."""
    plain = {name: getattr(result, name) for name in _PLAIN}
    camera = {"focal_source": result.camera.focal_source, "focal_deviation": result.camera.focal_deviation}
    plain |= {"format_version": FORMAT_VERSION, **camera}
    arrays = {name: np.asarray(getattr(result, name)) for name in _ARRAYS}
    # Floats of 32 bits halve the file; a mesh in micrometres needs no more.
    arrays["vertices"] = arrays["vertices"].astype(np.float32)
    arrays |= {
        "joint_names": np.array(result.joint_names),
        "keypoint_names": np.array(result.names),
        "K": result.camera.intrinsics,
        "image_size": np.array(result.camera.image_size),
        "metadata": np.array(json.dumps(plain)),
        "param_names": np.array(list(result.params)),
    }
    return arrays | result.params


def load_result(path: str | os.PathLike[str]) -> FitResult:
    """Return the result saved in a `params.npz`, or in the folder that holds one.

    Raises:
        InputError: there is no such file, or it is truncated, none of ours, or of a newer version.
    """
    path = Path(path)
    if path.is_dir():
        path = path / PARAMS_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"There is no result at {path}; name a params.npz or the folder that holds it.") from error
    except OSError as error:
        raise InputError(f"The result {path} cannot be read: {error.strerror}.") from error
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return _from_arrays(arrays)
    except _NewerFormatError as error:
        raise InputError(f"{path} was written by a newer version of fitkit ({error}); install that one.") from error
    except Exception as error:  # a damaged archive can fail in any way
        raise InputError(f"{path} is no result of fitkit, or it is truncated; fit the photo again.") from error


class _NewerFormatError(Exception):
    pass


def _from_arrays(arrays: dict[str, np.ndarray]) -> FitResult:
    """Return the result of an npz's arrays; the inverse of `_as_arrays`."""
    plain = json.loads(str(arrays["metadata"]))
    if plain["format_version"] > FORMAT_VERSION:
        raise _NewerFormatError(plain["version"])
    width, height = (int(length) for length in arrays["image_size"])
    others: dict[str, Any] = {name: arrays[name] for name in _ARRAYS} | {name: plain[name] for name in _PLAIN}
    return FitResult(
        params={str(name): arrays[str(name)] for name in arrays["param_names"]},
        joint_names=tuple(str(name) for name in arrays["joint_names"]),
        names=tuple(str(name) for name in arrays["keypoint_names"]),
        camera=PinholeCamera(arrays["K"], (width, height), plain["focal_source"], plain.get("focal_deviation")),
        **others,
    )
