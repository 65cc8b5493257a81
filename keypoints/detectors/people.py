"""All people of a picture: where to look, whom to believe, and who stands behind whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fitkit.keypoints.detectors.faces import look_at_face
from fitkit.keypoints.detectors.limbs import doubt_borrowed_limbs
from fitkit.keypoints.detectors.person import (
    Person,
    choose_people,
    covers,
    explains,
    inside,
    look_again,
    look_closely,
    near_people,
    same_person,
    shows,
    veil_of,
)
from fitkit.keypoints.detectors.regions import Picture, Region
from fitkit.keypoints.detectors.scoring import weigh_evidence
from fitkit.keypoints.detectors.search import Searcher, Seed, distinct_seeds, same_place, seed_of_face, tiles
from fitkit.keypoints.detectors.tflite import Network

SCALES = (1.5, 1.0, 0.5, 0.35, 0.25)
"""Sides of the squares in which people are looked for, over the picture's longer side."""
COARSE = 0.5
"""Smaller squares are looked at only when they may show more."""
SMALLEST_TILE = 150.0
"""Pixels; smaller squares would only be blown up."""
TURNS = (0.5 * np.pi, -0.5 * np.pi, np.pi)
"""Radians by which the squares are turned when nobody was found upright."""
MOST_SEEDS = 24
"""Proposals followed at each scale, best first."""
SEED_SCORE, FACE_SCORE = 0.35, 0.5
"""Least scores of proposals that are followed; what they are worth is judged later."""
SUPPORT_SCORE = 0.2
"""Least score of a proposal that may support another."""
BOX_SCALES = (1.25, 1.75)
"""Sides of the regions in which the person of a given box is looked for, over the longer side of the box."""
SURE = 0.9
"""Score of people from which proposals that may be of them are not followed."""
VEILED = 0.8
"""Score of people from which they are hidden when others are looked for."""
CANDIDATE = 0.3
"""Least score of a skeleton before the other networks were heard."""
ALONE = (0.2, 0.3)
"""Least score and likeness of a doubtful person when all better ones are hidden."""
LEAST_SCORE = 0.6
"""Least score of the people returned."""


@dataclass
class _Hunt:
    """What is known while a picture is searched."""

    people: list[Person] = field(default_factory=list)
    """Candidates, several of them perhaps for one person."""
    seeds: list[Seed] = field(default_factory=list)
    """All proposals."""
    followed: list[Seed] = field(default_factory=list)
    """Those that were worth following."""


