"""Terms of the energy, one evidence or regulariser per file."""

from __future__ import annotations

from fitkit.registry import Registry

TERMS = Registry(
    "term",
    {
        "reprojection": "fitkit.terms.reprojection:Reprojection",
        "bone_directions": "fitkit.terms.bone_directions:BoneDirections",
        "pose_prior": "fitkit.terms.pose_prior:PosePriorTerm",
        "leaf_prior": "fitkit.terms.leaf_prior:LeafPrior",
        "hand_prior": "fitkit.terms.hand_prior:HandPrior",
        "bounds": "fitkit.terms.bounds:Bounds",
        "bending": "fitkit.terms.bending:Bending",
        "belief": "fitkit.terms.belief:BeliefTerm",
        "depth_anchor": "fitkit.terms.depth_anchor:DepthAnchor",
        "height": "fitkit.terms.height:Height",
        "focal_prior": "fitkit.terms.focal_prior:FocalPrior",
        "upright": "fitkit.terms.upright:Upright",
    },
)
"""Names that recipes use for the terms."""
