"""Strong-Wolfe line search for many rows at once, one trial of every row per evaluation.

Bracketing and zooming follow Nocedal & Wright, Numerical Optimization (2006), algorithms 3.5 and 3.6, with the cubic
interpolation of (3.59), written as a state machine: rows are in different phases, at different steps, of different
iterations, and each evaluation of the batch advances all of them. Where the energy's own rounding hides the decrease,
the approximate Wolfe condition of Hager & Zhang (2005, eq. 4.1) decides by slopes instead.

The state is a handful of numbers per row, kept on the host in float64 numpy: a dozen small operations cost less there
than the launch of one on a device. Every operation is elementwise, so a row's search does not depend on its neighbours.
"""

from __future__ import annotations

import numpy as np

_T, _F, _S = 0, 1, 2
"""A point of a search is a column (step, energy, slope)."""


class LineSearch:
    """The searches of B rows; `begin` some of them, then `advance` with every evaluation."""

    def __init__(self, rows: int, *, c1: float, c2: float, max_trials: int, precision: float) -> None:
        """Make B idle searches.

        Args:
            rows: B.
            c1: share of the predicted decrease that a step must reach (Armijo).
            c2: share of the initial slope that must remain below (strong curvature condition).
            max_trials: evaluations after which a search settles for its best step.
            precision: relative rounding error of the energy.
        """
        self.c1, self.c2, self.max_trials, self.precision = c1, c2, max_trials, precision
        self.step = np.zeros(rows)
        """(B,) the step to try next, in units of the direction."""
        self.origin = np.zeros((3, rows))
        self.low = np.zeros((3, rows))
        self.high = np.zeros((3, rows))
        self.trials = np.zeros(rows, dtype=np.int64)
        self.closing = np.zeros(rows, dtype=bool)

    def take(self, rows: np.ndarray) -> None:
        """Keep the rows at these indices alone, in the order given."""
        for name in ("step", "origin", "low", "high", "trials", "closing"):
            setattr(self, name, getattr(self, name)[..., rows])

    def begin(self, rows: np.ndarray, energy: np.ndarray, slope: np.ndarray, step: np.ndarray) -> None:
        """Start searches of the rows at these indices from energy and (negative) slope at 0, trying `step` first."""
        self.step[rows] = step
        start = np.array((np.zeros_like(energy), energy, slope))
        self.origin[:, rows] = start
        self.low[:, rows] = start
        self.high[:, rows] = np.inf
        self.trials[rows] = 0
        self.closing[rows] = False

    def advance(self, energy: np.ndarray, slope: np.ndarray, searching: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (accepted, failed), both (B,) bool, given energy and slope at `step`, and choose the next steps.

        A row that is neither goes on at its new `step`. A failed row has found no step that lowers its energy.
        Energy and slope may be NaN or infinite: the step was too long then.
        """
        finite = np.isfinite(energy) & np.isfinite(slope)
        armijo = finite & (energy <= self.origin[_F] + self.c1 * self.step * self.origin[_S])
        accepted = searching & (self.closing | self._satisfied(energy, slope, armijo))
        remaining = searching & ~accepted
        if not remaining.any():
            return accepted, remaining
        self.trials += remaining
        trial = np.array((self.step, energy, slope))
        trial[_F, ~finite] = np.inf
        previous = self.low
        above = ~(armijo & (energy < self.low[_F]))
        turned = ~above & (slope * (self.high[_T] - self.low[_T]) >= 0)
        width = np.abs(self.high[_T] - self.low[_T])
        self.high = np.where(remaining & above, trial, np.where(remaining & turned, self.low, self.high))
        self.low = np.where(remaining & ~above, trial, self.low)
        bracketed = np.isfinite(self.high[_T])
        following = np.where(bracketed, self._inside(width), _beyond(previous, self.low))
        exhausted = remaining & self._exhausted(bracketed)
        failed = exhausted & (self.low[_T] == 0)
        settled = exhausted & (self.low[_T] == self.step)
        self.closing |= exhausted & ~failed & ~settled
        self.step = np.where(remaining & ~settled, np.where(self.closing, self.low[_T], following), self.step)
        return accepted | settled, failed

    def _satisfied(self, energy: np.ndarray, slope: np.ndarray, armijo: np.ndarray) -> np.ndarray:
        """Return which steps meet the strong Wolfe conditions, or the approximate ones where energies are too close."""
        _, start, steepness = self.origin
        strong = armijo & (np.abs(slope) <= -self.c2 * steepness)
        close = (energy <= start) & (start - energy <= 10 * self.precision * np.abs(start))
        approximate = close & (slope <= (2 * self.c1 - 1) * steepness) & (slope >= self.c2 * steepness)
        return strong | approximate

    def _inside(self, width: np.ndarray) -> np.ndarray:
        """Return the next step within each bracket: cubic, kept off the ends; halved where that is too slow."""
        low, high = self.low[_T], self.high[_T]
        share = (_cubic_minimum(self.low, self.high) - low) / (high - low)
        share = np.clip(np.where(np.isfinite(share), share, 0.5), 0.1, 0.9)
        slow = np.isfinite(width) & (np.abs(high - low) > 0.66 * width)
        share = np.where(np.isinf(self.high[_F]), 0.3, np.where(slow, 0.5, share))
        return low + share * (high - low)

    def _exhausted(self, bracketed: np.ndarray) -> np.ndarray:
        """Return the searches that gain nothing by going on: out of trials, or a bracket below the precision."""
        width = np.abs(self.high[_T] - self.low[_T])
        unresolved = width * np.abs(self.origin[_S]) <= self.precision * np.abs(self.origin[_F])
        return (self.trials >= self.max_trials) | (bracketed & unresolved)


def _beyond(previous: np.ndarray, latest: np.ndarray) -> np.ndarray:
    """Return the next step of searches that still descend: extrapolated, 1.2 to 10 times as far."""
    guess = _cubic_minimum(previous, latest)
    reach = 10 * latest[_T]
    nearest = latest[_T] + 0.2 * (latest[_T] - previous[_T])
    return np.where(guess > latest[_T], np.clip(guess, nearest, reach), reach)


def _cubic_minimum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the minimiser of the cubic through two points (3, B) with slopes; NaN where there is none.

    Nocedal & Wright (3.59).
    """
    span = b[_T] - a[_T]
    bend = a[_S] + b[_S] + 3 * (a[_F] - b[_F]) / span
    root = np.copysign(np.sqrt(bend * bend - a[_S] * b[_S]), span)
    return b[_T] - span * (b[_S] + root - bend) / (b[_S] - a[_S] + 2 * root)
