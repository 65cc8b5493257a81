"""The poses that a prior is trained on: read, cleaned, re-referenced, split by clip."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import roma
import torch
from numpy.typing import NDArray
from torch import Tensor

from fitkit.training.rest_pose import alignment, rereferenced

FEET, COLLARS, NECK = (10, 11), (13, 14), 12
MISSING = {
    FEET: ("snu_basket", "snu_tennis", "snu_tiling", "snu_ys2010", "cmu_daz"),
    COLLARS: ("cmu_daz", "cmu_expmap", "cmu_amc"),
}
"""Joints that do not move in these sources, because they were not captured."""
PLANTAR_FLEXION = {"cmu_snu": 0.21}
"""Radians by which a source's ankles are stretched throughout, by its medians against those of the others."""
RARE = 3.0
"""Factor on the weight of frames that sit, crouch, lie or stand on their hands."""


@dataclass(frozen=True)
class Poses:
    """Frames of motion capture, against the template's T-pose."""

    body_pose: Tensor
    """(N, 63) axis-angle, radians; NaN where a source did not capture the joint."""
    weight: Tensor
    """(N,) sampling weights, mean about 1."""
    held_out: Tensor
    """(N,) whether the frame's clip is kept from training."""
    clip: NDArray
    """(N,) "source/clip" of each frame."""
    orientation: Tensor
    """(N, 3) of the pelvis, axis-angle, y up; the heading about y is arbitrary."""

    def select(self, rows: Tensor) -> Poses:
        """Return some of the frames."""
        tensors = (self.body_pose[rows], self.weight[rows], self.held_out[rows])
        return Poses(*tensors, self.clip[rows.numpy()], self.orientation[rows])


def is_held_out(source: str, clip: int | str) -> bool:
    """Return whether a clip is kept from training: crc32("source/clip") is a multiple of 10."""
    return zlib.crc32(f"{source}/{clip}".encode()) % 10 == 0


def load_poses(path: Path, joints_rest: NDArray) -> Poses:
    """Return all frames of an npz with `poses`, `parents`, `source`, `clip` and, optionally, `weight` and `root_pos`.

    Args:
        path: the file; its rotations are against an ideal T-pose (see `rest_pose`).
        joints_rest: the template's joints (at least 22, 3), metres.
    """
    with np.load(path, allow_pickle=False) as file:
        file = dict(file)
    source, parents = file["source"].astype(str), file["parents"]
    rotations = roma.rotvec_to_rotmat(torch.from_numpy(file["poses"]))
    rotations = _relaxed_ankles(rotations, source)
    aligned = torch.from_numpy(alignment(joints_rest)).to(rotations)
    posed = rereferenced(rotations, parents, _centred(rotations, source, aligned))
    orientation, pose = roma.rotmat_to_rotvec(posed).split([1, 21], dim=1)
    for joints, sources in MISSING.items():
        pose[np.isin(source, sources)[:, None] & np.isin(np.arange(1, 22), joints)] = torch.nan
    weight = torch.from_numpy(file.get("weight", np.ones(len(source), np.float32)))
    rare = _is_rare(rotations, pose)
    clip = np.char.add(np.char.add(source, "/"), file["clip"].astype(str))
    clips, place = np.unique(clip, return_inverse=True)
    kept = np.array([is_held_out(*clip.rsplit("/", 1)) for clip in clips])[place]
    weight = torch.where(rare, RARE * weight, weight)
    pose, weight = near_the_mean(pose).flatten(1), weight / weight.mean()
    return Poses(pose, weight, torch.from_numpy(kept), clip, orientation[:, 0])


def _relaxed_ankles(rotations: Tensor, source: NDArray) -> Tensor:
    rotations = rotations.clone()
    for name, angle in PLANTAR_FLEXION.items():
        rows = torch.from_numpy(source == name)
        back = roma.rotvec_to_rotmat(torch.tensor([-angle, 0.0, 0.0]))
        for ankle in (7, 8):
            rotations[rows, ankle] = rotations[rows, ankle] @ back
    return rotations


def _centred(rotations: Tensor, source: NDArray, aligned: Tensor) -> Tensor:
    """Return A for each frame: collars and neck turned so that each source's median is the template's rest.

    Where a source puts the inner end of the collar bones and the foot of the neck is its own choice: medians of the
    collars slope by 0 to 27 degrees, necks lean by 8 to 25 degrees less than a template's. Shoulders and head take up
    the difference, so that neither the arms nor the face move.
    """
    aligned = aligned.repeat(len(rotations), 1, 1, 1)
    reflection = torch.tensor([1.0, -1.0, -1.0])
    for name in np.unique(source):
        rows = torch.from_numpy(source == name)
        left, right, neck = roma.rotmat_to_rotvec(rotations[rows][:, (*COLLARS, NECK)]).unbind(1)
        median = torch.cat([left, right * reflection]).median(dim=0).values
        lean = neck.median(dim=0).values * torch.tensor([1.0, 0.0, 0.0])
        for joint, rotvec in ((COLLARS[0], median), (COLLARS[1], median * reflection), (NECK, lean)):
            aligned[rows, joint] = roma.rotvec_to_rotmat(-rotvec)
    return aligned


def _is_rare(rotations: Tensor, pose: Tensor) -> Tensor:
    """Return (N,) whether the trunk is far from upright or both hips and knees are bent past 60 degrees."""
    tilted = rotations[:, 0, 1, 1] < 0.5
    hips = (-pose[:, :2, 0]).amin(dim=1)
    knees = pose[:, 3:5].norm(dim=-1).amin(dim=1)
    return tilted | ((hips > 1.05) & (knees > 1.05))


def near_the_mean(pose: Tensor) -> Tensor:
    """Return rotation vectors (N, 21, 3), each the one of its two nearest forms that is closer to the joint's mean."""
    mean = pose.nanmean(dim=0)
    angle = pose.norm(dim=-1, keepdim=True).clamp_min(1e-6)
    other = pose - 2 * torch.pi * pose / angle
    nearer = (other - mean).norm(dim=-1, keepdim=True) < (pose - mean).norm(dim=-1, keepdim=True)
    return torch.where(nearer, other, pose)
