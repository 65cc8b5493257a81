"""Small networks of dense layers, evaluated with their derivatives in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Layer:
    """One dense layer: activation(weight x + bias), to which x is added where the layer bridges itself."""

    weight: Float[Tensor, "O I"]
    """The matrix."""
    bias: Float[Tensor, " O"]
    """Added to the product."""
    activation: Activation | None = None
    """Applied to each number; None for none."""
    bridged: bool = False
    """Whether the layer's input is added to its output."""


@dataclass(frozen=True)
class Activation:
    """A function of one number, and its derivative."""

    value: Callable[[Tensor], Tensor]
    """The function."""
    slope: Callable[[Tensor], Tensor]
    """Its derivative."""


def _silu_slope(x: Tensor) -> Tensor:
    gate = torch.sigmoid(x)
    return gate * (1 + x * (1 - gate))


SILU = Activation(functional.silu, _silu_slope)
"""x sigmoid(x)."""


def leaky(slope: float) -> Activation:
    """Return the function that is x above zero and `slope` x below."""
    return Activation(
        lambda x: functional.leaky_relu(x, slope),
        lambda x: torch.where(x > 0, 1.0, slope).to(x),
    )


class Network:
    """Layers one after the other, with a linear map beside them from the first input to the last output."""

    def __init__(self, layers: tuple[Layer, ...], direct: Float[Tensor, "O I"] | None = None) -> None:
        """Make a network.

        Args:
            layers: in order; the first does not bridge itself.
            direct: matrix beside all layers; None for none.
        """
        assert not layers[0].bridged
        self._layers, self._direct = layers, direct
        first = layers[0].weight
        self._constants = {(first.device, first.dtype): (layers, direct)}

    def __call__(self, x: Float[Tensor, "M I"]) -> Float[Tensor, "M O"]:
        """Return the last layer's output."""
        return self._forward(x)[0]

    def linearise(self, x: Float[Tensor, "M I"]) -> tuple[Float[Tensor, "M O"], Float[Tensor, "M O I"]]:
        """Return the output and its derivatives, carried through the layers from the narrower end."""
        layers, direct = self._like(x)
        output, slopes = self._forward(x)
        if x.shape[1] <= output.shape[1]:
            jacobian = _carried_forward(layers, slopes, len(x))
        else:
            jacobian = _carried_back(layers, slopes, len(x))
        return output, jacobian if direct is None else jacobian + direct

    def _forward(self, x: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """Return the output, and the activations' derivatives at each layer."""
        layers, direct = self._like(x)
        value, slopes = x, []
        for layer in layers:
            before = functional.linear(value, layer.weight, layer.bias)
            after = before if layer.activation is None else layer.activation.value(before)
            slopes.append(None if layer.activation is None else layer.activation.slope(before))
            value = value + after if layer.bridged else after
        return value if direct is None else value + x @ direct.T, slopes

    def _like(self, other: Tensor) -> tuple[tuple[Layer, ...], Tensor | None]:
        """Return layers and direct map on a tensor's device and of its type, converted once."""
        key = (other.device, other.dtype)
        if key not in self._constants:
            layers = tuple(
                Layer(layer.weight.to(other), layer.bias.to(other), layer.activation, layer.bridged)
                for layer in self._layers
            )
            self._constants[key] = (layers, None if self._direct is None else self._direct.to(other))
        return self._constants[key]


def _carried_forward(layers: tuple[Layer, ...], slopes: list[Tensor | None], rows: int) -> Float[Tensor, "M O I"]:
    """Return the derivatives, multiplied up from the first layer: a row for each input."""
    tangents: Tensor | None = None
    for layer, slope in zip(layers, slopes, strict=True):
        moved = layer.weight.T.expand(rows, -1, -1) if tangents is None else tangents @ layer.weight.T
        moved = moved if slope is None else moved * slope[:, None, :]
        tangents = moved if tangents is None or not layer.bridged else tangents + moved
    assert tangents is not None
    return tangents.mT


def _carried_back(layers: tuple[Layer, ...], slopes: list[Tensor | None], rows: int) -> Float[Tensor, "M O I"]:
    """Return the derivatives, multiplied down from the last layer: a row for each output."""
    adjoints = torch.eye(len(layers[-1].bias)).to(layers[-1].weight).expand(rows, -1, -1)
    for layer, slope in zip(reversed(layers), reversed(slopes), strict=True):
        moved = (adjoints if slope is None else adjoints * slope[:, None, :]) @ layer.weight
        adjoints = adjoints + moved if layer.bridged else moved
    return adjoints
