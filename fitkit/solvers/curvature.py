"""The curvature pairs of every row and the quasi-Newton directions made of them.

A row's workspace is one matrix W (2m + 3, D): m steps, m gradient differences, then the direction, the trial's gradient
difference and the trial's gradient. One product of W with its last three rows gives every number that the line search,
the convergence tests and the next direction need; a direction is a combination of W's rows whose coefficients come from
the compact representation (Byrd, Nocedal & Schnabel 1994, theorem 2.2) on the host, for all rows at once. The number of
operations per evaluation depends neither on the history's length nor on the number of rows.

On the CPU the workspace is used through numpy views of the tensors' memory: numpy's small products start several times
faster than torch's and, row by row, do not depend on how many rows there are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def as_array(tensor: Tensor) -> Any:
    """Return a numpy view of a tensor on the CPU, and the tensor itself on other devices."""
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def as_tensor(array: Any) -> Tensor:
    """Return a tensor that shares an array's memory; undoes `as_array`."""
    return torch.from_numpy(array) if isinstance(array, np.ndarray) else array


class Curvature:
    """Curvature pairs, gradients and directions of B rows."""

    def __init__(self, like: Float[Tensor, "B D"], history: int) -> None:
        """Make room for `history` pairs of every row, on the device and in the precision of a tensor."""
        count, size = like.shape
        m = max(1, min(history, size))
        self.capacity = m
        self.precision = float(torch.finfo(like.dtype).eps)
        self.device = like.device
        self.work: Any = as_array(like.new_zeros(count, 2 * m + 3, size))
        """(B, 2m + 3, D), as the module says; pairs are scaled so that s . y = 1."""
        self.gradient: Any = as_array(like.new_zeros(count, size))
        """(B, D) at the accepted point."""
        self.products = np.zeros((count, 2 * m + 3, 3))
        """(B, 2m + 3, 3): W times the last trial's direction, difference and gradient."""
        self.inverse = np.tile(np.eye(m), (count, 1, 1))
        """(B, m, m): inverse of the matrix of s_i . y_j with i no younger than j and 0 otherwise, by slots."""
        self.differences = np.zeros((count, m, m))
        """(B, m, m): y_i . y_j."""
        self.scale = np.ones(count)
        """(B,): s . y / y . y of the newest pair, the inverse Hessian's first guess."""
        self.stored = np.zeros(count, dtype=np.int64)
        """(B,): pairs stored so far; the next goes to slot `stored % m`, where the oldest is."""
        self.pairs = np.zeros(count, dtype=np.int64)
        """(B,): pairs held."""

    @property
    def slope(self) -> np.ndarray:
        """(B,): directional derivative at the trial."""
        return self.products[:, 2 * self.capacity, 2]

    @property
    def squared_direction(self) -> np.ndarray:
        """(B,): direction . direction."""
        return self.products[:, 2 * self.capacity, 0]

    @property
    def squared_gradient(self) -> np.ndarray:
        """(B,): gradient . gradient at the trial."""
        return self.products[:, -1, 2]

    def trial(self, position: Any, step: np.ndarray) -> Any:
        """Return the point (B, D) at `step` (B,) along each row's direction."""
        return position + self.on_device(step)[:, None] * self.work[:, 2 * self.capacity]

    def observe(self, energy: Tensor, gradient: Tensor) -> np.ndarray:
        """Take the trial's gradient (B, D) into the workspace; return its energy (B,) on the host."""
        work, latest = self.work, as_array(gradient)
        work[:, -2] = latest - self.gradient
        work[:, -1] = latest
        products = work @ work[:, 2 * self.capacity :].swapaxes(1, 2)
        if isinstance(products, np.ndarray):
            self.products = products.astype(np.float64)
            return as_array(energy).astype(np.float64)
        packed = torch.cat((products.flatten(1), energy[:, None].to(products.dtype)), 1).cpu().double().numpy()
        self.products = packed[:, :-1].reshape(products.shape)
        return packed[:, -1].copy()

    def accept(self, local: np.ndarray) -> None:
        """Make the trial's gradient the current one of the rows at these indices."""
        rows = self.index(self._rows(local))
        self.gradient[rows] = self.work[rows, -1]

    def store(self, local: np.ndarray, step: np.ndarray) -> None:
        """Store the pair of the accepted step (M,) along each row's direction, where its curvature is positive."""
        m = self.capacity
        along, across = self.products[local, 2 * m], self.products[local, 2 * m + 1]
        curvature = step * along[:, 1]
        sizes = step * np.sqrt(along[:, 0] * across[:, 1])
        usable = (curvature > self.precision * sizes) & (curvature > 1e-300) & np.isfinite(sizes)
        if not usable.all():
            local, step, curvature = local[usable], step[usable], curvature[usable]
        if local.size:
            self._replace_oldest(local, step / np.sqrt(curvature), 1 / np.sqrt(curvature))

    def _replace_oldest(self, local: np.ndarray, by_direction: np.ndarray, by_difference: np.ndarray) -> None:
        """Make a pair of direction and difference, times these factors (M,), the newest of the rows at these indices.

        Without the oldest pair the triangular matrix loses its first row and column, and so does its inverse; with the
        newest it gains a last column r over 1, and its inverse the column -inverse r over 1.
        """
        m = self.capacity
        rows, slot = self._rows(local), self.stored[local] % m
        self.products[local, slot] = self.products[local, 2 * m] * by_direction[:, None]
        self.products[local, m + slot] = self.products[local, 2 * m + 1] * by_difference[:, None]
        dots = self.products[rows, : 2 * m, 1] * by_difference[:, None]
        self.inverse[local, slot] = 0.0
        self.inverse[local, :, slot] = 0.0
        self.inverse[local, :, slot] = -(self.inverse[rows] @ dots[:, :m, None])[..., 0]
        self.inverse[local, slot, slot] = 1.0
        self.differences[local, :, slot] = self.differences[local, slot] = dots[:, m:]
        self.scale[local] = 1 / self.differences[local, slot, slot]
        self.stored[local] += 1
        self.pairs[local] = np.minimum(self.pairs[local] + 1, m)
        each, block, slot = self.index(local), self.index(rows), self.index(slot)
        self.work[each, slot] = self.on_device(by_direction)[:, None] * self.work[block, 2 * m]
        self.work[each, m + slot] = self.on_device(by_difference)[:, None] * self.work[block, 2 * m + 1]

    def direct(self, local: np.ndarray) -> np.ndarray:
        """Give the rows at these indices, just accepted, their next direction; return its slope (M,), negative.

        A row whose pairs give no descent forgets them and takes its steepest descent.
        """
        coefficients, slope = self._combine(local)
        uphill = ~(slope < 0)
        if uphill.any():
            self.forget(local[uphill])
            coefficients[uphill] = 0.0
            coefficients[uphill, -1] = -1.0
            slope = np.where(uphill, -self.squared_gradient[local], slope)
        rows = self.index(self._rows(local))
        self.work[rows, 2 * self.capacity] = (self.on_device(coefficients)[:, None] @ self.work[rows])[:, 0]
        return slope

    def _combine(self, local: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return coefficients (M, 2m + 3) over W of the quasi-Newton directions, and their slopes (M,)."""
        m = self.capacity
        rows = self._rows(local)
        inverse, gradient = self.inverse[rows], self.products[rows, :, 2]
        scale = self.scale[rows, None, None]
        u = inverse @ gradient[:, :m, None]
        v = inverse.swapaxes(1, 2) @ (u + scale * (self.differences[rows] @ u - gradient[:, m : 2 * m, None]))
        coefficients = np.zeros(gradient.shape)
        coefficients[:, :m] = -v[..., 0]
        coefficients[:, m : 2 * m] = (scale * u)[..., 0]
        coefficients[:, -1] = -scale[:, 0, 0]
        return coefficients, (coefficients * gradient).sum(-1)

    def descend(self, local: np.ndarray) -> None:
        """Forget the pairs of the rows at these indices and point them down the gradient of their accepted point."""
        self.forget(local)
        rows = self.index(local)
        self.work[rows, 2 * self.capacity] = -self.gradient[rows]

    def forget(self, local: np.ndarray) -> None:
        """Drop the pairs of the rows at these indices."""
        self.work[self.index(local), : 2 * self.capacity] = 0.0
        self.inverse[local] = np.eye(self.capacity)
        self.differences[local] = 0.0
        self.scale[local] = 1.0
        self.pairs[local] = 0

    def take(self, local: np.ndarray) -> None:
        """Keep the rows at these indices alone, in the order given."""
        rows = self.index(local)
        self.work, self.gradient = self.work[rows], self.gradient[rows]
        for name in ("products", "inverse", "differences", "scale", "stored", "pairs"):
            setattr(self, name, getattr(self, name)[local])

    def _rows(self, local: np.ndarray) -> np.ndarray | slice:
        """Return ascending indices of rows as an index that makes views, not copies, when they are all."""
        return slice(None) if len(local) == len(self.pairs) else local

    def index(self, local: np.ndarray | slice) -> Any:
        """Return an index of the host as the workspace takes it."""
        if isinstance(local, slice) or isinstance(self.work, np.ndarray):
            return local
        return torch.from_numpy(local).to(self.device)

    def on_device(self, numbers: np.ndarray) -> Any:
        """Return numbers of the host in the workspace's precision, on its device."""
        if isinstance(self.work, np.ndarray):
            return numbers.astype(self.work.dtype, copy=False)
        return torch.from_numpy(numbers).to(self.work.dtype).to(self.device)
