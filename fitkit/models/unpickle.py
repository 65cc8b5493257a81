"""Reading the numbers out of a pickled body model without running anything that it names."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np

from fitkit.errors import InputError

_ALLOWED = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("collections", "OrderedDict"),
    ("_codecs", "encode"),
}
_CONTAINERS = {"set": set, "frozenset": frozenset, "object": object}
_SPARSE = {"csc_matrix", "csr_matrix", "coo_matrix", "csc_array", "csr_array"}
_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
"""Modules by the names that pickles of protocols 0 to 2 give them."""


class _Inert:
    """Stands in for a class that the pickle names: keeps the state, runs nothing of it."""

    def __new__(cls, *_arguments: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_arguments: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state[0] if isinstance(state, tuple) else dict(state)


class _Sparse(_Inert):
    """A pickled scipy sparse matrix."""


class _Chumpy(_Inert):
    """A pickled chumpy array: older body models were saved as the leaves of its expression graph."""


def _rebuilt(cls: type, *_base_and_state: Any) -> _Inert:
    """Return an empty instance, as protocols 0 and 1 ask for one before they give it its state."""
    if not (isinstance(cls, type) and issubclass(cls, _Inert)):
        raise InputError(f"The pickle holds a {cls!r}, which a body model has no need of; it was not loaded.")
    return cls()


class _RestrictedUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        module = _PYTHON_2.get(module, module)
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        if module == "builtins" and name in _CONTAINERS:
            return _CONTAINERS[name]
        if (module, name) == ("copyreg", "_reconstructor"):
            return _rebuilt
        if module.startswith("scipy.sparse") and name in _SPARSE:
            return type(name, (_Sparse,), {})
        if module.split(".")[0] == "chumpy":
            return type(name, (_Chumpy,), {})
        raise InputError(f"The pickle asks for {module}.{name}, which a body model has no need of; it was not loaded.")


def _as_array(value: Any) -> np.ndarray:
    if isinstance(value, _Sparse):
        return _dense(value)
    if isinstance(value, _Chumpy):
        state = value.state
        if "x" in state:
            return _as_array(state["x"])
        if "a" in state and "idxs" in state:
            picked = _as_array(state["a"]).ravel()[np.asarray(state["idxs"])]
            shape = state.get("preferred_shape")
            return picked.reshape(shape) if shape is not None else picked
        raise InputError(f"The pickle holds a chumpy {type(value).__name__}, which is no plain array.")
    return np.asarray(value)


def _dense(matrix: _Sparse) -> np.ndarray:
    from scipy import sparse

    state, kind = matrix.state, type(matrix).__name__
    shape = state.get("_shape", state.get("shape"))
    if kind.startswith("coo"):
        places = state["coords"] if "coords" in state else (state["row"], state["col"])
        return sparse.coo_matrix((state["data"], places), shape=shape).toarray()
    make = sparse.csc_matrix if kind.startswith("csc") else sparse.csr_matrix
    return make((state["data"], state["indices"], state["indptr"]), shape=shape).toarray()


def read_pickled_arrays(content: bytes) -> dict[str, np.ndarray]:
    """Return the arrays by name of a pickled body model (chumpy not needed).

    Raises `InputError` when the pickle is damaged, is no mapping, or names anything but arrays.
    """
    try:
        loaded = _RestrictedUnpickler(io.BytesIO(content), encoding="latin1").load()
        if not isinstance(loaded, Mapping):
            raise InputError(f"A body model's pickle holds a dictionary of arrays; got {type(loaded).__name__}.")
        return {str(name): _as_array(value) for name, value in loaded.items()}
    except InputError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        raise InputError(f"The pickle is damaged ({error}).") from error
