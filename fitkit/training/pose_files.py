"""Poses to train on, from one npz file or a folder of them: ours with its own convention, or anybody's in SMPL's."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fitkit.errors import InputError
from fitkit.training.motion_capture import Poses, load_poses, near_the_mean

CHUNKS = 50
"""Parts of a lone file without clips: one in ten is held out, each a stretch of frames."""
FEWEST = 100
"""Frames below which there is nothing to learn from."""


def read_poses(path: Path, joints_rest: NDArray) -> Poses:
    """Return all frames of an npz file, or of all npz files below a folder, with a split into training and held out.

    A file with `parents` and `source` beside `poses` follows an ideal T-pose and is re-referenced (see
    `motion_capture.load_poses`). Any other has SMPL's convention, as AMASS does: `poses` (N, >= 66) or (N, >= 22, 3),
    axis-angle, pelvis first, and optionally `weight` (N,). Clips are files, or stretches of a lone file.

    Args:
        path: file or folder.
        joints_rest: the template's joints (at least 22, 3), metres, for files that are re-referenced.

    Raises:
        InputError: there is no such file, or it holds no poses.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; give an npz file of poses, or a folder of them.")
    files = sorted(path.rglob("*.npz")) if path.is_dir() else [path]
    parts = [part for file in files if (part := _read(file, joints_rest, path.is_dir())) is not None]
    if not parts:
        raise InputError(f"{path} holds no npz file with `poses` (N, 66 or more), axis-angle.")
    poses = Poses(
        near_the_mean(torch.cat([part.body_pose for part in parts]).unflatten(1, (21, 3))).flatten(1),
        torch.cat([part.weight for part in parts]),
        torch.cat([part.held_out for part in parts]),
        np.concatenate([part.clip for part in parts]),
        torch.cat([part.orientation for part in parts]),
    )
    if len(poses.weight) < FEWEST:
        raise InputError(f"{path} holds {len(poses.weight)} poses; at least {FEWEST} are needed to learn from.")
    return poses if bool(poses.held_out.any()) and not bool(poses.held_out.all()) else _split_by_clip(poses)


def _read(path: Path, joints_rest: NDArray, several: bool) -> Poses | None:
    """Return one file's poses; None for one of several that holds none, such as AMASS' files of shapes."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            names = set(file.files)
            poses = np.asarray(file["poses"]) if "poses" in names else None
            weight = np.asarray(file["weight"], np.float32) if "weight" in names else None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as an npz file of plain arrays.") from error
    if poses is None:
        if several:
            return None
        raise InputError(f"{path} has no array `poses`; got {', '.join(sorted(names)) or 'nothing'}.")
    if {"parents", "source", "clip"} <= names:
        return load_poses(path, joints_rest)
    flat = poses.reshape(len(poses), -1).astype(np.float32) if poses.ndim in (2, 3) else np.empty((0, 0))
    if flat.shape[1] < 66:
        raise InputError(
            f"{path}: `poses` must be (N, 66 or more) or (N, 22 or more, 3), axis-angle; got {poses.shape}."
        )
    if weight is not None and weight.shape != (len(flat),):
        raise InputError(f"{path}: `weight` must have one value a pose, ({len(flat)},); got {weight.shape}.")
    pose = torch.from_numpy(flat[:, :66])
    if bool(pose.isinf().any()) or (weight is not None and not bool((weight >= 0).all() and weight.sum() > 0)):
        raise InputError(f"{path}: poses and weights must be finite, weights not negative (NaN for what is missing).")
    clip, held = _clips(path, len(flat), several)
    scaled = torch.ones(len(flat)) if weight is None else torch.from_numpy(weight / weight.mean())
    return Poses(pose[:, 3:], scaled, held, clip, pose[:, :3])


def _clips(path: Path, frames: int, several: bool) -> tuple[NDArray, torch.Tensor]:
    """Return each frame's clip and whether it is held out: whole files of a folder, every tenth stretch of a file."""
    if several:
        held = zlib.crc32(path.name.encode()) % 10 == 0
        return np.full(frames, str(path)), torch.full((frames,), held)
    chunk = np.arange(frames) * CHUNKS // max(frames, 1)
    return np.char.add(f"{path.name}/", chunk.astype(str)), torch.from_numpy(chunk % 10 == 9)


def _split_by_clip(poses: Poses) -> Poses:
    """Return the poses with every tenth clip held out, or stretches of a lone one: chance had left one side empty."""
    clips, place = np.unique(poses.clip, return_inverse=True)
    if len(clips) < 2:
        place = np.arange(len(place)) * CHUNKS // len(place)
    held = torch.from_numpy(place % 10 == (9 if place.max() >= 9 else place.max()))
    return Poses(poses.body_pose, poses.weight, held, poses.clip, poses.orientation)
