"""Keypoint files: OpenPose, COCO and COCO-WholeBody, MMPose and AlphaPose JSON, and fitkit's own npz.

Coordinates are kept as the files have them. fitkit puts the centre of a picture's first pixel at (0.5, 0.5); tools that
put it at (0, 0), and COCO's annotations, are off by half a pixel, which no detector is exact enough to show.
"""

from fitkit.keypoints.formats.files import FORMATS, WRITABLE, file_name, read_keypoints, write_keypoints
from fitkit.keypoints.formats.folder import KeypointFolder, find_keypoints

__all__ = [
    "FORMATS",
    "WRITABLE",
    "KeypointFolder",
    "file_name",
    "find_keypoints",
    "read_keypoints",
    "write_keypoints",
]
