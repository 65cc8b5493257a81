"""Initialisers, where a fit begins, and proposers, which widen a fit on its way by further hypotheses."""

from __future__ import annotations

from fitkit.registry import Registry

INITIALISERS = Registry(
    "initialiser",
    {
        "geometric": "fitkit.initialisers.geometric:GeometricInitialiser",
        "network": "fitkit.initialisers.network:NetworkInitialiser",
        "frontal": "fitkit.initialisers.frontal:FrontalInitialiser",
    },
)
"""Names that recipes use for the initialisers."""
PROPOSERS = Registry(
    "proposer",
    {
        "limbs": "fitkit.initialisers.limbs:LimbProposals",
        "curls": "fitkit.initialisers.curls:HandCurls",
        "hand_restarts": "fitkit.initialisers.hand_restarts:HandRestarts",
    },
)
"""Names that recipes use for what a stage proposes; proposers are initialisers that go by the problem's start."""
