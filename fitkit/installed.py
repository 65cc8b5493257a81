"""What is installed on this machine: body models and the detector's networks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from fitkit.keypoints.detectors.networks import network_status, networks_folder
from fitkit.model_files import InstalledModel, installed_models
from fitkit.paths import model_folders


def describe_installed(model_dir: Path | None = None) -> Iterator[str]:
    """Yield the lines that `fitkit models` prints.

    Args:
        model_dir: folder of the user's body models, looked into first.
    """
    yield "Body models (--model):"
    for _, entries in groupby(installed_models(model_dir), lambda entry: entry.name):
        yield from _describe_model(list(entries))
    yield f"Looked for in: {', '.join(str(folder) for folder in model_folders(model_dir))}"
    yield ""
    yield "Networks of the detector 'mediapipe' (Apache-2.0):"
    for network in network_status():
        yield f"  {network.name:<16}{network.path or f'not yet; fetched into {networks_folder()} when first needed'}"


def _describe_model(entries: list[InstalledModel]) -> Iterator[str]:
    first = entries[0]
    found = [entry for entry in entries if entry.path is not None]
    if not found:
        yield f"  {first.name:<8}not installed: register at {first.website} ({first.licence})"
        return
    yield f"  {first.name:<8}installed ({first.licence})"
    for entry in found:
        yield f"    {entry.gender:<8}{entry.path}"
