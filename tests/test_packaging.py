"""What is installed: fitkit with all that lies below it, from a wheel, an sdist and an editable install alike."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINKED = ("priors", "keypoints", "configs")
DATA_SUFFIXES = {".yaml", ".npz", ".json", ".safetensors"}


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command away from the checkout's modules and return what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def build(kind: str, source: Path, into: Path) -> Path:
    run(sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "--outdir", into, source, cwd=into)
    (built,) = into.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


def files_of_wheel(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """Return a copy of the checkout, links as links, so that building leaves nothing in the real one."""
    copy = tmp_path_factory.mktemp("checkout") / "fitkit-body"
    unwanted = shutil.ignore_patterns(".git", ".*_cache", "__pycache__", "build", "dist", "*.egg-info", ".venv", "venv")
    shutil.copytree(ROOT, copy, symlinks=True, ignore=unwanted)
    return copy


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory) -> Path:
    return build("wheel", checkout, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(checkout, tmp_path_factory) -> Path:
    return build("sdist", checkout, tmp_path_factory.mktemp("sdist"))


def files_of_package(checkout: Path) -> set[str]:
    """Return what must be installed: modules and data below fitkit/, links followed."""
    found = set()
    for folder, _, files in os.walk(checkout / "fitkit", followlinks=True):
        wanted = [Path(folder, name) for name in files if Path(name).suffix in {".py", *DATA_SUFFIXES}]
        found |= {path.relative_to(checkout).as_posix() for path in wanted}
    return found


@pytest.mark.skipif(not (ROOT / "priors").exists(), reason="an unpacked sdist carries the folders themselves")
@pytest.mark.parametrize("name", LINKED)
def test_the_links_of_the_checkout_point_beside_the_package(name):
    link = ROOT / "fitkit" / name
    assert link.is_symlink()
    assert os.readlink(link) == f"../{name}"


def test_the_wheel_holds_every_module_and_data_file(checkout, wheel):
    assert sorted(files_of_package(checkout) - files_of_wheel(wheel)) == []


def test_the_wheel_installs_nothing_beside_fitkit(wheel):
    tops = {name.partition("/")[0] for name in files_of_wheel(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"fitkit"}


def test_the_wheel_carries_licence_notice_and_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        (scripts,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        text = archive.read(metadata).decode()
        assert "fitkit = fitkit.cli:main" in archive.read(scripts).decode()
    assert "\nName: fitkit-body\n" in text
    assert "\nLicense-Expression: Apache-2.0\n" in text
    assert {Path(name).name for name in files_of_wheel(wheel) if "/licenses/" in name} == {"LICENSE", "NOTICE"}


def test_the_wheel_is_small_enough_for_an_index(wheel):
    assert wheel.stat().st_size < 60e6


def test_the_sdist_builds_the_same_wheel(sdist, wheel, tmp_path):
    with tarfile.open(sdist) as archive:
        links = [member.name for member in archive.getmembers() if member.issym() or member.islnk()]
        assert links == []
        archive.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    assert not any((source / name).exists() for name in LINKED)
    (tmp_path / "again").mkdir()
    assert files_of_wheel(build("wheel", source, tmp_path / "again")) == files_of_wheel(wheel)


def test_an_editable_install_finds_the_linked_folders(checkout, tmp_path):
    venv.EnvBuilder(system_site_packages=True, with_pip=False).create(tmp_path / "venv")
    python = tmp_path / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    # The dependencies are those of the interpreter that runs the tests, which may itself live in a virtual environment.
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("-packages")))
    install = ("-m", "pip", "--python", python, "install", "--no-deps", "--no-build-isolation", "--quiet")
    run(sys.executable, *install, "--editable", checkout, cwd=tmp_path)
    code = "import fitkit.priors, fitkit.keypoints, fitkit.configs as configs; print(configs.__file__)"
    assert str(checkout) in run(python, "-c", code, cwd=tmp_path)
    for name in LINKED:
        missing = f"import importlib.util as u; print(u.find_spec('{name}') is None)"
        assert run(python, "-c", missing, cwd=tmp_path).strip() == "True", f"'{name}' is installed at top level"


def test_one_version_everywhere(wheel):
    from fitkit.version import __version__

    assert wheel.name.startswith(f"fitkit_body-{__version__}-")
