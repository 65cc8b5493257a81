"""Finding a picture's keypoints in a file or a folder of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from fitkit.errors import InputError
from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.formats.base import Recorded
from fitkit.keypoints.formats.files import open_keypoints, select_image, stem_of, unpack

SUFFIXES = ("_keypoints.json", ".json", ".npz", "_keypoints.npz")
"""What may follow a picture's stem (or its whole name) in the name of its keypoint file, best first."""


class KeypointFolder:
    """A keypoint file, or a folder of them, in which pictures are looked up.

    In a folder a picture's file is the one named after it (`<stem>_keypoints.json`, `<stem>.json`, `<stem>.npz`), else
    the one that records its name (with the most points, if several do). Files that record several pictures are parsed
    once and kept.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Take a file or a folder.

        Raises:
            InputError: there is none at the path.
        """
        self.path = Path(path).expanduser()
        if not self.path.exists():
            raise InputError(f"There is no keypoint file or folder {self.path}.")
        self._opened: dict[Path, tuple[int, list[Recorded]]] = {}
        self._recording: dict[str, list[Path]] | None = None

    def find(self, image: str | os.PathLike[str], image_size: tuple[int, int] | None = None) -> Keypoints | None:
        """Return a picture's keypoints, or None when there are none of it.

        A lone file of one unnamed picture (OpenPose) is taken to be about any picture asked for; see `find_all`.

        Args:
            image: the picture's path; it need not exist.
            image_size: its (width, height) in pixels, where known.

        Raises:
            InputError: the file found cannot be used.
        """
        image = Path(image)
        if not self.path.is_dir():
            return self._find_in(self.path, image, image_size)
        for named in self._named_after(image):
            found = self._find_in(named, image, image_size)
            if found is not None:
                return found
        index = self._index()
        recording = index.get(image.stem) or index.get(_number_key(image)) or []
        all_found = [self._find_in(file, image, image_size) for file in recording]
        return max((found for found in all_found if found is not None), key=lambda k: len(k.names), default=None)

    def find_all(self, images: Iterable[str | os.PathLike[str]]) -> list[Keypoints | None]:
        """Return the keypoints of each picture, None for those without.

        Raises:
            InputError: a file is broken, or one unnamed picture's keypoints are asked for several pictures.
        """
        paths = [Path(image) for image in images]
        if len(paths) > 1 and not self.path.is_dir() and all(entry.image is None for entry in self._open(self.path)):
            stem = stem_of(self.path)
            if not any(path.stem == stem for path in paths):
                raise InputError(
                    f"{self.path} holds the keypoints of one picture, but there are {len(paths)} pictures; "
                    "give a folder with one file per picture, named after it."
                )
            return [self.find(path) if path.stem == stem else None for path in paths]
        return [self.find(path) for path in paths]

    def _named_after(self, image: Path) -> list[Path]:
        candidates = [self.path / f"{base}{suffix}" for base in (image.stem, image.name) for suffix in SUFFIXES]
        return [candidate for candidate in candidates if candidate.is_file()]

    def _find_in(self, file: Path, image: Path, image_size: tuple[int, int] | None) -> Keypoints | None:
        recorded = self._open(file)
        if any(entry.image is not None for entry in recorded):
            recorded = select_image(recorded, image)
        if len(recorded) > 1:
            raise InputError(f"{file} holds {len(recorded)} pictures without names; give one file per picture.")
        return unpack(recorded[0], file, image_size) if recorded else None

    def _open(self, file: Path) -> list[Recorded]:
        """Return a file's pictures, from memory where it holds more than one."""
        changed = file.stat().st_mtime_ns
        if file in self._opened and self._opened[file][0] == changed:
            return self._opened[file][1]
        recorded = open_keypoints(file)
        if len(recorded) > 1 or file == self.path:
            self._opened[file] = (changed, recorded)
        return recorded

    def _index(self) -> dict[str, list[Path]]:
        """Return which files record each picture, by its stem or number; every file is read once for it."""
        if self._recording is None:
            self._recording = {}
            for file in sorted(self.path.iterdir()):
                for key in self._recorded_keys(file):
                    files = self._recording.setdefault(key, [])
                    if file not in files:
                        files.append(file)
        return self._recording

    def _recorded_keys(self, file: Path) -> list[str]:
        """Return the stems or numbers of the pictures that a file names; none for other files, however broken."""
        if file.suffix.lower() not in (".json", ".npz") or file.name.startswith(".") or not file.is_file():
            return []
        if file.name.endswith("_keypoints.json"):  # OpenPose's, found by its name
            return []
        try:
            names = [entry.image for entry in self._open(file)]
        except InputError:
            return []
        return [_recorded_key(name) for name in names if name is not None]


def _recorded_key(name: str) -> str:
    """Return the stem of a recorded name, numbers without leading zeros."""
    return str(int(name)) if name.isascii() and name.isdecimal() else Path(name.replace("\\", "/")).stem


def _number_key(image: Path) -> str:
    last = image.stem.rpartition("_")[2]
    return str(int(last)) if last.isascii() and last.isdecimal() else ""


def find_keypoints(
    path: str | os.PathLike[str], image: str | os.PathLike[str], image_size: tuple[int, int] | None = None
) -> Keypoints | None:
    """Return a picture's keypoints from a file or a folder of files, or None; see `KeypointFolder.find`.

    What was read of the last few files and folders is kept until they change.
    """
    path = Path(path).expanduser()
    changed = path.stat().st_mtime_ns if path.exists() else 0
    return _remembered(path, changed).find(image, image_size)


@lru_cache(maxsize=4)
def _remembered(path: Path, changed: int) -> KeypointFolder:
    return KeypointFolder(path)
