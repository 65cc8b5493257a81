"""The detector's network files are found, fetched whole or not at all, and never trusted unseen."""

import hashlib
import importlib.machinery
import importlib.util
import subprocess
import zipfile
from pathlib import Path

import pytest

from fitkit.errors import ModelNotFoundError, OutputError
from fitkit.keypoints.detectors import networks, wheel
from fitkit.keypoints.detectors.networks import NetworkFile, fetch_networks, load_networks, network_status

CONTENT = {"one": b"first network", "two": b"second network"}
FILES = {
    name: NetworkFile(f"mediapipe/modules/{name}/{name}.tflite", hashlib.sha256(content).hexdigest())
    for name, content in CONTENT.items()
}


@pytest.fixture(autouse=True)
def bare_machine(tmp_path, monkeypatch):
    """A machine with no networks, no mediapipe and no index; the table lists two small files."""
    monkeypatch.setenv("FITKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FITKIT_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    for variable in wheel.INDEX_VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(networks, "NETWORKS", FILES)
    monkeypatch.setattr(networks, "_installed_mediapipe", lambda: [])
    monkeypatch.setattr(wheel, "_pip_commands", lambda: iter(()))


def make_wheel(path: Path, content: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(FILES[name].member, data)
    return path


@pytest.fixture
def pip(monkeypatch):
    """Put a stand-in for pip in place; it calls `pip.download(folder)` and counts its calls."""

    class Pip:
        calls = 0

        def download(self, folder: Path) -> None:
            make_wheel(folder / "mediapipe-0.10.21-any.whl", CONTENT)

        def __call__(self, command, **_):
            self.calls += 1
            folder = Path(command[command.index("--dest") + 1])
            try:
                self.download(folder)
            except ConnectionError as error:
                return subprocess.CompletedProcess(command, 1, "", f"WARNING: x\nERROR: {error}\n")
            return subprocess.CompletedProcess(command, 0, "", "")

    stand_in = Pip()
    monkeypatch.setattr(wheel, "_pip_commands", lambda: iter([["pip"]]))
    monkeypatch.setattr(wheel.subprocess, "run", stand_in)
    return stand_in


def test_nothing_installed():
    assert [(entry.path, entry.source) for entry in network_status()] == [(None, "missing")] * 2


def test_they_are_fetched_once_with_one_line(pip, tmp_path):
    lines = []
    assert load_networks(report=lines.append) == CONTENT
    assert load_networks(report=lines.append) == CONTENT
    assert pip.calls == 1
    assert len(lines) == 1 and "\n" not in lines[0] and str(tmp_path / "cache") in lines[0]
    assert {entry.source for entry in network_status()} == {"cache"}


@pytest.mark.parametrize("place", ["{}.tflite", "mediapipe/{}.tflite", "mediapipe/modules/{0}/{0}.tflite"])
def test_the_users_own_files_come_first(pip, tmp_path, place):
    fetch_networks(lambda _: None)
    for name, content in CONTENT.items():
        path = tmp_path / "models" / place.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert {entry.source for entry in network_status()} == {"model folder"}


def test_a_wheel_in_the_users_folder_will_do(tmp_path):
    make_wheel(tmp_path / "models" / "mediapipe-0.10.21-cp311-any.whl", CONTENT)
    assert load_networks() == CONTENT


def test_an_installed_mediapipe_will_do(tmp_path, monkeypatch):
    for name, content in CONTENT.items():
        path = tmp_path / "site-packages" / FILES[name].member
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    monkeypatch.setattr(networks, "_installed_mediapipe", lambda: [tmp_path / "site-packages" / "mediapipe"])
    assert load_networks() == CONTENT
    assert {entry.source for entry in network_status()} == {"mediapipe package"}


def test_mediapipe_is_found_without_being_imported(tmp_path, monkeypatch):
    monkeypatch.undo()
    (tmp_path / "mediapipe").mkdir()
    (tmp_path / "mediapipe" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    spec = importlib.machinery.PathFinder.find_spec("mediapipe", [str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert networks._installed_mediapipe() == [tmp_path / "mediapipe"]


def test_files_with_another_hash_do_not_count(pip, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "one.tflite").write_bytes(b"something else")
    assert load_networks(report=lambda _: None) == CONTENT
    assert {entry.source for entry in network_status()} == {"cache"}


def test_a_damaged_cache_is_mended(pip, tmp_path):
    load_networks(report=lambda _: None)
    (tmp_path / "cache" / "networks" / "two.tflite").write_bytes(b"half")
    assert load_networks(report=lambda _: None) == CONTENT


def test_offline_says_how_to_bring_them(pip, tmp_path):
    def fail(folder):
        raise ConnectionError("No matching distribution found")

    pip.download = fail
    with pytest.raises(ModelNotFoundError, match="No matching distribution") as caught:
        load_networks(report=lambda _: None)
    assert wheel.REQUIREMENT in str(caught.value) and str(tmp_path / "models") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_any_installer_there_is_a_message_too():
    with pytest.raises(ModelNotFoundError, match="neither pip nor uv"):
        load_networks(report=lambda _: None)


def test_a_wheel_with_other_files_is_refused_and_leaves_nothing(pip, tmp_path):
    pip.download = lambda folder: make_wheel(folder / "mediapipe-0.10.21-any.whl", {"one": b"x", "two": b"y"})
    with pytest.raises(ModelNotFoundError, match="another one.tflite"):
        load_networks(report=lambda _: None)
    assert list((tmp_path / "cache" / "networks").iterdir()) == []


def test_an_interrupted_download_leaves_nothing_broken(pip, tmp_path):
    def interrupt(folder):
        (folder / "mediapipe-0.10.21-any.whl").write_bytes(b"PK half a wheel")
        raise KeyboardInterrupt

    whole, pip.download = pip.download, interrupt
    with pytest.raises(KeyboardInterrupt):
        load_networks(report=lambda _: None)
    assert not any(path.is_file() for path in (tmp_path / "cache").rglob("*"))
    pip.download = whole
    assert load_networks(report=lambda _: None) == CONTENT


def test_a_cache_that_cannot_be_written(pip, tmp_path):
    (tmp_path / "cache").write_bytes(b"a file is in the way")
    with pytest.raises(OutputError, match="cache"):
        load_networks(report=lambda _: None)


PAGE = """<!DOCTYPE html><html><body>
<a href="../../files/mediapipe-0.10.21-cp311-cp311-win_amd64.whl#sha256=0">w</a>
<a href="../../files/mediapipe-0.10.20-cp311-cp311-manylinux_2_28_x86_64.whl">o</a>
<a data-x="&gt;=3" href="../../files/mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl#sha256=1">m</a>
</body></html>"""


def test_the_wheel_is_found_on_a_simple_index_page():
    link = wheel.find_link(PAGE, "https://index.example/simple/mediapipe/")
    assert link == "https://index.example/files/mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl#sha256=1"
    with pytest.raises(ValueError, match="does not list"):
        wheel.find_link("<html></html>", "https://index.example/simple/mediapipe/")


def test_without_pip_the_named_index_is_read(tmp_path, monkeypatch):
    simple = tmp_path / "simple" / "mediapipe" / "index.html"
    simple.parent.mkdir(parents=True)
    simple.write_text(PAGE)
    name = "mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl"
    make_wheel(tmp_path / "files" / name, CONTENT)
    addresses = {
        "https://index.example/simple/mediapipe/": simple,
        f"https://index.example/files/{name}#sha256=1": tmp_path / "files" / name,
    }

    def open_url(url, timeout):
        return Response(addresses[url].read_bytes(), url)

    monkeypatch.setattr(wheel.urllib.request, "urlopen", open_url)
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://index.example/simple")
    assert load_networks(report=lambda _: None) == CONTENT


class Response:
    """What `urlopen` returns, as far as it is used."""

    def __init__(self, content: bytes, url: str) -> None:
        self.content, self.url = content, url

    def read(self, size: int = -1) -> bytes:
        part = self.content if size < 0 else self.content[:size]
        self.content = self.content[len(part) :]
        return part

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass
