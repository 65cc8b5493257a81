"""Hand pose space: principal components of measured and invented hand poses.

The measured ones are kept only as a mean and a covariance (`hand_statistics.npz`, 16 kB): half of them weigh 7,319
monocular fingerspelling fits, half 114 exact poses (grips, pinches, signs), all from MIT or CC0 sources (among these
Godot XR Tools, Handy Work and MakeHuman), re-referenced to straight fingers along -x and this body's thumb rest. To
them come invented poses by the anatomical degrees of freedom (flexion, spread, thumb opposition), so that directions
which the measured poses lack are not forbidden. The PCA of the mixture gives SMPL-X's `hands_components*` and
`hands_mean*`. MANO is not behind it.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bake.rig import FINGERS

STATISTICS = Path(__file__).with_name("hand_statistics.npz")
RELAXED = np.repeat([0.55, 0.8], [36, 9])
"""Share of the mixture's mean (half a fist) that a hand at rest shows: fingers, thumb."""

INVENTED_SHARE = 0.3
"""Weight of the invented poses in the mixture."""

MIRROR_ROTATION = np.tile([1.0, -1.0, -1.0], 15)
"""Axis-angle vectors of one hand from the other's."""


THUMB_HINGE = np.array([0.64, -0.74, 0.22]) / np.linalg.norm([0.64, -0.74, 0.22])
"""Axis about which the right thumb's outer joints bend."""


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
            poses[:, joint] += np.radians([15.0, -18.0, -3.0])
            poses[:, joint + 1] += bend * THUMB_HINGE
            poses[:, joint + 2] += bend * THUMB_HINGE
            continue
        own = np.clip(0.7 * shared[:, 0] + 0.3 * draw.beta(0.6, 0.9, count), 0.0, 1.0)
        poses[:, joint, 2] += np.radians(80.0) * np.clip(own + 0.12 * draw.standard_normal(count), -0.15, 1.1)
        middle = np.radians(95.0) * np.clip(own + 0.12 * draw.standard_normal(count), 0.0, 1.1)
        poses[:, joint + 1, 2] += middle
        poses[:, joint + 2, 2] += 0.6 * middle
        fan = {"index": 1.2, "middle": 0.3, "ring": -0.7, "pinky": -1.4}[finger]
        poses[:, joint, 1] += fan * spread * (1.0 - 0.7 * own) + np.radians(2.5) * draw.standard_normal(count)
    return poses.reshape(count, 45)


def summarise(path: Path) -> None:
    """Write `hand_statistics.npz` from right hands: `poses_right` (N, 15, 3) axis-angle and `source` (N,) names."""
    from bake.writer import write_npz

    with np.load(path) as archive:
        poses, source = archive["poses_right"].reshape(-1, 45).astype(float), archive["source"]
    spelled = source == "fingerspelling"
    mean, covariance = mix_moments([(0.5, *moments(poses[spelled])), (0.5, *moments(poses[~spelled]))])
    write_npz(STATISTICS, {"mean": mean.astype(np.float32), "covariance": covariance.astype(np.float32)})


def moments(poses: NDArray) -> tuple[NDArray, NDArray]:
    """Mean (45,) and covariance (45, 45) of poses (S, 45)."""
    return poses.mean(axis=0), np.cov(poses.T)


def mix_moments(parts: list[tuple[float, NDArray, NDArray]]) -> tuple[NDArray, NDArray]:
    """Mean and covariance of a mixture given as (weight, mean, covariance)."""
    shares = np.array([weight for weight, _, _ in parts])
    centres = np.stack([centre for _, centre, _ in parts])
    spreads = np.stack([covariance for _, _, covariance in parts])
    mean = shares @ centres
    apart = centres - mean
    return mean, np.einsum("p,pij->ij", shares, spreads) + np.einsum("p,pi,pj->ij", shares, apart, apart)


def hand_space() -> dict[str, NDArray]:
    """SMPL-X's hand arrays: relaxed hand, orthonormal components about it and their deviations; left mirrored."""
    with np.load(STATISTICS) as archive:
        measured = archive["mean"].astype(float), archive["covariance"].astype(float)
    invented = moments(sample_hand_poses(20000, seed=3))
    mean, covariance = mix_moments([(1 - INVENTED_SHARE, *measured), (INVENTED_SHARE, *invented)])
    relaxed = mean * RELAXED
    values, vectors = np.linalg.eigh(covariance + np.outer(mean - relaxed, mean - relaxed))
    components = vectors[:, ::-1].T
    strongest = components[np.arange(45), np.argmax(np.abs(components), axis=1)]
    components = components * np.sign(strongest)[:, None]
    return {
        "hands_meanr": relaxed,
        "hands_meanl": relaxed * MIRROR_ROTATION,
        "hands_componentsr": components,
        "hands_componentsl": components * MIRROR_ROTATION,
        "hands_deviation": np.sqrt(np.maximum(values[::-1], 0.0)),
    }
