"""Files appear whole or not at all."""

import errno
import os
import stat

import pytest

from fitkit.errors import OutputError
from fitkit.files import atomic_write, make_folder


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_the_file_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "mesh.glb"
    with atomic_write(target) as path:
        assert path.parent == tmp_path and path.suffix == ".glb"
        path.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["mesh.glb"]


@pytest.mark.parametrize(
    "error", [ValueError("bad"), KeyboardInterrupt(), SystemExit(1)], ids=lambda e: type(e).__name__
)
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "params.npz"
    target.write_text("old")
    with pytest.raises(type(error)), atomic_write(target) as path:
        path.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert names(tmp_path) == ["params.npz"]


def test_a_full_disk_is_one_sentence(tmp_path):
    with pytest.raises(OutputError, match="no space is left") as caught, atomic_write(tmp_path / "a.npz") as path:
        path.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "a.npz" in str(caught.value) and "\n" not in str(caught.value)
    assert names(tmp_path) == []


def test_an_error_of_another_file_passes_through(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a.npz"):
        (tmp_path / "another.txt").read_text()
    assert names(tmp_path) == []


def test_missing_folder_and_folder_in_the_way(tmp_path):
    with pytest.raises(OutputError, match="folder does not exist"), atomic_write(tmp_path / "no" / "a.npz"):
        pass
    (tmp_path / "a.npz").mkdir()
    with pytest.raises(OutputError, match="in the way"), atomic_write(tmp_path / "a.npz"):
        pass


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_no_permission_is_one_sentence(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="permission denied"), atomic_write(tmp_path / "a.npz"):
            pass
        with pytest.raises(OutputError, match="permission denied"):
            make_folder(tmp_path)
        with pytest.raises(OutputError, match="permission denied"):
            make_folder(tmp_path / "b")
    finally:
        tmp_path.chmod(0o700)


def test_no_permission_is_told_by_its_number(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OutputError, match="permission denied"), atomic_write(tmp_path / "a.npz"):
        pass


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_the_mode_follows_the_umask(tmp_path):
    old = os.umask(0o022)
    try:
        with atomic_write(tmp_path / "a") as path:
            path.write_text("x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    with atomic_write(tmp_path / "link.txt") as path:
        path.write_text("new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_make_folder_makes_parents_and_refuses_a_file(tmp_path):
    assert make_folder(tmp_path / "a" / "b").is_dir()
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        make_folder(tmp_path / "file" / "b")
    with pytest.raises(OutputError, match="in the way"):
        make_folder(tmp_path / "file")
