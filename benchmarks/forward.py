"""How fast the body is evaluated, beside smplx on the same file and beside what the memory allows.

    python benchmarks/forward.py [--batches 1 8 64] [--dtype float32] [--device auto] [--save]

The embedded body, all its coefficients, random poses:

  landmarks  ours: the points of 118 keypoints, all that a fit evaluates
  mesh       ours: every vertex
  smplx      the smplx package on the same file: always every vertex

each also with a backward pass. The floor is the time in which this machine copies as many bytes as the work must touch
at least: its constants read once and its results written, nothing in between. Times are milliseconds for the whole
batch, the least of several runs, on one thread: processor time on a CPU, the clock's on a GPU. --save writes
benchmarks/results/forward.json.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from clock import columns, least
from measure import arguments, machine, save
from synthetic import sample_people

from fitkit.api import choose_device
from fitkit.keypoints.conventions import SMPLIFYX_118, correspondence
from fitkit.model_files import load_model
from fitkit.models.arrays import ModelChoice
from fitkit.models.smpl_family import SMPLFamilyModel
from fitkit.parameters import Parameters

Function = Callable[[Parameters], Tensor]


def smplx_of(model: SMPLFamilyModel) -> Function:
    """Return the mesh as a function of our parameters, evaluated by smplx from the embedded body's file."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")
        import smplx

        (Path(folder) / "smplx").mkdir()
        with resources.as_file(resources.files("fitkit.models") / "data" / "anny_neutral.npz") as file:
            shutil.copy(file, Path(folder) / "smplx" / "SMPLX_NEUTRAL.npz")
        assert model.hands is not None
        theirs = smplx.create(
            folder,
            model_type="smplx",
            num_betas=model.betas,
            num_expression_coeffs=model.shape.shapedirs.shape[2] - model.betas,
            num_pca_comps=len(model.hands[0].components),
            flat_hand_mean=False,
            dtype=model.dtype,
        ).to(model.device)

    def mesh(parameters: Parameters) -> Tensor:
        return theirs(**{name: leaf[:, 0] for name, leaf in parameters.items()}).vertices

    return mesh


def with_backward(function: Function) -> Callable[[Parameters], None]:
    """Return a function's evaluation and its gradient with respect to all parameters."""

    def run(parameters: Parameters) -> None:
        leaves = parameters.map(lambda leaf: leaf.detach().requires_grad_(True))
        with torch.enable_grad():
            torch.autograd.grad(function(leaves).sum(), list(leaves.values()))

    return run


def copied_bytes_per_second(device: str, size: int = 1 << 28) -> float:
    """Return how many bytes this machine reads and writes in a second when it copies."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / (least(lambda: target.copy_(source), device) / 1000)


def bytes_of(*tensors: Tensor | None) -> int:
    """Return the size of tensors in memory."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)


def touched(model: SMPLFamilyModel, names: tuple[str, ...], batch: int) -> tuple[int, int]:
    """Return the bytes that landmarks and mesh must at least touch: constants read once, results written."""
    shape, plan = model.shape, model.plan(names)
    rig = bytes_of(shape.J_template, shape.J_shapedirs)
    few = bytes_of(plan.template, plan.directions, plan.pose_directions, plan.share, plan.pair_joint)
    # Of each vertex only the weights that are not zero are needed: number and joint.
    weights = int((shape.weights != 0).sum()) * (shape.weights.element_size() + 1)
    whole = bytes_of(shape.v_template, shape.shapedirs, shape.posedirs) + weights
    point = 3 * shape.v_template.element_size()
    return rig + few + batch * len(names) * point, rig + whole + batch * len(shape.v_template) * point


def measure(model: SMPLFamilyModel, theirs: Function, batch: int, bandwidth: float) -> dict[str, float]:
    """Return times and ratios at one batch size."""
    found = correspondence(SMPLIFYX_118, model.landmark_names)
    names = tuple(model.landmark_names[i] for i in found.indices[found.mask])
    device = str(model.device)
    on_cpu = load_model(ModelChoice("anny", "anny", dtype=model.dtype))
    parameters = sample_people(on_cpu, batch).parameters.map(lambda leaf: leaf.to(device))

    def landmarks(leaves: Parameters) -> Tensor:
        return model(leaves).landmarks(names)[:, 0]

    def mesh(leaves: Parameters) -> Tensor:
        return model(leaves).vertices[:, 0]

    row: dict[str, float] = {"batch": batch}
    functions = {"landmarks": landmarks, "mesh": mesh, "smplx": theirs}
    with torch.no_grad():
        row["largest_difference_m"] = float((mesh(parameters) - theirs(parameters)).abs().max())
        row |= {f"{name}_ms": least(partial(function, parameters), device) for name, function in functions.items()}
    for name, function in functions.items():
        row[f"{name}_backward_ms"] = least(partial(with_backward(function), parameters), device)
    floors = [1000 * size / bandwidth for size in touched(model, names, batch)]
    row |= {"landmarks_floor_ms": floors[0], "mesh_floor_ms": floors[1]}
    for name in ("landmarks", "mesh"):
        row[f"smplx_over_{name}"] = row["smplx_ms"] / row[f"{name}_ms"]
        row[f"smplx_over_{name}_backward"] = row["smplx_backward_ms"] / row[f"{name}_backward_ms"]
        row[f"{name}_over_floor"] = row[f"{name}_ms"] / row[f"{name}_floor_ms"]
    return row


def main() -> None:
    """Print the table, and write it as json where asked."""
    parser = arguments(__doc__)
    parser.set_defaults(threads=1)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = str(choose_device(options.device))
    model = load_model(ModelChoice("anny", "anny", dtype=getattr(torch, options.dtype), device=device))
    theirs = smplx_of(model)
    bandwidth = copied_bytes_per_second(device)
    rows = [measure(model, theirs, batch, bandwidth) for batch in options.batches]
    print(f"copying: {bandwidth / 1e9:.1f} GB/s")
    print(columns(rows))
    if options.save:
        settings = {"dtype": options.dtype, "copied_bytes_per_second": bandwidth}
        save("forward", {"machine": machine(device), **settings, "results": rows})


if __name__ == "__main__":
    main()
