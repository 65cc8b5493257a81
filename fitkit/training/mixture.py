"""Mixtures of multivariate t densities by expectation maximisation, with missing entries and mirror symmetry.

Peel and McLachlan (2000), "Robust mixture modelling using the t distribution"; missing entries as in Little and Rubin.
Component k + H is the mirror image of component k and shares its statistics: training on the frames as they are then
equals training on them and their mirrored copies.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fitkit.priors.mirror import mirrored


@dataclass(frozen=True)
class Settings:
    """What kind of mixture, and how long to train."""

    components: int
    """Number of components: 1 or an even number, mirror images included."""
    degrees: float = math.inf
    """Degrees of freedom of the t densities."""
    floor: float = 0.05
    """Radians added, in squares, to every direction's deviation."""
    shrinkage: float = 200.0
    """Frames' worth of the common covariance that is mixed into each component's."""
    iterations: int = 15
    """Of expectation maximisation."""


@dataclass(frozen=True)
class Mixture:
    """A mixture over D-vectors."""

    weights: Tensor
    """(K,) summing to 1."""
    means: Tensor
    """(K, D)."""
    raw: Tensor
    """(K, D, D) scale matrices without the floor."""
    floor: float
    """Added to the raw ones as floor^2 I."""
    degrees: float
    """Degrees of freedom; infinite for Gaussians."""

    @property
    def scales(self) -> Tensor:
        """(K, D, D) scale matrices of the densities."""
        return self.raw + self.floor**2 * torch.eye(self.means.shape[1])


