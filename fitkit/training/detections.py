"""What a detector makes of people: conventions, noise, confidence, hidden parts, outliers, swaps, habits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fitkit.camera import focal_from_field_of_view
from fitkit.keypoints.conventions import (
    BLAZEPOSE_33,
    BODY_25,
    COCO_17,
    COCO_WHOLEBODY_133,
    FACE_68,
    HALPE_26,
    HALPE_136,
    HAND_LEFT,
    HAND_RIGHT,
    OPENPOSE_137,
    SMPLIFYX_118,
    mirror_index,
    part_of,
)
from fitkit.regression.crop import GUESSED_FIELD_OF_VIEW, VOCABULARY, View
from fitkit.training.synthetic_people import SyntheticPeople

_SETS = (
    (0.40, SMPLIFYX_118),
    (0.12, BODY_25),
    (0.04, COCO_17),
    (0.09, COCO_WHOLEBODY_133),
    (0.08, OPENPOSE_137),
    (0.02, HALPE_26),
    (0.04, HALPE_136),
    (0.17, (*BLAZEPOSE_33, *HAND_LEFT, *HAND_RIGHT, *FACE_68)),
    (0.04, VOCABULARY),
)
"""Shares of conventions, and their points."""
_LEGS = ("knee", "ankle", "toe", "heel", "foot")


@dataclass(frozen=True)
class Detector:
    """Chances and sizes of a detector's errors; sizes are shares of the person's box."""

    clean: float = 0.5
    """Share of people without noise, outliers or habits, but for a tenth of the usual noise."""
    noise: tuple[float, float] = (0.001, 0.015)
    """Least and greatest standard deviation of a confident point, drawn evenly in its logarithm."""
    habit: float = 0.03
    """Greatest deviation of what a detector always adds to a point; half of the detectors have none."""
    outliers: float = 0.25
    """Greatest share of points that lie elsewhere."""
    wrong: float = 0.3
    """Share of people with such points."""
    reach: tuple[float, float] = (0.05, 0.35)
    """How far they lie off, standard deviation."""
    swaps: float = 0.03
    """Share of people with left and right exchanged in a part."""

    def __call__(self, people: SyntheticPeople, random: torch.Generator) -> View:
        """Return what is seen of the people; for seven in ten the focal length is not known."""
        count = len(people.points)

        def chance(share: float) -> Bool[Tensor, "M 1"]:
            return torch.rand(count, 1, generator=random) < share

        box = (people.points.amax(1) - people.points.amin(1)).amax(-1)[:, None]
        dirty = ~chance(self.clean)
        points, confidence = self._noisy(people.points, box, dirty, random)
        points = torch.where((chance(self.swaps) & dirty)[..., None], _swapped(points, random), points)
        seen = _shown(count, random) & _unhidden(people.points, random)
        inside = ((people.points >= 0) & (people.points <= people.image_size[:, None])).all(-1)
        seen &= inside | chance(0.25)
        # Nobody is left without a body.
        few = (seen & _BODY).sum(1, keepdim=True) < 5
        seen |= few & inside & _BODY
        known = chance(0.3)[:, 0]
        focal = focal_from_field_of_view(GUESSED_FIELD_OF_VIEW, 1.0) * people.image_size.amax(-1)
        scale = torch.where(known, 1.0, focal / people.intrinsics[:, 0, 0])
        intrinsics = people.intrinsics.clone()
        intrinsics[:, :2, :2] *= scale[:, None, None]
        return View(points, torch.where(seen, confidence, 0.0), intrinsics, people.image_size, known)

    def _noisy(
        self,
        points: Float[Tensor, "M V 2"],
        box: Float[Tensor, "M 1"],
        dirty: Bool[Tensor, "M 1"],
        random: torch.Generator,
    ) -> tuple[Float[Tensor, "M V 2"], Float[Tensor, "M V"]]:
        """Return points with noise, habits and outliers, and the confidence that goes with the noise."""
        count, number = points.shape[:2]

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=random)

        low, high = self.noise
        size = low * (high / low) ** uniform(count, 1)
        telling = uniform(count, 1) < 0.6
        confidence = torch.where(telling, (1.15 - 0.95 * uniform(count, number) ** 2).clamp(0.1, 1.0), 1.0)
        # A detector that is half sure errs three times as far.
        deviation = size * (1 + 4 * (1 - confidence)) * torch.where(dirty, 1.0, 0.1)
        habit = self.habit * (2 * uniform(count, 1) - 1).clamp_min(0) * dirty
        wrong = uniform(count, number) < self.outliers * uniform(count, 1)
        wrong &= (uniform(count, 1) < self.wrong) & dirty
        near, far = self.reach
        thrown = (near + (far - near) * uniform(count, 1)) * wrong
        unsure = torch.where(uniform(count, 1) < 0.5, 0.5 * uniform(count, number), 1.0)
        confidence = torch.where(wrong, (confidence * unsure).clamp_min(0.05), confidence)
        total = (deviation.square() + habit.square() + thrown.square()).sqrt()
        noise = torch.randn(points.shape, generator=random) * (total * box)[..., None]
        return points + noise, confidence


_BODY = torch.tensor([part_of(name) in ("body", "feet") for name in VOCABULARY])
_MIRRORED = torch.as_tensor(mirror_index(VOCABULARY))


def _members(*stems: str) -> Bool[Tensor, " V"]:
    return torch.tensor(
        [any(stem in name for stem in stems) and part_of(name) in ("body", "feet") for name in VOCABULARY]
    )


def _of_parts(*parts: str) -> Bool[Tensor, " V"]:
    return torch.tensor([part_of(name) in parts for name in VOCABULARY])


def _side(side: str, *stems: str) -> Bool[Tensor, " V"]:
    hand = _of_parts(f"{side}_hand")
    return hand | torch.tensor(
        [name.startswith(f"{side}_") and any(stem in name for stem in stems) for name in VOCABULARY]
    )


_ARM = ("elbow", "wrist", "hand", "pinky", "index", "thumb", "middle", "ring")
_HIDDEN = (
    (0.22, _of_parts("left_hand")),
    (0.22, _of_parts("right_hand")),
    (0.20, _of_parts("face", "contour")),
    (0.14, _members("toe", "heel", "foot")),
    (0.05, _members("toe", "heel", "foot", "ankle")),
    (0.05, _members("knee", "toe", "heel", "foot", "ankle")),
    (0.09, _members("hip", *_LEGS)),
    (0.05, _side("left", *_ARM)),
    (0.05, _side("right", *_ARM)),
    (0.02, _side("left", *_LEGS) & ~_of_parts("left_hand")),
    (0.02, _side("right", *_LEGS) & ~_of_parts("right_hand")),
    (0.04, _members("nose", "eye", "ear", "mouth") | _of_parts("face", "contour")),
)
"""Chance that a group of points is missing, and the group."""
_SWAPPED = (_BODY & _members("shoulder", "elbow", "wrist"), _BODY & _members("hip", *_LEGS), _BODY | True)
"""Groups of points whose sides a detector confuses: arms, legs, everything."""


def _shown(count: int, random: torch.Generator) -> Bool[Tensor, "M V"]:
    """Return which points a convention has, less the groups and single points that are missing."""
    shares = torch.tensor([share for share, _ in _SETS])
    masks = torch.tensor([[name in names for name in VOCABULARY] for _, names in _SETS])
    shown = masks[torch.multinomial(shares, count, replacement=True, generator=random)]
    whole = torch.rand(count, 1, generator=random) < 0.5
    for share, group in _HIDDEN:
        shown &= ~(group & (torch.rand(count, 1, generator=random) < share)) | whole
    some = torch.rand(count, 1, generator=random) < 0.3
    dropped = torch.rand(count, len(VOCABULARY), generator=random) < 0.3 * torch.rand(count, 1, generator=random)
    return shown & ~(some & dropped)


def _unhidden(points: Float[Tensor, "M V 2"], random: torch.Generator) -> Bool[Tensor, "M V"]:
    """Return which points no thing stands before: one person in seven is partly behind a box."""
    count = len(points)
    low, high = points.amin(1), points.amax(1)
    centre = low + (high - low) * torch.rand(count, 2, generator=random)
    half = (high - low) * (0.1 + 0.25 * torch.rand(count, 2, generator=random))
    covered = ((points - centre[:, None]).abs() < half[:, None]).all(-1)
    return ~(covered & (torch.rand(count, 1, generator=random) < 0.15))


def _swapped(points: Float[Tensor, "M V 2"], random: torch.Generator) -> Float[Tensor, "M V 2"]:
    """Return the points with left and right exchanged in one group of each person."""
    groups = torch.stack(_SWAPPED)[torch.randint(len(_SWAPPED), (len(points),), generator=random)]
    return torch.where(groups[..., None], points[:, _MIRRORED], points)
