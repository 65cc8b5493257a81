"""Pose priors by name: analytic ones, and learned ones whose weights ship with the package."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

import torch

from fitkit.errors import InputError, UsageError
from fitkit.model_files import read_npz_arrays
from fitkit.priors import PRIORS
from fitkit.priors.base import PosePrior
from fitkit.priors.weights import FILES, LEARNED
from fitkit.registry import did_you_mean


def prior_names() -> tuple[str, ...]:
    """Return the names of all pose priors."""
    return (*PRIORS.names(), *LEARNED.names())


@lru_cache
def load_prior(name: str) -> PosePrior:
    """Return the pose prior of that name; its weights are read once.

    Raises:
        UsageError: no prior has that name; suggests the nearest.
        InputError: the weights file is missing or damaged.
    """
    if name in PRIORS:
        prior: PosePrior = PRIORS.get(name)()
        return prior
    if name not in LEARNED:
        names = prior_names()
        raise UsageError(f"Unknown pose prior {name!r}.{did_you_mean(name, names)} Known: {', '.join(names)}.")
    file = resources.files("fitkit.priors") / "data" / FILES[name]
    try:
        arrays = {key: torch.from_numpy(value) for key, value in read_npz_arrays(file.read_bytes()).items()}
        learned: PosePrior = LEARNED.get(name).from_arrays(arrays)
    except (OSError, InputError, KeyError) as error:
        raise InputError(f"The weights {file} of a pose prior cannot be read; install fitkit-body again.") from error
    return learned
