"""The embedded whole-body detector: MediaPipe's networks, chained so that they see several people."""

from __future__ import annotations

import numpy as np

from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.conventions import MEDIAPIPE_HOLISTIC
from fitkit.keypoints.detectors.faces import Face, read_face, region_from_body, region_of_face
from fitkit.keypoints.detectors.hands import Hand, hand_search_region, read_hand, recrop, region_of_hand
from fitkit.keypoints.detectors.masks import paint_mask
from fitkit.keypoints.detectors.networks import load_networks
from fitkit.keypoints.detectors.people import (
    ONE_HEAD,
    Person,
    choose_people,
    explains,
    look_again,
    look_closely,
    veil_of,
)
from fitkit.keypoints.detectors.pose import REGION_SCALE
from fitkit.keypoints.detectors.regions import Picture, Region
from fitkit.keypoints.detectors.search import Searcher, Seed, distinct_seeds, same_place, seed_of_face, tiles
from fitkit.keypoints.detectors.tflite import Network

SCALES = (1.5, 1.0, 0.5, 0.35, 0.25)
"""Sides of the squares in which people are looked for, over the picture's longer side."""
COARSE = 0.5
"""Smaller squares are looked at only when they may show more."""
SMALLEST_TILE = 150.0
"""Pixels; smaller squares would only be blown up."""
MOST_SEEDS = 24
"""Proposals followed at each scale, best first."""
SURE = 0.9
"""Score of people from which proposals that may be of them are not followed."""
LATE_SCORE = 0.8
"""Least score of people who show themselves only when others are hidden."""
LEAST_SCORE = 0.6
"""Least score of the people returned."""
SEED_SCORE, FACE_SCORE = 0.35, 0.5
"""Least scores of proposals; what they are worth is judged later."""
WRISTS = {"left": (15, 19, 17), "right": (16, 20, 18)}
"""Wrist, index and pinky of each side in the body's 33 points."""


