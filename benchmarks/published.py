"""SMPLify-X's procedure as published, re-expressed: the baseline that `fit.py` measures against.

One person at a time; the whole mesh through the `smplx` package at every evaluation; a camera stage and five stages of
`torch.optim.LBFGS` with strong Wolfe line searches (Pavlakos et al. 2019 and the released configuration). Weights,
keypoints and camera are those of `configs/smplifyx.yaml`, whose comments give their published form; as there, the pose
prior acts on the pose itself. Single precision, as published.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import smplx
import torch
from torch import Tensor

from fitkit.fitting import Stage
from fitkit.parameters import Parameters
from fitkit.problem import Problem
from fitkit.recipe import Recipe

OUTER_CALLS, INNER_ITERATIONS = 30, 30
"""Calls of the optimiser's `step` per stage at most, and iterations within each."""
RELATIVE_CHANGE, LARGEST_GRADIENT = 1e-9, 1e-9
"""A stage ends when a call's energy falls by this share, or no gradient exceeds this."""
_ELBOWS_AND_KNEES, _BACKWARDS = (52, 55, 9, 12), (1.0, -1.0, -1.0, -1.0)
"""Entries of body_pose, and the sign with which each bends the wrong way."""


@dataclass(frozen=True)
class PublishedFit:
    """What became of one person."""

    parameters: Parameters
    """Leaves (1, 1, size), single precision."""
    energy: float
    """Final energy as the procedure itself sees it."""
    iterations: int
    """Of L-BFGS over all stages, of both orientations where both were tried."""
    evaluations: int
    """Of the mesh and its gradient, likewise."""
    overflows: int
    """Stages that ran into NaN or infinity and were passed over, likewise."""


class PublishedFitter:
    """The published procedure; the body is loaded once, and people come one by one."""

    def __init__(self, recipe: Recipe, device: str = "cpu") -> None:
        """Load the embedded body through `smplx` with as many coefficients as the recipe (smplifyx) says."""
        self.recipe, self.device = recipe, torch.device(device)
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "smplx" / "SMPLX_NEUTRAL.npz"
            target.parent.mkdir()
            with resources.as_file(resources.files("fitkit.models") / "data" / "anny_neutral.npz") as file:
                shutil.copy(file, target)
            self.body = smplx.create(
                folder,
                model_type="smplx",
                gender="neutral",
                ext="npz",
                num_betas=recipe.model.betas,
                num_expression_coeffs=recipe.model.expressions,
                use_pca=True,
                num_pca_comps=recipe.model.hand_components,
                flat_hand_mean=False,
            ).to(self.device)

    def fit(self, problem: Problem) -> PublishedFit:
        """Return the fit of a problem of one person; its model gives names, landmarks and the start's geometry."""
        proposal = self.recipe.initialiser(problem)
        starts = [proposal.parameters.select(torch.tensor([row])) for row in range(proposal.hypotheses)]
        if len(starts) > 1 and torch.equal(starts[0]["global_orient"], starts[1]["global_orient"]):
            starts = starts[:1]  # the shoulders are wide enough: no flip test
        runs = [_Run(self, problem, start) for start in starts]
        energies = [run.minimise(self.recipe.stages) for run in runs]
        best = min(range(len(runs)), key=lambda one: energies[one] if math.isfinite(energies[one]) else math.inf)
        work = [sum(getattr(run, name) for run in runs) for name in ("iterations", "evaluations", "overflows")]
        return PublishedFit(runs[best].parameters(), energies[best], *work)


