"""Model files: found where the documentation says, read without running anything, and what is wrong is said."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import random
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse
from synthetic_models import make_arrays, write_model

from fitkit.errors import InputError, ModelNotFoundError, UsageError
from fitkit.model_files import (
    EMBEDDED,
    GENDERS,
    LICENSED,
    MODEL_NAMES,
    find_model,
    installed_models,
    load_model,
    read_npz_arrays,
)
from fitkit.models.arrays import ModelChoice
from fitkit.models.unpickle import read_pickled_arrays
from fitkit.paths import MODELS_VARIABLE

SMALL = 60
"""Vertices of models whose shape does not matter."""


def _choice(name: str, gender: str = "neutral") -> ModelChoice:
    return ModelChoice(name, name, gender, dtype=torch.float64)


# ---------------------------------------------------------------------------------------------- where they lie


@pytest.fixture
def no_models(tmp_path, monkeypatch) -> Path:
    """A user without models; returns the user's data folder."""
    monkeypatch.delenv(MODELS_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "fitkit" / "models"


@pytest.mark.parametrize("kind", LICENSED)
@pytest.mark.parametrize("suffix", ["npz", "pkl"])
def test_smplxs_own_layout_is_found(tmp_path, kind, suffix):
    written = write_model(tmp_path, kind, "female", suffix, vertices=SMALL)
    assert find_model(kind, "female", tmp_path) == written
    model = load_model(_choice(kind, "female"), tmp_path)
    assert (model.name, model.kind, model.gender) == (kind, kind, "female")
    assert model.file_hash == hashlib.sha256(written.read_bytes()).hexdigest()


@pytest.mark.parametrize("place", ["smplx", "models/smplx", "."])
def test_a_folder_may_be_the_download_the_models_or_the_files(tmp_path, place):
    written = write_model(tmp_path / "elsewhere", "smplx", vertices=SMALL)
    target = tmp_path / "mine" / place / written.name
    target.parent.mkdir(parents=True)
    written.rename(target)
    assert find_model("smplx", "neutral", tmp_path / "mine").samefile(target)


def test_the_folder_named_wins_over_the_variable_over_the_data_folder(tmp_path, no_models, monkeypatch):
    places = [write_model(folder, "smpl", vertices=SMALL) for folder in (tmp_path / "a", tmp_path / "b", no_models)]
    assert find_model("smpl", "neutral") == places[2]
    monkeypatch.setenv(MODELS_VARIABLE, os.pathsep.join([str(tmp_path / "nothing"), str(tmp_path / "b")]))
    assert find_model("smpl", "neutral") == places[1]
    assert find_model("smpl", "neutral", tmp_path / "a") == places[0]


@pytest.mark.parametrize("kind", LICENSED)
def test_what_is_missing_is_said_with_the_website_the_place_and_the_way_without(tmp_path, no_models, kind):
    with pytest.raises(ModelNotFoundError) as caught:
        load_model(_choice(kind, "male"), tmp_path)
    message = str(caught.value)
    assert LICENSED[kind].website in message
    assert str(tmp_path / kind / f"{kind.upper()}_MALE.npz") in message
    assert "--model anny" in message and "$FITKIT_MODELS" in message
    with pytest.raises(ModelNotFoundError, match=str(no_models)):
        load_model(_choice(kind))


def test_another_gender_that_is_there_is_pointed_out(tmp_path, no_models):
    """SMPL-H is published without a neutral body, which is the default."""
    for gender in ("female", "male"):
        write_model(tmp_path, "smplh", gender, vertices=SMALL)
    with pytest.raises(ModelNotFoundError, match="--gender female or --gender male"):
        load_model(_choice("smplh"), tmp_path)


@pytest.mark.parametrize(("name", "meant"), [("smpl-x", "smplx"), ("SMPLX", "smplx"), ("any", "anny")])
def test_an_unknown_model_gets_a_suggestion(name, meant):
    with pytest.raises(UsageError, match=f"Did you mean '{meant}'"):
        load_model(_choice(name))


def test_an_unknown_gender_gets_a_suggestion():
    with pytest.raises(UsageError, match="Did you mean 'female'"):
        load_model(_choice("anny", "femal"))


def test_models_are_listed_with_their_files(tmp_path, no_models):
    written = write_model(tmp_path, "smplh", "male", vertices=SMALL)
    entries = {(entry.name, entry.gender): entry for entry in installed_models(tmp_path)}
    assert set(entries) == {(name, gender) for name in MODEL_NAMES for gender in GENDERS}
    assert all(entries[EMBEDDED, gender].path.is_file() for gender in GENDERS)
    assert entries["smplh", "male"].path == written and entries["smplx", "neutral"].path is None
    assert all((entry.website is None) == (entry.name == EMBEDDED) and entry.licence for entry in entries.values())


# ---------------------------------------------------------------------------------------------- damaged files


def test_a_truncated_npz_is_refused_wherever_it_ends(tmp_path):
    content = write_model(tmp_path, "smpl", vertices=SMALL).read_bytes()
    for length in [0, 1, 30, *range(100, len(content) - 1, len(content) // 25), len(content) - 1]:
        with pytest.raises(InputError, match="truncated"):
            read_npz_arrays(content[:length])


def test_a_damaged_file_is_an_input_error_that_names_it(tmp_path):
    path = write_model(tmp_path, "smplx", vertices=SMALL)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=f"{path} cannot be used.*truncated"):
        load_model(_choice("smplx"), tmp_path)


@pytest.mark.parametrize("compressed", [False, True])
def test_flipped_bytes_never_raise_anything_else(compressed):
    buffer = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    save(buffer, **make_arrays("smpl", vertices=12))
    content, dice = bytearray(buffer.getvalue()), random.Random(0)
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(dice.randint(1, 20)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        try:
            read_npz_arrays(bytes(damaged))
        except InputError:
            pass


@pytest.mark.parametrize("content", [b"", b"PK", b"not a model", b"\x93NUMPY\x01\x00"])
def test_what_is_no_npz_is_refused(tmp_path, content):
    path = tmp_path / "SMPLX_NEUTRAL.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no npz"):
        load_model(_choice("smplx"), tmp_path)


def test_a_single_array_is_refused(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "SMPLX_NEUTRAL.npz")
    with pytest.raises(InputError, match="single array"):
        load_model(_choice("smplx"), tmp_path)


def test_a_file_without_what_a_model_needs_says_what_lacks(tmp_path):
    arrays = make_arrays("smplx", vertices=SMALL)
    del arrays["weights"], arrays["J_regressor"]
    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **arrays)
    with pytest.raises(InputError, match="lacks weights, J_regressor"):
        load_model(_choice("smplx"), tmp_path)


def test_a_model_of_another_kind_is_refused(tmp_path):
    written = write_model(tmp_path, "smplh", vertices=SMALL)
    written.rename(tmp_path / "SMPLX_NEUTRAL.npz")
    with pytest.raises(InputError, match="55 joints; this file has 52"):
        load_model(_choice("smplx"), tmp_path)


@pytest.mark.parametrize("key", ["v_template", "shapedirs", "J_regressor", "weights", "f", "posedirs", "kintree_table"])
def test_arrays_that_do_not_fit_together_are_refused(tmp_path, key):
    arrays = make_arrays("smplx", vertices=SMALL)
    arrays[key] = arrays[key][..., :-1] if key != "shapedirs" else arrays[key][:-1]
    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **arrays)
    with pytest.raises(InputError, match=f"{key}|joints"):
        load_model(_choice("smplx"), tmp_path)


