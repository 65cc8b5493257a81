"""What every run over photos shares: what it says to the user, what it counts, and what it survives."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from fitkit.errors import FitkitError, ModelNotFoundError, OutputError, UsageError

Result = TypeVar("Result")

FATAL = (UsageError, ModelNotFoundError, OutputError)
"""Errors that every other photo would meet as well."""


@dataclass
class Tally:
    """How many photos ended in which way."""

    total: int
    """All photos."""
    done: int = 0
    """Photos with new results."""
    people: int = 0
    """People in them."""
    empty: int = 0
    """Photos without people."""
    kept: int = 0
    """Photos whose results were there already."""
    differing: int = 0
    """Photos whose results were there already but were made by other settings."""
    failed: int = 0
    """Photos that could not be used."""

    def exit_code(self, lone: bool) -> int:
        """Return 1 when something that was asked for is missing, 0 otherwise.

        Args:
            lone: one photo was named: nobody in it is then a failure, which it is not in a folder.
        """
        return int(bool(self.failed or self.differing or (lone and self.empty)))

    def describe(self, verb: str, out: Path) -> str:
        """Return one line on all photos; `verb` says what was done to them, such as "fitted"."""
        people = f" ({self.people} {'person' if self.people == 1 else 'people'})" if self.people else ""
        parts = [f"{self.done} {verb}{people}"]
        parts += [f"{self.kept} done before"] * bool(self.kept)
        parts += [f"{self.differing} kept as made by other settings"] * bool(self.differing)
        parts += [f"{self.empty} without people"] * bool(self.empty)
        parts += [f"{self.failed} failed"] * bool(self.failed)
        return f"{self.total} photos: {', '.join(parts)}. Results are in {out}."


@dataclass
class Terminal:
    """Where a run speaks: lines of results on standard output, problems on standard error."""

    quiet: bool = False
    """Say nothing but problems."""
    debug: bool = False
    """Show the traceback of every problem."""
    written: list[str] = field(default_factory=list)
    """Problems so far."""

    def line(self, text: str) -> None:
        """Print a line of results."""
        if not self.quiet:
            print(text, flush=True)

    def problem(self, text: str) -> None:
        """Print a problem."""
        self.written.append(text)
        print(text, file=sys.stderr, flush=True)


def attempt(photo: Path, deed: Callable[[], Result], tally: Tally, terminal: Terminal) -> Result | None:
    """Return what a deed returns; when it fails, say so, count the photo as failed, and return None.

    Raises:
        FitkitError: one of `FATAL`, at which the run cannot go on.
    """
    try:
        return deed()
    except FATAL:
        raise
    except FitkitError as error:
        message = str(error)
    except MemoryError:
        message = "it does not fit into memory; make the photo smaller, or use a smaller --batch-size."
    except Exception as error:
        if terminal.debug:
            traceback.print_exc()
        detail = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        message = f"this should not happen ({detail}); FITKIT_DEBUG=1 shows where it did."
    tally.failed += 1
    terminal.problem(message if str(photo) in message else f"{photo}: {message}")
    return None
