"""Where a user's own files lie: body models they brought, networks that were fetched."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

MODELS_VARIABLE = "FITKIT_MODELS"
"""Environment variable that names the folder of the user's body models (several: separated as in PATH)."""

CACHE_VARIABLE = "FITKIT_CACHE"
"""Environment variable that names the folder for files that can be fetched again."""


def data_folder() -> Path:
    """Return the folder for files that a user puts in place for good, `~/.local/share/fitkit` on Linux.

    It may not exist.
    """
    return platformdirs.user_data_path("fitkit", appauthor=False)


def cache_folder() -> Path:
    """Return the folder for files that can be fetched again: `$FITKIT_CACHE`, or `~/.cache/fitkit` on Linux.

    It may not exist.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("fitkit", appauthor=False)


def model_folders(model_dir: str | os.PathLike[str] | None = None) -> tuple[Path, ...]:
    """Return the folders in which body models are looked for, first the one that wins; some may not exist.

    Args:
        model_dir: the folder that the user named for this call (`--model-dir`), if any.
    """
    named = [os.fspath(model_dir)] if model_dir else []
    named += [entry for entry in os.environ.get(MODELS_VARIABLE, "").split(os.pathsep) if entry]
    folders = [Path(entry).expanduser() for entry in named] + [data_folder() / "models"]
    return tuple(dict.fromkeys(folders))
