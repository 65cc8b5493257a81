"""Hand pose space: principal components of invented hand poses.

No hand scans are behind it. Fingers are moved by their anatomical degrees of freedom (flexion, spread, thumb opposition) with
a shared curl, and the PCA of the resulting axis-angle vectors gives SMPL-X's `hands_components*` and `hands_mean*`.
"""

import numpy as np
from numpy.typing import NDArray

from bake.rig import FINGERS

MIRROR_ROTATION = np.tile([1.0, -1.0, -1.0], 15)
"""Axis-angle vectors of one hand from the other's."""


def sample_hand_poses(count: int, seed: int) -> NDArray:
    """Invented right hands (count, 45), axis-angle, fingers along -x, palm down: flexion +z, spread y."""
    draw = np.random.default_rng(seed)
    poses = np.radians(1.5) * draw.standard_normal((count, 15, 3))
    shared = draw.beta(0.9, 1.4, (count, 1))
    spread = np.radians(7.0) * draw.standard_normal(count)
    for k, finger in enumerate(FINGERS):
        joint = 3 * k
        if finger == "thumb":
            poses[:, joint] += np.radians([18.0, 15.0, 15.0]) * draw.standard_normal((count, 3))
            bend = np.radians(35.0) * draw.beta(1.0, 2.0, (count, 1)) + np.radians(20.0) * shared
            hinge = np.cross([-0.62, -0.30, 0.72], [-1.0, -0.4, -0.6])
            poses[:, joint + 1] += bend * hinge / np.linalg.norm(hinge)
            poses[:, joint + 2] += bend * hinge / np.linalg.norm(hinge)
            continue
        own = np.clip(0.7 * shared[:, 0] + 0.3 * draw.beta(0.6, 0.9, count), 0.0, 1.0)
        poses[:, joint, 2] += np.radians(80.0) * np.clip(own + 0.12 * draw.standard_normal(count), -0.15, 1.1)
        middle = np.radians(95.0) * np.clip(own + 0.12 * draw.standard_normal(count), 0.0, 1.1)
        poses[:, joint + 1, 2] += middle
        poses[:, joint + 2, 2] += 0.6 * middle
        fan = {"index": 1.2, "middle": 0.3, "ring": -0.7, "pinky": -1.4}[finger]
        poses[:, joint, 1] += fan * spread * (1.0 - 0.7 * own) + np.radians(2.5) * draw.standard_normal(count)
    return poses.reshape(count, 45)


def hand_space(poses: NDArray) -> dict[str, NDArray]:
    """SMPL-X's hand arrays from right-hand poses (S, 45): mean, orthonormal components, their deviations; left mirrored."""
    mean = poses.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(poses.T))
    components = vectors[:, ::-1].T
    components = components * np.where(components @ mean < 0, -1.0, 1.0)[:, None]
    return {
        "hands_meanr": mean,
        "hands_meanl": mean * MIRROR_ROTATION,
        "hands_componentsr": components,
        "hands_componentsl": components * MIRROR_ROTATION,
        "hands_deviation": np.sqrt(np.maximum(values[::-1], 0.0)),
    }
