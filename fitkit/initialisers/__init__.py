"""Initialisers: where a fit begins."""

from __future__ import annotations

from fitkit.registry import Registry

INITIALISERS = Registry(
    "initialiser",
    {
        "geometric": "fitkit.initialisers.geometric:GeometricInitialiser",
        "frontal": "fitkit.initialisers.frontal:FrontalInitialiser",
    },
)
"""Names that recipes use for the initialisers."""