def test_pickled_objects_in_a_published_npz_are_left_alone(tmp_path):
    """Published SMPL-X files carry dictionaries (joint names, part segmentation) as pickled object arrays."""
    arrays = make_arrays("smplx", vertices=SMALL)
    np.savez(tmp_path / "SMPLX_NEUTRAL.npz", **arrays, joint2num=np.array({"pelvis": 0}, dtype=object))
    found = read_npz_arrays((tmp_path / "SMPLX_NEUTRAL.npz").read_bytes())
    assert set(found) == set(arrays)
    assert load_model(_choice("smplx"), tmp_path).betas == 10


# ---------------------------------------------------------------------------------------------- pickles


class _Chumpy:
    """Makes pickles that name chumpy's classes, from modules that are gone when the pickle is read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self.Ch = self._make("chumpy.ch", "Ch")
        self.Select = self._make("chumpy.reordering", "Select")

    def _make(self, module: str, name: str) -> type:
        cls = type(name, (), {"__module__": module})
        for part in (module.split(".")[0], module):
            self._patch.setitem(sys.modules, part, sys.modules.get(part) or types.ModuleType(part))
        setattr(sys.modules[module], name, cls)
        return cls

    def leaf(self, array: np.ndarray) -> object:
        """Return what chumpy makes of an array, with the rest of the state that it pickles along."""
        made = self.Ch()
        vars(made).update(x=array, _dirty_vars=set(), _itr=None, _depends_on_deps={}, _make_dense=False)
        return made

    def selection(self, array: np.ndarray, indices: np.ndarray, shape: tuple[int, ...]) -> object:
        """Return what chumpy makes of a slice."""
        made = self.Select()
        vars(made).update(
            a=self.leaf(array), idxs=indices, preferred_shape=shape, _dirty_vars={"a", "idxs"}, _itr=None,
            _depends_on_deps={"x": {"deps": {"a"}, "value": None, "out_of_date": True}},
        )  # fmt: skip
        return made

    def dumps(self, value: object, protocol: int) -> bytes:
        """Return the pickle, and forget chumpy."""
        content = pickle.dumps(value, protocol=protocol)
        for module in ("chumpy", "chumpy.ch", "chumpy.reordering"):
            self._patch.delitem(sys.modules, module, raising=False)
        return content


@pytest.fixture
def chumpy(monkeypatch) -> _Chumpy:
    return _Chumpy(monkeypatch)


PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_pickled_model_of_chumpy_and_scipy_reads_as_arrays(chumpy, protocol):
    arrays = make_arrays("smpl", vertices=SMALL)
    shapedirs = arrays["shapedirs"].astype(np.float64)
    wide = np.concatenate([shapedirs, shapedirs], axis=2)
    places = np.arange(wide.size).reshape(wide.shape)[:, :, :10].ravel()
    content = chumpy.dumps(
        {
            "v_template": chumpy.leaf(arrays["v_template"]),
            "shapedirs": chumpy.selection(wide, places, shapedirs.shape),
            "J_regressor": sparse.csc_matrix(arrays["J_regressor"]),
            "weights": arrays["weights"],
            "bs_style": "lbs",
        },
        protocol,
    )
    found = read_pickled_arrays(content)
    np.testing.assert_array_equal(found["v_template"], arrays["v_template"])
    np.testing.assert_array_equal(found["shapedirs"], shapedirs)
    np.testing.assert_array_equal(found["J_regressor"], arrays["J_regressor"])
    np.testing.assert_array_equal(found["weights"], arrays["weights"])
    assert str(found["bs_style"]) == "lbs"


def test_a_chumpy_pickle_loads_as_a_model_and_equals_the_npz(tmp_path, chumpy):
    arrays = make_arrays("smpl", vertices=SMALL)
    write_model(tmp_path / "plain", "smpl", vertices=SMALL)
    regressor = sparse.csc_matrix(arrays["J_regressor"])
    old = {**arrays, "v_template": chumpy.leaf(arrays["v_template"]), "J_regressor": regressor}
    path = tmp_path / "old" / "SMPL_NEUTRAL.pkl"
    path.parent.mkdir()
    path.write_bytes(chumpy.dumps(old, 2))
    first, second = load_model(_choice("smpl"), tmp_path / "plain"), load_model(_choice("smpl"), tmp_path / "old")
    torch.testing.assert_close(first.shape.v_template, second.shape.v_template, rtol=0, atol=0)
    torch.testing.assert_close(first.shape.J_shapedirs, second.shape.J_shapedirs, rtol=0, atol=0)


@pytest.mark.parametrize("form", ["csc_matrix", "csr_matrix", "coo_matrix", "csc_array", "csr_array"])
def test_sparse_matrices_of_every_form_are_read(form):
    matrix = np.array([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0]])
    content = pickle.dumps({"J_regressor": getattr(sparse, form)(matrix)}, protocol=2)
    np.testing.assert_array_equal(read_pickled_arrays(content)["J_regressor"], matrix)


def test_a_pickle_written_by_python_2_is_read():
    """Protocol 0 of Python 2 names modules that have other names now; the published bodies were written so."""
    content = (
        b"(dp1\nS'weights'\np2\ncnumpy.core.multiarray\n_reconstruct\np3\n(cnumpy\nndarray\np4\n(I0\ntp5\nS'b'\np6\ntp7\nRp8\n"
        b"(I1\n(I2\ntp9\ncnumpy\ndtype\np10\n(S'f8'\np11\nI0\nI1\ntp12\nRp13\n(I3\nS'<'\np14\nNNNI-1\nI-1\nI0\ntp15\nb"
        b"I00\nS'\\x00\\x00\\x00\\x00\\x00\\x00\\xf0?\\x00\\x00\\x00\\x00\\x00\\x00\\x00@'\np16\ntp17\nbsS'names'\np18\n"
        b"c__builtin__\nset\np19\n((lp20\nS'a'\np21\natp22\nRp23\ns."
    )
    np.testing.assert_array_equal(read_pickled_arrays(content)["weights"], [1.0, 2.0])


class _Runs:
    """An object whose unpickling would call something."""

    def __init__(self, function, *arguments) -> None:
        self._call = (function, arguments)

    def __reduce__(self):
        return self._call


def test_nothing_that_a_pickle_names_is_run(tmp_path):
    witness = tmp_path / "witness"
    wicked = [
        _Runs(os.system, f"touch {witness}"),
        _Runs(exec, f"open({str(witness)!r}, 'w')"),
        _Runs(eval, f"open({str(witness)!r}, 'w')"),
        _Runs(open, str(witness), "w"),
        _Runs(__import__, "os"),
        _Runs(getattr, "text", "upper"),
        _Runs(np.save, str(witness), np.zeros(1)),
        _Runs(np.load, str(witness)),
        _Runs(sparse.save_npz, str(witness), sparse.csc_matrix(np.eye(2))),
    ]
    for value in wicked:
        for protocol in PROTOCOLS:
            with pytest.raises(InputError, match="which a body model has no need of"):
                read_pickled_arrays(pickle.dumps({"weights": value}, protocol=protocol))
    assert not witness.exists()


@pytest.mark.parametrize("path", ["ndarray.tofile", "ndarray.__class__", "dtype.mro"])
def test_dotted_names_do_not_reach_further(path):
    name = path.encode()
    content = b"\x80\x04\x8c\x05numpy\x8c" + bytes([len(name)]) + name + b"\x93."
    with pytest.raises(InputError, match="no need of"):
        read_pickled_arrays(content)


@pytest.mark.parametrize("value", [[1, 2], np.zeros(3), "text", None, OrderedDict])
def test_what_is_no_dictionary_of_arrays_is_refused(value):
    with pytest.raises(InputError):
        read_pickled_arrays(pickle.dumps(value))


def test_a_damaged_pickle_never_raises_anything_else(chumpy):
    arrays = make_arrays("smpl", vertices=10)
    small = {key: arrays[key] for key in ("v_template", "f")}
    small |= {"J_regressor": sparse.csc_matrix(np.eye(3)), "shapedirs": chumpy.leaf(np.zeros((2, 3)))}
    small |= {"posedirs": chumpy.selection(np.zeros((2, 3)), np.arange(4), (2, 2))}
    content, dice = chumpy.dumps(small, 2), random.Random(0)
    for length in range(0, len(content) - 1, 37):
        with pytest.raises(InputError):
            read_pickled_arrays(content[:length])
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(dice.randint(1, 6)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        try:
            read_pickled_arrays(bytes(damaged))
        except InputError:
            pass