class PeopleFinder:
    """Finds people in pictures, one after the other."""

    def __init__(self, networks: Mapping[str, Network]) -> None:
        """Take the networks by name."""
        self._body = networks["pose_landmark"]
        self._face = networks["face_landmark"]
        self._searcher = Searcher(networks["pose_detection"], networks["face_detection"])

    def find(self, picture: Picture) -> list[Person]:
        """Return the people in a picture, best first."""
        people, seeds = self._look_everywhere(picture)
        if people:
            people = self._look_again(picture, people)
            people, seeds = self._look_behind(picture, people, seeds)
            people = self._look_again(picture, people)
        chosen = choose_people([self.judge(picture, person, seeds) for person in people], LEAST_SCORE)
        chosen = [one for one in chosen if not any(inside(one, other) for other in chosen)]
        chosen = [one for i, one in enumerate(chosen) if self._stands_alone(picture, one, chosen[:i])]
        return doubt_borrowed_limbs(chosen)

    def look_in(self, picture: Picture, box: np.ndarray) -> Person | None:
        """Return the person in a box that somebody else found, or None where the network sees nobody at all.

        Args:
            picture: the picture.
            box: (4,) x0, y0, x1, y1 in pixels.
        """
        centre = (float(box[0] + box[2]) / 2.0, float(box[1] + box[3]) / 2.0)
        side = float(max(box[2] - box[0], box[3] - box[1]))
        looks = [look_closely(self._body, picture, Region(centre, side * scale)) for scale in BOX_SCALES]
        found = [person for person in looks if person is not None]
        if not found:
            return None
        best = max(found, key=lambda person: person.score * _share_inside(person, box))
        return replace(best, face=look_at_face(self._face, picture, best.points))

    def judge(self, picture: Picture, person: Person, seeds: Sequence[Seed]) -> Person:
        """Return a person with the face, scored in the light of it and of the detector's proposals."""
        face = look_at_face(self._face, picture, person.points)
        support = max((seed.score for seed in seeds if not seed.of_face and explains(person, seed)), default=0.0)
        return replace(person, face=face, score=weigh_evidence(person.score, face.flag, support))

    def _look_everywhere(self, picture: Picture) -> tuple[list[Person], list[Seed]]:
        """Return the people found at all scales that may pay, and all proposals."""
        hunt = _Hunt()
        for fraction in SCALES:
            squares = tiles(picture, fraction)
            if squares[0].side < SMALLEST_TILE and fraction < COARSE:
                break
            self._look_at(picture, squares, hunt)
            found = choose_people(hunt.people, CANDIDATE)
            if fraction <= COARSE and not _pays_to_go_on(found, squares[0].side, fraction):
                break
        if not choose_people(hunt.people, LEAST_SCORE):
            # Somebody lies or stands on the head, or the camera was held sideways and did not say so.
            turned = [replace(picture.whole.scaled(s), rotation=turn) for s in SCALES[:2] for turn in TURNS]
            self._look_at(picture, turned, hunt)
        return choose_people(hunt.people, CANDIDATE), hunt.seeds

    def _look_at(self, picture: Picture, squares: Sequence[Region], hunt: _Hunt) -> None:
        """Add the people whom some squares show."""
        new = self._propose(picture, squares)
        hunt.seeds += new
        for seed in _worth_following(new):
            if any(same_place(seed.region, other.region) for other in hunt.followed):
                continue
            hunt.followed.append(seed)
            if any(one.score > SURE and (explains(one, seed) or covers(one, seed)) for one in hunt.people):
                continue
            person = look_closely(self._body, picture, seed.region, hunt.people)
            if person is not None:
                hunt.people.append(person)

    def _look_behind(
        self, picture: Picture, people: list[Person], seeds: list[Seed]
    ) -> tuple[list[Person], list[Seed]]:
        """Return also the people who show themselves only when those found are hidden, and all proposals."""
        certain = [person for person in people if person.score > VEILED]
        if not certain:
            return people, seeds
        squares = [square for scale in (1.0, COARSE)[: len(certain)] for square in tiles(picture, scale)]
        veil = veil_of(certain)
        seeds = seeds + [s for square in squares for s in self._searcher.bodies(picture, square, SUPPORT_SCORE, veil)]
        for seed in _worth_following(seeds):
            if any(shows(person, seed) or covers(person, seed) for person in people):
                continue
            person = look_closely(self._body, picture, seed.region, people, veil)
            if person is not None:
                people = choose_people([*people, person], CANDIDATE)
        return people, seeds

    def _stands_alone(self, picture: Picture, person: Person, better: Sequence[Person]) -> bool:
        """Return whether a doubtful person is still there when all better ones are hidden, or was mixed of them."""
        others = near_people(person, better)
        if person.score > SURE or not others:
            return True
        alone = look_closely(self._body, picture, person.region, (), veil_of(others))
        return alone is not None and alone.score > ALONE[0] and same_person(alone, person) > ALONE[1]

    def _propose(self, picture: Picture, squares: Sequence[Region]) -> list[Seed]:
        bodies = [seed for square in squares for seed in self._searcher.bodies(picture, square, SUPPORT_SCORE)]
        faces = [face for square in squares for face in self._searcher.faces(picture, square, FACE_SCORE)]
        return bodies + [seed_of_face(face) for face in faces]

    def _look_again(self, picture: Picture, people: Sequence[Person]) -> list[Person]:
        return [
            look_again(self._body, picture, person, [other for other in people if other is not person])
            for person in people
        ]


def _share_inside(person: Person, box: np.ndarray) -> float:
    """Return the share of a person's confident points within a box."""
    within = ((person.points >= box[:2]) & (person.points <= box[2:])).all(-1)
    return float((person.confidence * within).sum() / max(float(person.confidence.sum()), 1e-6))


def _worth_following(seeds: Sequence[Seed]) -> list[Seed]:
    return distinct_seeds([seed for seed in seeds if seed.score >= SEED_SCORE])[:MOST_SEEDS]


def _pays_to_go_on(people: Sequence[Person], side: float, fraction: float) -> bool:
    """Return whether smaller squares may show more: nobody was found yet, or somebody small, or a group."""
    if not people or min(person.region.side for person in people) < 0.7 * side:
        return True
    return fraction >= COARSE and len(people) > 1
