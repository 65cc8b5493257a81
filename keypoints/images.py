"""Reading pictures as a person would see them: upright, RGB, eight bits, with what EXIF knows of the lens."""

from __future__ import annotations

import glob
import os
import threading
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fitkit.errors import InputError, UsageError

if TYPE_CHECKING:
    from PIL import Image as PillowImage

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".jp2", ".avif", ".ppm")
"""Endings (in any case) by which a folder's pictures are known."""
MAX_PIXELS = 200_000_000
"""Larger pictures are refused: a small file may claim any size and fill the memory."""
MIN_SIDE = 16
"""Pixels; nobody can be recognised in a smaller picture."""
MAX_MISSING = 0.25
"""Share of a truncated picture's rows that may be missing before it is refused."""
DIAGONAL_35MM = 43.2666
"""Millimetres: the diagonal of a 36 x 24 mm frame, to which 35 mm equivalent focal lengths refer (CIPA DCG-001)."""

_truncated_lock = threading.Lock()


@dataclass(frozen=True)
class Image:
    """A picture, upright."""

    pixels: np.ndarray
    """(H, W, 3) uint8 RGB."""
    focal_px: float | None = None
    """Focal length in pixels of this picture, from EXIF; None when EXIF does not say."""
    path: Path | None = None
    """The file."""

    @property
    def size(self) -> tuple[int, int]:
        """Return (width, height) in pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]


def read_image(path: str | os.PathLike[str]) -> Image:
    """Return a picture, turned upright by its EXIF orientation, on white where it is transparent.

    Grey, palette, CMYK and 16-bit pictures become 8-bit RGB; of an animation the first frame is taken. A file that was
    cut short is read with a warning when no more than a quarter of its rows are missing.

    Args:
        path: the file.

    Raises:
        InputError: there is no such file, or it holds no picture that can be used.
    """
    from PIL import Image as pillow

    path = Path(path)
    _check_file(path)
    try:
        with warnings.catch_warnings():
            # Sizes are checked here, with a limit of our own, and broken EXIF is no reason to bother anybody.
            warnings.simplefilter("ignore")
            with pillow.open(path) as picture:
                _check_size(path, *picture.size)
                focal = _focal_length(picture)
                pixels, missing = _decode(path, picture)
    except pillow.UnidentifiedImageError as error:
        raise InputError(
            f"{path} is not a picture, or its header is damaged; export it anew as JPEG or PNG."
        ) from error
    except pillow.DecompressionBombError as error:
        raise InputError(f"{path} claims more than {MAX_PIXELS // 10**6} megapixels; make it smaller first.") from error
    except MemoryError as error:
        raise InputError(f"{path} does not fit into memory; make it smaller first.") from error
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, ZeroDivisionError) as error:
        raise InputError(f"{path} cannot be read as a picture: {_reason(error)}.") from error
    if missing > 0.0:
        warnings.warn(f"{path} was cut short: {max(missing, 0.01):.0%} of the picture is missing.", stacklevel=2)
    if focal is not None:
        focal = focal * float(np.hypot(*pixels.shape[:2]))
    return Image(pixels, focal, path)


def find_images(inputs: Iterable[str | os.PathLike[str]] | str | os.PathLike[str]) -> list[Path]:
    """Return the picture files that photos, folders and globs name, each once.

    Files keep the order given, whatever their ending; a folder's and a glob's pictures are sorted by name.

    Args:
        inputs: paths of photos and folders (not their sub-folders), and patterns such as "photos/*.jpg".

    Raises:
        UsageError: an input names no file, or a folder holds no picture.
    """
    if isinstance(inputs, (str, os.PathLike)):
        inputs = [inputs]
    found: dict[Path, None] = {}
    for item in inputs:
        found.update(dict.fromkeys(_expand(os.fspath(item))))
    return list(found)


def _expand(item: str) -> Sequence[Path]:
    path = Path(item).expanduser()
    if path.is_dir():
        files = _pictures(path.iterdir())
        if not files:
            raise UsageError(f"The folder {item} holds no picture; known endings are {', '.join(SUFFIXES)}.")
        return files
    if path.exists():
        return [path]
    if glob.has_magic(item):
        matches = [Path(match) for match in glob.glob(os.path.expanduser(item), recursive=True)]
        files = _pictures(matches) or sorted(match for match in matches if match.is_file())
        if not files:
            raise UsageError(f"The pattern {item} matches no picture.")
        return files
    raise UsageError(f"There is no file or folder {item}.")


def _pictures(paths: Iterable[Path]) -> list[Path]:
    """Return those paths that look like pictures, sorted, hidden ones left out."""
    return sorted(
        path for path in paths if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder, not a picture.")
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty (0 bytes).")
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        raise InputError(f"There is no picture {path}.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror or error}.") from error


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{path} has {width} x {height} pixels; more than {MAX_PIXELS // 10**6} megapixels are not read, "
            "make it smaller first."
        )
    if min(width, height) < MIN_SIDE:
        raise InputError(f"{path} has only {width} x {height} pixels: too small to show a person.")


def _decode(path: Path, picture: PillowImage.Image) -> tuple[np.ndarray, float]:
    """Return (H, W, 3) uint8 RGB of an opened picture, upright, and the share of its rows that the file lacks."""
    from PIL import ImageFile, ImageOps

    missing = 0.0
    try:
        picture.load()
    except OSError as error:
        if "truncated" not in str(error):
            raise
        with _truncated_lock:
            ImageFile.LOAD_TRUNCATED_IMAGES = True
            try:
                picture.load()
            finally:
                ImageFile.LOAD_TRUNCATED_IMAGES = False
        missing = _missing_rows(np.asarray(picture.convert("RGB")))
        if missing > MAX_MISSING:
            raise InputError(
                f"{path} was cut short: {missing:.0%} of the picture is missing; get a whole copy of it."
            ) from error
    ImageOps.exif_transpose(picture, in_place=True)
    return _to_rgb(picture), missing


def _missing_rows(pixels: np.ndarray) -> float:
    """Return the share of rows, at least one, at the bottom of a truncated picture that the decoder made up."""
    other = (pixels != pixels[-1, -1]).any((1, 2))
    filled = int(np.argmax(other[::-1])) if other.any() else len(other)
    return max(filled, 1) / len(other)


def _to_rgb(picture: PillowImage.Image) -> np.ndarray:
    """Return (H, W, 3) uint8 of a picture of any mode."""
    from PIL import Image as pillow

    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        return _grey_to_rgb(np.asarray(picture))
    if picture.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in picture.info:
        over = picture.convert("RGBA")
        white = pillow.new("RGBA", over.size, (255, 255, 255, 255))
        return np.array(pillow.alpha_composite(white, over).convert("RGB"))
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _grey_to_rgb(values: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) uint8 of grey values deeper than eight bits.

    Sixteen-bit files use their whole range or, when they come from a 10- to 14-bit sensor, its lower end; both are
    brought to the eight bits that the networks were trained on by the smallest power of two that holds the maximum.
    """
    grey = np.nan_to_num(values.astype(np.float64))
    top = float(grey.max(initial=0.0))
    scale = 255.0 if 0.0 < top <= 1.0 and values.dtype.kind == "f" else 2.0 ** np.ceil(np.log2(top + 1.0)) - 1.0
    white = 1.0 if scale == 255.0 and top <= 1.0 else max(scale, 255.0)
    eight = np.clip(grey / white * 255.0 + 0.5, 0.0, 255.0).astype(np.uint8)
    return np.repeat(eight[..., None], 3, axis=-1)


