import io
import subprocess
import sys

import pytest

from fitkit import progress
from fitkit.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def work(monkeypatch):
    """Return a job of three steps that gives back what it wrote to the stream in standard error's place."""
    monkeypatch.setenv("TERM", "xterm")

    def job(stream: io.StringIO, quiet: bool = False, error: type[BaseException] | None = None) -> str:
        monkeypatch.setattr(sys, "stderr", stream)
        with ProgressBar("Fitting", total=3, quiet=quiet) as bar:
            for _ in range(3):
                bar.advance()
            if error:
                raise error
        return stream.getvalue()

    return job


def test_a_long_job_on_a_terminal_shows_a_bar_and_takes_it_away(work, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    written = work(Terminal())
    assert "Fitting" in written
    assert written.endswith("\x1b[2K"), "the bar's line is erased at the end"


def test_the_bar_says_what_is_going_on(work, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with ProgressBar("Detecting", total=3) as bar:
        bar.describe("Fitting")
    assert "Fitting" in terminal.getvalue()


def test_a_short_job_shows_nothing(work):
    assert work(Terminal()) == ""


def test_quiet_shows_nothing(work, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    assert work(Terminal(), quiet=True) == ""


def test_a_pipe_or_a_log_file_gets_nothing(work, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    assert work(io.StringIO()) == ""


def test_what_is_printed_into_a_pipe_stays_in_it(monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    terminal, pipe = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", pipe)
    with ProgressBar("Fitting", total=3) as bar:
        bar.advance()
        print("a line of results")
    assert pipe.getvalue() == "a line of results\n"
    assert "results" not in terminal.getvalue()


def test_the_bar_goes_when_the_job_fails(work, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    terminal = Terminal()
    with pytest.raises(KeyboardInterrupt):
        work(terminal, error=KeyboardInterrupt)
    assert terminal.getvalue().endswith("\x1b[2K")


def test_rich_is_not_imported_before_a_bar_is_shown():
    code = "import sys, fitkit.progress; assert 'rich' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
