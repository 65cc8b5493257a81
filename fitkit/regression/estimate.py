"""What the network says of people, brought into camera axes and averaged with what it says of their mirror images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.keypoints.conventions import mirror_index
from fitkit.priors import mirror
from fitkit.regression.crop import VOCABULARY, View, crop
from fitkit.regression.network import BODY_PARENTS, JOINTS, KeypointNetwork, relative, rotations_of

_BODY = 3 * (JOINTS - 1)


@dataclass(frozen=True)
class Estimate:
    """Predictions for M people, C hypotheses of the pose for each."""

    rotations: Float[Tensor, "M C 22 3 3"]
    """Pelvis in camera axes, and body joints relative to their parents; the mean first."""
    likelihood: Float[Tensor, "M C"]
    """How likely each hypothesis is the nearest to the truth."""
    betas: Float[Tensor, "M S"]
    """Shape coefficients."""
    hands: Float[Tensor, "M 2 H"]
    """Left and right hand's coefficients, in their own deviations."""
    jaw: Float[Tensor, "M 3"]
    """Axis-angle, radians."""
    expression: Float[Tensor, "M E"]
    """Coefficients."""
    root: Float[Tensor, "M 2"]
    """Pelvis joint, pixels."""
    log_metres_per_pixel: Float[Tensor, "M 1"]
    """At the pelvis: logarithm of its depth over the focal length."""
    log_focal: Float[Tensor, "M 1"]
    """Logarithm of the focal length over the one in K."""
    log_deviations: Float[Tensor, "M D"]
    """Logarithm of the standard deviation of each value: of all joints' rotations (crop axes), betas, hands, log focal
    length."""
    R_camera_crop: Float[Tensor, "M 3 3"]
    """Rotation from the axes of a camera that looks at the person to those of the picture's."""


def estimate(network: KeypointNetwork, view: View, mirrored: bool = True) -> Estimate:
    """Return what the network says of people: if wanted the mean with what it says of their mirror images.

    Further hypotheses, expression and likelihoods are those of the people as they are.
    """
    direct = _single(network, view)
    if not mirrored:
        return direct
    other = unflipped(_single(network, flipped(view)), view.image_size)
    # The mean of two rotations' matrices, made orthonormal, is the rotation half-way.
    columns = (direct.rotations[:, 0] + other.rotations[:, 0])[..., :2].mT.flatten(-2)
    mean = rotations_of(columns.flatten(1))
    return Estimate(
        torch.cat([mean[:, None], direct.rotations[:, 1:]], dim=1),
        direct.likelihood,
        (direct.betas + other.betas) / 2,
        (direct.hands + other.hands) / 2,
        (direct.jaw + other.jaw) / 2,
        direct.expression,
        (direct.root + other.root) / 2,
        (direct.log_metres_per_pixel + other.log_metres_per_pixel) / 2,
        (direct.log_focal + other.log_focal) / 2,
        (direct.log_deviations + other.log_deviations) / 2,
        direct.R_camera_crop,
    )


def _single(network: KeypointNetwork, view: View) -> Estimate:
    box = crop(view)
    outputs = network(box.inputs)
    pose = torch.cat([outputs["rotations"], outputs["alternatives"]], dim=1)
    rotations = relative(rotations_of(pose).unflatten(1, (-1, JOINTS)), BODY_PARENTS)
    pelvis = box.R_camera_crop[:, None, None] @ rotations[:, :, :1]
    return Estimate(
        torch.cat([pelvis, rotations[:, :, 1:]], dim=2),
        outputs["likelihoods"].softmax(1),
        outputs["betas"],
        outputs["hands"].unflatten(1, (2, -1)),
        outputs["jaw"],
        outputs["expression"],
        box.centre + outputs["root"] * box.size,
        outputs["log_extent"] - torch.log(box.size),
        outputs["log_focal"],
        outputs["log_deviations"],
        box.R_camera_crop,
    )


def flipped(view: View) -> View:
    """Return what a mirror shows."""
    order = torch.as_tensor(mirror_index(VOCABULARY), device=view.points.device)
    width = view.image_size[:, 0]
    points = view.points[:, order]
    points = torch.stack([width[:, None] - points[..., 0], points[..., 1]], dim=-1)
    intrinsics = view.intrinsics.clone()
    intrinsics[:, 0, 2] = width - intrinsics[:, 0, 2]
    return View(points, view.confidence[:, order], intrinsics, view.image_size, view.focal_known)


def unflipped(seen: Estimate, image_size: Float[Tensor, "M 2"]) -> Estimate:
    """Return an estimate of mirror images as one of the people themselves."""
    rotations = seen.rotations
    sign = rotations.new_tensor([-1.0, 1.0, 1.0])
    order = mirror.mirrored(torch.arange(1.0, JOINTS).repeat_interleave(3)).abs()[::3].long().to(rotations.device)
    order = torch.cat([order.new_zeros(1), order])
    root = torch.stack([image_size[:, 0] - seen.root[:, 0], seen.root[:, 1]], dim=-1)
    pelvis, body, betas, hands, focal = seen.log_deviations.split(
        [3, _BODY, seen.betas.shape[1], seen.hands[0].numel(), 1], dim=1
    )
    body = body.unflatten(1, (-1, 3))[:, order[1:] - 1].flatten(1)
    hands = hands.unflatten(1, (2, -1)).flip(1).flatten(1)
    return Estimate(
        (sign[:, None] * rotations * sign)[:, :, order],
        seen.likelihood,
        seen.betas,
        seen.hands.flip(1),
        seen.jaw * seen.jaw.new_tensor([1.0, -1.0, -1.0]),
        seen.expression,
        root,
        seen.log_metres_per_pixel,
        seen.log_focal,
        torch.cat([pelvis, body, betas, hands, focal], dim=1),
        sign[:, None] * seen.R_camera_crop * sign,
    )