class _Run:
    """One person's fit from one start."""

    def __init__(self, fitter: PublishedFitter, problem: Problem, start: Parameters) -> None:
        def here(tensor: Tensor) -> Tensor:
            return tensor.detach().to(fitter.device, torch.float32)

        observed = problem.observations
        self.fitter, self.names, self.priors = fitter, observed.names, problem.priors
        self.intrinsics = here(problem.camera.intrinsics[0, 0])
        self.thousandth = float(problem.camera.image_size[0, 0, 1]) / 1000
        self.points, self.confidence = here(observed.points[0, 0]), here(observed.confidence[0, 0])
        self.leaves = {name: here(leaf[0]).requires_grad_(True) for name, leaf in start.items()}
        self.depth = float(start["transl"][0, 0, 2])
        self.iterations = self.evaluations = self.overflows = 0
        used, mixing = _mixing(problem)
        self.used, self.mixing = used.to(fitter.device), here(mixing)

    def parameters(self) -> Parameters:
        """Return where the fit is now."""
        return Parameters({name: leaf.detach()[None].cpu() for name, leaf in self.leaves.items()})

    def minimise(self, stages: tuple[Stage, ...]) -> float:
        """Run all stages and return the last energy."""
        energy = math.nan
        for stage in stages:
            energy = self._stage(stage)
        return energy

    def _stage(self, stage: Stage) -> float:
        free = [self.leaves[name] for name in stage.free]
        optimiser = torch.optim.LBFGS(
            free, lr=1.0, max_iter=INNER_ITERATIONS, history_size=100, line_search_fn="strong_wolfe",
            tolerance_grad=1e-5, tolerance_change=1e-9,
        )  # fmt: skip
        energy_of = self._energy(stage)

        def closure() -> Tensor:
            optimiser.zero_grad()
            energy = energy_of()
            energy.backward()
            self.evaluations += 1
            return energy

        start = [leaf.detach().clone() for leaf in free]
        before = math.nan
        for _ in range(OUTER_CALLS):
            energy = float(optimiser.step(closure).detach())
            if not math.isfinite(energy) or (before - energy) / max(abs(before), abs(energy), 1.0) <= RELATIVE_CHANGE:
                break
            if all(float(leaf.grad.abs().max()) < LARGEST_GRADIENT for leaf in free if leaf.grad is not None):
                break
            before = energy
        self.iterations += optimiser.state[free[0]]["n_iter"]
        with torch.no_grad():
            if not all(bool(leaf.isfinite().all()) for leaf in free) or not math.isfinite(float(energy_of())):
                # The published code ends here without a result; the stage is passed over instead.
                self.overflows += 1
                for leaf, value in zip(free, start, strict=True):
                    leaf.copy_(value)
            return float(energy_of())

    def _energy(self, stage: Stage):  # type: ignore[no-untyped-def]
        """Return the function that evaluates a stage's energy where the leaves are."""
        terms = {entry.name: entry for entry in stage.terms if entry.weight}
        reprojection = terms["reprojection"].term
        weights = torch.tensor([reprojection._weight(name) for name in self.names]).to(self.confidence)
        weights = (weights * self.confidence / (reprojection.deviation * self.thousandth)).square()
        outlier = (reprojection.outlier * self.thousandth) ** 2
        leaf_priors = [(terms[n], terms[n].term.leaf) for n in ("shape", "expression", "jaw") if n in terms]
        deviations = [torch.tensor(entry.term.deviation, device=self.fitter.device) for entry, _ in leaf_priors]
        leaves, signs = self.leaves, torch.tensor(_BACKWARDS, device=self.fitter.device)

        def energy() -> Tensor:
            squared = (self._projected() - self.points).square().sum(-1)
            total = (weights * outlier * (squared / (squared + outlier))).sum()
            if "depth" in terms:
                total = total + terms["depth"].weight * (leaves["transl"][0, 2] - self.depth).square()
            if "pose_prior" in terms:
                prior = self.priors[terms["pose_prior"].term.prior]
                total = total + terms["pose_prior"].weight * prior.residual(leaves["body_pose"]).square().sum()
            if "bending" in terms:
                bent = torch.exp(leaves["body_pose"][0, _ELBOWS_AND_KNEES] * signs)
                total = total + terms["bending"].weight * bent.square().sum()
            if "hands" in terms:
                hands = leaves["left_hand_pose"].square().sum() + leaves["right_hand_pose"].square().sum()
                total = total + terms["hands"].weight * hands
            for (entry, leaf), deviation in zip(leaf_priors, deviations, strict=True):
                total = total + entry.weight * (leaves[leaf] / deviation).square().sum()
            return total

        return energy

    def _projected(self) -> Tensor:
        """Return the keypoints (K, 2) in pixels: the whole mesh is posed, then the few vertices are read off it."""
        output = self.fitter.body(**self.leaves, return_verts=True)
        joints = len(self.fitter.body.J_regressor)
        points = torch.cat([output.vertices[0], output.joints[0, :joints]])[self.used]
        points = self.mixing @ points
        return points[:, :2] / points[:, 2:] * self.intrinsics[[0, 1], [0, 1]] + self.intrinsics[:2, 2]


def _mixing(problem: Problem) -> tuple[Tensor, Tensor]:
    """Return which of vertices and joints, laid one after the other, the K keypoints need, and their weights (K, U)."""
    model, rows, columns, weights = problem.model, [], [], []
    for row, name in enumerate(problem.observations.landmarks):
        if name in model.surface:
            indices, share = (part.tolist() for part in model.surface[name])
        else:
            indices = [len(model.shape.v_template) + model.joint_names.index(name.removeprefix("joint/"))]
            share = [1.0]
        rows += [row] * len(indices)
        columns += indices
        weights += share
    used, place = torch.tensor(columns).unique(return_inverse=True)
    mixing = torch.zeros(len(problem.observations.landmarks), len(used))
    return used, mixing.index_put((torch.tensor(rows), place), torch.tensor(weights), accumulate=True)
