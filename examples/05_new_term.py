"""Write a term: keep both feet on a common height.

    python examples/05_new_term.py [PHOTO]

A term is a frozen dataclass; its fields are what a recipe may set. Registered in one line, it is used in a recipe by
its name. (In the package it would be a file of fitkit/terms/, and the tests would check its derivatives unasked.)
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

import fitkit
from fitkit.energy import ResidualTerm
from fitkit.recipe import parse_recipe
from fitkit.terms import TERMS


@dataclass(frozen=True)
class LevelFeet(ResidualTerm):
    """Squared difference in height of the heels, in camera axes."""

    deviation: float = 0.02
    """Metres that count as one standard deviation."""

    def residual(self, scene):
        """Return the standardised difference of heights, (B, N)."""
        heels = scene.landmarks(("left_heel", "right_heel"))
        return (heels[..., 0, 1] - heels[..., 1, 1]) / self.deviation


TERMS.register("level_feet", f"{__name__}:LevelFeet")
photo = sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).parent / "images" / "strolling.jpg")
(keypoints,) = fitkit.detect(photo)

settings = dict(fitkit.load_recipe("default").resolved)
for weight in (0.0, 1.0):
    for stage in settings["stages"]:
        stage["terms"]["level_feet"] = {"weight": weight}
    result = fitkit.fit(keypoints, recipe=parse_recipe(yaml.safe_dump(settings, sort_keys=False), "level feet"))[0]
    feet = [result.joints[result.joint_names.index(f"{side}_ankle")][1] for side in ("left", "right")]
    print(f"weight {weight:.0f}: ankles {100 * abs(feet[0] - feet[1]):.1f} cm apart in height; {result.summary}")
