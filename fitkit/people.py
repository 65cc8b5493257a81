"""From detected keypoints to a batch of problems, and from its fit to one result per person."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fitkit.camera import GUESSED, Camera, pinhole
from fitkit.errors import InputError, UsageError
from fitkit.fitting import CPU_PROBLEMS, Fit, FitProgress, fit
from fitkit.initialisers.given import GivenInitialiser
from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.conventions import correspondence, part_of
from fitkit.keypoints.face_mesh import FACE_FROM_MESH, FACE_MESH_468
from fitkit.models.skeletons import LEAVES
from fitkit.models.smpl_family import SMPLFamilyModel
from fitkit.parameters import Parameters, zeros
from fitkit.prior_files import load_latent_prior, load_prior
from fitkit.problem import Initialiser, Observations, Problem
from fitkit.recipe import Recipe
from fitkit.registry import did_you_mean
from fitkit.regressor_files import load_regressor
from fitkit.results import FitResult, PinholeCamera
from fitkit.size import pixels_per_metre
from fitkit.solvers.base import Status

CONFIDENT = 0.3
"""Confidence from which a keypoint counts as seen in reports."""
FOUND_FOCAL = 0.15
"""Standard deviation of the logarithm of a focal length below which perspective counts as having told it."""
ONE_THREAD_BELOW = 16
"""Number of people from which more than one thread pays on a CPU."""
_MESH_NAMES = frozenset(FACE_MESH_468)
_SPARSE_MESH = frozenset(FACE_FROM_MESH.values())
"""The face mesh's points that stand for the 68: all that a fit needs of the 468, which say little more."""


@dataclass(frozen=True)
class Person:
    """One person to fit."""

    keypoints: Keypoints
    """The keypoints of the picture."""
    index: int
    """Which of its people."""
    focal: float
    """Focal length of the picture in pixels."""
    focal_source: str
    """Where the focal length comes from."""
    refine_focal: bool = False
    """Whether the recipe may refine the focal length."""
    focal_deviation: float | None = None
    """Standard deviation of the focal length's logarithm, where all people of the picture together have told it."""
    height: float | None = None
    """Standing height in metres; None where unknown."""
    start: Mapping[str, np.ndarray] | None = None
    """Parameters to start from, by smplx's names, poses as axis-angle; None for the recipe's initialiser."""

    @property
    def gender(self) -> str | None:
        """What the keypoints record, if anything."""
        return self.keypoints.genders[self.index] if self.keypoints.genders else None


