"""What a run over photos is asked for: how to fit, and what to save."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fitkit.output_folders import digest


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
