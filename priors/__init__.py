"""Priors over pose: learned and analytic, all with the interface of `fitkit.priors.base.PosePrior`."""

from __future__ import annotations

from fitkit.registry import Registry

PRIORS = Registry("pose prior", {"relaxed": "fitkit.priors.relaxed:RelaxedPosePrior"})
"""Pose priors that need no file."""
