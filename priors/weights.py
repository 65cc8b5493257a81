"""Pose priors that were learned: which class each is and which file holds its numbers."""

from __future__ import annotations

from fitkit.registry import Registry

LEARNED = Registry(
    "learned pose prior",
    {
        "mixture": "fitkit.priors.gaussian_mixture:GaussianMixturePosePrior",
        "student": "fitkit.priors.gaussian_mixture:GaussianMixturePosePrior",
        "joint_limits": "fitkit.priors.joint_limits:JointLimits",
        "vae": "fitkit.priors.vae:VariationalPosePrior",
    },
)
"""Name -> class with `from_arrays`; `fitkit.prior_files` opens their files, which floor 0 may not."""

FILES = {
    "mixture": "gaussian_mixture.npz",
    "student": "student.npz",
    "joint_limits": "joint_limits.npz",
    "vae": "vae.safetensors",
}
"""Name -> file in `fitkit/priors/data`, plain arrays; `README.md` and `vae.md` say how they were trained."""
