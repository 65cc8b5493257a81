"""What every test starts from: fixed seeds, two threads, a user's folders that are empty.

fitkit itself is imported only inside functions: jaxtyping's import hook, which checks shapes in every test,
is installed after this file is read.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
THREADS = 2
SEED = 20240229

# Before torch is imported: as the command line does, so that a busy machine slows the suite down no more than it must.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Give every test the same random numbers, whichever tests ran before it."""
    import torch

    random.seed(SEED)
    np.random.seed(SEED)
    torch.manual_seed(SEED)


@pytest.fixture(autouse=True, scope="session")
def threads() -> None:
    """Keep the suite's speed independent of the machine's size."""
    import torch

    torch.set_num_threads(min(THREADS, torch.get_num_threads()))


@pytest.fixture(autouse=True, scope="session")
def users_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Hide the user's own body models; the detector's networks stay where they are, so as to be fetched once.

    Subprocesses inherit it. HOME stays: pip's configuration lies there, and it names the index to fetch from.
    """
    from fitkit import paths

    folder = tmp_path_factory.mktemp("user")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(paths.CACHE_VARIABLE, str(paths.cache_folder()))
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        patch.setenv("OMP_NUM_THREADS", str(THREADS))
        # Installed from a checkout or run from it: subprocesses find the package under test.
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])))
        yield folder


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the checkout's folder."""
    return ROOT


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine cannot run."""
    reasons = {"gpu": _no_gpu, "licensed": _no_licensed_models, "detector": _no_networks}
    for marker, missing in reasons.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        reason = missing() if marked else ""
        for item in marked if reason else []:
            item.add_marker(pytest.mark.skip(reason=reason))


def _no_gpu() -> str:
    import torch

    return "" if torch.cuda.is_available() else "needs a CUDA device"


def _no_licensed_models() -> str:
    folders = [Path(entry) for entry in os.environ.get("FITKIT_MODELS", "").split(os.pathsep) if entry]
    found = any(folder.glob("**/SMPLX_*.npz") for folder in folders)
    return "" if found else "needs the user's own SMPL-X files in $FITKIT_MODELS"


def _no_networks() -> str:
    from fitkit.errors import FitkitError
    from fitkit.keypoints.detectors.networks import load_networks

    try:
        load_networks()
    except FitkitError as error:
        return f"needs the detector's networks: {error}"
    return ""
