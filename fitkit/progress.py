"""A progress bar that stays away from short jobs, from pipes and from log files."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE = 2.0
"""Seconds that a job may last before a bar appears."""


class ProgressBar:
    """A bar on standard error, shown only on a terminal and only when the job lasts longer than `PATIENCE`.

    Use it as a context manager; the bar vanishes at the end, whatever ends the job:

        with ProgressBar("Fitting", total=len(photos)) as bar:
            for photo in photos:
                ...
                bar.advance()
    """

    def __init__(self, label: str, total: int, quiet: bool = False) -> None:
        """Make a bar.

        Args:
            label: what is going on, in front of the bar.
            total: number of steps.
            quiet: never show it.
        """
        self.label = label
        self.total = total
        self.done = 0
        self._visible = not quiet and sys.stderr.isatty()
        self._started = time.monotonic()
        self._shown: Progress | None = None
        self._task: TaskID | None = None

    def advance(self, steps: int = 1) -> None:
        """Count some steps as done."""
        self.done += steps
        self._update()

    def describe(self, label: str) -> None:
        """Say what is going on now."""
        self.label = label
        self._update()

    def __enter__(self) -> ProgressBar:
        """Start the clock."""
        self._started = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar off the screen."""
        if self._shown is not None:
            self._shown.stop()
            self._shown = None

    def _update(self) -> None:
        if self._shown is None and self._visible and time.monotonic() - self._started > PATIENCE:
            self._show()
        if self._shown is not None and self._task is not None:
            self._shown.update(self._task, completed=self.done, description=self.label)

    def _show(self) -> None:
        # rich takes a tenth of a second to import: only jobs that are slow anyway pay for it.
        from rich.console import Console
        from rich.progress import Progress

        console = Console(stderr=True, soft_wrap=True, highlight=False)
        # Lines printed meanwhile go above the bar; where standard output is a pipe or a file, they stay there.
        self._shown = Progress(console=console, transient=True, redirect_stdout=sys.stdout.isatty())
        self._task = self._shown.add_task(self.label, total=self.total, completed=self.done)
        self._shown.start()
