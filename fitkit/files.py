"""Writing files so that a failure leaves nothing half-written."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fitkit.errors import OutputError

REASONS = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.ENOENT: "its folder does not exist",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "a folder of that name is in the way",
    errno.EEXIST: "a file of that name is in the way",
    errno.ENAMETOOLONG: "the name is too long",
}
"""What an operating system's error number means to somebody who wanted to write a file."""


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path` that becomes `path` when the block ends well, and vanishes when it does not.

    The temporary file exists already (empty), lies in the same folder and keeps the suffix, so that writers that choose
    a format by the suffix work. After an exception of any kind, Ctrl-C included, an older file at `path` is untouched.

    Args:
        path: the file to write; its folder must exist (see `make_folder`).

    Raises:
        OutputError: the file cannot be written (no permission, disk full, ...).
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.stem[:64]}-{secrets.token_hex(4)}{target.suffix}")
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        # Not tempfile.mkstemp: its files are readable by their owner only, whatever the umask says.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        if not _is_about(error, temporary, target):
            raise
        raise OutputError(explain(path, error)) from error
    finally:
        # After os.replace the temporary name no longer exists.
        with _ignoring_os_errors():
            temporary.unlink(missing_ok=True)


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Return the folder `path`, made together with its parents where it did not exist.

    Raises:
        OutputError: it cannot be made, or nothing may be written into it.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(explain(path, error, "make the folder")) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"Cannot write into {os.fspath(path)}: permission denied; choose another output folder.")
    return folder


def explain(path: str | os.PathLike[str], error: OSError, action: str = "write") -> str:
    """Return one sentence that says which file could not be written, and why."""
    reason = REASONS.get(error.errno or 0) or (error.strerror or str(error) or type(error).__name__)
    return f"Cannot {action} {os.fspath(path)}: {reason}."


def _is_about(error: OSError, *paths: Path) -> bool:
    """Return whether an error concerns the file being written, and not another one that the block reads.

    Failing writes (disk full) carry no file name.
    """
    return error.filename is None or os.fspath(error.filename) in {str(path) for path in paths}


@contextmanager
def _ignoring_os_errors() -> Iterator[None]:
    try:
        yield
    except OSError:
        pass
