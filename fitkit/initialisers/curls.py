"""Curled and stretched fingers, which look much alike from most sides."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch

from fitkit.problem import Problem, Proposal


@dataclass(frozen=True)
class HandCurls:
    """The start, and the hand moved both ways along each of its first principal components.

    Seen from the palm or the back, a finger that bends towards the camera and one that bends away differ little:
    fits of hands have many local minima, between which no local minimiser moves.
    """

    leaf: str = "left_hand_pose"
    """The hand."""
    components: int = 3
    """Components along which to move: 2 to the power of this many hypotheses, and the start."""
    size: float = 0.7
    """By how many standard deviations."""

    def __call__(self, problem: Problem) -> Proposal:
        """Return the hypotheses; nothing but the start for a body without such a hand."""
        start, hands = problem.start, getattr(problem.model, "hands", None)
        if hands is None or self.leaf not in start:
            return Proposal(start)
        pose, hand = start[self.leaf], hands[self.leaf.startswith("right")]
        count = min(self.components, pose.shape[-1])
        ways = pose.new_tensor([[0.0] * count, *product((-self.size, self.size), repeat=count)])
        offsets = torch.nn.functional.pad(ways * hand.deviation[:count], (0, pose.shape[-1] - count))
        rows = torch.arange(len(pose), device=pose.device).repeat_interleave(len(ways))
        moved = (pose[:, None] + offsets[:, None]).flatten(0, 1)
        return Proposal(start.select(rows).replace({self.leaf: moved}), len(ways))
