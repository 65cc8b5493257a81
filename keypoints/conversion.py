"""Keypoints of one convention rewritten in another, by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.conventions import CONVERSION_ALIASES, correspondence

_MIDPOINTS = {"neck": ("left_shoulder", "right_shoulder"), "mid_hip": ("left_hip", "right_hip")}
"""Points that are the mean of two others where a convention lacks them (as in the data that OpenPose learned from)."""


def convert(keypoints: Keypoints, names: Sequence[str]) -> Keypoints:
    """Return the same people with the points of another convention; points that the source lacks are unseen.

    The neck and the middle of the hips become the mean of shoulders and hips where the source has neither, as sure as
    the less sure of the two.

    Args:
        keypoints: P people with points of any names.
        names: the K names wanted.
    """
    names = tuple(names)
    if names == keypoints.names:
        return keypoints
    found = correspondence(names, keypoints.names, CONVERSION_ALIASES)
    points = np.where(found.mask[:, None], keypoints.points[:, found.indices], 0.0)
    confidence = np.where(found.mask, keypoints.confidence[:, found.indices], 0.0)
    world = None
    if keypoints.world is not None:
        world = np.where(found.mask[:, None], keypoints.world[:, found.indices], np.nan)
    for name, pair in _MIDPOINTS.items():
        if name in names and not found.mask[names.index(name)] and set(pair) <= set(keypoints.names):
            k, ends = names.index(name), [keypoints.names.index(end) for end in pair]
            confidence[:, k] = keypoints.confidence[:, ends].min(1)
            points[:, k] = np.where(confidence[:, k, None] > 0.0, keypoints.points[:, ends].mean(1), 0.0)
            if world is not None and keypoints.world is not None:
                world[:, k] = keypoints.world[:, ends].mean(1)
    return replace(keypoints, names=names, points=points, confidence=confidence, world=world)
