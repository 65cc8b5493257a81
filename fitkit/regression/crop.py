"""Keypoints as the network sees them: by name, in the person's own box, as from a camera turned towards it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fitkit.keypoints.conventions import (
    ALIASES,
    BLAZEPOSE_33,
    FACE_70,
    HALPE_26,
    SMPLIFYX_118,
    part_of,
)

VOCABULARY: tuple[str, ...] = tuple(dict.fromkeys((*SMPLIFYX_118, *FACE_70, *HALPE_26, *BLAZEPOSE_33)))
"""V keypoint names that the network knows; others are seen through their stand-ins, or not at all."""
_FOOT = ("ankle", "heel", "big_toe", "small_toe", "foot_index")
CLOSE_UPS: tuple[tuple[int, ...], ...] = (
    *(tuple(k for k, name in enumerate(VOCABULARY) if part_of(name) == f"{side}_hand") for side in ("left", "right")),
    tuple(k for k, name in enumerate(VOCABULARY) if part_of(name) in ("face", "contour")),
    *(tuple(VOCABULARY.index(f"{side}_{name}") for name in _FOOT) for side in ("left", "right")),
)
"""Groups of points that are also shown enlarged: what fingers do is lost in a box as large as the person."""
INPUTS = 3 * len(VOCABULARY) + 9 + sum(2 * len(group) + 1 for group in CLOSE_UPS)
"""Numbers that the network reads: x, y, confidence of every keypoint; where and how large the box is, the picture's
borders, the focal length and whether it is known; then each close-up and its size."""
GUESSED_FIELD_OF_VIEW = math.radians(50.0)
"""Along the longer side of the picture, radians: what people are turned by while the focal length is not known."""
_BOX_PARTS = ("body", "feet")
_FAR = 4.5
"""Median absolute deviations from the median beyond which a point does not widen the box."""
_LEAST = 1e-3


@dataclass(frozen=True)
class View:
    """M people's keypoints in pixels, and the cameras that see them."""

    points: Float[Tensor, "M V 2"]
    """Pixels, in the order of `VOCABULARY`."""
    confidence: Float[Tensor, "M V"]
    """0 to 1; 0 for unseen."""
    intrinsics: Float[Tensor, "M 3 3"]
    """K; where the focal length is not known, that of `GUESSED_FIELD_OF_VIEW`."""
    image_size: Float[Tensor, "M 2"]
    """Width and height, pixels."""
    focal_known: Bool[Tensor, " M"]
    """Whether the focal length in K is known."""


@dataclass(frozen=True)
class Crop:
    """The same people, each in a box of its own."""

    inputs: Float[Tensor, "M I"]
    """What the network reads, see `INPUTS`."""
    centre: Float[Tensor, "M 2"]
    """The box's centre, pixels."""
    size: Float[Tensor, "M 1"]
    """The box's longer side, pixels."""
    R_camera_crop: Float[Tensor, "M 3 3"]
    """Rotation from the axes of a camera that looks at the box's centre to those of the picture's."""


