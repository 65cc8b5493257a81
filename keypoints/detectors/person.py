"""One person: looks at a place by the body network, fused into one skeleton, and compared with others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from fitkit.keypoints.detectors.faces import Face
from fitkit.keypoints.detectors.masks import carry_mask, hide, mask_at
from fitkit.keypoints.detectors.pose import SWAP, Pose, Veil, read_pose
from fitkit.keypoints.detectors.regions import Picture, Region
from fitkit.keypoints.detectors.scoring import (
    HEADS,
    facing,
    head_fits,
    head_size,
    person_score,
    point_confidence,
    similarity,
)
from fitkit.keypoints.detectors.search import FACE_DROP, FACE_SIDE, Seed
from fitkit.keypoints.detectors.tflite import Network

SIZE = 1.0 / 3.0
"""The square root of a standing person's area over the side of the region."""
HOPELESS = (0.05, 0.35)
"""A first look with a lower flag, or a lower mean of its higher peaks, is not followed."""
HEAD = 11
"""The first points of the body are those of the head."""
ONE_HEAD = 0.1
"""Two heads nearer than this, in sides of the region, are one."""
KNOWN = (0.9, 0.7)
"""Least score of a person, and least similarity, from which a first look is taken for that person again."""
RIVAL = (0.25, 0.45)
"""Similarity from which two skeletons are rivals: when they share a head, and when not."""
CRAMPED = -1.5
"""Standard deviations by which a body may be too small for its head before it is looked for again, larger."""
SETTLED = 0.8
"""Similarity of two looks from which no third is needed."""


@dataclass(frozen=True)
class Person:
    """A person's body."""

    points: np.ndarray
    """(33, 2) pixels of the picture."""
    confidence: np.ndarray
    """(33,) probability that the point lies where it should, 0 outside the picture."""
    visibility: np.ndarray
    """(33,) the network's own, in [0, 1]."""
    world: np.ndarray
    """(33, 3) metres relative to the middle of the hips, camera axes."""
    score: float
    """Probability that this is a person."""
    region: Region
    """Where the last look went."""
    mask: np.ndarray
    """(256, 256) logits of the person's pixels in the region."""
    face: Face | None = None
    """The face, once it was looked at; it may still be that there is none."""

    @property
    def size(self) -> float:
        """Return the square root of the person's area in pixels, were the whole person seen."""
        return self.region.side * SIZE

    @property
    def head(self) -> np.ndarray:
        """Return the middle of the head (2,) in pixels."""
        return self.points[:HEAD].mean(0)


def look_closely(
    network: Network, picture: Picture, region: Region, known: Sequence[Person] = (), veil: Veil | None = None
) -> Person | None:
    """Return the person in a region, from looks at it that improve on each other, the last one in a mirror.

    Args:
        network: `pose_landmark_full`.
        picture: the picture.
        region: where.
        known: people whom there is no need to see again.
        veil: hides other people.

    Returns:
        the person, or None where there clearly is none, or one already known.
    """
    first = read_pose(network, picture, region, veil)
    if first.flag < HOPELESS[0] or np.sort(first.peak)[-16:].mean() < HOPELESS[1]:
        return None
    if any(_is_seen_by(first, person) for person in known):
        return None
    person = _improve(network, picture, first, veil)
    if head_fits(head_size(person.points), person.region.side) > CRAMPED:
        return person
    # The network has crammed a whole body into the part that the picture shows: offer it the room that the head wants.
    first = read_pose(network, picture, _room_for(person), veil)
    larger = _improve(network, picture, first, veil)
    return larger if larger.score > person.score else person


def _improve(network: Network, picture: Picture, first: Pose, veil: Veil | None) -> Person:
    """Return the person of a first look, from one or two more and one in a mirror."""
    look = read_pose(network, picture, first.next_region, veil)
    if alike(first, look) < SETTLED:
        look = read_pose(network, picture, look.next_region, veil)
    mirrored = read_pose(network, picture, look.region.mirror(), veil)
    return fuse(look, mirrored, (picture.width, picture.height))