def _focal_length(picture: PillowImage.Image) -> float | None:
    """Return the focal length in units of the picture's diagonal, from EXIF, or None.

    `FocalLengthIn35mmFilm` f35 refers to the diagonal of a 36 x 24 mm frame (CIPA DCG-001, as most makers use it):
    f35 / 43.27 diagonals. Else `FocalLength` in millimetres times the focal plane's resolution, which refers to the
    picture as taken (`PixelXDimension`).
    """
    try:
        exif = picture.getexif().get_ifd(0x8769)
        equivalent = float(exif.get(0xA405) or 0.0)
        if equivalent > 0.0:
            focal = equivalent / DIAGONAL_35MM
        else:
            millimetres_per_unit = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}[int(exif.get(0xA210, 2))]
            pixels = float(exif[0x920A]) * float(exif[0xA20E]) / millimetres_per_unit
            taken = np.hypot(float(exif.get(0xA002, picture.width)), float(exif.get(0xA003, picture.height)))
            focal = float(pixels / taken)
    except Exception:  # EXIF in the wild breaks in every way; a lens unknown is no error.
        return None
    # Beyond an 8 mm fisheye and a 400 mm telephoto the tag is likelier broken: programs that shrink a picture leave the
    # focal plane resolution of the original in it.
    return focal if 0.18 < focal < 9.3 else None


def _reason(error: Exception) -> str:
    return str(error).strip().rstrip(".").splitlines()[0] if str(error).strip() else type(error).__name__
