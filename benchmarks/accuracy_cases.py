"""The cases of the accuracy benchmark: who stands before the camera, and what of them a detector shows the fitter."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import roma
import torch
from accuracy_poses import BODY_JOINTS, DrawnPoses
from synthetic import sample_people
from torch import Tensor

from fitkit.camera import Camera, pinhole
from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.conventions import SMPLIFYX_118, correspondence, part_of
from fitkit.models.smpl_family import SMPLFamilyModel
from fitkit.parameters import Parameters

SIZE = 1000
"""Width and height of the pictures, pixels; a person fills three quarters of it."""
FIELD_OF_VIEW = (35.0, 70.0)
"""Degrees, drawn evenly."""
LEAST_CONFIDENCE = 0.5
"""Confidences are drawn evenly from here to 1."""
_LEGS = ("hip", "knee", "ankle", "toe", "heel")
_ARM = ("elbow", "wrist", "hand", "thumb", "index", "middle", "ring", "pinky")
_EVERYTHING = tuple(range(BODY_JOINTS))
_TRUNK_AND_ARMS = (0, 3, 6, 9, *range(12, 22))


def _nothing(name: str) -> bool:
    return False


def _names_any(*parts: str) -> Callable[[str], bool]:
    return lambda name: any(part in name for part in parts)


@dataclass(frozen=True)
class Case:
    """One kind of evidence."""

    about: str
    """What is shown, for the table's legend."""
    hidden: Callable[[str], bool] = _nothing
    """Whether the detector sees nothing of a keypoint, by its name."""
    joints: tuple[int, ...] = _EVERYTHING
    """Body joints that are judged."""
    root: int = 0
    """The joint that is brought onto the true one for the root-aligned error."""
    far: bool = False
    """Whether poses are those farthest from the training clips."""
    captured_root: bool = False
    """Whether people lean, lie and tumble as they did in the capture; otherwise the pelvis is upright."""
    pitch: float = 0.15
    """Standard deviation of the camera's pitch, radians."""
    one_arm: bool = False
    """Whether one arm of each person, drawn, is hidden from the elbow on."""
    outliers: float = 0.0
    """Share of each person's shown points that lie 80 px away in a random direction, no less confident."""
    offset: float = 0.0
    """Standard deviation along x and along y of each keypoint's own offset, the same for all people of a run, as a
    share of the longer side of the person's box."""
    equal_offsets: bool = False
    """Whether each keypoint's offset is so long instead, in a direction of its own."""

    @property
    def needs_capture(self) -> bool:
        """Whether samples of a prior cannot stand in for motion capture."""
        return self.far or self.captured_root


OUTLIER_PX = 80.0
CASES: dict[str, Case] = {
    "all": Case("all 118 points"),
    "body": Case("body and feet, 25 points", hidden=lambda name: part_of(name) not in ("body", "feet")),
    "upper": Case(
        "no hips, knees, ankles, feet; judged: neck, collars, head, arms; root: neck",
        hidden=_names_any(*_LEGS),
        joints=tuple(range(12, 22)),
        root=12,
    ),
    "upper_pelvis": Case(
        "as upper, but pelvis and spine are judged, too; root: pelvis",
        hidden=_names_any(*_LEGS),
        joints=_TRUNK_AND_ARMS,
    ),
    "waist_up": Case(
        "no knees, ankles, feet; judged: hips and all above; root: pelvis",
        hidden=_names_any(*_LEGS[1:]),
        joints=(1, 2, *_TRUNK_AND_ARMS),
    ),
    "no_feet": Case("no toes and heels", hidden=lambda name: part_of(name) == "feet"),
    "no_ankles": Case("no ankles, toes and heels", hidden=_names_any("ankle", "toe", "heel")),
    "one_arm_hidden": Case("one arm hidden from the elbow on", one_arm=True),
    "outliers": Case("20 % of the points 80 px off, confident", outliers=0.2),
    "offsets": Case("an offset per keypoint, 2 % of the box along each axis", offset=0.02),
    "equal_offsets": Case(
        "an offset per keypoint, 2 % of the box long, in any direction", offset=0.02, equal_offsets=True
    ),
    "pitch": Case("camera pitch of 0.5 rad deviation", pitch=0.5),
    "far": Case("the quarter of held-out poses that is farthest from training", far=True),
    "tumbling": Case("pelvis turned as captured: leaning, lying, upside down", captured_root=True),
}
"""Every case by name."""


@dataclass(frozen=True)
class People:
    """P people before their cameras, and where their keypoints truly are."""

    parameters: Parameters
    """Leaves (P, 1, size)."""
    camera: Camera
    """The camera of each, unknown to the fitter."""
    names: tuple[str, ...]
    """K keypoints."""
    points: np.ndarray
    """(P, K, 2) pixels, free of noise."""
    pose_distance: float | None = None
    """Mean distance of the poses from training, metres, where it is known."""

    def first(self, count: int) -> People:
        """Return the first of the people."""
        rows = torch.arange(min(count, len(self.points)))
        drawn = (self.parameters.select(rows), self.camera.select(rows), self.names, self.points[:count])
        return People(*drawn, self.pose_distance)


