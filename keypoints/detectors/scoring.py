"""How far to trust what the networks say: of a person, of a point, and of two skeletons that may be one person.

The networks' own flags and visibilities are too sure of themselves. What tells people from gloves is the height of the
heatmaps near the points and the agreement of independent looks; the weights below are logistic regressions of "is this
right?" on such cues, against keypoints of another detector and of annotators.
"""

from __future__ import annotations

import numpy as np

from fitkit.keypoints.conventions import BLAZEPOSE_33

_COCO_SPREAD = {
    "nose": 0.026,
    "eye": 0.025,
    "ear": 0.035,
    "mouth": 0.03,
    "shoulder": 0.079,
    "elbow": 0.072,
    "wrist": 0.062,
    "pinky": 0.07,
    "index": 0.07,
    "thumb": 0.07,
    "hip": 0.107,
    "knee": 0.087,
    "ankle": 0.089,
    "heel": 0.089,
    "foot": 0.089,
}
SPREAD = np.array([next(value for part, value in _COCO_SPREAD.items() if part in name) for name in BLAZEPOSE_33])
"""(33,) spread of annotators relative to the person's size (COCO keypoint evaluation), extended to like points."""
PERSON_WEIGHTS = (11.1, 2.6, 0.47, -8.9)
"""Of the mean of the higher half of the points' peaks, the similarity of two looks, the flag's logit; constant."""
EVIDENCE_WEIGHTS = (2.0, 3.0, -1.8)
"""Added to the score's logit: times the face's flag, times the best proposal's score, and a constant."""
POINT_WEIGHTS = (4.9, -0.19, 0.27, 0.08, -3.57)
"""Of the point's peak, the logarithm of two looks' disagreement, the visibility's logit, the mask's logit; constant."""
HEADS = (24.0, 0.27)
"""Side of the body's region over `head_size`: the median over people seen, and the deviation of its logarithm."""
BEHIND = (0.15, 0.1)
"""Distance behind the middle of the ears, in widths of the head, at which half of the points are unseen; its spread."""


def person_score(peak: np.ndarray, alike: float, flag: float, fit: float = 0.0) -> float:
    """Return the probability that a skeleton is a person's.

    Args:
        peak: (33,) heights of the points' heatmaps.
        alike: similarity of two looks.
        flag: the network's own probability, the lower one of the two looks.
        fit: how well head and body fit, from `head_fits`; up to one standard deviation does not count.
    """
    higher = float(np.sort(peak)[-16:].mean())
    cues = (higher, alike, float(logit(np.array(flag))), 1.0)
    return float(sigmoid(np.asarray(np.dot(PERSON_WEIGHTS, cues) - max(abs(fit) - 1.0, 0.0) ** 2)))


def head_size(points: np.ndarray) -> float:
    """Return the root of the squared distances between the eyes and from the eyes to the mouth, in pixels.

    Args:
        points: (33, 2) pixels; 2 and 5 are the eyes, 9 and 10 the mouth's corners.
    """
    eyes = points[[2, 5]]
    across = eyes[0] - eyes[1]
    along = eyes.mean(0) - points[9:11].mean(0)
    return float(np.sqrt((across**2).sum() + (along**2).sum()))


def head_fits(head: float, side: float) -> float:
    """Return by how many standard deviations a body is too large (above 0) or too small for its head.

    Args:
        head: from `head_size`.
        side: of the body's region, in pixels.
    """
    typical, spread = HEADS
    return float(np.log(max(side, 1e-6) / max(head, 1e-6) / typical) / spread)


def weigh_evidence(score: float, face: float, proposal: float) -> float:
    """Return the probability that a skeleton is a person's, in the light of the other networks.

    Args:
        score: from `person_score`.
        face: probability that there is a face where the skeleton has its own.
        proposal: the best score of the detector's proposals of this person, 0 where there was none.
    """
    weight_face, weight_proposal, constant = EVIDENCE_WEIGHTS
    return float(
        sigmoid(np.asarray(logit(np.array(score)) + weight_face * face + weight_proposal * proposal + constant))
    )


def point_confidence(peak: np.ndarray, apart: np.ndarray, visibility: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the probability (K,) that points are seen and lie where they should.

    Args:
        peak: (K,) heights of their heatmaps.
        apart: (K,) distance of two looks in sides of the region.
        visibility: (K,) the network's own, in [0, 1].
        mask: (K,) logits of the person's mask near them.
    """
    cues = np.stack([peak, np.log(apart + 1e-3), logit(visibility), np.clip(mask, -8.0, 8.0), np.ones_like(peak)])
    return sigmoid(np.array(POINT_WEIGHTS) @ cues)


def facing(world: np.ndarray) -> np.ndarray:
    """Return the probability (11,) that each point of the head is on its visible side.

    The body network calls eyes and noses visible from behind as well; how far they lie behind the middle of the ears
    tells when other detectors no longer see them.

    Args:
        world: (33, 3) metres, camera axes; the first eleven are the head's, 7 and 8 the ears.
    """
    ears = world[7:9]
    width = max(float(np.linalg.norm(ears[0] - ears[1])), 1e-6)
    behind = (world[:11, 2] - ears[:, 2].mean()) / width
    return sigmoid((BEHIND[0] - behind) / BEHIND[1])


def similarity(points: np.ndarray, others: np.ndarray, weights: np.ndarray, size: np.ndarray | float) -> np.ndarray:
    """Return the object keypoint similarity (M,) of one skeleton with others, in [0, 1].

    COCO's formula: the weighted mean over points of exp(-d^2 / (2 (2 sigma)^2 s^2)).

    Args:
        points: (33, 2) pixels.
        others: (M, 33, 2) pixels.
        weights: (M, 33) how much each point counts.
        size: s in pixels, or one for each of the others; about the square root of the person's area.
    """
    close = closeness(points, others, size)
    total = weights.sum(-1)
    return np.where(total > 1e-6, (close * weights).sum(-1) / np.maximum(total, 1e-6), 0.0)


def closeness(points: np.ndarray, others: np.ndarray, size: np.ndarray | float) -> np.ndarray:
    """Return for each point (M, 33) how near it is to its like, 1 at the same place, falling to 0."""
    squared = ((others - points) ** 2).sum(-1)
    scale = 2.0 * SPREAD * np.maximum(np.asarray(size, dtype=float), 1e-6)[..., None]
    return np.exp(-squared / (2.0 * scale**2))


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Return the logistic function of values, in [0, 1]."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -80.0, 80.0))))


def logit(probability: np.ndarray) -> np.ndarray:
    """Return the inverse of `sigmoid`, kept finite."""
    return np.asarray(np.log((probability + 0.01) / (1.01 - probability)))
