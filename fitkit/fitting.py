"""Minimising the energy of a batch of problems, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fitkit.body import joint_landmark
from fitkit.chart import Chart
from fitkit.energy import Energy, WeightedTerm
from fitkit.errors import UsageError
from fitkit.parameters import Parameters
from fitkit.placement import in_sight
from fitkit.problem import Initialiser, Problem
from fitkit.scene import DECODED, Scene, decoded
from fitkit.solvers.base import Solution, Solver, Status
from fitkit.solvers.least_squares import Linearisation
from fitkit.uncertainty import deviations

FitProgress = Callable[[int, int, int], None]
"""Called as (stage, number of stages, iteration)."""

CPU_PROBLEMS = 128
"""Problems that a CPU fits together at most, stage after stage: beyond, tensors leave its caches, every step fetches
new memory from the system, and a problem of many costs a sixth more (`benchmarks/scaling.py`)."""
CPU_BLOCK = 12 << 20
"""Bytes of the curvatures of the rows that a CPU minimises together: beyond it, caches overflow and memory is fetched
anew from the system at every step, so that a row of many costs half as much again."""
_SCALES = {"global_orient": 0.3, "body_pose": 0.3, "left_hand_pose": 0.3, "right_hand_pose": 0.3, "jaw_pose": 0.2}
"""Size of a usual step of each leaf, by which the solver's variables are of one magnitude; 1 for all others."""
ALWAYS, BELIEVED, UNBELIEVED = OCCASIONS = ("always", "believed", "unbelieved")


@dataclass(frozen=True)
class Stage:
    """One minimisation: what is free, what counts, who solves, and how many hypotheses go on."""

    name: str
    """For progress and error messages."""
    free: tuple[str, ...]
    """Leaves that the solver may change; "focal_length" among them refines the camera."""
    terms: tuple[WeightedTerm, ...]
    """The energy; evidence is bound when the stage begins."""
    solver: Solver
    """The solver with its budget."""
    keep: int = 0
    """How many hypotheses of each problem go on to the next stage, those of least energy; 0 for all."""
    propose: Initialiser | None = None
    """Widens each hypothesis, as the problem's start, by further ones before the stage; None for no more."""
    when: str = ALWAYS
    """For which starts the stage is meant: all, those whose initialiser says how sure it is, or those where none does:
    one of `OCCASIONS`."""


@dataclass(frozen=True)
class Fit:
    """The solution of B problems."""

    problem: Problem
    """The problems, their `start` replaced by the solution."""
    energies: dict[str, Float[Tensor, " B"]]
    """Weighted energy of each term of the last stage."""
    status: Int[Tensor, " B"]
    """A solver's `Status` per problem, the last stage's; NON_FINITE if any stage ended so."""
    iterations: Int[Tensor, " B"]
    """Solver iterations over all stages, of the hypothesis that was kept."""
    hypothesis: Int[Tensor, " B"]
    """Which hypothesis of the proposal was kept."""
    joint_deviation: Float[Tensor, "B N J 3"]
    """Standard deviation of each joint along the camera's axes, metres."""
    focal_deviation: Float[Tensor, "B N"] | None = None
    """Standard deviation of the logarithm of the focal length; None where it was not free."""

    @property
    def parameters(self) -> Parameters:
        """The solution, leaves (B, N, size)."""
        return self.problem.start


@dataclass(frozen=True)
class _StageObjective:
    """The energy of a stage as a function of its free leaves, in units of a usual step."""

    problem: Problem
    free: tuple[str, ...]
    scale: Float[Tensor, "B D"]
    energy: Energy
    last: list[tuple[Tensor, Scene, Tensor]] = field(default_factory=list, compare=False, repr=False)
    """The point evaluated last without autograd: a solver linearises the very step that it has just accepted."""

    def __call__(self, x: Float[Tensor, "B D"]) -> Float[Tensor, " B"]:
        if torch.is_grad_enabled():
            return self.energy(self.scene(x))
        return self._evaluated(x)[1]

    def linearise(self, x: Float[Tensor, "B D"]) -> Linearisation:
        scene, energy = self._evaluated(x)
        gradient, curvature = self.energy.normal_equations(scene, Chart(scene, self.free))
        curvature.mul_(self.scale[:, :, None]).mul_(self.scale[:, None, :])
        return Linearisation(energy, gradient * self.scale, curvature, owned=True)

    def _evaluated(self, x: Float[Tensor, "B D"]) -> tuple[Scene, Float[Tensor, " B"]]:
        if not self.last or self.last[0][0] is not x:
            scene = self.scene(x)
            self.last[:] = [(x, scene, self.energy(scene))]
        return self.last[0][1:]

    def scene(self, x: Float[Tensor, "B D"]) -> Scene:
        parameters = self.problem.start.unpack(self.free, x * self.scale)
        return Scene(self.problem.model, parameters, self.problem.camera, self.problem.decoder)

    def select(self, rows: Int[Tensor, " M"]) -> _StageObjective:
        return _StageObjective(self.problem.select(rows), self.free, self.scale[rows], self.energy.select(rows))


