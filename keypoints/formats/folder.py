"""Finding a picture's keypoints in a file or a folder of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from fitkit.errors import InputError
from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.formats.base import Recorded
from fitkit.keypoints.formats.files import open_keypoints, select_image, stem_of, unpack, without_zeros

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
        self._opened: dict[Path, _Opened] = {}
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
            found = self._find_in(named, image, image_size, named_after=True)
            if found is not None:
                return found
        recording = dict.fromkeys(file for key in _keys(image) for file in self._index().get(key, []))
        all_found = [self._find_in(file, image, image_size) for file in recording]
        return max((found for found in all_found if found is not None), key=lambda k: len(k.names), default=None)

    def find_all(self, images: Iterable[str | os.PathLike[str]]) -> list[Keypoints | None]:
        """Return the keypoints of each picture, None for those without.

        Raises:
            InputError: a file is broken, or one unnamed picture's keypoints are asked for several pictures.
        """
        paths = [Path(image) for image in images]
        if len(paths) > 1 and not self.path.is_dir() and not self._open(self.path).by_key:
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

    def _find_in(
        self, file: Path, image: Path, image_size: tuple[int, int] | None, named_after: bool = False
    ) -> Keypoints | None:
        """Return a picture's keypoints from one file; a lone entry of a file named after the picture needs no name."""
        opened = self._open(file)
        recorded = opened.entries
        if opened.by_key and not (named_after and len(recorded) == 1):
            recorded = select_image([entry for key in _keys(image) for entry in opened.by_key.get(key, [])], image)
        if len(recorded) > 1:
            raise InputError(f"{file} holds {len(recorded)} pictures without names; give one file per picture.")
        return unpack(recorded[0], file, image_size) if recorded else None

    def _open(self, file: Path) -> _Opened:
        """Return a file's pictures, from memory where it holds more than one."""
        changed = file.stat().st_mtime_ns
        if file in self._opened and self._opened[file].changed == changed:
            return self._opened[file]
        opened = _Opened(changed, open_keypoints(file))
        if len(opened.entries) > 1 or file == self.path:
            self._opened[file] = opened
        return opened

    def _index(self) -> dict[str, list[Path]]:
        """Return which files record each picture, by key; every file is read once for it."""
        if self._recording is None:
            self._recording = {}
            for file in sorted(self.path.iterdir()):
                for key in self._recorded_keys(file):
                    self._recording.setdefault(key, []).append(file)
        return self._recording

    def _recorded_keys(self, file: Path) -> Iterable[str]:
        """Return the keys of the pictures that a file names; none for other files, however broken."""
        if file.suffix.lower() not in (".json", ".npz") or file.name.startswith(".") or not file.is_file():
            return ()
        if file.name.endswith("_keypoints.json"):  # OpenPose's, found by its name
            return ()
        try:
            return self._open(file).by_key
        except InputError:
            return ()


class _Opened:
    """The pictures of a file, and where to look for each."""

    def __init__(self, changed: int, entries: list[Recorded]) -> None:
        """Sort the entries by the key of their names."""
        self.changed = changed
        self.entries = entries
        self.by_key: dict[str, list[Recorded]] = {}
        for entry in entries:
            if entry.image is not None:
                self.by_key.setdefault(_recorded_key(entry.image), []).append(entry)


def _recorded_key(name: str) -> str:
    """Return the stem of a recorded name; of numbers, without leading zeros."""
    stem = name if name.isdecimal() else Path(name.replace("\\", "/")).stem
    return without_zeros(stem)


def _keys(image: Path) -> list[str]:
    """Return under what a picture may be recorded: its name, and the number that this ends with."""
    return list(dict.fromkeys([_recorded_key(image.name), _recorded_key(image.stem.rpartition("_")[2])]))


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
