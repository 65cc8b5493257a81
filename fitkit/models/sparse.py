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

    pair_joint: Int[Tensor, " Q"]
    """Joint of each pair."""
    gather: Float[Tensor, "K Q"]
    """1 where a pair belongs to a landmark."""
    joint_share: Float[Tensor, "K J"]
    """w: the share of each joint in each landmark; rows sum to 1."""
    template: Float[Tensor, "Q 3"]
    """P at the mean shape, in the joint's frame, metres."""
    directions: Float[Tensor, "Q 3 S"]
    """Change of P with each shape and expression coefficient."""
    pose_directions: Float[Tensor, "Q 3 R"] | None
    """Change of P with the pose corrective features; None where the model has none."""

    def evaluate(
        self,
        shape: Float[Tensor, "M S"],
        rotations: Float[Tensor, "M J 3 3"],
        positions: Float[Tensor, "M J 3"],
        pose_feature: Float[Tensor, "M R"] | None,
    ) -> Float[Tensor, "M K 3"]:
        """Return the landmarks, metres, of bodies whose joints stand at these global rotations and positions."""
        pairs = len(self.template)
        points = torch.addmm(self.template.reshape(1, -1), shape, self.directions.reshape(pairs * 3, -1).T)
        if self.pose_directions is not None and pose_feature is not None:
            points = points + pose_feature @ self.pose_directions.reshape(pairs * 3, -1).T
        turned = (rotations[:, self.pair_joint] @ points.unflatten(1, (pairs, 3))[..., None])[..., 0]
        return self.gather @ turned + self.joint_share @ positions


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


def fold(
    shape: SkinnedShape, landmarks: list[tuple[Int[Tensor, " n"], Float[Tensor, " n"]] | int]
) -> LandmarkPlan:
    """Return the plan of landmarks given as (vertex indices, weights) or as a joint's index."""
    joints = shape.weights.shape[1]
    share = shape.weights.new_zeros(len(landmarks), joints)
    owners: list[int] = []
    pair_joint: list[int] = []
    template, directions, pose_directions = [], [], []
    for k, landmark in enumerate(landmarks):
        if isinstance(landmark, int):
            share[k, landmark] = 1
            continue
        indices, weights = landmark
        mixing = weights[:, None] * shape.weights[indices]
        share[k] = mixing.sum(0)
        active = (mixing.abs().sum(0) > 0).nonzero()[:, 0]
        mixing = mixing[:, active].T
        owners += [k] * len(active)
        pair_joint += active.tolist()
        template.append(mixing @ shape.v_template[indices] - share[k, active, None] * shape.J_template[active])
        moved = torch.einsum("jn,nds->jds", mixing, shape.shapedirs[indices])
        directions.append(moved - share[k, active, None, None] * shape.J_shapedirs[active])
        if shape.posedirs is not None:
            pose_directions.append(torch.einsum("jn,ndr->jdr", mixing, shape.posedirs[indices]))
    gather = share.new_zeros(len(landmarks), len(owners))
    gather[owners, torch.arange(len(owners))] = 1
    none = share.new_zeros
    return LandmarkPlan(
        pair_joint=torch.tensor(pair_joint, dtype=torch.long, device=share.device),
        gather=gather,
        joint_share=share,
        template=torch.cat([none(0, 3), *template]),
        directions=torch.cat([none(0, 3, shape.shapedirs.shape[2]), *directions]),
        pose_directions=torch.cat(pose_directions) if pose_directions else None,
    )
