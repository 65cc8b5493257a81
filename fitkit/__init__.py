"""fitkit: from photos of people to expressive 3D bodies, by optimisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fitkit.version import __version__

if TYPE_CHECKING:
    from fitkit.api import detect, fit, fit_stream, load_model, load_result
    from fitkit.keypoints.containers import Keypoints
    from fitkit.keypoints.formats import read_keypoints, write_keypoints
    from fitkit.prior_files import load_prior
    from fitkit.recipe import load_recipe
    from fitkit.results import FitResult

_PUBLIC = {
    "detect": "fitkit.api",
    "fit": "fitkit.api",
    "fit_stream": "fitkit.api",
    "load_model": "fitkit.api",
    "load_result": "fitkit.api",
    "load_prior": "fitkit.prior_files",
    "load_recipe": "fitkit.recipe",
    "FitResult": "fitkit.results",
    "Keypoints": "fitkit.keypoints.containers",
    "read_keypoints": "fitkit.keypoints.formats",
    "write_keypoints": "fitkit.keypoints.formats",
}

__all__ = [
    "FitResult",
    "Keypoints",
    "__version__",
    "detect",
    "fit",
    "fit_stream",
    "load_model",
    "load_prior",
    "load_recipe",
    "load_result",
    "read_keypoints",
    "write_keypoints",
]


def __getattr__(name: str) -> Any:
    """Return a public name, importing its module only now: torch takes seconds, and the command line's help none."""
    if name in _PUBLIC:
        from importlib import import_module

        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'fitkit' has no attribute {name!r}")
