"""Pose priors that were learned: one multivariate t (or Gaussian) density, or a mixture in the max-mixture form."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fitkit.priors.mirror import mirrored


class GaussianMixturePosePrior:
    """The likeliest component of a mixture: SMPLify's pose prior (Bogo et al. 2016, eq. 6), with heavier tails.

    For each pose the component k of least energy

        (nu + 63) log(1 + |W_k (x - mu_k)|^2 / nu) + c_k

    is chosen, c_k >= 0 holding the weight and the normaliser relative to the best component; with nu infinite this is
    the Mahalanobis distance. A pose beyond the data is thus pulled back, but the farther it is the more gently. The
    choice itself is not differentiated.
    """

    def __init__(
        self,
        means: Float[Tensor, "K 63"],
        whitening: Float[Tensor, "K 63 63"],
        weights: Float[Tensor, " K"],
        degrees: float = float("inf"),
    ) -> None:
        """Make a prior.

        Args:
            means: axis-angle of each component's middle, radians.
            whitening: W_k with W_k^T W_k the inverse of the component's scale matrix, per radian.
            weights: share of each component; they need not sum to 1.
            degrees: degrees of freedom nu of the t densities; infinite for Gaussians.
        """
        self._degrees = degrees
        offsets = -2 * (torch.linalg.slogdet(whitening.double()).logabsdet + weights.double().log())
        tensors = (means, whitening, (offsets - offsets.min()).to(means), weights / weights.sum())
        self._constants = {(means.device, means.dtype): tensors}
        self._precisions: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Tensor]) -> GaussianMixturePosePrior:
        """Return the prior that a weights file describes.

        Args:
            arrays: `means` (H, 63), `whitening` (H, 2016) lower triangles row by row, `weights` (H,), `degrees` (),
                and `paired` (), whether each component stands for its mirror image, too.
        """
        means, triangles = arrays["means"], arrays["whitening"]
        whitening = torch.zeros(len(means), 63, 63, dtype=means.dtype)
        rows, columns = torch.tril_indices(63, 63)
        whitening[:, rows, columns] = triangles
        degrees = float(arrays["degrees"])
        if not arrays["paired"]:
            return cls(means, whitening, arrays["weights"], degrees)
        both = [torch.cat([half, mirrored(half)]) for half in (means, whitening)]
        return cls(both[0], both[1], arrays["weights"].repeat(2), degrees)

    @property
    def components(self) -> int:
        """Number of components, mirror images included."""
        return len(next(iter(self._constants.values()))[0])

    @property
    def mean(self) -> Float[Tensor, " 63"]:
        """The mean of all poses, radians: symmetric, upright, knees and elbows a little bent."""
        means, _, _, weights = next(iter(self._constants.values()))
        return weights @ means

    @property
    def modes(self) -> Float[Tensor, "K 63"]:
        """The components' middles, the most frequent first, radians: kinds of poses from which to start fits."""
        means, _, _, weights = next(iter(self._constants.values()))
        return means[weights.argsort(descending=True, stable=True)]

    def component(self, body_pose: Float[Tensor, "M 63"]) -> Int[Tensor, " M"]:
        """Return the number of each pose's likeliest component."""
        means, whitening, offsets, _ = self._like(body_pose)
        with torch.no_grad():
            # |W x - W mu|^2 for all components at once: one product of (M, 63) by (63, K 63).
            white = (body_pose @ whitening.flatten(0, 1).T).unflatten(1, (len(means), 63))
            squared = (white - (whitening @ means[..., None])[..., 0]).square().sum(-1)
            return (self._tail(squared) * squared + offsets).argmin(dim=1)

    def residual(self, body_pose: Float[Tensor, "M 63"]) -> Float[Tensor, "M 64"]:
        """Return the whitened deviation from the likeliest component, shortened in the tail, and its constant."""
        return self._evaluate(body_pose)[0]

    def linearise(self, body_pose: Float[Tensor, "M 63"]) -> tuple[Float[Tensor, "M 64"], Float[Tensor, "M 64 63"]]:
        """Return the residuals and their derivatives: the component's whitening matrix, bent along the residual."""
        residual, white, whitening = self._evaluate(body_pose)
        squared = white.square().sum(-1).clamp_min(1e-9)
        tail = self._tail(squared)
        scale = tail.sqrt()
        # d(s(m) z) = s dz + z s'(m) 2 z.dz with m = z.z and s^2 m = (nu + 63) log(1 + m / nu).
        slope = 1.0 if self._degrees == float("inf") else (self._degrees + 63) / (self._degrees + squared)
        bend = (slope - tail) / (squared * scale)
        along = (white[:, None, :] @ whitening)[:, 0]
        jacobian = scale[:, None, None] * whitening + (bend[:, None] * white)[:, :, None] * along[:, None, :]
        return residual, torch.cat([jacobian, torch.zeros_like(jacobian[:, :1])], dim=1)

    def squared(self, body_pose: Float[Tensor, "M 63"]) -> tuple[Float[Tensor, "M 63"], Float[Tensor, "M 63 63"]]:
        """Return J^T r and J^T J of what `linearise` returns: W^T W, bent along W^T z, where z is the deviation."""
        means, whitening, _, _ = self._like(body_pose)
        key = (body_pose.device, body_pose.dtype)
        if key not in self._precisions:
            self._precisions[key] = whitening.mT @ whitening
        precision = self._precisions[key]
        if len(means) > 1:
            chosen = self.component(body_pose)
            precision, offset = precision[chosen], body_pose - means[chosen]
            along = torch.bmm(precision, offset[..., None])[..., 0]
        else:
            offset = body_pose - means
            along = offset @ precision[0]
        squared = (along * offset).sum(-1, keepdim=True).clamp_min(1e-9)
        tail = self._tail(squared)
        slope = 1.0 if self._degrees == float("inf") else (self._degrees + 63) / (self._degrees + squared)
        bend = (slope - tail) / squared * (1 + slope / tail)
        return slope * along, torch.baddbmm(tail[..., None] * precision, (bend * along)[..., None], along[:, None])

    def _evaluate(
        self, body_pose: Float[Tensor, "M 63"]
    ) -> tuple[Float[Tensor, "M 64"], Float[Tensor, "M 63"], Float[Tensor, "M 63 63"]]:
        means, whitening, offsets, _ = self._like(body_pose)
        if len(means) == 1:
            # One product for all rows; a matrix for each would have to be copied first.
            white, matrix = (body_pose - means) @ whitening[0].T, whitening.expand(len(body_pose), -1, -1)
            offset = offsets.expand(len(body_pose))
        else:
            chosen = self.component(body_pose)
            matrix, offset = whitening[chosen], offsets[chosen]
            white = (matrix @ (body_pose - means[chosen])[..., None])[..., 0]
        scale = self._tail(white.square().sum(-1)).sqrt()
        return torch.cat([scale[:, None] * white, offset.sqrt()[:, None]], dim=1), white, matrix

    def _tail(self, squared: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
        """Return the t density's energy over the squared distance, which falls from (nu + 63) / nu towards 0."""
        if self._degrees == float("inf"):
            return torch.ones_like(squared)
        # At 0 the quotient is 0 / 0; its limit is reached to rounding well above the bound.
        ratio = (squared / self._degrees).clamp_min(1e-6)
        return (1 + 63 / self._degrees) * (torch.log1p(ratio) / ratio)

    def _like(self, other: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return means, whitening, offsets and weights on a tensor's device and of its type, converted once."""
        key = (other.device, other.dtype)
        if key not in self._constants:
            first = next(iter(self._constants.values()))
            self._constants[key] = (first[0].to(other), first[1].to(other), first[2].to(other), first[3].to(other))
        return self._constants[key]
