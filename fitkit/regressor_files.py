"""Trained initialisers by name or by file: their weights, and the classes that they make."""

from __future__ import annotations

import os
from functools import lru_cache
from importlib import resources
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from fitkit.errors import InputError, UsageError
from fitkit.files import atomic_write
from fitkit.registry import did_you_mean
from fitkit.regression.regressor import KeypointRegressor

REGRESSORS = {"keypoints": "keypoints.safetensors"}
"""Name -> file in `fitkit/regression/data`; `README.md` beside them says how they were trained."""


def load_regressor(name_or_path: str | os.PathLike[str]) -> KeypointRegressor:
    """Return a trained network by its name, or from a file that `fitkit train initialiser` wrote.

    Raises:
        UsageError: no network has that name.
        InputError: the file is missing, damaged, or made for other keypoints.
    """
    text = os.fspath(name_or_path)
    if text in REGRESSORS:
        with resources.as_file(resources.files("fitkit.regression") / "data" / REGRESSORS[text]) as path:
            return _read(str(path))
    if not text.endswith(".safetensors"):
        known = tuple(REGRESSORS)
        hint = did_you_mean(text, known)
        raise UsageError(f"No trained initialiser {text!r}.{hint} Known: {', '.join(known)}, or a .safetensors file.")
    return _read(text)


@lru_cache(maxsize=4)
def _read(path: str) -> KeypointRegressor:
    try:
        with safe_open(path, framework="pt") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InputError(f"The initialiser's weights {path} cannot be read: {error}.") from error
    try:
        return KeypointRegressor.from_arrays(arrays, metadata)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def save_regressor(regressor: KeypointRegressor, path: Path) -> None:
    """Write a trained network to a safetensors file."""
    arrays, metadata = regressor.to_arrays()
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(arrays, metadata))
