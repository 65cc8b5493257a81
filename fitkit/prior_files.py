"""Pose priors by name or by file: analytic ones, learned ones whose weights ship, and weights of one's own."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_safetensors
from torch import Tensor

from fitkit.errors import InputError, UsageError
from fitkit.model_files import read_npz_arrays
from fitkit.priors import PRIORS
from fitkit.priors.base import LatentPosePrior, PosePrior
from fitkit.priors.gaussian_mixture import GaussianMixturePosePrior
from fitkit.priors.joint_limits import JointLimits
from fitkit.priors.vae import VariationalPosePrior
from fitkit.priors.vposer import is_vposer, vposer
from fitkit.priors.weights import FILES, LEARNED
from fitkit.registry import did_you_mean

SUFFIXES = (".safetensors", ".npz", ".pt", ".ckpt")
"""Of files with the weights of a prior: `fitkit train prior`, `tools/train_pose_prior.py`, VPoser 1 and 2."""
_BYSTANDERS = ("pytorch_lightning.", "lightning.")
"""Packages whose classes a checkpoint may name beside its weights: they are stood in for, never imported."""


def prior_names() -> tuple[str, ...]:
    """Return the names of all pose priors."""
    return (*PRIORS.names(), *LEARNED.names())


@lru_cache
def load_prior(name: str | os.PathLike[str]) -> PosePrior:
    """Return the pose prior of that name, or the one of a weights file; it is read once.

    Args:
        name: one of `prior_names()`, or the path of a file that `fitkit train prior` wrote, of a VPoser snapshot
            (version 1 `.pt`, version 2 `.ckpt`), or of the folder in which VPoser is published.

    Raises:
        UsageError: no prior has that name; suggests the nearest.
        InputError: the weights file is missing or damaged, or no prior's.
    """
    text = os.fspath(name)
    if text in PRIORS:
        prior: PosePrior = PRIORS.get(text)()
        return prior
    if text not in LEARNED:
        path = Path(text).expanduser()
        if path.suffix in SUFFIXES or path.is_dir():
            return _from_file(_snapshot(path) if path.is_dir() else path)
        names = prior_names()
        hint = did_you_mean(text, names)
        raise UsageError(f"Unknown pose prior {text!r}.{hint} Known: {', '.join(names)}, or a file of weights.")
    file = resources.files("fitkit.priors") / "data" / FILES[text]
    try:
        arrays = _plain_arrays(file.read_bytes(), FILES[text])
        learned: PosePrior = LEARNED.get(text).from_arrays(arrays)
    except (OSError, InputError, KeyError) as error:
        raise InputError(f"The weights {file} of a pose prior cannot be read; install fitkit-body again.") from error
    return learned


def load_latent_prior(name: str | os.PathLike[str]) -> LatentPosePrior:
    """Return a pose prior that has a latent space; see `load_prior`.

    Raises `UsageError` for a prior that has none, besides what `load_prior` raises.
    """
    prior = load_prior(os.fspath(name))
    if not isinstance(prior, LatentPosePrior):
        raise UsageError(f"The pose prior {os.fspath(name)!r} has no latent space to decode; `vae` has one.")
    return prior


def _plain_arrays(content: bytes, name: str) -> Mapping[str, Tensor]:
    """Return the arrays of an npz or safetensors file."""
    if name.endswith(".npz"):
        return {key: torch.from_numpy(value) for key, value in read_npz_arrays(content).items()}
    try:
        return read_safetensors(content)
    except SafetensorError as error:
        raise InputError(f"{name} is no safetensors file.") from error


def _from_file(path: Path) -> PosePrior:
    """Return the prior of a user's own file."""
    try:
        if path.suffix in (".pt", ".ckpt"):
            return vposer(_state_of(path))
        return _learned(_plain_arrays(path.read_bytes(), path.name))
    except OSError as error:
        raise InputError(f"The pose prior {path} cannot be read: {error.strerror or error}.") from error
    except (KeyError, ValueError, RuntimeError) as error:
        detail = " ".join(str(error).split())
        raise InputError(f"{path} does not hold the weights of a pose prior over 21 joints ({detail}).") from error


def _learned(arrays: Mapping[str, Tensor]) -> PosePrior:
    if "left_over" in arrays:
        return VariationalPosePrior.from_arrays(arrays)
    if "lower" in arrays:
        return JointLimits.from_arrays(arrays)
    return GaussianMixturePosePrior.from_arrays(arrays)


def _snapshot(folder: Path) -> Path:
    """Return the last snapshot in the folder of a published VPoser."""
    found = sorted(file for pattern in ("*.pt", "*.ckpt") for file in folder.rglob(pattern))
    if not found:
        raise InputError(f"{folder} holds no snapshot of a pose prior (.pt or .ckpt).")
    return found[-1]


def _state_of(path: Path) -> dict[str, Tensor]:
    """Return the weights of a VPoser snapshot by the names of its version's class."""
    content = _unpickled(path)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    tensors = {
        str(key).removeprefix("vp_model."): value for key, value in state.items() if isinstance(value, torch.Tensor)
    }
    if not is_vposer(tensors):
        raise InputError(f"{path} is no snapshot of VPoser: it has neither its first nor its second version's layers.")
    return tensors


def _unpickled(path: Path) -> Any:
    """Return what a checkpoint holds, without running anything that it names."""
    try:
        with warnings.catch_warnings():
            # Of unusual pickle protocols, by which a file is not yet wrong.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except (EOFError, RuntimeError) as error:
        raise InputError(f"{path} is no file of weights that torch can read.") from error
    except pickle.UnpicklingError as error:
        named = _named_in(path)
        if not named or not all(name.startswith(_BYSTANDERS) for name in named):
            raise InputError(
                f"{path} was not loaded: to read it, code that it names would have to run"
                f" ({', '.join(named) or 'unknown'}). Save its state dictionary alone."
            ) from error
    with torch.serialization.safe_globals([(_StandIn, name) for name in named]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _named_in(path: Path) -> list[str]:
    """Return the classes and functions that a checkpoint names beside tensors."""
    search = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)
    if search is None:
        # torch before 2.6, which cannot stand in for classes either.
        return []
    try:
        return list(search(str(path)))
    except ValueError:
        # A file in torch's format of before 1.6, which is not searched.
        return []


class _StandIn:
    """Takes the place of a class that a checkpoint names; keeps and does nothing."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass
