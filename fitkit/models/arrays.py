"""From the named arrays of a model file to a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fitkit.errors import InputError
from fitkit.models.lbs import kinematic_tree
from fitkit.models.skeletons import JOINT_NAMES, LANDMARK_VERTICES, VERTEX_COUNTS
from fitkit.models.smpl_family import HandSpace, SMPLFamilyModel
from fitkit.models.sparse import SkinnedShape

_SHAPE_COLUMNS = 300
_EXPRESSION_COLUMNS = 100
_REQUIRED = ("v_template", "f", "shapedirs", "weights", "kintree_table")


@dataclass(frozen=True)
class ModelChoice:
    """Which of a file's freedoms to use, and how to hold them."""

    name: str
    """Name by which users choose the model."""
    kind: str
    """smpl, smplh or smplx."""
    gender: str = "neutral"
    """neutral, female or male."""
    num_betas: int | None = None
    """Shape coefficients; None for the model's usual number (10, embedded body 20)."""
    num_expressions: int | None = None
    """Expression coefficients; None for the usual number (10, embedded body all)."""
    hand_components: int | None = 12
    """Principal components of each hand's pose; None for free joints."""
    dtype: torch.dtype = torch.float32
    """Type of all real tensors."""
    device: torch.device | str = "cpu"
    """Where the tensors live."""

    def __post_init__(self) -> None:
        """Raise `InputError` for a number of coefficients that no model can have."""
        for name, least in (("num_betas", 1), ("num_expressions", 0), ("hand_components", 1)):
            number = getattr(self, name)
            if number is not None and number < least:
                raise InputError(f"A body model needs {name.replace('_', ' ')} of at least {least}; got {number}.")


def model_from_arrays(arrays: Mapping[str, np.ndarray], choice: ModelChoice, file_hash: str = "") -> SMPLFamilyModel:
    """Return the model that a file's arrays describe.

    The arrays have the names and shapes of the published SMPL, SMPL-H and SMPL-X files; the embedded body adds its
    own (`J_template`, `J_shapedirs`, `landmark_*`, ...). Raises `InputError` when something needed is missing.
    """
    missing = [key for key in _REQUIRED if key not in arrays]
    if "J_template" not in arrays and "J_regressor" not in arrays:
        missing.append("J_regressor")
    if missing:
        raise InputError(f"This is no {choice.kind} model file: it lacks {', '.join(missing)}.")
    _check_shapes(arrays, choice.kind)
    columns, betas = _columns(arrays, choice)

    def real(array: np.ndarray) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(array, dtype=np.float64), dtype=choice.dtype, device=choice.device)

    shapedirs = np.asarray(arrays["shapedirs"])[:, :, columns].astype(np.float64)
    template = np.asarray(arrays["v_template"], dtype=np.float64)
    J_template, J_shapedirs = _joints(arrays, template, shapedirs)
    faces = np.asarray(arrays["f"]).astype(np.int64)
    parents = [int(p) if j else -1 for j, p in enumerate(np.asarray(arrays["kintree_table"])[0].astype(np.int64))]
    return SMPLFamilyModel(
        name=choice.name,
        kind=choice.kind,
        gender=choice.gender,
        shape=SkinnedShape(
            real(template),
            real(shapedirs),
            _posedirs(arrays, real),
            real(arrays["weights"]),
            real(J_template),
            real(J_shapedirs),
        ),
        tree=kinematic_tree(parents, torch.device(choice.device)),
        faces=torch.as_tensor(faces, device=choice.device),
        betas=betas,
        surface=_surface(arrays, choice, faces, real),
        hands=_hands(arrays, choice, real),
        expression_names=tuple(str(name) for name in arrays.get("expression_names", ()))[: len(columns) - betas],
        expression_bounds=(0.0, 1.0) if "expression_bounds" in arrays else None,
        face_parts=torch.as_tensor(np.asarray(arrays["face_parts"]).astype(np.int64))
        if "face_parts" in arrays
        else None,
        file_hash=file_hash,
    )


def _check_shapes(arrays: Mapping[str, np.ndarray], kind: str) -> None:
    """Raise `InputError` for arrays that are no numbers, or whose shapes contradict each other or the skeleton."""
    joints = len(JOINT_NAMES[kind])
    vertices, triangles = ((*arrays[key].shape, 0)[0] for key in ("v_template", "f"))
    found = arrays["weights"].shape[-1:]
    if found != (joints,):
        raise InputError(f"A {kind} model has {joints} joints; this file has {found[0] if found else 'none'}.")
    wanted: dict[str, tuple[int | None, ...]] = {
        "v_template": (vertices, 3),
        "f": (None, 3),
        "shapedirs": (vertices, 3, None),
        "posedirs": (vertices, 3, 9 * (joints - 1)),
        "weights": (vertices, joints),
        "J_regressor": (joints, vertices),
        "kintree_table": (2, joints),
        "hands_componentsl": (None, 45),
        "hands_componentsr": (None, 45),
        "lmk_bary_coords": (None, 3),
        "dynamic_lmk_bary_coords": (None, None, 3),
    }
    for key, shape in wanted.items():
        array = arrays.get(key)
        if array is None:
            continue
        fits = array.ndim == len(shape) and all(w in (None, g) for w, g in zip(shape, array.shape, strict=True))
        if array.dtype.kind not in "fiu" or not fits:
            numbers = ", ".join("any" if size is None else str(size) for size in shape)
            raise InputError(f"Its {key} should be numbers of shape ({numbers}); got {array.dtype} {array.shape}.")
    for key, count in (("f", vertices), ("lmk_faces_idx", triangles), ("dynamic_lmk_faces_idx", triangles)):
        if key in arrays and not np.all(arrays[key] < count):
            raise InputError(f"Its {key} has indices beyond {count - 1}; got {np.max(arrays[key])}.")


