"""What every body model offers, and the lazily evaluated body that it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from fitkit.parameters import Layout


class Body(ABC):
    """B x N bodies in their world's axes; each quantity is computed on first use and kept.

    No protocol: checking whether an object has `vertices` would compute them.
    """

    @property
    @abstractmethod
    def joints(self) -> Float[Tensor, "B N J 3"]:
        """Joint centres, metres, in the order of the model's `joint_names`."""

    @property
    @abstractmethod
    def vertices(self) -> Float[Tensor, "B N V 3"]:
        """All vertices, metres: the one costly member; a keypoint fit never asks for it."""

    @abstractmethod
    def landmarks(self, names: Sequence[str]) -> Float[Tensor, "B N K 3"]:
        """Return named surface points and joints, metres, evaluating only what they need."""


@runtime_checkable
class BodyModel(Protocol):
    """A parametric body: stateless, it never owns parameters."""

    @property
    def name(self) -> str:
        """The name by which users choose it, such as "anny"."""
        ...

    @property
    def layout(self) -> Layout:
        """Names, sizes and bounds of its parameters."""
        ...

    @property
    def joint_names(self) -> tuple[str, ...]:
        """Names of the J joints."""
        ...

    @property
    def landmark_names(self) -> tuple[str, ...]:
        """Names that `Body.landmarks` takes; a joint shadowed by a surface point is "joint/<name>"."""
        ...

    @property
    def faces(self) -> Int[Tensor, "F 3"]:
        """Vertex indices of the triangles."""
        ...

    def standing_height(self, betas: Float[Tensor, "*N S"]) -> tuple[Float[Tensor, "*N"], Float[Tensor, "*N S"]]:
        """Return how tall each shape stands at rest, metres, and the derivative with respect to its coefficients."""
        ...

    def __call__(self, parameters: Mapping[str, Tensor]) -> Body:
        """Return the bodies of these parameters."""
        ...


def joint_landmark(model: BodyModel, joint: str) -> str:
    """Return the landmark name of a joint: its own, or "joint/<name>" where a surface point has that name."""
    return f"joint/{joint}" if f"joint/{joint}" in model.landmark_names else joint