def fit(
    problem: Problem, initialiser: Initialiser, stages: Sequence[Stage], progress: FitProgress | None = None
) -> Fit:
    """Return the fit of B problems, started by an initialiser and minimised stage by stage.

    The hypotheses of the proposal are rows of one batch; a stage's `keep` drops the worse ones, and after the last
    stage the best of each problem is returned. The problem's own `start` is not used.
    """
    proposal = initialiser(problem)
    problems, kept = problem.observations.points.shape[0], proposal.hypotheses
    rows = torch.arange(problems, device=problem.observations.points.device).repeat_interleave(kept)
    camera = proposal.camera or problem.camera.select(rows)
    begun = replace(problem.select(rows), start=proposal.parameters, belief=proposal.belief, camera=camera)
    with torch.no_grad():
        begun = replace(begun, start=in_sight(begun, begun.start))
    occasion = UNBELIEVED if begun.belief is None else BELIEVED
    stages = [stage for stage in stages if stage.when in (ALWAYS, occasion)]
    if rows.device.type != "cpu" or problems <= CPU_PROBLEMS:
        return _minimised(begun, kept, stages, progress)
    # Even parts: a small remainder would cost more each.
    parts = torch.arange(problems * kept).view(problems, kept).tensor_split(-(-problems // CPU_PROBLEMS))
    return _joined(begun, kept, [_minimised(begun.select(part.flatten()), kept, stages, progress) for part in parts])


def _joined(begun: Problem, kept: int, parts: Sequence[Fit]) -> Fit:
    """Return the fits of parts of a batch as one; `begun` are the hypotheses of all of it, `kept` for each problem."""
    hypothesis = torch.cat([part.hypothesis for part in parts])
    # One row for each problem, or with no stage to choose among them all hypotheses.
    each = len(hypothesis) * kept // len(begun.pixels_per_metre)
    problem = begun.select(torch.arange(len(hypothesis)) // each * kept + hypothesis)
    first = parts[0]
    start = {name: torch.cat([part.parameters[name] for part in parts]) for name in first.parameters}
    focal = [part.focal_deviation for part in parts if part.focal_deviation is not None]
    return Fit(
        replace(problem, start=Parameters(start)),
        {name: torch.cat([part.energies[name] for part in parts]) for name in first.energies},
        torch.cat([part.status for part in parts]),
        torch.cat([part.iterations for part in parts]),
        hypothesis,
        torch.cat([part.joint_deviation for part in parts]),
        torch.cat(focal) if focal else None,
    )


def _minimised(begun: Problem, kept: int, stages: Sequence[Stage], progress: FitProgress | None) -> Fit:
    """Return the fit of problems of which so many hypotheses each follow each other."""
    rows = torch.arange(len(begun.pixels_per_metre), device=begun.pixels_per_metre.device)
    state = _State(begun, torch.zeros_like(rows), torch.full_like(rows, Status.CONVERGED), rows % kept)
    energy = Energy(())
    for number, stage in enumerate(stages):
        if stage.propose is not None:
            state, count = _widened(state, stage.propose)
            kept *= count
        energy, totals, state = _run(stage, state, _reporter(progress, number, len(stages)))
        last = number == len(stages) - 1
        keep = 1 if last else min(stage.keep or kept, kept)
        if keep < kept:
            chosen = _best(totals, kept, keep)
            state, energy, kept = state.select(chosen), energy.select(chosen), keep
    scene = Scene(state.problem.model, state.problem.start, state.problem.camera, state.problem.decoder)
    with torch.no_grad():
        energies = energy.parts(scene)
        free = tuple(name for name in stages[-1].free if name in state.problem.start) if stages else ()
        model = begun.model
        joints = tuple(joint_landmark(model, name) for name in model.joint_names)
        unsure = deviations(scene, energy, free, joints)
    return Fit(
        state.problem, energies, state.status, state.iterations, state.hypothesis, unsure.joints, unsure.log_focal
    )


@dataclass(frozen=True)
class _State:
    """All hypotheses between two stages."""

    problem: Problem
    iterations: Int[Tensor, " R"]
    status: Int[Tensor, " R"]
    hypothesis: Int[Tensor, " R"]

    def select(self, rows: Int[Tensor, " M"]) -> _State:
        return _State(self.problem.select(rows), self.iterations[rows], self.status[rows], self.hypothesis[rows])


def _widened(state: _State, propose: Initialiser) -> tuple[_State, int]:
    """Return the state with several hypotheses for each, and how many for each."""
    with torch.no_grad():
        proposal = propose(state.problem)
    rows = torch.arange(len(state.status), device=state.status.device).repeat_interleave(proposal.hypotheses)
    wide = state.select(rows)
    return replace(wide, problem=replace(wide.problem, start=proposal.parameters)), proposal.hypotheses


def _run(
    stage: Stage, state: _State, progress: Callable[[int, int], None] | None
) -> tuple[Energy, Float[Tensor, " R"], _State]:
    """Return the stage's bound energy, its value at the solution, and the state after it."""
    problem = replace(state.problem, start=_with_latents(state.problem, "pose_latent" in stage.free))
    free = tuple(name for name in stage.free if name in problem.start or name == "focal_length")
    if "focal_length" in free and "focal_length" not in problem.start:
        problem = replace(problem, start=problem.start.replace({"focal_length": problem.camera.focal_length}))
    with torch.no_grad():
        terms = tuple(replace(entry, term=entry.term.observe(problem)) for entry in stage.terms if entry.weight)
        energy = Energy(terms)
        if not free or not terms:
            # Nothing to do: a stage for hands on a body without any, or one whose terms are all turned off.
            return energy, energy(Scene(problem.model, problem.start, problem.camera)), replace(state, problem=problem)
        scale = _scale(problem, free)
        objective = _StageObjective(problem, free, scale, energy)
        start = problem.start.pack(free) / scale
    solution = _minimise(stage.solver, objective, start, progress)
    parameters = objective.scene(solution.x).parameters
    bad = (solution.status == Status.NON_FINITE) | (state.status == Status.NON_FINITE)
    after = replace(
        state,
        problem=replace(problem, start=parameters),
        iterations=state.iterations + solution.iterations,
        status=torch.where(bad, Status.NON_FINITE, solution.status),
    )
    return energy, solution.energy, after


def _with_latents(problem: Problem, wanted: bool) -> Parameters:
    """Return the start with pose latents, encoded from the pose unless a stage has just left them; or without any."""
    leaves = dict(problem.start)
    if not wanted:
        leaves.pop("pose_latent", None)
        return Parameters(leaves)
    if problem.decoder is None:
        raise UsageError(
            "A stage frees pose_latent, but no prior is there to decode it: name one as model.pose_latent."
        )
    if "pose_latent" not in leaves:
        pose = leaves["body_pose"][..., :DECODED]
        with torch.no_grad():
            leaves["pose_latent"] = problem.decoder.encode(pose.flatten(0, 1)).unflatten(0, pose.shape[:2])
            return decoded(Parameters(leaves), problem.decoder)
    return problem.start


def _minimise(
    solver: Solver, objective: _StageObjective, start: Float[Tensor, "B D"], progress: Callable[[int, int], None] | None
) -> Solution:
    """Return the solution of all rows, minimised in as many parts as memory asks for: rows do not know each other."""
    parts = torch.arange(len(start), device=start.device).split(_rows_at_once(start))
    if len(parts) == 1:
        return solver.minimise(objective, start, progress)
    solutions = [solver.minimise(objective.select(rows), start[rows], progress) for rows in parts]
    names = [entry.name for entry in fields(Solution)]
    return Solution(**{name: torch.cat([getattr(one, name) for one in solutions]) for name in names})


def _rows_at_once(start: Float[Tensor, "B D"]) -> int:
    """Return how many rows to minimise together, by the size of a row's curvature."""
    size = (start.shape[1] + 1) ** 2 * start.element_size()
    if start.is_cuda:
        # A solver holds some copies of the curvature, and what it is made of.
        return max(1, free_memory(start.device) // (32 * size))
    parts = max(1, round(len(start) * size / CPU_BLOCK))
    return max(1, -(-len(start) // parts))


def free_memory(device: torch.device) -> int:
    """Return the bytes of a CUDA device that nothing uses, those included that torch keeps for later."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def _scale(problem: Problem, free: tuple[str, ...]) -> Float[Tensor, "B D"]:
    """Return the size of a usual step of each free value: translation by the depth, focal length by itself."""
    sizes = {name: torch.full_like(problem.start[name], _SCALES.get(name, 1.0)) for name in free}
    if "transl" in sizes:
        depth = problem.start["transl"][..., 2:].abs().clamp_min(0.1)
        sizes["transl"] = torch.cat([torch.full_like(depth, 0.1).expand(-1, -1, 2), 0.1 * depth], dim=-1)
    if "focal_length" in sizes:
        sizes["focal_length"] = 0.1 * problem.camera.focal_length
    return Parameters(sizes).pack(free)


def _best(energy: Float[Tensor, " R"], kept: int, keep: int) -> Int[Tensor, " M"]:
    """Return the rows of the `keep` hypotheses of least energy of each problem, best first."""
    per_problem = energy.nan_to_num(nan=torch.inf).unflatten(0, (-1, kept))
    chosen = per_problem.argsort(dim=1, stable=True)[:, :keep]
    return (chosen + kept * torch.arange(len(chosen), device=energy.device)[:, None]).flatten()


def _reporter(progress: FitProgress | None, stage: int, stages: int) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda iteration, _active: progress(stage, stages, iteration)