def _columns(arrays: Mapping[str, np.ndarray], choice: ModelChoice) -> tuple[list[int], int]:
    """Return the columns of shapedirs to use and how many of them are betas (smplx's own rules)."""
    available = arrays["shapedirs"].shape[2]
    if choice.kind != "smplx":
        betas = min(choice.num_betas or 10, available)
        return list(range(betas)), betas
    if "expression_names" in arrays:
        shape_space, expressions = int(arrays["num_betas"]), len(arrays["expression_names"])
        start, usual = _SHAPE_COLUMNS, (shape_space, expressions)
    elif available >= _SHAPE_COLUMNS + _EXPRESSION_COLUMNS:
        shape_space, expressions, start, usual = _SHAPE_COLUMNS, _EXPRESSION_COLUMNS, _SHAPE_COLUMNS, (10, 10)
    else:
        shape_space, expressions, start, usual = 10, max(available - 10, 0), 10, (10, 10)
    betas = min(choice.num_betas or usual[0], shape_space)
    used = min(usual[1] if choice.num_expressions is None else choice.num_expressions, expressions)
    return [*range(betas), *range(start, start + used)], betas


def _joints(
    arrays: Mapping[str, np.ndarray], template: np.ndarray, shapedirs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean joints (J, 3) and their change with each coefficient (J, 3, S)."""
    if "J_template" not in arrays:
        regressor = np.asarray(arrays["J_regressor"], dtype=np.float64)
        return regressor @ template, np.einsum("jv,vds->jds", regressor, shapedirs)
    directions = np.zeros((len(arrays["J_template"]), 3, shapedirs.shape[2]))
    known = np.asarray(arrays["J_shapedirs"], dtype=np.float64)
    count = min(known.shape[2], int(arrays["num_betas"]), shapedirs.shape[2])
    directions[..., :count] = known[..., :count]
    return np.asarray(arrays["J_template"], dtype=np.float64), directions


def _posedirs(arrays: Mapping[str, np.ndarray], real) -> Tensor | None:
    # The embedded body has none; its file carries zeros, for smplx's sake alone, which are not even read.
    if "format_version" in arrays or "posedirs" not in arrays:
        return None
    return real(arrays["posedirs"])


def _surface(arrays: Mapping[str, np.ndarray], choice: ModelChoice, faces: np.ndarray, real) -> dict:
    """Return the surface landmarks: name -> (vertex indices, weights)."""

    def weighted(indices: np.ndarray, weights: np.ndarray) -> tuple[Tensor, Tensor]:
        return torch.as_tensor(np.asarray(indices).astype(np.int64), device=choice.device), real(weights)

    surface = {}
    if "landmark_names" in arrays:
        bounds, indices, weights = (arrays[f"landmark_{key}"] for key in ("indptr", "indices", "weights"))
        for row, name in enumerate(arrays["landmark_names"]):
            part = slice(int(bounds[row]), int(bounds[row + 1]))
            total = np.asarray(weights[part], dtype=np.float64)
            surface[str(name)] = weighted(indices[part], total / total.sum())
        return surface
    if len(arrays["v_template"]) == VERTEX_COUNTS[choice.kind]:
        for name, vertex in LANDMARK_VERTICES[choice.kind].items():
            surface[name] = weighted(np.array([vertex]), np.ones(1))
    if "lmk_faces_idx" in arrays:
        rows = zip(arrays["lmk_faces_idx"].astype(np.int64), arrays["lmk_bary_coords"], strict=True)
        for k, (face, barycentric) in enumerate(rows):
            surface[f"face_{k + 17:02d}"] = weighted(faces[face], barycentric)
    if "dynamic_lmk_faces_idx" in arrays:
        # Row 0 of the table is the frontal view; the contour at other views is not used.
        frontal = (arrays["dynamic_lmk_faces_idx"][0].astype(np.int64), arrays["dynamic_lmk_bary_coords"][0])
        for k, (face, barycentric) in enumerate(zip(*frontal, strict=True)):
            surface[f"face_{k:02d}"] = weighted(faces[face], barycentric)
    return surface


def _hands(arrays: Mapping[str, np.ndarray], choice: ModelChoice, real) -> tuple[HandSpace, HandSpace] | None:
    if choice.kind == "smpl":
        return None
    spaces = []
    for side in "lr":
        mean = np.asarray(arrays.get(f"hands_mean{side}", np.zeros(45)), dtype=np.float64).ravel()
        components, deviation = np.eye(45), np.full(45, 0.4)
        if choice.hand_components is not None and f"hands_components{side}" in arrays:
            components = np.asarray(arrays[f"hands_components{side}"], dtype=np.float64)[: choice.hand_components]
            deviation = np.asarray(arrays.get("hands_deviation", np.ones(45)), dtype=np.float64)[: len(components)]
        spaces.append(HandSpace(real(mean), real(components), real(deviation)))
    return spaces[0], spaces[1]
