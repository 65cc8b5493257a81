"""Change the recipe: a stiffer shape, fewer steps, and what the energy is made of.

    python examples/03_own_recipe.py [PHOTO] [OUT]

Writes OUT/stiff.yaml, a recipe like those in configs/, and fits the photo with it.
"""

import sys
from pathlib import Path

import yaml

import fitkit

photo = sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).parent / "images" / "standing.jpg")
out = Path(sys.argv[2] if len(sys.argv) > 2 else "fits/example_03")
out.mkdir(parents=True, exist_ok=True)

settings = dict(fitkit.load_recipe("default").resolved)
for stage in settings["stages"]:
    stage["terms"]["shape"]["weight"] *= 10
    stage["solver"]["max_iterations"] = 10
(out / "stiff.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))

for result in fitkit.fit(photo, recipe=out / "stiff.yaml"):
    print(result.summary)
    for name, energy in result.energies.items():
        print(f"    {name:16s}{energy:10.2f}")
