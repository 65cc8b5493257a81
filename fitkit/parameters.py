"""Named parameter leaves of a batch of problems, and the flat vectors that solvers see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fitkit.errors import UsageError


@dataclass(frozen=True)
class Leaf:
    """One named parameter of a body model."""

    name: str
    """smplx's own name, such as "body_pose"."""
    size: int
    """Number of values for one body."""
    shared: bool = False
    """True for what all bodies of a problem have in common by default (N = 1)."""
    lower: float | None = None
    """Smallest sensible value of every entry; None when unbounded."""
    upper: float | None = None
    """Largest sensible value of every entry; None when unbounded."""


Layout = tuple[Leaf, ...]


class Parameters(Mapping[str, Tensor]):
    """Immutable leaves (B, N, size); B independent problems of N bodies, N = 1 for what the bodies share."""

    __slots__ = ("_leaves",)

    def __init__(self, leaves: Mapping[str, Tensor]) -> None:
        """Check that all leaves are (B, N, size) with one B and one N (or 1)."""
        shapes = {name: tuple(leaf.shape) for name, leaf in leaves.items()}
        if any(len(shape) != 3 for shape in shapes.values()):
            raise UsageError(f"Parameters are (B, N, size) each; got {shapes}.")
        if len({shape[0] for shape in shapes.values()}) > 1 or len({shape[1] for shape in shapes.values()} - {1}) > 1:
            raise UsageError(f"Parameters need one B and one N (or N = 1); got {shapes}.")
        self._leaves = dict(leaves)

    def __getitem__(self, name: str) -> Tensor:
        """Return the leaf (B, N, size) of that name."""
        return self._leaves[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._leaves)

    def __len__(self) -> int:
        """Return the number of leaves."""
        return len(self._leaves)

    def __repr__(self) -> str:
        """Show names and shapes, never the numbers."""
        return f"Parameters({', '.join(f'{name} {tuple(leaf.shape)}' for name, leaf in self.items())})"

    @property
    def problems(self) -> int:
        """B, the number of independent problems."""
        return next(iter(self._leaves.values())).shape[0]

    @property
    def bodies(self) -> int:
        """N, the number of bodies in each problem."""
        return max(leaf.shape[1] for leaf in self._leaves.values())

    def pack(self, names: Sequence[str]) -> Float[Tensor, "B D"]:
        """Return the named leaves side by side, one row per problem."""
        return torch.cat([self._leaves[name].flatten(1) for name in names], dim=1)

    def unpack(self, names: Sequence[str], values: Float[Tensor, "B D"]) -> Parameters:
        """Return a copy whose named leaves are taken from the rows that `pack` with the same names would give."""
        widths = [self._leaves[name].shape[1] * self._leaves[name].shape[2] for name in names]
        pieces = values.split_with_sizes(widths, dim=1)
        leaves = dict(self._leaves)
        for name, piece in zip(names, pieces, strict=True):
            leaves[name] = piece.reshape(values.shape[0], *self._leaves[name].shape[1:])
        return Parameters(leaves)

    def replace(self, leaves: Mapping[str, Tensor]) -> Parameters:
        """Return a copy with some leaves replaced or added."""
        return Parameters({**self._leaves, **leaves})

    def where(self, choose: Bool[Tensor, " B"], other: Parameters) -> Parameters:
        """Return this problem's values where `choose` is true and the other's elsewhere."""
        return Parameters({name: torch.where(choose[:, None, None], self[name], other[name]) for name in self})

    def select(self, rows: Int[Tensor, " M"]) -> Parameters:
        """Return the parameters of some of the problems, in the order given (rows may repeat)."""
        return self.map(lambda leaf: leaf[rows])

    def map(self, change: Callable[[Tensor], Tensor]) -> Parameters:
        """Return a copy with the function applied to every leaf (detach, to another device, ...)."""
        return Parameters({name: change(leaf) for name, leaf in self._leaves.items()})


def zeros(layout: Layout, problems: int, bodies: int = 1, like: Tensor | None = None) -> Parameters:
    """Return all-zero parameters of a layout, in the type and on the device of `like`."""
    like = torch.zeros(()) if like is None else like
    return Parameters({leaf.name: like.new_zeros(problems, bodies, leaf.size) for leaf in layout})
