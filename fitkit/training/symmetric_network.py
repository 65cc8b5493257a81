"""Networks for which the mirrored input gives the mirrored output, to be trained; `priors.vae` evaluates them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

Parts = tuple[Tensor, Tensor]
"""What a mirror leaves alone and what it turns round, (M, E) and (M, O)."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of values, even and odd part."""

    even: int
    """That a mirror leaves alone."""
    odd: int
    """Whose signs it turns."""


class SymmetricLayer(nn.Module):
    """A dense layer on each part; only the even one has a bias."""

    def __init__(self, inputs: Sizes, outputs: Sizes, gain: float) -> None:
        """Draw weights of a deviation that keeps the size of values, times `gain`."""
        super().__init__()
        self.even = nn.Parameter(torch.randn(outputs.even, inputs.even) * gain / math.sqrt(inputs.even))
        self.odd = nn.Parameter(torch.randn(outputs.odd, inputs.odd) * gain / math.sqrt(inputs.odd))
        self.bias = nn.Parameter(torch.zeros(outputs.even))

    def forward(self, values: Parts) -> Parts:
        """Return the outputs, before any activation."""
        return functional.linear(values[0], self.even, self.bias), functional.linear(values[1], self.odd)


class SymmetricNetwork(nn.Module):
    """Layers of one width that bridge themselves, between a first and a last one, and a linear map beside them."""

    def __init__(self, inputs: Sizes, outputs: Sizes, width: int, depth: int) -> None:
        """Make a network that does at first what its linear map does, nearly."""
        super().__init__()
        inner = Sizes(width, width)
        sizes = [inputs, *[inner] * (depth + 1), outputs]
        gains = [1.0] * (depth + 1) + [0.05]
        self.layers = nn.ModuleList(
            SymmetricLayer(before, after, gain)
            for before, after, gain in zip(sizes[:-1], sizes[1:], gains, strict=True)
        )
        self.direct = SymmetricLayer(inputs, outputs, 0.0)

    def forward(self, even: Tensor, odd: Tensor) -> Parts:
        """Return the parts of the outputs."""
        straight = self.direct((even, odd))
        first, *inner, last = self.layers
        values = _activated(first((even, odd)))
        for layer in inner:
            more = _activated(layer(values))
            values = (values[0] + more[0], values[1] + more[1])
        bent = last(values)
        return straight[0] + bent[0], straight[1] + bent[1]

    def arrays(self, centre: Tensor, keep: int | None = None) -> dict[str, Tensor]:
        """Return the weights as `priors.vae.mirror_symmetric` takes them, for inputs that are not yet centred.

        Args:
            centre: what was taken from the even inputs in training.
            keep: number of even outputs to keep; None for all.
        """
        found: dict[str, Tensor] = {}
        for k, layer in enumerate(self.layers):
            assert isinstance(layer, SymmetricLayer)
            found |= {f"{k}.even": layer.even, f"{k}.odd": layer.odd, f"{k}.bias": layer.bias}
        last = len(self.layers) - 1
        found["0.bias"] = found["0.bias"] - found["0.even"] @ centre
        found[f"{last}.bias"] = found[f"{last}.bias"] + self.direct.bias - self.direct.even @ centre
        found |= {"direct.even": self.direct.even, "direct.odd": self.direct.odd}
        for name in (f"{last}.even", f"{last}.bias", "direct.even"):
            found[name] = found[name][:keep]
        return {name: value.detach().clone() for name, value in found.items()}


def _activated(values: Parts) -> Parts:
    """Return parts whose sum and difference, which a mirror exchanges, went through the activation."""
    half = math.sqrt(0.5)
    one = functional.silu((values[0] + values[1]) * half)
    other = functional.silu((values[0] - values[1]) * half)
    return (one + other) * half, (one - other) * half