class MediaPipeDetector:
    """Finds the people in a picture: body, hands, face, mask."""

    def __init__(self, num_threads: int = 2, masks: bool = True) -> None:
        """Build the networks, fetching their files where they are missing.

        Args:
            num_threads: threads of each network.
            masks: also say which pixels belong to each person.
        """
        contents = load_networks()
        self._masks = masks
        low = {"pose_detection": -1.0, "face_detection": -1.0}
        self._networks = {name: Network(content, num_threads, low.get(name, 0.0)) for name, content in contents.items()}
        self._searcher = Searcher(self._networks["pose_detection"], self._networks["face_detection"])

    def detect(self, pixels: np.ndarray, boxes: np.ndarray | None = None) -> Keypoints:
        """Return the people in a picture, best first, in the convention MEDIAPIPE_HOLISTIC.

        Args:
            pixels: (H, W, 3) uint8 RGB, upright.
            boxes: (P, 4) x0, y0, x1, y1 in pixels of people found by another detector, instead of looking for them.
        """
        picture = Picture(pixels)
        if boxes is not None:
            regions = [_region_of_box(box) for box in np.asarray(boxes, dtype=float).reshape(-1, 4)]
            looks = [look_closely(self._networks["pose_landmark"], picture, region) for region in regions]
            return self._assemble(picture, [person for person in looks if person is not None])
        return self._assemble(picture, self._find_people(picture))

    def _find_people(self, picture: Picture) -> list[Person]:
        network = self._networks["pose_landmark"]
        people: list[Person] = []
        seen: list[Seed] = []
        for fraction in SCALES:
            squares = tiles(picture, fraction)
            if squares[0].side < SMALLEST_TILE:
                break
            for seed in self._seeds(picture, squares):
                if any(same_place(seed.region, other.region) for other in seen):
                    continue
                seen.append(seed)
                if any(person.score > SURE and explains(person, seed) for person in people):
                    continue
                person = look_closely(network, picture, seed.region, people)
                if person is not None:
                    people.append(person)
            if fraction <= COARSE and not self._pays_to_go_on(choose_people(people), squares[0].side, fraction):
                break
        return self._settle(picture, choose_people(people), seen)

    def _seeds(self, picture: Picture, squares: list[Region]) -> list[Seed]:
        seeds = [seed for square in squares for seed in self._searcher.bodies(picture, square, SEED_SCORE)]
        faces = [face for square in squares for face in self._searcher.faces(picture, square, FACE_SCORE)]
        return distinct_seeds(seeds + [seed_of_face(face) for face in faces])[:MOST_SEEDS]

    def _settle(self, picture: Picture, people: list[Person], seeds: list[Seed]) -> list[Person]:
        """Return the people seen each with the others hidden, and those who show themselves only then."""
        network = self._networks["pose_landmark"]
        if not people:
            return []
        people = self._look_again(picture, people)
        for seed in distinct_seeds(seeds + self._hidden_seeds(picture, people)):
            if any(_shows(person, seed) for person in people):
                continue
            person = look_closely(network, picture, seed.region, people, veil_of(people))
            if person is not None and person.score > LATE_SCORE:
                people = choose_people([*people, person])
        return choose_people(self._look_again(picture, people), least=LEAST_SCORE)

    def _hidden_seeds(self, picture: Picture, people: list[Person]) -> list[Seed]:
        """Return proposals that show themselves when the people already found are hidden."""
        squares = [square for scale in (1.0, COARSE)[: len(people)] for square in tiles(picture, scale)]
        veil = veil_of(people)
        return [seed for square in squares for seed in self._searcher.bodies(picture, square, SEED_SCORE, veil)]

    def _look_again(self, picture: Picture, people: list[Person]) -> list[Person]:
        network = self._networks["pose_landmark"]
        return [
            look_again(network, picture, person, [other for other in people if other is not person])
            for person in people
        ]

    @staticmethod
    def _pays_to_go_on(people: list[Person], side: float, fraction: float) -> bool:
        """Return whether smaller squares may show more: nobody was found yet, or somebody small, or a group."""
        if not people or min(person.region.side for person in people) < 0.7 * side:
            return True
        return fraction >= COARSE and len(people) > 1

    def _assemble(self, picture: Picture, poses: list[Person]) -> Keypoints:
        count, names = len(poses), MEDIAPIPE_HOLISTIC
        points = np.zeros((count, len(names), 2))
        confidence = np.zeros((count, len(names)))
        world = np.full((count, len(names), 3), np.nan)
        masks = np.zeros((count, picture.height, picture.width), bool) if self._masks else None
        size = np.array([picture.width, picture.height])
        for i, pose in enumerate(poses):
            points[i, :33], world[i, :33] = pose.points, pose.world
            confidence[i, :33] = pose.confidence
            for start, side in ((33, "left"), (54, "right")):
                hand = self._hand(picture, pose, side)
                points[i, start : start + 21] = hand.points
                world[i, start : start + 21] = hand.world + pose.world[WRISTS[side][0]]
                sure = hand.flag * confidence[i, WRISTS[side][0]] if hand.flag > 0.5 else 0.0
                confidence[i, start : start + 21] = sure
            face = self._face(picture, pose)
            points[i, 75:] = face.points
            confidence[i, 75:] = face.flag if face.flag > 0.5 else 0.0
            if masks is not None:
                paint_mask(masks[i], pose.mask, pose.region)
        inside = ((points >= 0) & (points <= size)).all(-1)
        confidence = np.where(inside, 0.99 * confidence, 0.0)
        return Keypoints(
            names=names,
            points=points,
            confidence=confidence,
            image_size=(picture.width, picture.height),
            scores=np.array([pose.score for pose in poses]),
            boxes=np.array([_box(points[i], confidence[i], size) for i in range(count)]).reshape(count, 4),
            world=world,
            masks=masks,
        )

    def _hand(self, picture: Picture, pose: Person, side: str) -> Hand:
        wrist, index, pinky = pose.points[list(WRISTS[side])]
        region = recrop(self._networks["hand_recrop"], picture, hand_search_region(wrist, index, pinky))
        first = read_hand(self._networks["hand_landmark"], picture, region)
        return read_hand(self._networks["hand_landmark"], picture, region_of_hand(first.points))

    def _face(self, picture: Picture, pose: Person) -> Face:
        first = read_face(self._networks["face_landmark"], picture, region_from_body(pose.points))
        return read_face(self._networks["face_landmark"], picture, region_of_face(first.points))


def _shows(person: Person, seed: Seed) -> bool:
    """Return whether the head of a proposal is a person's head."""
    return bool(np.hypot(*(person.head - seed.head)) < ONE_HEAD * min(person.region.side, seed.region.side))


def _region_of_box(box: np.ndarray) -> Region:
    side = float(max(box[2] - box[0], box[3] - box[1]))
    return Region((float(box[0] + box[2]) / 2.0, float(box[1] + box[3]) / 2.0), side * REGION_SCALE)


def _box(points: np.ndarray, confidence: np.ndarray, size: np.ndarray) -> np.ndarray:
    seen = points[confidence > 0.3] if (confidence > 0.3).any() else points
    return np.concatenate([np.clip(seen.min(0), 0, size), np.clip(seen.max(0), 0, size)])
