"""Where each photo's results lie: a folder of its own, a record of how they were made, no half-written state."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from fitkit.errors import InputError, OutputError
from fitkit.files import explain, make_folder

RECORD = "fit.json"
"""Name of the record in each photo's folder."""


@dataclass(frozen=True)
class Record:
    """What the results in a folder are, and what they were made from; its presence says that they are complete."""

    source: str
    """Absolute path of the photo."""
    evidence: str
    """SHA-256 of the photo's file and, where one was given, of its keypoint file."""
    settings: dict[str, Any]
    """Everything that the result depends on: model, recipe, detector, ..."""
    people: list[dict[str, Any]]
    """For each person: folder, status, reprojection error."""
    outputs: list[str] = field(default_factory=list)
    """What was asked to be saved: "npz", "glb", "overlay", ..."""
    files: list[str] = field(default_factory=list)
    """Files of this result, relative to the folder."""
    version: str = ""
    """Version of fitkit that wrote it."""


def read_record(folder: Path) -> Record | None:
    """Return the record of the results in a folder, or None when there is none that can be read."""
    try:
        content = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return Record(**{entry.name: content[entry.name] for entry in fields(Record)})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def digest(*paths: Path) -> str:
    """Return the SHA-256 of some files' contents, one after the other."""
    hasher = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    hasher.update(block)
        except FileNotFoundError as error:
            raise InputError(f"There is no file {path}.") from error
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    return hasher.hexdigest()


def assign_folders(photos: Sequence[Path], out: Path) -> list[Path]:
    """Return the folder for each photo's results: all different, all directly below `out`.

    A photo gets `out/<stem>`. Where another photo has that name, its ending, then its folder's name, then a hash of its
    path are added. A folder whose record names the photo stays the photo's, whatever else is in this call.

    Args:
        photos: the files, each once.
        out: the output folder; it need not exist.
    """
    owners: dict[str, str] = {}
    chosen: list[Path] = []
    waiting: dict[int, list[str]] = {}
    for index, photo in enumerate(photos):
        source, names = str(photo.resolve()), _candidates(photo)
        own = next((name for name in names if _recorded_source(out / name) == source), None)
        if own is not None:
            owners[own.casefold()] = source
        waiting[index] = [own] if own is not None else names
    for index, photo in enumerate(photos):
        source = str(photo.resolve())
        name = next(name for name in waiting[index] if _is_free(out / name, source, owners))
        owners[name.casefold()] = source
        chosen.append(out / name)
    return chosen


def _recorded_source(folder: Path) -> str | None:
    record = read_record(folder)
    return record.source if record else None


def assign_names(photos: Sequence[Path]) -> list[str]:
    """Return a file name without its ending for each photo, all different: its stem, or its whole name, or longer."""
    taken: set[str] = set()
    chosen = []
    for photo in photos:
        name = next(name for name in _candidates(photo, ".") if name.casefold() not in taken)
        taken.add(name.casefold())
        chosen.append(name)
    return chosen


def _candidates(photo: Path, dot: str = "_") -> list[str]:
    """Return names for a photo's results, the plainest first; the last one is the photo's alone."""
    # A file called "...jpg" has the stem "..": no name may lead out of the output folder, or be hidden in it.
    stem = photo.stem[:120].strip(" .") or "photo"
    path = str(photo.resolve())
    ending = photo.suffix.lstrip(".").lower()
    parent = photo.resolve().parent.name[:80].strip(" .")
    by_path = hashlib.sha256(path.encode(errors="surrogateescape")).hexdigest()[:12]
    named = f"{stem}{dot}{ending}"
    return [stem, named, f"{parent}_{stem}", f"{parent}_{named}", f"{stem}_{by_path}"]


def _is_free(folder: Path, source: str, owners: dict[str, str]) -> bool:
    if owners.get(folder.name.casefold(), source) != source:
        return False
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return False
    return _recorded_source(folder) in (None, source)


@contextmanager
def replacing(folder: Path, record: Record) -> Iterator[Path]:
    """Yield an empty folder; when the block ends well, its files and the record become the results in `folder`.

    Files of an earlier result are removed, and files that are none of ours stay. When the block fails, `folder` is left
    as it was.

    Args:
        folder: where the results are to lie; its parent is made.
        record: how they are made; its `files` are filled in.

    Raises:
        OutputError: the files cannot be written.
    """
    make_folder(folder.parent)
    staging = folder.parent / f".fitkit-{secrets.token_hex(6)}"
    try:
        with _explained(folder):
            staging.mkdir()
        yield staging
        with _explained(folder):
            files = sorted(path.relative_to(staging).as_posix() for path in staging.rglob("*") if path.is_file())
            content = asdict(record) | {"files": files}
            (staging / RECORD).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
            _move(staging, folder, files)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(explain(error.filename or folder, error)) from error


def _move(staging: Path, folder: Path, files: list[str]) -> None:
    if not folder.exists():
        os.rename(staging, folder)
        return
    old = read_record(folder)
    # Without its record a result counts as unfinished: whatever stops this loop, the next run makes it anew.
    (folder / RECORD).unlink(missing_ok=True)
    for name in old.files if old else []:
        _remove(folder, name)
    for name in [*files, RECORD]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(staging / name, folder / name)


def _remove(folder: Path, name: str) -> None:
    """Remove a file of an earlier result, and its folder when nothing is left in it."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        return
    path.unlink(missing_ok=True)
    if path.parent != folder and path.parent.is_dir() and not any(path.parent.iterdir()):
        path.parent.rmdir()