def draw_people(model: SMPLFamilyModel, poses: DrawnPoses, case: Case, seed: int, shape: float = 1.0) -> People:
    """Return people in these poses, their shapes, hands, faces, headings and cameras drawn.

    Cases that differ in nothing of this get the very same people; a greater pitch tilts the same people more.
    """
    count = len(poses.body_pose)
    random = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=random, dtype=torch.float64)

    zero = torch.zeros(count, dtype=torch.float64)
    pitch = case.pitch * torch.randn(count, generator=random, dtype=torch.float64)
    yaw = uniform(-math.pi, math.pi)
    focal = SIZE / 2 / torch.tan(torch.deg2rad(uniform(*FIELD_OF_VIEW)) / 2)
    upright = roma.rotvec_to_rotmat(torch.tensor([math.pi, 0.0, 0.0], dtype=torch.float64))
    tilt, turn = (roma.rotvec_to_rotmat(torch.stack(axis, dim=-1)) for axis in ([pitch, zero, zero], [zero, yaw, zero]))
    orient = upright @ tilt @ turn
    if case.captured_root:
        assert poses.root is not None
        orient = orient @ poses.root
    drawn = sample_people(model, count, seed).parameters
    leaves = {"global_orient": roma.rotmat_to_rotvec(orient), "body_pose": poses.body_pose}
    leaves |= {"transl": torch.zeros(count, 3), "betas": shape * drawn["betas"][:, 0]}
    people = drawn.replace({name: leaf[:, None].to(drawn["betas"]) for name, leaf in leaves.items()})
    joints = model(people).joints[:, 0].double()
    low, high = joints.amin(1), joints.amax(1)
    depth = focal * ((high - low)[:, :2].amax(-1) + 0.3) / (0.75 * SIZE)
    place = torch.stack([zero, zero, depth], dim=-1) - (low + high) / 2
    people = people.replace({"transl": place[:, None].to(drawn["betas"])})
    camera = pinhole(focal.to(drawn["betas"]), torch.full((count, 2), float(SIZE)).to(drawn["betas"]))
    found = correspondence(SMPLIFYX_118, model.landmark_names)
    names = tuple(name for name, ok in zip(SMPLIFYX_118, found.mask, strict=True) if ok)
    landmarks = tuple(model.landmark_names[i] for i in found.indices[found.mask])
    points = camera.project(model(people).landmarks(landmarks))[:, 0].double().cpu().numpy()
    distance = None if poses.distance is None else float(poses.distance.mean())
    return People(people, camera, names, points, distance)


def observe(people: People, case: Case, noise: float, seed: int, known_focal: bool = False) -> list[Keypoints]:
    """Return what a detector would show of each person, one picture per person.

    Confidences c are drawn from 0.5 to 1, and a point's noise has the deviation noise / c, scaled so that the
    mean square over all points is noise^2 (pixels, along each axis): a detector whose confidence tells the truth.
    Without noise all confidences are 1. All cases of one seed see the same noise.
    """
    random = np.random.default_rng([seed, round(1000 * noise)])
    count, names = len(people.points), people.names
    confidence = random.uniform(LEAST_CONFIDENCE, 1.0, (count, len(names)))
    # The mean of 1/c^2 over an even draw from a to 1 is 1/a.
    deviation = noise * math.sqrt(LEAST_CONFIDENCE) / confidence
    points = people.points + deviation[..., None] * random.standard_normal(people.points.shape)
    if not noise:
        confidence = np.ones_like(confidence)
    if case.offset:
        box = np.ptp(people.points, axis=1).max(-1)
        offsets = np.random.default_rng([seed, 1]).standard_normal((len(names), 2))
        if case.equal_offsets:
            offsets /= np.linalg.norm(offsets, axis=1, keepdims=True)
        offsets *= case.offset
        points = points + box[:, None, None] * offsets
    shown = np.tile(np.array([not case.hidden(name) for name in names]), (count, 1))
    if case.one_arm:
        left = np.random.default_rng([seed, 2]).random((count, 1)) < 0.5
        arms = {
            side: np.array([side in name and _names_any(*_ARM)(name) for name in names]) for side in ("left", "right")
        }
        shown &= ~np.where(left, arms["left"], arms["right"])
    if case.outliers:
        points = _with_outliers(points, shown, case.outliers, np.random.default_rng([seed, 3]))
    confidence = np.where(shown, confidence, 0.0)
    focal = people.camera.focal_length[:, 0, 0].tolist() if known_focal else [None] * count
    return [
        Keypoints(names, one[None], sure[None], (SIZE, SIZE), focal_length=length)
        for one, sure, length in zip(points, confidence, focal, strict=True)
    ]


def _with_outliers(points: np.ndarray, shown: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Return the points (P, K, 2) with the given share of each person's shown ones moved far away."""
    order = np.where(shown, random.random(shown.shape), np.inf).argsort(axis=1).argsort(axis=1)
    moved = order < np.round(share * shown.sum(1, keepdims=True))
    angle = random.uniform(-math.pi, math.pi, shown.shape)
    away = OUTLIER_PX * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return points + moved[..., None] * away
