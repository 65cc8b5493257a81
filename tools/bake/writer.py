"""Deterministic npz files: same arrays, same bytes."""

import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def write_npz(path: Path, arrays: dict[str, NDArray]) -> int:
    """Write a compressed npz with fixed time stamps and order; returns its size in bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.asanyarray(array), allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, buffer.getvalue())
    return path.stat().st_size


def round_weights(weights: NDArray, steps: int = 2048) -> NDArray:
    """Rows of non-negative weights as multiples of 1/steps that still sum to exactly 1 (largest remainders)."""
    scaled = weights / weights.sum(axis=1, keepdims=True) * steps
    floor = np.floor(scaled)
    missing = np.round(steps - floor.sum(axis=1)).astype(int)
    rank = np.argsort(np.argsort(-(scaled - floor), axis=1, kind="stable"), axis=1, kind="stable")
    return (floor + (rank < missing[:, None])) / steps


def permutation_onto(wanted: dict[int, int], count: int) -> NDArray:
    """Order (count,) of vertices such that new vertex `k` is old vertex `wanted[k]`; the others stay where they can."""
    order = np.arange(count)
    place = np.arange(count)
    for new, old in wanted.items():
        here, there = place[old], new
        order[here], order[there] = order[there], order[here]
        place[order[here]], place[order[there]] = here, there
    return order
