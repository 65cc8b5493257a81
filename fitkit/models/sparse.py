"""Landmarks without the mesh: each is folded into a few points that move rigidly with one joint each.

A landmark is a fixed mixture of vertices, a vertex a fixed mixture of joints' rigid motions of a point that is linear
in the shape, so a landmark is a sum over joints j of R_j P_j(shape) + w_j t_j, exactly. The P_j are mixed once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class LandmarkPlan:
    """What K landmarks need of the posed joints: Q pairs of a landmark and a joint that moves it."""

    landmarks: int
    """K."""
    pair_landmark: Int[Tensor, " Q"]
    """Landmark of each pair."""
    pair_joint: Int[Tensor, " Q"]
    """Joint of each pair."""
    share: Float[Tensor, " Q"]
    """w: the joint's share in the landmark; a landmark's shares sum to 1."""
    template: Float[Tensor, "Q 3"]
    """P at the mean shape, in the joint's frame, metres."""
    directions: Float[Tensor, "Q 3 S"]
    """Change of P with each shape and expression coefficient."""
    pose_directions: Float[Tensor, "Q 3 R"] | None
    """Change of P with the pose corrective features; None where the model has none."""

    def points(self, shape: Float[Tensor, "M S"], pose_feature: Float[Tensor, "M R"] | None) -> Float[Tensor, "M Q 3"]:
        """Return P of each pair, in its joint's frame, metres."""
        pairs = len(self.template)
        points = torch.addmm(self.template.reshape(1, -1), shape, self.directions.flatten(0, 1).T)
        if self.pose_directions is not None and pose_feature is not None:
            points = points + pose_feature @ self.pose_directions.flatten(0, 1).T
        return points.view(shape.shape[0], pairs, 3)

    def placed(
        self,
        points: Float[Tensor, "M Q 3"],
        rotations: Float[Tensor, "M J 3 3"],
        positions: Float[Tensor, "M J 3"],
    ) -> Float[Tensor, "M Q 3"]:
        """Return each pair's contribution to its landmark: R P + w t, metres."""
        turned = (rotations.index_select(1, self.pair_joint) @ points[..., None])[..., 0]
        return turned.addcmul(self.share[:, None], positions.index_select(1, self.pair_joint))

    def gathered(self, values: Float[Tensor, "M Q ..."]) -> Float[Tensor, "M K ..."]:
        """Return the sum of the pairs' values over each landmark's pairs."""
        total = values.new_zeros(len(values), self.landmarks, *values.shape[2:])
        return total.index_add(1, self.pair_landmark, values)


@dataclass(frozen=True)
class SkinnedShape:
    """A model's linear shape with its skinning: what a plan is folded from."""

    v_template: Float[Tensor, "V 3"]
    """Mean vertices, metres."""
    shapedirs: Float[Tensor, "V 3 S"]
    """Shape and expression directions."""
    posedirs: Float[Tensor, "V 3 R"] | None
    """Pose corrective directions; None where the model has none."""
    weights: Float[Tensor, "V J"]
    """Skinning weights."""
    J_template: Float[Tensor, "J 3"]
    """Mean joints, metres."""
    J_shapedirs: Float[Tensor, "J 3 S"]
    """Change of the joints with each coefficient."""


def fold(shape: SkinnedShape, landmarks: list[tuple[Int[Tensor, " _"], Float[Tensor, " _"]] | int]) -> LandmarkPlan:
    """Return the plan of landmarks given as (vertex indices, weights) or as a joint's index."""
    none = shape.weights.new_zeros
    owners: list[int] = []
    # Each begins with nothing, so that the plan of no landmarks has its shapes too.
    joints, shares = [torch.zeros(0, dtype=torch.long, device=shape.weights.device)], [none(0)]
    template, directions = [none(0, 3)], [none(0, *shape.shapedirs.shape[1:])]
    pose_directions = [] if shape.posedirs is None else [none(0, *shape.posedirs.shape[1:])]
    for k, landmark in enumerate(landmarks):
        if isinstance(landmark, int):
            active, mixing = torch.tensor([landmark], device=shape.weights.device), none(1, 0)
            indices, share = active[:0], none(1) + 1
            moved = none(1, *shape.shapedirs.shape[1:])
            template.append(none(1, 3))
        else:
            indices, weights = landmark
            mixing = weights[:, None] * shape.weights[indices]
            active = (mixing.abs().sum(0) > 0).nonzero()[:, 0]
            mixing = mixing[:, active].T
            share = mixing.sum(1)
            template.append(mixing @ shape.v_template[indices] - share[:, None] * shape.J_template[active])
            moved = torch.einsum("jn,nds->jds", mixing, shape.shapedirs[indices])
            moved = moved - share[:, None, None] * shape.J_shapedirs[active]
        owners += [k] * len(active)
        joints.append(active)
        shares.append(share)
        directions.append(moved)
        if shape.posedirs is not None:
            pose_directions.append(torch.einsum("jn,ndr->jdr", mixing, shape.posedirs[indices]))
    return LandmarkPlan(
        landmarks=len(landmarks),
        pair_landmark=torch.tensor(owners, dtype=torch.long, device=shape.weights.device),
        pair_joint=torch.cat(joints),
        share=torch.cat(shares),
        template=torch.cat(template),
        directions=torch.cat(directions),
        pose_directions=torch.cat(pose_directions) if pose_directions else None,
    )
