"""Hands laid anew, when the body has settled around a hand that is crumpled."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.models.smpl_family import HandSpace
from fitkit.problem import Problem, Proposal

_LEAVES = ("left_hand_pose", "right_hand_pose")


@dataclass(frozen=True)
class HandRestarts:
    """The start, and the same with one hand, or both, back at the mean hand or moved from it.

    Where fingers have bent the wrong way, wrist and elbow have followed: to bend the fingers back alone leads nowhere.
    For stages in which the arms are free.
    """

    components: int = 1
    """Along how many principal components to move from the mean hand, both ways."""
    size: float = 0.7
    """By how many standard deviations."""

    def __call__(self, problem: Problem) -> Proposal:
        """Return the hypotheses; nothing but the start for a body without hands."""
        start, hands = problem.start, getattr(problem.model, "hands", None)
        if hands is None or not all(leaf in start for leaf in _LEAVES):
            return Proposal(start)
        ways = [self._ways(start[leaf], hand) for leaf, hand in zip(_LEAVES, hands, strict=True)]
        # 0 is the hand as it is, 1 the mean hand.
        left, right = range(1, len(ways[0])), range(1, len(ways[1]))
        pairs = [(0, 0), *((i, 0) for i in left), *((0, i) for i in right), (1, 1)]
        rows = torch.arange(start.problems, device=start["transl"].device).repeat_interleave(len(pairs))
        moved = {
            leaf: torch.stack([ways[side][pair[side]] for pair in pairs], dim=1).flatten(0, 1)
            for side, leaf in enumerate(_LEAVES)
        }
        return Proposal(start.select(rows).replace(moved), len(pairs))

    def _ways(self, pose: Float[Tensor, "B N C"], hand: HandSpace) -> list[Float[Tensor, "B N C"]]:
        """Return a hand as it is, the mean hand, and the mean hand moved."""
        mean = torch.zeros_like(pose)
        found = [pose, mean]
        for component in range(min(self.components, pose.shape[-1])):
            for way in (-self.size, self.size):
                found.append(mean.clone())
                found[-1][..., component] = way * hand.deviation[component]
        return found