def placed(names: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return indices of keypoints and the places in `VOCABULARY` that they take, by name or stand-in."""
    place = {name: number for number, name in enumerate(VOCABULARY)}
    taken: dict[int, int] = {}
    for stand_in in (False, True):
        for k, name in enumerate(names):
            choices = [name] if not stand_in else [other for other in ALIASES.get(name, ()) if name not in place]
            for choice in choices:
                if choice in place and place[choice] not in taken:
                    taken[place[choice]] = k
                    break
    return list(taken.values()), list(taken)


def crop(view: View) -> Crop:
    """Return the people in their boxes, rotated to the middle of the view.

    A person beside the picture's centre is seen from the side; turned by the viewing ray, all are seen alike.
    """
    seen = view.confidence > 0
    centre, size = _box(view.points, seen)
    focal = torch.stack([view.intrinsics[:, 0, 0], view.intrinsics[:, 1, 1]], dim=-1)
    principal = view.intrinsics[:, :2, 2]
    ray = (centre - principal) / focal
    R_camera_crop = _towards(ray)
    flat = (view.points - principal[:, None]) / focal[:, None]
    rays = torch.cat([flat, torch.ones_like(flat[..., :1])], dim=-1) @ R_camera_crop
    extent = size / focal[:, :1]
    # A point a right angle or more off the box's ray is an outlier, and unseen.
    ahead = seen & (rays[..., 2] > 0.1)
    within = 2 * rays[..., :2] / rays[..., 2:].clamp_min(0.1) / extent[:, None]
    within = torch.where(ahead[..., None], within.clamp(-6, 6), 0.0)
    confidence = torch.where(ahead, view.confidence, 0.0)
    longer = view.image_size.amax(-1, keepdim=True)
    guess = torch.where(view.focal_known[:, None], torch.log(focal[:, :1] / longer), 0.0)
    borders = torch.cat([centre / size, (view.image_size - centre) / size], dim=-1).clamp(-1, 2)
    further = [ray, torch.log(size / focal[:, :1]), borders, guess, view.focal_known[:, None].to(guess)]
    close = [_close_up(within[:, group], confidence[:, group] > 0) for group in CLOSE_UPS]
    inputs = torch.cat([within.flatten(1), confidence, *further, *close], dim=1)
    return Crop(inputs, centre, size, R_camera_crop)


def _close_up(points: Float[Tensor, "M P 2"], seen: Bool[Tensor, "M P"]) -> Float[Tensor, "M _"]:
    """Return points about their own mean in units of their spread, and its logarithm; zeros for fewer than three."""
    count = seen.sum(1, keepdim=True)
    shown = seen[..., None].to(points)
    middle = (points * shown).sum(1, keepdim=True) / count[..., None].clamp_min(1)
    apart = (points - middle) * shown
    spread = (apart.square().sum((1, 2)) / count[:, 0].clamp_min(1)).sqrt()[:, None].clamp_min(_LEAST)
    enough = (count > 2).to(points)
    enlarged = (apart / spread[..., None]).clamp(-4, 4).flatten(1)
    return torch.cat([enlarged, torch.log(spread)], dim=1) * enough


def _box(points: Float[Tensor, "M V 2"], seen: Bool[Tensor, "M V"]) -> tuple[Tensor, Tensor]:
    """Return the centre (M, 2) and longer side (M, 1) of the seen points' box, in pixels.

    Body and feet make the box wherever three of their points are seen: the many points of face and hands would hide
    what is an outlier.
    """
    body = [k for k, name in enumerate(VOCABULARY) if part_of(name) in _BOX_PARTS]
    few, some = seen[:, body].sum(1) < 3, _extent(points[:, body], seen[:, body])
    if not bool(few.any()):
        return some
    every = _extent(points, seen)
    return torch.where(few[:, None], every[0], some[0]), torch.where(few[:, None], every[1], some[1])


def _extent(points: Float[Tensor, "M P 2"], seen: Bool[Tensor, "M P"]) -> tuple[Tensor, Tensor]:
    """Return the centre (M, 2) and longer side (M, 1) of the box of seen points, far ones drawn near."""
    used = seen[..., None]
    median = torch.where(used, points, torch.nan).nanmedian(dim=1, keepdim=True).values
    spread = torch.where(used, (points - median).abs(), torch.nan).nanmedian(dim=1, keepdim=True).values
    reach = (_FAR * spread.amax(-1, keepdim=True)).clamp_min(_LEAST)
    near = torch.minimum(torch.maximum(points, median - reach), median + reach)
    low = torch.where(used, near, torch.inf).amin(1)
    high = torch.where(used, near, -torch.inf).amax(1)
    centre, size = (low + high) / 2, (high - low).amax(-1, keepdim=True)
    usable = torch.isfinite(size) & (size > _LEAST)
    return torch.where(torch.isfinite(centre), centre, 0.0), torch.where(usable, size, 1.0)


def _towards(ray: Float[Tensor, "M 2"]) -> Float[Tensor, "M 3 3"]:
    """Return the smallest rotation that takes the z axis to the ray (x, y, 1)."""
    unit = torch.nn.functional.normalize(torch.cat([ray, torch.ones_like(ray[:, :1])], dim=-1), dim=-1)
    x, y, z = unit.unbind(-1)
    over = 1 / (1 + z)
    rows = [1 - x * x * over, -x * y * over, x, -x * y * over, 1 - y * y * over, y, -x, -y, z]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
