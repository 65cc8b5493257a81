"""Finding and opening body model files: the embedded body, and the licensed files that a user brings."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fitkit.errors import InputError, ModelNotFoundError, UsageError
from fitkit.models.arrays import ModelChoice, model_from_arrays
from fitkit.models.smpl_family import SMPLFamilyModel
from fitkit.models.unpickle import read_pickled_arrays
from fitkit.paths import model_folders
from fitkit.registry import did_you_mean

GENDERS = ("neutral", "female", "male")
EMBEDDED = "anny"
"""Name of the body that ships with the package."""
_EMBEDDED_FOLDER = Path(__file__).parent / "models" / "data"


@dataclass(frozen=True)
class LicensedModel:
    """A body model whose file the user must bring."""

    kind: str
    """Skeleton and name: smpl, smplh or smplx."""
    website: str
    """Where to register and download."""
    licence: str
    """In one phrase."""


LICENSED = {
    "smplx": LicensedModel("smplx", "smpl-x.is.tue.mpg.de", "non-commercial research; commercial on request"),
    "smplh": LicensedModel("smplh", "mano.is.tue.mpg.de", "non-commercial research; commercial on request"),
    "smpl": LicensedModel("smpl", "smpl.is.tue.mpg.de", "non-commercial research; commercial on request"),
}
MODEL_NAMES = (EMBEDDED, *LICENSED)
# Padding for smplx's loader alone, as costly to inflate as all the rest of the file: never read.
_UNREAD_WHEN_EMBEDDED = ("posedirs", "J_regressor", "dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords", "v_color")


def load_model(choice: ModelChoice, model_dir: str | os.PathLike[str] | None = None) -> SMPLFamilyModel:
    """Return the body model of that name and gender.

    Args:
        choice: name (one of `MODEL_NAMES`), gender and the freedoms to use; its kind is set from the name.
        model_dir: folder that holds the user's model files, searched before `$FITKIT_MODELS` and the data folder.

    Raises:
        UsageError: no such model or gender.
        ModelNotFoundError: the licensed file is not there; says where to get it and where to put it.
        InputError: the file is damaged or no such model.
    """
    check_names(choice.name, choice.gender)
    kind = LICENSED[choice.name].kind if choice.name in LICENSED else "smplx"
    path = find_model(choice.name, choice.gender, model_dir)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"The model file {path} cannot be read: {error.strerror}.") from error
    try:
        if path.suffix == ".pkl":
            arrays = read_pickled_arrays(content)
        else:
            arrays = read_npz_arrays(content, _UNREAD_WHEN_EMBEDDED if choice.name == EMBEDDED else ())
        return model_from_arrays(arrays, replace(choice, kind=kind), hashlib.sha256(content).hexdigest())
    except InputError as error:
        raise InputError(f"The model file {path} cannot be used: {error}") from error


def check_names(name: str, gender: str) -> None:
    """Raise `UsageError` for a model name or a gender that does not exist."""
    if name not in MODEL_NAMES:
        known = ", ".join(MODEL_NAMES)
        raise UsageError(f"Unknown body model {name!r}.{did_you_mean(name, MODEL_NAMES)} Known: {known}.")
    if gender not in GENDERS:
        raise UsageError(f"Unknown gender {gender!r}.{did_you_mean(gender, GENDERS)} Known: {', '.join(GENDERS)}.")


def find_model(name: str, gender: str, model_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the path of a model's file, or raise `ModelNotFoundError` saying how to bring it."""
    if name == EMBEDDED:
        path = _EMBEDDED_FOLDER / f"anny_{gender}.npz"
        if not path.is_file():
            raise ModelNotFoundError(f"The embedded body {path} is missing; install fitkit-body again.")
        return path
    folders = model_folders(model_dir)
    for folder in folders:
        for path in _candidates(folder, name, gender):
            if path.is_file():
                return path
    entry, place = LICENSED[name], folders[0] / name / f"{name.upper()}_{gender.upper()}.npz"
    others = [g for g in GENDERS if any(path.is_file() for folder in folders for path in _candidates(folder, name, g))]
    hint = f" Or choose one that is there: {' or '.join(f'--gender {other}' for other in others)}." if others else ""
    raise ModelNotFoundError(
        f"No {gender} {name} model file was found: register at {entry.website}, download it, and put it at {place} "
        f"(.npz or .pkl; --model-dir and $FITKIT_MODELS name other folders). "
        f"The default body, --model {EMBEDDED}, runs without any download.{hint}"
    )


def _candidates(folder: Path, name: str, gender: str) -> list[Path]:
    stem = f"{name.upper()}_{gender.upper()}"
    places = (folder / name, folder / "models" / name, folder)
    return [place / f"{stem}.{suffix}" for place in places for suffix in ("npz", "pkl")]


def read_npz_arrays(content: bytes, unread: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file, those named in `unread` left out; pickled object arrays are skipped.

    Raises `InputError` when the file is truncated or no npz.
    """
    try:
        file = np.load(io.BytesIO(content), allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise InputError("It is a single array, not an npz of named arrays.")
        arrays = {key: _read_array(file, key) for key in file.files if key not in unread}
    except InputError:
        raise
    except Exception as error:  # a damaged file can fail in any way
        raise InputError("It is truncated or no npz file; download or copy it again.") from error
    return {key: array for key, array in arrays.items() if array is not None}


def _read_array(file: np.lib.npyio.NpzFile, key: str) -> np.ndarray | None:
    try:
        return file[key]
    except ValueError as error:
        # Published SMPL-X files keep a few dictionaries as pickled object arrays; no fit needs them.
        if "Object arrays" in str(error):
            return None
        raise


@dataclass(frozen=True)
class InstalledModel:
    """One body model as `fitkit models` lists it."""

    name: str
    """Name for `--model`."""
    gender: str
    """neutral, female or male."""
    path: Path | None
    """Its file; None when it is not installed."""
    licence: str
    """In one phrase."""
    website: str | None
    """Where to get it; None when it ships with the package."""


def installed_models(model_dir: str | os.PathLike[str] | None = None) -> list[InstalledModel]:
    """Return every known model and gender, with its file where there is one."""
    found = []
    for name in MODEL_NAMES:
        for gender in GENDERS:
            try:
                path: Path | None = find_model(name, gender, model_dir)
            except ModelNotFoundError:
                path = None
            entry = LICENSED.get(name)
            licence, website = (entry.licence, entry.website) if entry else ("CC0 1.0, free for any use", None)
            found.append(InstalledModel(name, gender, path, licence, website))
    return found
