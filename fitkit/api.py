"""What users call from Python: detect, fit, fit_stream, load_model, load_result."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fitkit.camera import check_centre, choose_focal
from fitkit.errors import InputError, UsageError
from fitkit.fit_options import check_height, match_heights
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
    height: float | Sequence[float | None] | None = None,
    init: str | None = None,
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
        height: standing height in metres, of everybody where each picture shows one person; or one for each person of
            all pictures, in the order of the results, None where unknown.
        init: where fits begin: "mean" (the mean pose, placed as seen), or an initialiser's name; None as in the recipe.
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
    from fitkit.shared_focal import share_focals

    if batch_size < 1:
        raise UsageError(f"batch_size must be at least 1; got {batch_size}.")
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    chosen = chosen if init is None else chosen.starting_from(init)
    people = _people(_keypoints(images_or_keypoints, detector), chosen, focal, fov)
    if height is not None:
        people = _of_heights(people, height, chosen)
    if start is not None:
        if len(start) != len(people):
            raise UsageError(f"start needs one entry for each of the {len(people)} people found; got {len(start)}.")
        people = [replace(person, start=one) for person, one in zip(people, start, strict=True)]
    models = lru_cache(partial(_model, model, recipe=chosen, device=choose_device(device), model_dir=model_dir))

    def fit_all(some: Sequence[Person], meshes: bool) -> list[FitResult]:
        genders = [gender or person.gender or "neutral" for person in some]
        results: dict[int, FitResult] = {}
        for one in dict.fromkeys(genders):
            rows = [row for row, name in enumerate(genders) if name == one]
            for first in range(0, len(rows), batch_size):
                part = rows[first : first + batch_size]
                fitted = fit_people([some[row] for row in part], models(one), chosen, progress, meshes)
                results.update(zip(part, fitted, strict=True))
        return [results[row] for row in range(len(some))]

    if chosen.refines_focal:
        people = share_focals(people, partial(fit_all, meshes=False))
    return fit_all(people, meshes=True)


def fit_stream(
    keypoints: Iterable[Keypoints],
    model: str | SMPLFamilyModel = "anny",
    gender: str | None = None,
    recipe: str | os.PathLike[str] | Recipe = "default",
    focal: float | None = None,
    fov: float | None = None,
    init: str | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    model_dir: str | os.PathLike[str] | None = None,
    meshes: bool = False,
) -> Iterator[list[FitResult]]:
    """Yield the fits of each set of keypoints, in order, in memory that does not grow with their number.

    Sets are read a few batches ahead, as they are needed; people of whom the same parts are seen are fitted together.
    Each has a list of results, one per person, empty where nobody can be fitted: `person` tells which one of the set.
    People of whom fewer than three points are seen are left out.

    Args:
        keypoints: any number of `Keypoints` (which must know their image size); a generator need not hold them all.
        model: "anny", "smplx", "smplh", "smpl", or a loaded model.
        gender: "neutral", "female" or "male"; None for what the keypoints record, else neutral.
        recipe: name of a shipped recipe, path of a yaml file, or a loaded recipe.
        focal: focal length in pixels; None for what the keypoints record, else the recipe's field of view.
        fov: field of view along the longer side in degrees, instead of `focal`.
        init: where fits begin: "mean", or an initialiser's name; None as in the recipe.
        device: "auto", "cpu", "cuda" or "mps".
        batch_size: people fitted at once; None for 128 on a CPU, and for what the first batch shows to fit on a GPU.
        model_dir: folder of licensed model files.
        meshes: whether results hold vertices and faces: 160 kB a person more than the 13 kB of the rest.

    Raises:
        UsageError: an unknown name, or options that contradict each other; at once.
        InputError: keypoints without their image size, when they are reached. ModelNotFoundError: likewise.
    """
    from fitkit.recipe import Recipe, load_recipe
    from fitkit.streaming import Streamed

    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch_size must be at least 1; got {batch_size}.")
    if focal is not None and fov is not None:
        raise UsageError("Give either focal (pixels) or fov (degrees), not both.")
    chosen = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    chosen = chosen if init is None else chosen.starting_from(init)
    place = choose_device(device)
    models = lru_cache(partial(_model, model, recipe=chosen, device=place, model_dir=model_dir))
    place = place if isinstance(model, str) else str(model.device)
    stream = Streamed(models, chosen, place, gender, batch_size, meshes)
    return stream.fit(_people_of(one, usable_people(one, warn=False), chosen, focal, fov) for one in keypoints)


def _keypoints(given: Picture | Keypoints | Sequence[Picture | Keypoints], detector: str) -> list[Keypoints]:
    """Return the keypoints of each picture, detected where pictures are given."""
    entries = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    pictures = [entry for entry in entries if not isinstance(entry, Keypoints)]
    detected = iter(detect(pictures, detector) if pictures else ())
    return [entry if isinstance(entry, Keypoints) else next(detected) for entry in entries]


def _people(pictures: Sequence[Keypoints], recipe: Recipe, focal: float | None, fov: float | None) -> list[Person]:
    """Return everybody to fit, with their cameras."""
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
        people += _people_of(keypoints, usable, recipe, focal, fov)
    return people


def _people_of(
    keypoints: Keypoints, usable: Sequence[int], recipe: Recipe, focal: float | None, fov: float | None
) -> list[Person]:
    """Return the usable people of one picture, with their camera."""
    from fitkit.people import Person

    if not usable:
        return []
    length, source = _focal_of(keypoints, recipe, focal, fov)
    # People of one photo share a camera (see `fitkit.shared_focal`): each alone would find another.
    refine = source == "default" and len(usable) == 1
    return [Person(keypoints, index, length, source, refine) for index in usable]


def _of_heights(people: Sequence[Person], height: float | Sequence[float | None], recipe: Recipe) -> list[Person]:
    """Return the people with the heights that are given for them."""
    from fitkit.terms.height import Height

    if not any(isinstance(entry.term, Height) and entry.weight for stage in recipe.stages for entry in stage.terms):
        raise UsageError(f"The recipe {recipe.name} has no `height` term, so a known height would change nothing.")
    if isinstance(height, int | float):
        for person in people:
            if len(person.keypoints) > 1:
                match_heights([height], len(person.keypoints), person.keypoints.source or "One of the pictures")
        height = [height] * len(people)
    heights = match_heights([None if one is None else float(one) for one in height], len(people), "The pictures")
    for one in heights:
        check_height(one)
    return [replace(person, height=one) for person, one in zip(people, heights, strict=True)]


def usable_people(keypoints: Keypoints, warn: bool = True) -> list[int]:
    """Return the indices of the people of whom at least three points are seen.

    Args:
        keypoints: of one picture.
        warn: say who was left out, and raise where nobody is left; otherwise neither.

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
    if not warn:
        return usable
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

    Fits on a CPU are in double precision, on other devices in single. Wherever they are, double is kept for what single
    does not resolve: the factorisation behind the standard deviations (once, after the last iteration; on the CPU where
    the device knows no double), the priors' normalising constants (once, when they are loaded), and the bookkeeping of
    solvers that the host drives. Normal equations are factorised as they were summed: a row for which that fails is
    damped by the precision times its greatest curvature at least, and one that hopes for less than ten roundings of its
    energy ends as stalled.

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
        check_centre(size, float(keypoints.intrinsics[0, 2]), float(keypoints.intrinsics[1, 2]))
        return choose_focal(size, float(keypoints.intrinsics[0, 0]))
    length, source = choose_focal(size, focal, degrees, keypoints.focal_length)
    if source == "default":
        degrees = math.radians(camera.field_of_view)
        length, _ = choose_focal(size, camera.focal_length, degrees if camera.focal_length is None else None)
    return length, source


def load_result(path: str | os.PathLike[str]) -> FitResult:
    """Return the result saved in a `params.npz`, or in the folder that holds one."""
    from fitkit.result_files import load_result as load

    return load(Path(path))
