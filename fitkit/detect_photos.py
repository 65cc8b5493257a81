"""Detecting the people in many photos and writing their keypoints, whatever one photo does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fitkit.files import make_folder
from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.detectors import DETECTORS
from fitkit.keypoints.formats import file_name, write_keypoints
from fitkit.keypoints.images import Image, read_image
from fitkit.output_folders import assign_names
from fitkit.photo_run import Tally, Terminal, attempt
from fitkit.progress import ProgressBar


@dataclass(frozen=True)
class DetectOptions:
    """How people are detected and written."""

    detector: str = "mediapipe"
    """Name in the table of detectors."""
    format: str = "openpose"
    """Keypoint file format."""
    save_picture: bool = False
    """Also draw the keypoints over the photo."""


def detect_photos(photos: Sequence[Path], out: Path, options: DetectOptions, terminal: Terminal) -> Tally:
    """Write a keypoint file for each photo with people in it, and return how the photos ended.

    Args:
        photos: picture files, each once.
        out: the folder for the keypoint files, made where it does not exist.
        options: how.
        terminal: is told of each photo.

    Raises:
        ModelNotFoundError: the detector's networks are not installed and cannot be fetched.
        OutputError: the output folder cannot be written.
    """
    detector = DETECTORS.get(options.detector)()
    make_folder(out)
    tally = Tally(len(photos))
    with ProgressBar("Detecting", len(photos), terminal.quiet) as bar:
        for photo, name in zip(photos, assign_names(photos), strict=True):
            run = _PhotoDetection(photo, out, name, options)
            people = attempt(photo, partial(run, detector, terminal), tally, terminal)
            if people is not None:
                tally.done += people > 0
                tally.empty += people == 0
                tally.people += people
            bar.advance()
    return tally


@dataclass(frozen=True)
class _PhotoDetection:
    photo: Path
    out: Path
    name: str
    options: DetectOptions

    def __call__(self, detector: Any, terminal: Terminal) -> int:
        """Return the number of people found, after their keypoints are written."""
        image = read_image(self.photo)
        keypoints = replace(detector.detect(image.pixels), source=str(self.photo), focal_length=image.focal_px)
        if not len(keypoints):
            terminal.line(f"{self.photo}: nobody was found")
            return 0
        path = write_keypoints(
            self.out / file_name(f"{self.name}.jpg", self.options.format), keypoints, self.options.format
        )
        if self.options.save_picture:
            self._draw(image, keypoints)
        for person in range(len(keypoints)):
            terminal.line(f"{self.photo}  person {person}  {_describe(keypoints, person)}  {path}")
        return len(keypoints)

    def _draw(self, image: Image, keypoints: Keypoints) -> None:
        from fitkit.pictures import write_picture
        from fitkit.viewers.skeleton import draw_keypoints

        write_picture(self.out / f"{self.name}_keypoints.jpg", draw_keypoints(image.pixels, keypoints))


def _describe(keypoints: Keypoints, person: int) -> str:
    seen = int(np.count_nonzero(keypoints.confidence[person] > 0.5))
    score = "" if keypoints.scores is None else f"score {keypoints.scores[person]:.2f}  "
    return f"{score}{seen} of {len(keypoints.names)} points"