def _room_for(person: Person) -> Region:
    """Return where a body of usual size would be, below a person's head."""
    side = HEADS[0] * head_size(person.points)
    centre = person.head + person.region.axes[:, 1] * side * FACE_DROP / FACE_SIDE
    return Region((float(centre[0]), float(centre[1])), side, person.region.rotation)


def look_again(network: Network, picture: Picture, person: Person, others: Sequence[Person]) -> Person:
    """Return a person seen with the others hidden; the same one where that is no better or nobody is near."""
    near = near_people(person, others)
    if not near:
        return person
    veil = veil_of(near, person)
    look = read_pose(network, picture, person.region, veil)
    mirrored = read_pose(network, picture, person.region.mirror(), veil)
    again = fuse(look, mirrored, (picture.width, picture.height))
    return again if again.score >= 0.9 * person.score else person


def veil_of(others: Sequence[Person], own: Person | None = None) -> Veil:
    """Return a veil that hides people, but not where a pixel rather belongs to one's own."""

    def veil(crop: np.ndarray, region: Region) -> np.ndarray:
        size = len(crop)
        logits = np.max([carry_mask(other.mask, other.region, region, size) for other in others], axis=0)
        mine = None if own is None else carry_mask(own.mask, own.region, region, size)
        return hide(crop, logits, mine)

    return veil


def near_people(person: Person, others: Sequence[Person]) -> list[Person]:
    """Return those whose regions overlap much with a person's."""

    def near(other: Person) -> bool:
        apart = np.hypot(*np.subtract(person.region.centre, other.region.centre))
        return bool(apart < 0.35 * (person.region.side + other.region.side))

    return [other for other in others if near(other)]


def _is_seen_by(look: Pose, person: Person) -> bool:
    """Return whether a look shows a person who is known well."""
    if person.score < KNOWN[0]:
        return False
    size = min(person.size, look.region.side * SIZE)
    return bool(similarity(person.points, look.points[None], person.confidence[None], size)[0] > KNOWN[1])


def alike(look: Pose, other: Pose) -> float:
    """Return the similarity of two looks at one person."""
    weights = np.minimum(look.visibility, other.visibility)
    return float(similarity(look.points, other.points[None], weights[None], look.region.side * SIZE)[0])


def fuse(look: Pose, mirrored: Pose, size: tuple[int, int]) -> Person:
    """Return the person of whom two looks at the same region tell.

    Where the looks agree better with left and right exchanged, the one with the clearer points decides.

    Args:
        look: one look.
        mirrored: the same region in a mirror, its sides already named rightly.
        size: (width, height) of the picture in pixels.
    """
    agreement, flag = alike(look, mirrored), min(look.flag, mirrored.flag)
    if alike(look, exchange_sides(mirrored)) > agreement + 0.1:
        if mirrored.peak.mean() > look.peak.mean():
            look, mirrored = mirrored, exchange_sides(look)
        else:
            mirrored = exchange_sides(mirrored)
    # Clearer points count for more; the cube was the best of the powers tried.
    weight = np.stack([look.peak + 1e-3, mirrored.peak + 1e-3])[..., None] ** 3
    weight = weight / weight.sum(0)
    points = weight[0] * look.points + weight[1] * mirrored.points
    apart = np.hypot(*(look.points - mirrored.points).T) / look.region.side
    inside = ((points >= 0.0) & (points <= np.array(size))).all(-1)
    visibility = (look.visibility + mirrored.visibility) / 2.0
    mask = _mean_mask(look, mirrored)
    own = _mask_near(mask, look.region.from_picture(points))
    confidence = point_confidence((look.peak + mirrored.peak) / 2.0, apart, visibility, own)
    world = weight[0] * look.world + weight[1] * mirrored.world
    confidence[:HEAD] *= facing(world)
    fit = head_fits(head_size(points), look.region.side)
    return Person(
        points=points,
        confidence=np.where(inside, confidence, 0.0),
        visibility=visibility,
        world=world,
        score=person_score((look.peak + mirrored.peak) / 2.0, agreement, flag, fit),
        region=look.region,
        mask=mask,
    )


