"""What a run over photos is asked for: how to fit, and what to save."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fitkit.errors import InputError, UsageError
from fitkit.output_folders import digest

SHORTEST, TALLEST = 0.4, 2.8
"""Metres between which everybody stands: a newborn child is 0.5 tall, the tallest man on record was 2.72."""
UNKNOWN = "-"
"""Stands for the height of somebody whose height is not known."""


@dataclass(frozen=True)
class FitOptions:
    """Everything that a result depends on."""

    model: str = "anny"
    """Body model."""
    gender: str | None = None
    """neutral, female or male; None for what the keypoints say, else neutral."""
    recipe: str = "default"
    """A recipe's name or file."""
    detector: str = "mediapipe"
    """Detector, where no keypoints are given."""
    keypoints: Path | None = None
    """Keypoint file, or a folder of them."""
    model_dir: Path | None = None
    """Folder of the user's body models."""
    device: str = "auto"
    """Where to compute."""
    batch_size: int = 32
    """People fitted at once."""
    focal: float | None = None
    """Focal length in pixels, of all photos."""
    fov: float | None = None
    """Field of view in degrees along the longer side, of all photos."""
    intrinsics: tuple[float, float, float, float] | None = None
    """Focal lengths fx, fy and principal point cx, cy in pixels, of all photos."""
    heights: tuple[float | None, ...] | None = None
    """Standing heights in metres of the people of each photo, in their order; None for one who is not known."""
    init: str | None = None
    """Where fits begin; None for what the recipe says."""

    def settings(self) -> dict[str, Any]:
        """Return what a record keeps, so that a later run knows whether it would give the same result."""
        recipe = f"{self.recipe} ({digest(Path(self.recipe))[:12]})" if Path(self.recipe).is_file() else self.recipe
        source = "keypoint files" if self.keypoints else self.detector
        return {
            "model": self.model,
            "gender": self.gender or "as recorded",
            "recipe": recipe,
            "detector": source,
            "focal": self.focal,
            "fov": self.fov,
            "intrinsics": None if self.intrinsics is None else list(self.intrinsics),
            "height": None if self.heights is None else list(self.heights),
            "init": self.init,
        }


@dataclass(frozen=True)
class Outputs:
    """What is saved of each photo."""

    formats: tuple[str, ...] = ("npz", "glb")
    """Of each person: npz (parameters), glb, obj, ply (meshes)."""
    overlay: bool = True
    """A picture of the bodies over the photo."""
    draw_keypoints: bool = False
    """Draw the keypoints in that picture."""
    side_view: bool = False
    """Add the bodies from the side to that picture."""
    overwrite: bool = False
    """Make anew what is there already."""

    def names(self) -> set[str]:
        """Return what a record keeps."""
        picture = {"overlay", "keypoints" * self.draw_keypoints, "side view" * self.side_view} - {""}
        return set(self.formats) | (picture if self.overlay else set())


def parse_heights(text: str) -> tuple[float | None, ...]:
    """Return the heights that a text such as "1.78" or "1.78,-,1.65" lists, metres; raises `UsageError`."""
    heights: list[float | None] = []
    if re.fullmatch(r"[012],\d+", text.strip()):
        raise UsageError(f"--height takes decimals with a point; for {text} write {text.strip().replace(',', '.')}.")
    for entry in text.split(","):
        if entry.strip() == UNKNOWN:
            heights.append(None)
            continue
        try:
            heights.append(float(entry))
        except ValueError as error:
            raise UsageError(
                f"--height takes metres, such as 1.78, or one for each person of a photo, such as 1.78,{UNKNOWN},1.65 "
                f"({UNKNOWN} where unknown); got {text!r}."
            ) from error
        check_height(heights[-1])
    return tuple(heights)


def check_height(height: float | None) -> None:
    """Raise `UsageError` for a height that nobody has: infinite, in centimetres or feet, not a number."""
    if height is None or SHORTEST <= height <= TALLEST:
        return
    hint = f" In metres {height:g} cm are {height / 100:g}." if SHORTEST <= height / 100 <= TALLEST else ""
    raise UsageError(f"A standing height lies between {SHORTEST:g} and {TALLEST:g} metres; got {height:g}.{hint}")


def match_heights(heights: Sequence[float | None], people: int, where: str) -> tuple[float | None, ...]:
    """Return the height of each of a photo's people; raises `InputError` where there are more or fewer heights.

    Args:
        heights: metres, None where unknown.
        people: how many there are.
        where: the photo, or whatever shows them.
    """
    if len(heights) != people:
        shown, given = _counted(people, "person", "people"), _counted(len(heights), "height", "heights")
        raise InputError(
            f"{where}: {given} for {shown}; give one for each in the order of the results, "
            f"and {UNKNOWN} (in Python None) for who is not known."
        )
    return tuple(heights)


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def parse_intrinsics(text: str) -> tuple[float, float, float, float]:
    """Return fx, fy, cx, cy in pixels of a text such as "1430,1430,960,540"; raises `UsageError`."""
    try:
        fx, fy, cx, cy = (float(entry) for entry in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"--intrinsics takes FX,FY,CX,CY in pixels, such as 1430,1430,960,540; got {text!r}."
        ) from error
    if not all(map(math.isfinite, (fx, fy, cx, cy))) or min(fx, fy) <= 0:
        raise UsageError(f"--intrinsics needs positive focal lengths and a finite centre; got {text!r}.")
    return fx, fy, cx, cy
