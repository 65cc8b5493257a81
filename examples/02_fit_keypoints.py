"""Detect once, fit twice: keypoints as files, another gender, another recipe.

    python examples/02_fit_keypoints.py [PHOTO] [OUT]

Writes OUT/keypoints.npz and prints how the fits differ. Keypoints of other detectors go the same way: `read_keypoints`
takes OpenPose, COCO, COCO-WholeBody, MMPose and AlphaPose files.
"""

import sys
from pathlib import Path

import fitkit

photo = sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).parent / "images" / "standing.jpg")
out = Path(sys.argv[2] if len(sys.argv) > 2 else "fits/example_02")
out.mkdir(parents=True, exist_ok=True)

(people,) = fitkit.detect(photo)
print(f"{len(people)} in the picture, {len(people.names)} keypoints each")
fitkit.write_keypoints(out / "keypoints.npz", people, "npz")

(keypoints,) = fitkit.read_keypoints(out / "keypoints.npz")
for gender in ("neutral", "female", "male"):
    for result in fitkit.fit(keypoints, gender=gender, fov=50):
        print(f"{gender:8s}{result.summary}")
