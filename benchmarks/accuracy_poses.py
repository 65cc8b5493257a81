"""Where the poses of the accuracy benchmark come from: samples of a prior, or motion capture that no training saw."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import roma
import torch
from torch import Tensor

from fitkit.errors import UsageError
from fitkit.models.smpl_family import SMPLFamilyModel
from fitkit.priors.mirror import mirrored
from fitkit.training.motion_capture import Poses, load_poses

BODY_JOINTS = 22
"""The body's joints, pelvis first, without face and fingers."""
POOL = 2000
"""Held-out frames, drawn at random, among which those far from training are looked for; never fewer than four times
as many as people are wanted."""
_BLOCK = 250
"""Frames whose distances to all training frames are held at once."""


@dataclass(frozen=True)
class DrawnPoses:
    """Poses for P people."""

    body_pose: Tensor
    """(P, 63) axis-angle, radians, float64."""
    root: Tensor | None = None
    """(P, 3, 3) how the pelvis was turned in the capture, Y up, heading arbitrary; None where that is not known."""
    distance: Tensor | None = None
    """(P,) mean distance of the joints to those of the nearest training frame, metres; where it was asked for."""


def prior_poses(count: int, seed: int) -> DrawnPoses:
    """Return samples of the multivariate t density that is the default recipe's pose prior."""
    with resources.as_file(resources.files("fitkit.priors") / "data" / "student.npz") as file, np.load(file) as data:
        mean, degrees = data["means"][0].astype(np.float64), float(data["degrees"])
        whitening = np.zeros((63, 63))
        whitening[np.tril_indices(63)] = data["whitening"][0]
    random = np.random.default_rng(seed)
    normal = random.standard_normal((count, 63)) * np.sqrt(degrees / random.chisquare(degrees, (count, 1)))
    return DrawnPoses(torch.from_numpy(mean + np.linalg.solve(whitening, normal.T).T))


def read_frames(path: Path, model: SMPLFamilyModel) -> Poses:
    """Return all frames of a motion-capture file, referred to the rest pose of a body."""
    return load_poses(path, model.shape.J_template.double().cpu().numpy())


def captured_poses(frames: Poses, model: SMPLFamilyModel, count: int, seed: int, far: bool = False) -> DrawnPoses:
    """Return frames of clips that are kept from training, each as likely as any other.

    A joint that a frame's source did not capture is turned as in the most similar held-out frame that has it.

    Args:
        frames: motion capture.
        model: the body by whose proportions distances are measured.
        count: how many frames.
        seed: of the draw.
        far: draw from that quarter of the held-out frames that is farthest from the training clips: by the mean
            distance of the body's joints, pelvis at rest and at the origin, to those of the nearest training frame or
            of its mirror image. Joints not captured count as not turned.
    """
    held = frames.held_out.nonzero()[:, 0]
    if count > len(held):
        raise UsageError(f"The motion capture has {len(held)} held-out frames; --people asks for {count}.")
    random = torch.Generator().manual_seed(seed)
    order = held[torch.randperm(len(held), generator=random)]
    if not far:
        chosen = order[:count]
        return DrawnPoses(_completed(frames, chosen), _root(frames, chosen))
    pool = order[: max(POOL, 4 * count)]
    distance = _distances(frames, pool, model)
    farthest = distance.argsort(descending=True)[: max(count, len(pool) // 4)]
    some = farthest[torch.randperm(len(farthest), generator=random)[:count]]
    return DrawnPoses(_completed(frames, pool[some]), _root(frames, pool[some]), distance[some])


def _root(frames: Poses, chosen: Tensor) -> Tensor:
    return roma.rotvec_to_rotmat(frames.orientation[chosen].double())


def _completed(frames: Poses, chosen: Tensor) -> Tensor:
    """Return the poses (P, 63) with missing joints filled from the most similar held-out frames."""
    pose = frames.body_pose[chosen].double().unflatten(1, (21, 3))
    complete = frames.held_out & frames.body_pose.isfinite().all(1)
    donors = frames.body_pose[complete].double().unflatten(1, (21, 3))
    known = pose.isfinite().all(-1)
    if bool(known.all()):
        return pose.flatten(1)
    if not len(donors):
        return pose.nan_to_num(0.0).flatten(1)
    apart = roma.rotvec_to_rotmat(pose.nan_to_num(0.0))[:, None] - roma.rotvec_to_rotmat(donors)
    nearest = (apart.square().sum((-1, -2)) * known[:, None]).sum(-1).argmin(1)
    return torch.where(known[..., None], pose, donors[nearest]).flatten(1)


def _distances(frames: Poses, rows: Tensor, model: SMPLFamilyModel) -> Tensor:
    """Return for some frames (M,) how far the nearest training frame is, metres."""
    pose = frames.body_pose.nan_to_num(0.0)
    trained = pose[~frames.held_out]
    trained = torch.cat([trained, mirrored(trained)])
    here, there = _joints(pose[rows], model).flatten(1), _joints(trained, model).flatten(1)
    # The root mean square over joints finds candidates in one matrix product; the mean distance judges them.
    nearest = torch.cat([torch.cdist(part, there).topk(8, largest=False).indices for part in here.split(_BLOCK)])
    apart = here.unflatten(1, (-1, 3))[:, None] - there.unflatten(1, (-1, 3))[nearest]
    return apart.norm(dim=-1).mean(-1).amin(-1).double()


def _joints(pose: Tensor, model: SMPLFamilyModel) -> Tensor:
    """Return the joints (N, 22, 3) of poses, the pelvis at rest and at the origin, metres, single precision."""
    rest = model.shape.J_template[:BODY_JOINTS].float().cpu()
    parents = model.tree.parents[:BODY_JOINTS]
    local = roma.rotvec_to_rotmat(pose.float().unflatten(1, (21, 3)))
    turned = [torch.eye(3).expand(len(pose), 3, 3)]
    placed = [torch.zeros(len(pose), 3)]
    for joint in range(1, BODY_JOINTS):
        above = parents[joint]
        placed.append(placed[above] + turned[above] @ (rest[joint] - rest[above]))
        turned.append(turned[above] @ local[:, joint - 1])
    return torch.stack(placed, dim=1)