def patterns(x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return (rows, observed columns) for each pattern of missing (NaN) entries."""
    kinds, place = torch.unique(~x.isnan(), dim=0, return_inverse=True)
    return [((place == k).nonzero()[:, 0], kind.nonzero()[:, 0]) for k, kind in enumerate(kinds)]


def log_density(mixture: Mixture, x: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """Return log(weight x density) and squared distance, (n, K) each, of rows whose `observed` columns are known."""
    size, nu = len(observed), mixture.degrees
    logs, distances = [], []
    for weight, mean, scale in zip(mixture.weights, mixture.means, mixture.scales, strict=True):
        factor = torch.linalg.cholesky(scale[observed][:, observed])
        white = torch.linalg.solve_triangular(factor, (x[:, observed] - mean[observed]).T, upper=False)
        squared = white.square().sum(0)
        constant = weight.log() - factor.diagonal().log().sum()
        if nu == math.inf:
            log = -0.5 * squared - 0.5 * size * math.log(2 * math.pi)
        else:
            constant += math.lgamma((nu + size) / 2) - math.lgamma(nu / 2) - 0.5 * size * math.log(nu * math.pi)
            log = -0.5 * (nu + size) * torch.log1p(squared / nu)
        logs.append(log + constant)
        distances.append(squared)
    return torch.stack(logs, 1), torch.stack(distances, 1)


def negative_log_likelihood(mixture: Mixture, x: Tensor) -> Tensor:
    """Return (N,) nats of each row, missing entries integrated out."""
    result = x.new_empty(len(x))
    for rows, observed in patterns(x):
        result[rows] = -log_density(mixture, x[rows], observed)[0].logsumexp(1)
    return result


def fit(x: Tensor, weight: Tensor, settings: Settings, generator: torch.Generator) -> Mixture:
    """Return a mixture fitted to rows (N, 63) with sampling weights (N,); NaN entries are missing."""
    mixture = _start(x, weight, settings, generator)
    groups = patterns(x)
    for _ in range(settings.iterations):
        mixture = _step(mixture, x, weight, groups, settings)
    return mixture


def _start(x: Tensor, weight: Tensor, settings: Settings, generator: torch.Generator) -> Mixture:
    """Return centres by k-means++ and some rounds of k-means, all with the covariance within clusters."""
    filled = torch.where(x.isnan(), x.nanmean(dim=0), x)
    filled = filled[torch.multinomial(weight, min(len(x), 8000), replacement=True, generator=generator)]
    filled = torch.cat([filled, mirrored(filled)])
    mean = filled.mean(0)
    centres = mean[None] if settings.components == 1 else _centres(filled, settings.components // 2, generator)
    place = torch.cdist(filled, centres).argmin(1)
    within = filled - centres[place]
    raw = (within.T @ within / len(within)).expand(len(centres), -1, -1)
    share = torch.full((len(centres),), 1 / len(centres))
    return Mixture(share, centres, raw, settings.floor, settings.degrees)


def _centres(x: Tensor, half: int, generator: torch.Generator) -> Tensor:
    chosen = x[torch.randint(len(x), (1,), generator=generator)]
    while len(chosen) < half:
        distance = torch.cdist(x, torch.cat([chosen, mirrored(chosen)])).amin(1).square()
        chosen = torch.cat([chosen, x[torch.multinomial(distance, 1, generator=generator)]])
    for _ in range(8):
        place = torch.cdist(x, torch.cat([chosen, mirrored(chosen)])).argmin(1)
        moved = [x[place == k].mean(0) if (place == k).any() else chosen[k] for k in range(half)]
        chosen = torch.stack(moved)
    return torch.cat([chosen, mirrored(chosen)])


def _step(mixture: Mixture, x: Tensor, weight: Tensor, groups: list, settings: Settings) -> Mixture:
    count, size = mixture.means.shape
    shares, mass = x.new_zeros(count), x.new_zeros(count)
    first, second = x.new_zeros(count, size), x.new_zeros(count, size, size)
    for rows, observed in groups:
        log, squared = log_density(mixture, x[rows], observed)
        share = weight[rows, None] * log.softmax(1)
        pull = share
        if mixture.degrees != math.inf:
            pull = share * (mixture.degrees + len(observed)) / (mixture.degrees + squared)
        shares += share.sum(0)
        mass += pull.sum(0)
        for k in range(count):
            deviation, spread = _completed(mixture, k, x[rows], observed)
            first[k] += pull[:, k] @ deviation
            second[k] += (deviation * pull[:, k, None]).T @ deviation
            second[k] += share[:, k].sum() * spread
    return _maximised(mixture, (shares, mass, first, second), settings)


def _completed(mixture: Mixture, k: int, x: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """Return deviations (n, D) from a mean, missing entries expected from the others, and those entries' covariance."""
    mean, raw = mixture.means[k], mixture.raw[k]
    spread = torch.zeros_like(raw)
    if len(observed) == len(mean):
        return x - mean, spread
    known = torch.zeros(len(mean), dtype=torch.bool)
    known[observed] = True
    missing = (~known).nonzero()[:, 0]
    deviation = torch.where(known, x - mean, 0.0)
    # The floor steadies the regression; what it adds to the spread would grow with every iteration.
    inner = mixture.scales[k][observed][:, observed]
    regression = torch.linalg.solve(inner, raw[observed][:, missing]).T
    deviation[:, missing] = deviation[:, observed] @ regression.T
    spread[missing[:, None], missing] = raw[missing][:, missing] - regression @ raw[observed][:, missing]
    return deviation, spread


def completed(mixture: Mixture, x: Tensor, generator: torch.Generator) -> Tensor:
    """Return rows (N, D) whose missing entries are drawn, given the others, from each row's likeliest component."""
    filled = x.clone()
    for rows, observed in patterns(x):
        likeliest = log_density(mixture, x[rows], observed)[0].argmax(1)
        for k in likeliest.unique().tolist():
            theirs = rows[likeliest == k]
            deviation, spread = _completed(mixture, k, x[theirs], observed)
            deviation_missing = spread.diagonal().clamp_min(0)
            values, vectors = torch.linalg.eigh(spread)
            noise = torch.randn(deviation.shape, generator=generator) * values.clamp_min(0).sqrt() @ vectors.T
            filled[theirs] = mixture.means[k] + deviation + noise * (deviation_missing > 0)
    return filled


def _maximised(mixture: Mixture, statistics: tuple[Tensor, Tensor, Tensor, Tensor], settings: Settings) -> Mixture:
    shares, mass, first, second = statistics
    half = max(1, len(shares) // 2)
    partner = (torch.arange(len(shares)) + half) % len(shares)
    shares, mass = shares + shares[partner], mass + mass[partner]
    first = first + mirrored(first[partner])
    second = second + mirrored(mirrored(second[partner]).mT)
    shift = first / mass[:, None]
    scatter = second - mass[:, None, None] * shift[:, :, None] * shift[:, None, :]
    common = scatter.sum(0) / shares.sum()
    raw = (scatter + settings.shrinkage * common) / (shares + settings.shrinkage)[:, None, None]
    raw = 0.5 * (raw + raw.mT)
    return replace(mixture, weights=shares / shares.sum(), means=mixture.means + shift, raw=raw)
