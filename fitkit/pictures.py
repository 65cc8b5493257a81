"""Writing picture files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fitkit.files import atomic_write

JPEG_QUALITY = 92
"""Of 100; above it files grow and nobody sees a difference."""


def write_picture(path: Path, pixels: np.ndarray) -> Path:
    """Write a picture in the format that the path's ending names, and return the path.

    Args:
        path: the file; its folder must exist.
        pixels: (H, W, 3) uint8 RGB.

    Raises:
        OutputError: the file cannot be written.
    """
    from PIL import Image

    with atomic_write(path) as temporary:
        Image.fromarray(pixels).save(temporary, quality=JPEG_QUALITY)
    return path