def exchange_sides(look: Pose) -> Pose:
    """Return a look with left and right exchanged."""
    return replace(
        look,
        points=look.points[SWAP],
        visibility=look.visibility[SWAP],
        presence=look.presence[SWAP],
        peak=look.peak[SWAP],
        world=look.world[SWAP],
    )


def same_person(person: Person, other: Person) -> float:
    """Return how alike two skeletons are, in [0, 1], left and right exchanged if need be."""
    weights = np.minimum(person.confidence, other.confidence)[None]
    size = min(person.size, other.size)
    straight = similarity(person.points, other.points[None], weights, size)[0]
    weights = np.minimum(person.confidence, other.confidence[SWAP])[None]
    crossed = similarity(person.points, other.points[SWAP][None], weights, size)[0]
    return float(max(straight, crossed))


def one_head(person: Person, other: Person) -> bool:
    """Return whether two skeletons of like size share a head."""
    apart = float(np.hypot(*(person.head - other.head)))
    larger, smaller = max(person.region.side, other.region.side), min(person.region.side, other.region.side)
    return apart < 0.5 * ONE_HEAD * smaller or (apart < ONE_HEAD * smaller and larger < 2.0 * smaller)


def explains(person: Person, seed: Seed) -> bool:
    """Return whether a proposal is of a person already found."""
    side = min(person.region.side, seed.region.side)
    return bool(
        np.hypot(*(person.head - seed.head)) < ONE_HEAD * side
        and np.hypot(*np.subtract(person.region.centre, seed.region.centre)) < 2.0 * ONE_HEAD * side
        and abs(np.log(person.region.side / seed.region.side)) < 0.35
    )


def shows(person: Person, seed: Seed) -> bool:
    """Return whether the head of a proposal is a person's head."""
    return bool(np.hypot(*(person.head - seed.head)) < ONE_HEAD * min(person.region.side, seed.region.side))


def choose_people(people: Sequence[Person], least: float) -> list[Person]:
    """Return one skeleton for each person, best first.

    Args:
        people: candidates.
        least: score below which a candidate is dropped.
    """
    kept: list[Person] = []
    for person in sorted(people, key=lambda item: -item.score):
        if person.score >= least and not any(rivals(person, other) for other in kept):
            kept.append(person)
    return kept


def rivals(person: Person, other: Person) -> bool:
    """Return whether two skeletons are one person's, or one is mixed of two people: both cannot stand."""
    return same_person(person, other) > (RIVAL[0] if one_head(person, other) else RIVAL[1])


def inside(person: Person, other: Person) -> bool:
    """Return whether a skeleton lies within a much larger person: a hand or a fold taken for somebody."""
    if person.region.side > 0.5 * other.region.side:
        return False
    seen = person.points[person.confidence > 0.3]
    return len(seen) > 0 and float((mask_at(other.mask, other.region, seen) > 0.0).mean()) > 0.8


def covers(person: Person, seed: Seed) -> bool:
    """Return whether the head of a proposal lies within a much larger person."""
    if seed.region.side > 0.5 * person.region.side:
        return False
    return bool(mask_at(person.mask, person.region, seed.head[None])[0] > 0.0)


def _mean_mask(look: Pose, mirrored: Pose) -> np.ndarray:
    return (np.clip(look.mask, -8.0, 8.0) + np.clip(mirrored.mask[:, ::-1], -8.0, 8.0)) / 2.0


def _mask_near(mask: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Return the highest logits (K,) of a mask (S, S) near points (K, 2) given in [0, 1]."""
    reach = len(mask) // 40
    highest = cv2.dilate(mask, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    at = np.clip((unit * len(mask)).astype(int), 0, len(mask) - 1)
    return highest[at[:, 1], at[:, 0]]
