"""Bounds of the unknowns: which are held by them, and the point within them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Box:
    """Least and greatest value of every unknown of every row; infinite where there is none."""

    lower: Float[Tensor, "B D"]
    """Least values."""
    upper: Float[Tensor, "B D"]
    """Greatest values."""

    def clip(self, x: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
        """Return x moved into the box."""
        return torch.minimum(torch.maximum(x, self.lower), self.upper)

    def free(self, x: Float[Tensor, "B D"], gradient: Float[Tensor, "B D"]) -> Bool[Tensor, "B D"]:
        """Return which unknowns may follow the negative gradient: those that no bound holds back."""
        return ~(((x <= self.lower) & (gradient > 0)) | ((x >= self.upper) & (gradient < 0)))

    def select(self, rows: Int[Tensor, " M"]) -> Box:
        """Return the bounds of some of the rows."""
        return Box(self.lower[rows], self.upper[rows])
