"""Model files of the published layouts with made-up numbers: what the licensed path is tested on."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from fitkit.models.skeletons import JOINT_NAMES, VERTEX_COUNTS

_BODY_PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19]
_HAND = [0, 1, 2]


def parents_of(kind: str) -> list[int]:
    """Return the parents of a kind's joints, as the published files have them."""
    if kind == "smpl":
        return [*_BODY_PARENTS, 20, 21]
    extra = [15, 15, 15] if kind == "smplx" else []
    parents = _BODY_PARENTS + extra
    for wrist in (20, 21):
        for _ in range(5):
            first = len(parents)
            parents = [*parents, wrist, first, first + 1]
    return parents


def make_arrays(kind: str, seed: int = 0, vertices: int | None = None) -> dict[str, np.ndarray]:
    """Return arrays of the published names and shapes: a random cloud of vertices around a random skeleton.

    Fewer vertices than the published number make small files, but without the landmarks that are numbered vertices.
    """
    rng = np.random.default_rng(seed)
    joints, vertices = len(JOINT_NAMES[kind]), vertices or VERTEX_COUNTS[kind]
    parents = np.array(parents_of(kind))
    columns = {"smplx": 400, "smplh": 16, "smpl": 10}[kind]
    shapedirs = rng.normal(scale=0.01, size=(vertices, 3, columns)).astype(np.float32)
    owner = rng.integers(joints, size=(vertices, 2))
    weights = np.zeros((vertices, joints))
    weights[np.arange(vertices), owner[:, 0]] += 0.7
    weights[np.arange(vertices), owner[:, 1]] += 0.3
    regressor = np.zeros((joints, vertices))
    for joint in range(joints):
        regressor[joint, rng.choice(vertices, 10, replace=False)] = 0.1
    faces = rng.integers(vertices, size=(2 * vertices, 3)).astype(np.uint32)
    kintree = np.stack([np.where(parents < 0, 2**32 - 1, parents), np.arange(joints)]).astype(np.int64)
    arrays = {
        "v_template": rng.normal(scale=0.4, size=(vertices, 3)),
        "f": faces,
        "shapedirs": shapedirs,
        "posedirs": rng.normal(scale=1e-3, size=(vertices, 3, 9 * (joints - 1))).astype(np.float32),
        "J_regressor": regressor,
        "weights": weights,
        "kintree_table": kintree,
    }
    if kind != "smpl":
        for side in "lr":
            arrays[f"hands_components{side}"] = np.linalg.qr(rng.normal(size=(45, 45)))[0]
            arrays[f"hands_mean{side}"] = rng.normal(scale=0.1, size=45)
    if kind == "smplx":
        arrays["lmk_faces_idx"] = rng.integers(len(faces), size=51)
        arrays["lmk_bary_coords"] = rng.dirichlet(np.ones(3), size=51)
        arrays["dynamic_lmk_faces_idx"] = rng.integers(len(faces), size=(79, 17))
        arrays["dynamic_lmk_bary_coords"] = rng.dirichlet(np.ones(3), size=(79, 17))
    return arrays


def write_model(
    folder: Path, kind: str, gender: str = "neutral", suffix: str = "npz", seed: int = 0, vertices: int | None = None
) -> Path:
    """Write a model file where smplx looks for it below `folder` and return its path."""
    path = folder / kind / f"{kind.upper()}_{gender.upper()}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = make_arrays(kind, seed, vertices)
    if suffix == "npz":
        np.savez(path, **arrays)
    else:
        path.write_bytes(pickle.dumps(arrays, protocol=2))
    return path
