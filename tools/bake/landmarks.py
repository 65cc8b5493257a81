"""Body landmarks: sparse non-negative weights over vertices."""

import numpy as np
from numpy.typing import NDArray

from bake.rig import FINGERS, JOINTS, SIDES, THUMB_REST
from bake.source import Source
from bake.surface import snap

Row = tuple[NDArray, NDArray]
"""Vertex indices and their weights; weights are non-negative and sum to 1."""


def coco_rows(source: Source) -> dict[str, Row]:
    """COCO's 17 body points and the 6 feet points that Anny carries, full rows."""
    import torch
    from anny.paths import get_anny_root_dir

    table = torch.load(get_anny_root_dir() / "data/keypoints/coco.pth", weights_only=True)
    rows = {}
    for name, dense in table.items():
        weights = dense.double().numpy()[source.base_indices]
        indices = np.flatnonzero(weights > 0)
        rows[name] = (indices, weights[indices] / weights.sum())
    return rows


def thin(row: Row, samples: NDArray, keep: int = 24) -> Row:
    """The same point from at most about `keep` vertices: non-negative least squares over sample bodies.

    Args:
        row: the full row.
        samples: (S, V, 3) bodies of different shapes and poses.
        keep: the heaviest vertices that stay in the running after the first solve.
    """
    from scipy.optimize import nnls

    indices, weights = row
    bodies = samples[:, indices]
    target = np.einsum("v,svd->sd", weights, bodies)
    centre = target[:, None]
    one = 0.02 * np.sqrt(len(bodies))
    for limit in (len(indices), keep):
        chosen = np.argsort(-weights, kind="stable")[:limit]
        local = (bodies[:, chosen] - centre).transpose(0, 2, 1).reshape(-1, len(chosen))
        weights = np.zeros(len(indices))
        weights[chosen] = nnls(np.r_[local, np.full((1, len(chosen)), one)], np.r_[np.zeros(len(local)), one])[0]
    used = np.flatnonzero(weights > 1e-4 * weights.max())
    return indices[used], weights[used] / weights[used].sum()


def mirrored(row: Row, mirror: NDArray) -> Row:
    """The row of the mirror image's landmark."""
    return mirror[row[0]], row[1]


def mix(first: Row, second: Row) -> Row:
    """The midpoint of two landmarks."""
    return np.r_[first[0], second[0]], np.r_[first[1], second[1]] / 2


def extreme(points: NDArray, candidates: NDArray, direction: NDArray) -> int:
    """The candidate vertex that lies farthest along a direction."""
    chosen = np.flatnonzero(candidates)
    return int(chosen[np.argmax(points[chosen] @ direction)])


def extreme_vertices(source: Source, weights: NDArray, template: NDArray) -> dict[str, int]:
    """Fingertips, toes, heels, nose, ears and the top of the head, as vertices of the T-posed template (V, 3)."""
    front, up = np.array([0, 0, 1.0]), np.array([0, 1.0, 0])
    found = {}
    head = weights[:, JOINTS.index("head")] > 0.5
    found["nose"] = extreme(template, head & (np.abs(template[:, 0]) < 1e-3), front)
    found["head_top"] = extreme(template, head & (np.abs(template[:, 0]) < 1e-3), up)
    for side, suffix in SIDES.items():
        sign = 1.0 if side == "left" else -1.0
        if side == "right":
            continue
        out = np.array([sign, 0, 0])
        for finger in FINGERS:
            direction = THUMB_REST if finger == "thumb" else out
            tip = weights[:, JOINTS.index(f"{side}_{finger}3")] > 0.5
            found[f"{side}_{finger}_tip"] = extreme(template, tip, direction)
        for toe, bone in (("big_toe", "toe1-2"), ("small_toe", "toe5-3")):
            found[f"{side}_{toe}"] = extreme(
                template, source.weights[:, source.bones.index(bone + suffix)] > 0.5, front
            )
        found[f"{side}_heel"] = extreme(template, weights[:, JOINTS.index(f"{side}_ankle")] > 0.5, -front - 0.5 * up)
        found[f"{side}_ear"] = extreme(template, head, out)
    mirror = {name.replace("left", "right"): int(source.mirror[v]) for name, v in found.items() if "left" in name}
    return found | mirror


def pupil_rows(
    source: Source, template: NDArray, joints: NDArray, part: NDArray, names: tuple[str, ...]
) -> dict[str, Row]:
    """Where each eye bone's axis leaves the eyeball."""
    rows = {}
    for side, suffix in SIDES.items():
        bone, joint = source.bones.index(f"eye{suffix}"), joints[JOINTS.index(f"{side}_eye_smplhf")]
        axis = source.tails[bone] - source.heads[bone]
        point = joint + 0.02 * axis / np.linalg.norm(axis)
        spot, _ = snap(point[None], template, source.faces, part == names.index(f"{side}_eye"))
        rows[f"{side}_pupil"] = spot.row(0, source.faces)
    return rows


SMPLX_VERTICES = {
    "nose": "nose",
    "reye": "right_pupil",
    "leye": "left_pupil",
    "rear": "right_ear",
    "lear": "left_ear",
    "LBigToe": "left_big_toe",
    "LSmallToe": "left_small_toe",
    "LHeel": "left_heel",
    "RBigToe": "right_big_toe",
    "RSmallToe": "right_small_toe",
    "RHeel": "right_heel",
} | {f"{side[0]}{finger}": f"{side}_{finger}_tip" for side in SIDES for finger in FINGERS}
"""`smplx`'s names of its vertex joints -> ours."""


def pack_rows(rows: dict[str, Row]) -> dict[str, NDArray]:
    """CSR arrays of landmark rows."""
    lengths = [len(indices) for indices, _ in rows.values()]
    return {
        "landmark_names": np.array(list(rows)),
        "landmark_indptr": np.r_[0, np.cumsum(lengths)].astype(np.int32),
        "landmark_indices": np.concatenate([i for i, _ in rows.values()]).astype(np.int32),
        "landmark_weights": np.concatenate([w for _, w in rows.values()]).astype(np.float32),
    }
