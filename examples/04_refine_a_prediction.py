"""Start from what a network predicted, and let the keypoints mend it.

    python examples/04_refine_a_prediction.py [PHOTO]

The prediction here is a fit that was spoilt on purpose; any regressor's parameters under smplx's names (axis-angle,
camera axes) do as well. What a prediction lacks, such as the place or the hands, is found as usual.
"""

import sys
from pathlib import Path

import numpy as np

import fitkit

photo = sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).parent / "images" / "standing.jpg")
(keypoints,) = fitkit.detect(photo)

random = np.random.default_rng(0)
predictions = []
for fitted in fitkit.fit(keypoints):
    pose = fitted.params["body_pose"] + random.normal(scale=0.15, size=63)
    predictions.append({"global_orient": fitted.params["global_orient"], "body_pose": pose})

for prediction, refined in zip(predictions, fitkit.fit(keypoints, start=predictions), strict=True):
    change = np.degrees(np.abs(refined.params["body_pose"] - prediction["body_pose"]).mean())
    print(f"{refined.summary}; {refined.iterations} iterations, joints turned by {change:.1f} degrees on average")