def fit_people(
    people: Sequence[Person],
    model: SMPLFamilyModel,
    recipe: Recipe,
    progress: FitProgress | None = None,
    meshes: bool = True,
) -> list[FitResult]:
    """Return the fits of people, on the model's device and in its type.

    They are one batch, but for two things: people whose focal length is not to be refined are a batch of their own
    where the recipe refines that of others, and a CPU takes `CPU_PROBLEMS` at a time, whatever the batch. Without
    meshes, results hold no vertices and no faces: a tenth of the memory.
    """
    if not people:
        return []
    known = [not person.refine_focal for person in people]
    if all(known):
        recipe = recipe.with_known_focal()
    elif any(known) and recipe.with_known_focal() != recipe:
        results: dict[int, FitResult] = {}
        for one in (True, False):
            rows = [row for row, flag in enumerate(known) if flag == one]
            some = fit_people([people[row] for row in rows], model, recipe, progress, meshes)
            results |= zip(rows, some, strict=True)
        return [results[row] for row in range(len(people))]
    if model.device.type == "cpu" and len(people) > CPU_PROBLEMS:
        # Even parts: a small remainder would cost more each.
        parts = np.array_split(np.arange(len(people)), -(-len(people) // CPU_PROBLEMS))
        fitted = (fit_people([people[row] for row in part], model, recipe, progress, meshes) for part in parts)
        return [result for part in fitted for result in part]
    with _few_threads(len(people), model.device):
        problem = make_problem(people, model, recipe)
        solved = fit(problem, _initialiser(people, problem, model, recipe), recipe.stages, progress)
        return make_results(people, model, recipe, solved, meshes)


@contextmanager
def _few_threads(people: int, device: torch.device) -> Iterator[None]:
    """Fit small batches on one thread: their operations are too short to share out."""
    before = torch.get_num_threads()
    if device.type == "cpu" and people < ONE_THREAD_BELOW:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _initialiser(people: Sequence[Person], problem: Problem, model: SMPLFamilyModel, recipe: Recipe) -> Initialiser:
    """Return the recipe's initialiser, or the start that all people were given."""
    if all(person.start is None for person in people):
        return recipe.initialiser
    if any(person.start is None for person in people):
        raise UsageError("Give a start for every person, or for none.")
    for name in {name: None for person in people for name in person.start or ()}:
        if name not in LEAVES:
            raise UsageError(f"No model has a leaf {name!r} to start from.{did_you_mean(name, LEAVES)}")
    usual = recipe.initialiser(problem)
    first = torch.arange(len(people), device=problem.observations.points.device) * usual.hypotheses
    parameters = usual.parameters.select(first)
    starts = [person.start for person in people if person.start is not None]
    known = [name for name in parameters if all(name in start for start in starts)]
    values = {name: torch.stack([_encoded(model, name, start[name]) for start in starts]) for name in known}
    return GivenInitialiser(parameters.replace({name: value[:, None] for name, value in values.items()}))


def _encoded(model: SMPLFamilyModel, name: str, value: np.ndarray) -> Tensor:
    """Return one person's leaf as the model's layout has it: hands as coefficients, shape cut or filled with zeros."""
    tensor = torch.as_tensor(np.asarray(value, dtype=np.float64).ravel(), dtype=model.dtype, device=model.device)
    size = next(leaf.size for leaf in model.layout if leaf.name == name)
    if not bool(tensor.isfinite().all()):
        raise UsageError(f"The start's {name} must be finite numbers.")
    if model.hands is not None and name in ("left_hand_pose", "right_hand_pose") and len(tensor) == 45:
        hand = model.hands[name == "right_hand_pose"]
        return (tensor - hand.mean) @ hand.components.T
    if name in ("betas", "expression"):
        return torch.nn.functional.pad(tensor, (0, max(0, size - len(tensor))))[:size]
    if len(tensor) != size:
        raise UsageError(f"The start's {name} needs {size} values; got {len(tensor)}.")
    return tensor


def make_problem(people: Sequence[Person], model: SMPLFamilyModel, recipe: Recipe) -> Problem:
    """Return a batch of problems, one row per person."""
    observations = observe(people, model)

    def tensor(values: Sequence[object]) -> Tensor:
        return torch.tensor(values, dtype=model.dtype, device=model.device)

    camera = pinhole(tensor([p.focal for p in people]), tensor([p.keypoints.image_size for p in people]))
    for row, person in enumerate(people):
        known = person.keypoints.intrinsics
        # A focal length that the user gave for this call has another value, and goes with the picture's centre.
        if known is not None and float(known[0, 0]) == person.focal:
            camera.intrinsics[row, 0] = tensor(np.asarray(known, dtype=float).tolist())
    return Problem(
        model=model,
        camera=camera,
        observations=observations,
        start=zeros(model.layout, len(people), 1, observations.points),
        pixels_per_metre=pixels_per_metre(model, observations),
        priors={name: load_prior(name) for name in recipe.priors},
        decoder=None if recipe.model.pose_latent is None else load_latent_prior(recipe.model.pose_latent),
        regressors={name: load_regressor(name) for name in recipe.regressors},
        focal_known=torch.tensor([[person.focal_source != GUESSED] for person in people], device=model.device),
        heights=tensor([[math.nan if person.height is None else person.height] for person in people]),
    )


def observe(people: Sequence[Person], model: SMPLFamilyModel) -> Observations:
    """Return the keypoints of people as tensors: all points that any of them has and the model can place.

    Raises `InputError` for a person none of whose points the model can place.
    """
    placed = [_landmarks_of(person.keypoints.names, model) for person in people]
    for person, mine in zip(people, placed, strict=True):
        if not mine:
            where, some = person.keypoints.source or "the keypoints", ", ".join(person.keypoints.names[:3])
            raise InputError(f"{where}: the body model {model.name} has none of these points ({some}, ...).")
    pairs = tuple(dict.fromkeys(pair for one in placed for pair in one))
    points = np.zeros((len(people), len(pairs), 2))
    confidence = np.zeros((len(people), len(pairs)))
    world = np.full((len(people), len(pairs), 3), np.nan)
    for row, (person, mine) in enumerate(zip(people, placed, strict=True)):
        columns = [k for k, pair in enumerate(pairs) if pair in mine]
        theirs = [mine[pairs[k]] for k in columns]
        points[row, columns] = person.keypoints.points[person.index, theirs]
        confidence[row, columns] = person.keypoints.confidence[person.index, theirs]
        if person.keypoints.world is not None:
            world[row, columns] = person.keypoints.world[person.index, theirs]

    def tensor(values: np.ndarray) -> Tensor:
        return torch.as_tensor(values[:, None], dtype=model.dtype, device=model.device)

    guess = tensor(world) if np.isfinite(world).any() else None
    names, landmarks = tuple(name for name, _ in pairs), tuple(landmark for _, landmark in pairs)
    return Observations(names, landmarks, tensor(points), tensor(confidence), guess)


def _landmarks_of(names: tuple[str, ...], model: SMPLFamilyModel) -> dict[tuple[str, str], int]:
    """Return (keypoint name, landmark) -> index among a picture's keypoints, for those that the model can place.

    Each picture's names are matched by themselves, so that what else is in the batch never changes a match.
    """
    wanted = [k for k, name in enumerate(names) if name not in _MESH_NAMES or name in _SPARSE_MESH]
    found = correspondence([names[k] for k in wanted], model.landmark_names)
    # SMPL has finger-tip vertices but no finger joints: curled fingers would turn the wrist.
    rigid_hands = model.hands is None
    return {
        (names[k], model.landmark_names[i]): k
        for k, i, ok in zip(wanted, found.indices, found.mask, strict=True)
        if ok and not (rigid_hands and part_of(names[k]).endswith("hand"))
    }


def make_results(
    people: Sequence[Person], model: SMPLFamilyModel, recipe: Recipe, solved: Fit, meshes: bool = True
) -> list[FitResult]:
    """Return one result per person of a solved batch; none holds on to another's memory."""
    with torch.no_grad():
        parameters, observed = solved.parameters, solved.problem.observations
        camera = _camera(solved)
        body = model(parameters)
        distance = (camera.project(body.landmarks(observed.landmarks)) - observed.points).norm(dim=-1)[:, 0]
        decoded = _decoded(model, parameters)
        height = _heights(model, parameters) * solved.problem.pixels_per_metre[:, 0]
        arrays = {
            "vertices": _numpy((body.vertices if meshes else body.joints[:, :, :0])[:, 0], np.float32),
            "joints": _numpy(body.joints[:, 0], np.float32),
            "joint_deviation": _numpy(solved.joint_deviation[:, 0]),
            "intrinsics": _numpy(camera.intrinsics[:, 0]),
        }
    faces = _numpy(model.faces, np.int32) if meshes else np.zeros((0, 3), np.int32)
    distances, confidence = _numpy(distance), _numpy(observed.confidence[:, 0])
    points, heights = _numpy(observed.points[:, 0]), _numpy(height)
    begun = solved.problem.camera.focal_length[:, 0, 0]
    unsure = [None] * len(people) if solved.focal_deviation is None else _numpy(solved.focal_deviation[:, 0])
    results = []
    for row, person in enumerate(people):
        shown = _columns(observed.names, person.keypoints.names)
        results.append(
            FitResult(
                params={name: value[row].copy() for name, value in decoded.items()},
                vertices=arrays["vertices"][row].copy(),
                faces=faces,
                joints=arrays["joints"][row].copy(),
                joint_names=model.joint_names,
                camera=_pinhole_camera(person, arrays["intrinsics"][row].copy(), float(begun[row]), unsure[row]),
                status=Status(int(solved.status[row])).name.lower(),
                energies={name: float(value[row]) for name, value in solved.energies.items()},
                reprojection=_errors(observed.names, distances[row], confidence[row]),
                height_px=float(heights[row]),
                seen=_seen(observed.names, confidence[row]),
                joint_deviation=arrays["joint_deviation"][row].copy(),
                names=tuple(observed.names[k] for k in shown),
                points=points[row, shown],
                confidence=confidence[row, shown],
                model=model.name,
                gender=model.gender,
                model_hash=model.file_hash,
                recipe=recipe.name,
                settings=dict(recipe.resolved),
                iterations=int(solved.iterations[row]),
                image=person.keypoints.source,
                person=person.index,
            )
        )
    return results


@lru_cache(maxsize=16)
def _columns(batch: tuple[str, ...], own: tuple[str, ...]) -> list[int]:
    """Return which of a batch's keypoints a person's picture has: neighbours' conventions are not its business."""
    return [k for k, name in enumerate(batch) if name in own]


def _camera(solved: Fit) -> Camera:
    if "focal_length" in solved.parameters:
        return solved.problem.camera.with_focal_length(solved.parameters["focal_length"])
    return solved.problem.camera


def _pinhole_camera(person: Person, intrinsics: np.ndarray, begun: float, log_deviation: float | None) -> PinholeCamera:
    """Return a person's camera with where its focal length comes from, and how sure that is where the fit sought it.

    The fit began with the person's focal length unless an initialiser proposed another one.
    """
    size = person.keypoints.image_size
    assert size is not None
    if log_deviation is not None:
        source = "refined" if log_deviation < FOUND_FOCAL else "guessed"
        return PinholeCamera(intrinsics, size, source, float(intrinsics[0, 0] * log_deviation))
    proposed = person.focal_source == GUESSED and not math.isclose(begun, person.focal, rel_tol=1e-5)
    deviation = None if person.focal_deviation is None else float(intrinsics[0, 0] * person.focal_deviation)
    return PinholeCamera(intrinsics, size, "guessed" if proposed else person.focal_source, deviation)


def _numpy(tensor: Tensor, dtype: type = np.float64) -> np.ndarray:
    # Somebody lost at infinity has a status that says so, and needs no warning.
    with np.errstate(over="ignore"):
        return tensor.detach().cpu().numpy().astype(dtype)


def _decoded(model: SMPLFamilyModel, parameters: Parameters) -> dict[str, np.ndarray]:
    """Return every parameter of the bodies (B, size), poses as axis-angle."""
    poses = model.axis_angles(parameters)
    others = {leaf.name: parameters[leaf.name] for leaf in model.layout if leaf.name not in poses}
    return {name: _numpy(value[:, 0]) for name, value in (poses | others).items()}


def _heights(model: SMPLFamilyModel, parameters: Parameters) -> Tensor:
    """Return the standing heights (B,) of the bodies' own shapes, metres."""
    return model.standing_height(parameters["betas"])[0][:, 0]


def _errors(names: Sequence[str], distance: np.ndarray, confidence: np.ndarray) -> dict[str, float]:
    """Return the median distance in pixels of the confident keypoints of each part that has any."""
    parts = np.array([part_of(name) for name in names])
    shown = confidence >= CONFIDENT
    return {str(part): float(np.median(distance[shown & (parts == part)])) for part in dict.fromkeys(parts[shown])}


def _seen(names: Sequence[str], confidence: np.ndarray) -> dict[str, bool]:
    """Return for each body part whether a confident keypoint shows it."""
    shown = {name for name, c in zip(names, confidence, strict=True) if c >= CONFIDENT}
    parts = {part_of(name) for name in shown}

    def any_of(*wanted: str) -> bool:
        return any(name in shown for name in wanted)

    seen = {
        "head": "face" in parts or any_of("nose", "left_ear", "right_ear", "left_eye", "right_eye"),
        "torso": any_of("left_shoulder", "right_shoulder") or any_of("left_hip", "right_hip"),
    }
    for side in ("left", "right"):
        seen[f"{side}_arm"] = any_of(f"{side}_elbow", f"{side}_wrist")
        seen[f"{side}_hand"] = f"{side}_hand" in parts
        seen[f"{side}_leg"] = any_of(f"{side}_knee", f"{side}_ankle")
        seen[f"{side}_foot"] = any_of(*(f"{side}_{name}" for name in ("heel", "big_toe", "foot_index")))
    return seen
