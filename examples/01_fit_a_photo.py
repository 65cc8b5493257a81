"""Fit everybody in a photo and save what comes out.

    python examples/01_fit_a_photo.py [PHOTO] [OUT]

Prints a line per person, and writes OUT/person_00/params.npz and mesh.glb (open it in Blender), person_01/...
"""

import sys
from pathlib import Path

import fitkit

photo = sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).parent / "images" / "waving.jpg")
out = Path(sys.argv[2] if len(sys.argv) > 2 else "fits/example_01")

for result in fitkit.fit(photo):
    print(result.summary)
    result.save(out / f"person_{result.person:02d}", ("npz", "glb"))
