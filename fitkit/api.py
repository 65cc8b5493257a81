"""What users call from Python: detect, fit, load_model, load_result."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fitkit.camera import choose_focal
from fitkit.errors import InputError, UsageError
from fitkit.keypoints.containers import Keypoints
from fitkit.results import FitResult

if TYPE_CHECKING:
    from fitkit.fitting import FitProgress
    from fitkit.models.smpl_family import SMPLFamilyModel
    from fitkit.people import Person
    from fitkit.recipe import Recipe

Picture: TypeAlias = str | os.PathLike[str] | np.ndarray
"""A path, or (H, W, 3) uint8 RGB."""
DEFAULT_BATCH = 64
"""People fitted at once: beyond this a CPU gains nothing, and memory grows."""


def detect(images: Picture | Sequence[Picture], detector: str = "mediapipe") -> list[Keypoints]:
    """Return the people found in each picture: one `Keypoints` per picture, empty where nobody is found.

    Args:
        images: path, (H, W, 3) uint8 RGB array, or several of them.
        detector: name of a detector.

    Raises:
        InputError: a picture cannot be read. ModelNotFoundError: the detector's networks are not to be had.
    """
    from fitkit.keypoints.detectors import detect as run

    several = isinstance(images, Sequence) and not isinstance(images, str)
    return run(list(images) if several else [images], detector=detector)  # type: ignore[arg-type, list-item]


def fit(
    images_or_keypoints: Picture | Keypoints | Sequence[Picture | Keypoints],
    model: str | SMPLFamilyModel = "anny",
    gender: str | None = None,
    recipe: str | os.PathLike[str] | Recipe = "default",
    detector: str = "mediapipe",
    focal: float | None = None,
    fov: float | None = None,
    device: str = "auto",
    batch_size: int = DEFAULT_BATCH,
    model_dir: str | os.PathLike[str] | None = None,
    start: Sequence[Mapping[str, np.ndarray]] | None = None,
    progress: FitProgress | None = None,
) -> list[FitResult]:
    """Return one fit per person, in the order of the pictures and of the people in them.

    Args:
        images_or_keypoints: pictures (paths or (H, W, 3) uint8 RGB arrays), in which people are detected first, or
            `Keypoints` (which must know their image size), or several, mixed as you like.
        model: "anny" (ships with the package), "smplx", "smplh", "smpl" (your licensed files), or a loaded model.
        gender: "neutral", "female" or "male"; None for what the keypoints record, else neutral.
        recipe: name of a shipped recipe, path of a yaml file, or a loaded recipe.
        detector: name of the detector for pictures.
        focal: focal length in pixels; None for EXIF, else the recipe's field of view.
        fov: field of view along the longer side in degrees, instead of `focal`.
        device: "auto", "cpu", "cuda" or "mps".
        batch_size: people fitted at once; bounds the memory.
        model_dir: folder of licensed model files.
        start: one mapping per person of parameters to start from (a prediction, an earlier fit's `params`), by
            smplx's names, axis-angle, camera axes; what is missing comes from the recipe's initialiser.
        progress: called as (stage, stages, iteration).

    Raises:
        UsageError: an unknown name, or options that contradict each other.
        InputError: a picture or its keypoints cannot be used. ModelNotFoundError: a licensed file is missing.
    """
    from fitkit.people import fit_people
    from fitkit.recipe import Recipe, load_recipe

    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1; got {batch_size}.")
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    people = _people(_keypoints(images_or_keypoints, detector), chosen, focal, fov)
    if start is not None:
        if len(start) != len(people):
            raise UsageError(f"start needs one entry for each of the {len(people)} people found; got {len(start)}.")
        people = [replace(person, start=one) for person, one in zip(people, start, strict=True)]
    genders = [gender or person.gender or "neutral" for person in people]
    results: dict[int, FitResult] = {}
    for one in dict.fromkeys(genders):
        loaded = _model(model, one, chosen, choose_device(device), model_dir)
        rows = [row for row, name in enumerate(genders) if name == one]
        for first in range(0, len(rows), batch_size):
            part = rows[first : first + batch_size]
            fitted = fit_people([people[row] for row in part], loaded, chosen, progress)
            results.update(zip(part, fitted, strict=True))
    return [results[row] for row in range(len(people))]


def _keypoints(given: Picture | Keypoints | Sequence[Picture | Keypoints], detector: str) -> list[Keypoints]:
    """Return the keypoints of each picture, detected where pictures are given."""
    entries = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    pictures = [entry for entry in entries if not isinstance(entry, Keypoints)]
    detected = iter(detect(pictures, detector) if pictures else ())
    return [entry if isinstance(entry, Keypoints) else next(detected) for entry in entries]


def _people(pictures: Sequence[Keypoints], recipe: Recipe, focal: float | None, fov: float | None) -> list[Person]:
    """Return everybody to fit, with their cameras."""
    from fitkit.people import Person

    if focal is not None and fov is not None:
        raise UsageError("Give either focal (pixels) or fov (degrees), not both.")
    people = []
    for keypoints in pictures:
        try:
            usable = usable_people(keypoints)
        except InputError as error:
            if len(pictures) == 1:
                raise
            warnings.warn(f"{error} It was left out.", stacklevel=3)
            continue
        length, source = _focal_of(keypoints, recipe, focal, fov)
        # People of one photo share a camera: refining it for each alone would shuffle them in depth.
        refine = source == "default" and len(usable) == 1
        people += [Person(keypoints, index, length, source, refine) for index in usable]
    return people


def usable_people(keypoints: Keypoints) -> list[int]:
    """Return the indices of the people of whom at least three points are seen; warns of the others.

    Raises:
        InputError: there are people, but none of them has three points with a confidence above zero, or the keypoints
            do not know their image size.
    """
    if len(keypoints) == 0:
        return []
    where = keypoints.source or "the keypoints"
    if keypoints.image_size is None:
        raise InputError(f"{where}: the size of the picture is not recorded; set image_size=(width, height).")
    counts = (keypoints.confidence > 0).sum(-1)
    usable = [index for index, count in enumerate(counts) if count >= 3]
    if not usable:
        raise InputError(
            f"{where}: no person has three keypoints with a confidence above 0 (got {int(counts.max())}), "
            "so there is nothing to fit."
        )
    for index in sorted(set(range(len(keypoints))) - set(usable)):
        warnings.warn(f"{where}: person {index} has {counts[index]} keypoints and was left out.", stacklevel=3)
    return usable


def choose_device(name: str) -> str:
    """Return the torch device for "auto", "cpu", "cuda" or "mps"; auto takes CUDA where there is one, else the CPU.

    Raises `UsageError` for another name, or for a device that this machine lacks.
    """
    import torch

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return "cuda" if available["cuda"] else "cpu"
    kind, _, number = name.partition(":")
    if kind not in available or not (number.isdecimal() or name == kind):
        raise UsageError(f"Unknown device {name!r}; known: auto, {', '.join(available)}.")
    if not available[kind] or (kind == "cuda" and int(number or 0) >= torch.cuda.device_count()):
        raise UsageError(f"This machine has no {name} device that torch can use; use --device cpu.")
    return name


def load_model(
    name: str = "anny", gender: str = "neutral", model_dir: str | os.PathLike[str] | None = None
) -> SMPLFamilyModel:
    """Return a body model in single precision on the CPU; see `fitkit.model_files.load_model` for all choices."""
    from fitkit.model_files import load_model as load
    from fitkit.models.arrays import ModelChoice

    return load(ModelChoice(name, name, gender), model_dir)


def _model(
    model: str | SMPLFamilyModel,
    gender: str,
    recipe: Recipe,
    device: str,
    model_dir: str | os.PathLike[str] | None,
) -> SMPLFamilyModel:
    import torch

    from fitkit.model_files import load_model as load
    from fitkit.models.arrays import ModelChoice

    if not isinstance(model, str):
        return model
    # Double precision costs a small fit on a CPU nothing and lets line searches end cleanly; GPUs pay for it.
    choice = ModelChoice(
        model,
        model,
        gender,
        recipe.model.betas,
        recipe.model.expressions,
        recipe.model.hand_components,
        dtype=torch.float64 if device == "cpu" else torch.float32,
        device=device,
    )
    return load(choice, model_dir)


def _focal_of(keypoints: Keypoints, recipe: Recipe, focal: float | None, fov: float | None) -> tuple[float, str]:
    """Return the focal length in pixels and where it comes from."""
    camera = recipe.camera
    degrees = None if fov is None else math.radians(fov)
    size = keypoints.image_size or (1, 1)
    if keypoints.intrinsics is not None and focal is None and fov is None:
        return float(keypoints.intrinsics[0, 0]), "given"
    length, source = choose_focal(size, focal, degrees, keypoints.focal_length)
    if source == "default":
        degrees = math.radians(camera.field_of_view)
        length, _ = choose_focal(size, camera.focal_length, degrees if camera.focal_length is None else None)
    return length, source


def load_result(path: str | os.PathLike[str]) -> FitResult:
    """Return the result saved in a `params.npz`, or in the folder that holds one."""
    from fitkit.result_files import load_result as load

    return load(Path(path))
