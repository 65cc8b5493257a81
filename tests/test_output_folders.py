import os
from pathlib import Path

import pytest

from fitkit.errors import InputError, OutputError
from fitkit.output_folders import Record, assign_folders, digest, read_record, replacing


def photos(folder: Path, *names: str) -> list[Path]:
    made = []
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
        made.append(path)
    return made


def record(photo: Path) -> Record:
    return Record(str(photo.resolve()), digest(photo), {"model": "anny"}, [])


def finish(photo: Path, folder: Path, *names: str) -> None:
    with replacing(folder, record(photo)) as staging:
        for name in names:
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_text(name)


def names(folders: list[Path]) -> list[str]:
    return [folder.name for folder in folders]


def test_a_photo_gets_a_folder_of_its_stem(tmp_path):
    assert assign_folders(photos(tmp_path, "in/a.jpg", "in/b.png"), tmp_path / "out") == [
        tmp_path / "out" / "a",
        tmp_path / "out" / "b",
    ]


def test_photos_with_one_stem_do_not_collide(tmp_path):
    files = photos(tmp_path, "x/a.jpg", "x/a.png", "y/a.jpg", "z/a.jpg", "deep/z/a.jpg", "other/z/a.jpg", "x/A.jpg")
    assigned = assign_folders(files, tmp_path / "out")
    assert names(assigned)[:4] == ["a", "a_png", "a_jpg", "z_a"]
    assert len({name.casefold() for name in names(assigned)}) == len(files)


def test_a_folder_stays_the_photos_whatever_else_is_asked_for(tmp_path):
    first, second = photos(tmp_path, "x/a.jpg", "w/a.jpg")
    (folder,) = assign_folders([first], tmp_path / "out")
    finish(first, folder, "params.npz")
    assert names(assign_folders([second, first], tmp_path / "out")) == ["a_jpg", "a"]
    assert names(assign_folders([second], tmp_path / "out")) == ["a_jpg"]


@pytest.mark.parametrize("name", ["..jpg", "...jpg", "....png", ".hidden.jpg", " .jpg", "a..jpg", "x" * 250 + ".jpg"])
def test_no_name_leads_out_of_the_output_folder_or_hides_in_it(tmp_path, name):
    out = tmp_path / "out"
    (folder,) = assign_folders(photos(tmp_path, f"in/{name}"), out)
    assert folder.parent == out
    assert os.path.dirname(os.path.normpath(folder)) == str(out)
    assert not folder.name.startswith(".")
    folder.mkdir(parents=True)


def test_a_link_to_elsewhere_or_a_file_of_that_name_is_not_taken(tmp_path):
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "a").symlink_to(elsewhere)
    (out / "b").write_text("a photo without an ending")
    assert names(assign_folders(photos(tmp_path, "in/a.jpg", "in/b.jpg"), out)) == ["a_jpg", "b_jpg"]


def test_results_appear_with_their_record(tmp_path):
    (photo,) = photos(tmp_path, "a.jpg")
    finish(photo, tmp_path / "out" / "a", "overlay.jpg", "person_00/params.npz")
    written = read_record(tmp_path / "out" / "a")
    assert written is not None
    assert written.source == str(photo)
    assert written.files == ["overlay.jpg", "person_00/params.npz"]
    assert (tmp_path / "out/a/person_00/params.npz").read_text() == "person_00/params.npz"
    assert sorted(os.listdir(tmp_path / "out")) == ["a"]


def test_a_new_result_replaces_the_old_one_and_nothing_else(tmp_path):
    (photo,) = photos(tmp_path, "a.jpg")
    folder = tmp_path / "out" / "a"
    finish(photo, folder, "overlay.jpg", "person_00/params.npz", "person_01/params.npz")
    (folder / "notes.txt").write_text("mine")
    (folder / "person_00" / "notes.txt").write_text("mine")
    finish(photo, folder, "person_00/params.npz")
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert found == ["fit.json", "notes.txt", "person_00/notes.txt", "person_00/params.npz"]
    assert not (folder / "person_01").exists()


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_a_failure_leaves_what_was_there(tmp_path, error):
    (photo,) = photos(tmp_path, "a.jpg")
    folder = tmp_path / "out" / "a"
    finish(photo, folder, "person_00/params.npz")
    before = (folder / "fit.json").read_bytes()
    with pytest.raises(type(error)), replacing(folder, record(photo)) as staging:
        (staging / "half").write_text("written")
        raise error
    assert (folder / "fit.json").read_bytes() == before
    assert sorted(os.listdir(folder.parent)) == ["a"]
    assert sorted(os.listdir(folder)) == ["fit.json", "person_00"]


def test_a_record_cannot_name_files_outside_its_folder(tmp_path):
    (photo,) = photos(tmp_path, "a.jpg")
    folder = tmp_path / "out" / "a"
    finish(photo, folder, "overlay.jpg")
    text = (folder / "fit.json").read_text().replace('"overlay.jpg"', '"../../a.jpg"')
    (folder / "fit.json").write_text(text)
    finish(photo, folder, "overlay.png")
    assert photo.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"source": 1}'])
def test_a_broken_record_is_no_record(tmp_path, text):
    (tmp_path / "fit.json").write_text(text)
    assert read_record(tmp_path) is None


def test_an_output_folder_that_is_a_file_is_named(tmp_path):
    (photo,) = photos(tmp_path, "a.jpg")
    with pytest.raises(OutputError, match=r"a\.jpg"), replacing(photo / "a", record(photo)):
        pass


def test_the_evidence_changes_with_every_file(tmp_path):
    first, second = photos(tmp_path, "a.jpg", "b.json")
    assert len({digest(first), digest(second), digest(first, second)}) == 3
    with pytest.raises(InputError, match="missing"):
        digest(tmp_path / "missing")
