"""Derivatives in closed form against automatic ones: every leaf of every model, every term, the normal equations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pytest
import roma
import torch
from fitting_world import KINDS, model_of, random_parameters
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fitkit.camera import Camera, pinhole
from fitkit.chart import AtPoints, Chart, Diagonal, Linear, Squared, tangents
from fitkit.energy import Energy, ResidualTerm, Term, WeightedTerm
from fitkit.models.route_builder import cluster
from fitkit.parameters import Parameters
from fitkit.prior_files import load_prior, prior_names
from fitkit.problem import Observations, Problem
from fitkit.scene import Scene
from fitkit.terms import TERMS

EXACT = 1e-8
"""Relative to the greatest entry, as issue and docstrings promise; rounding alone is near 1e-15."""
BODIES, PROBLEMS = 2, 2


def camera_of(problems: int, bodies: int, turned: bool = False) -> Camera:
    """Return cameras of different focal lengths, standing at the world's origin or turned and moved."""
    focal = torch.linspace(800.0, 1100.0, problems, dtype=torch.float64)
    camera = pinhole(focal, torch.full((problems, 2), 1000.0, dtype=torch.float64))
    camera = replace(
        camera,
        intrinsics=camera.intrinsics.expand(-1, bodies, -1, -1),
        image_size=camera.image_size.expand(-1, bodies, -1),
    )
    if not turned:
        return camera
    turn = torch.randn(problems, bodies, 3, dtype=torch.float64) * 0.1
    return replace(camera, R_camera_world=roma.rotvec_to_rotmat(turn), t_camera_world=turn.flip(-1))


def scene_of(kind: str, focal: bool = False, turned: bool = False, bodies: int = BODIES) -> Scene:
    """Return random bodies of a kind, betas shared, before random cameras."""
    model = model_of(kind)
    parameters = random_parameters(model, PROBLEMS, bodies, seed=7)
    camera = camera_of(PROBLEMS, bodies, turned)
    if focal:
        parameters = parameters.replace({"focal_length": 1.1 * camera.focal_length[:, :1]})
    return Scene(model, parameters, camera)


@lru_cache
def some_landmarks(kind: str, count: int = 12) -> tuple[str, ...]:
    """Return landmarks of all parts and depths of the body, some of them joints."""
    names = model_of(kind).landmark_names
    chosen = np.random.default_rng(0).choice(len(names), min(count, len(names)), replace=False)
    wanted = (
        "left_index_tip",
        "left_shoulder",
        "mid_hip",
        "pelvis",
        "right_index2",
        "jaw",
        "left_eye",
        "right_eye",
        "left_wrist",
    )
    return tuple(dict.fromkeys([*(names[i] for i in chosen), *(name for name in wanted if name in names)]))


def automatic(scene: Scene, free: tuple[str, ...], values) -> Tensor:
    """Return the derivative (B, ..., D) of `values(scene)` (B, ...) with respect to free leaves, by autograd."""
    packed = scene.parameters.pack(free)
    whole = torch.autograd.functional.jacobian(
        lambda x: values(scene.with_parameters(scene.parameters.unpack(free, x))), packed, vectorize=True
    )
    return torch.stack([whole[b, ..., b, :] for b in range(len(packed))])


def assert_equal(found: Tensor, expected: Tensor) -> None:
    """Fail unless tensors agree to `EXACT` of the greatest expected entry."""
    assert found.shape == expected.shape
    scale = expected.abs().max().clamp_min(1e-6)
    assert (found - expected).abs().max() <= EXACT * scale


def all_leaves(scene: Scene) -> tuple[str, ...]:
    """Return every leaf of a scene, focal length included."""
    return tuple(scene.parameters)


@pytest.mark.parametrize("kind", KINDS)
def test_landmarks_move_with_all_leaves_as_autograd_says(kind):
    scene, names = scene_of(kind), some_landmarks(kind)
    found = Chart(scene, all_leaves(scene)).landmarks(names)
    assert_equal(found, automatic(scene, all_leaves(scene), lambda s: s.landmarks(names)))


@pytest.mark.parametrize(("kind", "leaf"), [(kind, leaf.name) for kind in KINDS for leaf in model_of(kind).layout])
def test_landmarks_move_with_each_leaf_alone(kind, leaf):
    scene, names = scene_of(kind), some_landmarks(kind, 4)
    found = Chart(scene, (leaf,)).landmarks(names)
    assert found.abs().max() > 0
    assert_equal(found, automatic(scene, (leaf,), lambda s: s.landmarks(names)))


def test_leaves_may_be_packed_in_any_order():
    scene, names = scene_of("anny"), some_landmarks("anny", 4)
    order = all_leaves(scene)[::-1]
    assert_equal(Chart(scene, order).landmarks(names), automatic(scene, order, lambda s: s.landmarks(names)))


@pytest.mark.parametrize("kind", KINDS)
def test_unturned_joints_have_their_exact_derivatives(kind):
    scene, names = scene_of(kind), some_landmarks(kind, 4)
    turned = scene.parameters.map(torch.zeros_like)
    barely = turned.replace({"body_pose": 1e-9 * scene.parameters["body_pose"]})
    reference = turned.replace({"body_pose": 1e-5 * scene.parameters["body_pose"]})
    expected = automatic(scene.with_parameters(reference), ("body_pose",), lambda s: s.landmarks(names))
    for parameters in (turned, barely):
        found = Chart(scene.with_parameters(parameters), ("body_pose",)).landmarks(names)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    exact = Chart(scene.with_parameters(reference), ("body_pose",)).landmarks(names)
    torch.testing.assert_close(exact, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shared_focal", [True, False])
@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("kind", ["anny", "smplx"])
def test_pixels_have_autograds_normal_equations(kind, turned, shared_focal):
    scene, names = scene_of(kind, focal=True, turned=turned), some_landmarks(kind)
    if not shared_focal:
        focal = scene.parameters["focal_length"] * torch.tensor([1.0, 1.2], dtype=torch.float64)[:, None]
        scene = scene.with_parameters(scene.parameters.replace({"focal_length": focal}))
    scaling = torch.rand(PROBLEMS, BODIES, len(names), dtype=torch.float64)
    residual = torch.randn(PROBLEMS, BODIES, len(names), 2, dtype=torch.float64)
    free = all_leaves(scene)
    jacobian = automatic(scene, free, lambda s: s.projected(names)) * scaling[..., None, None]
    chart = Chart(scene, free)
    assert_normal_equations(chart, chart.pixels(names, residual, scaling), jacobian.flatten(1, 3), residual.flatten(1))


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_between_landmarks_have_autograds_normal_equations(kind):
    scene, names = scene_of(kind), some_landmarks(kind)
    ends = tuple(zip(names, names[1:], strict=False))
    points = (*ends, names[0])

    def vectors(s: Scene) -> Tensor:
        at = s.landmarks(names)
        return torch.cat([at[..., 1:, :] - at[..., :-1, :], at[..., :1, :]], dim=-2)

    slopes = torch.randn(PROBLEMS, BODIES, len(points), 2, 3, dtype=torch.float64)
    residual = torch.randn(PROBLEMS, BODIES, len(points), 2, dtype=torch.float64)
    free = all_leaves(scene)
    jacobian = (slopes @ automatic(scene, free, vectors)).flatten(1, 3)
    assert_normal_equations(Chart(scene, free), [AtPoints(points, residual, slopes)], jacobian, residual.flatten(1))


def assert_normal_equations(chart: Chart, parts: list, jacobian: Tensor, residual: Tensor) -> None:
    """Fail unless parts, weighted alike, have the gradient and curvature of these residuals."""
    gradient, curvature = chart.normal_equations([(0.7, part) for part in parts])
    assert_equal(gradient, 1.4 * (jacobian.mT @ residual[..., None])[..., 0])
    assert_equal(curvature, 1.4 * (jacobian.mT @ jacobian))


def test_all_kinds_of_parts_add_up():
    scene = scene_of("anny", bodies=1)
    free = ("transl", "betas")
    chart = Chart(scene, free)
    whole = torch.randn(PROBLEMS, 5, chart.size, dtype=torch.float64)
    slopes = torch.rand(20, dtype=torch.float64)
    r = [torch.randn(PROBLEMS, n, dtype=torch.float64) for n in (5, 20)]
    summed = torch.randn(PROBLEMS, 6, 4, dtype=torch.float64)
    behind = torch.randn(PROBLEMS, 6, 1, dtype=torch.float64)
    direction = torch.randn(PROBLEMS, 1, 1, 1, 3, dtype=torch.float64)
    at = torch.randn(PROBLEMS, 1, 1, 1, dtype=torch.float64)
    parts = [
        Linear(r[0], whole, slice(0, 23)),
        Diagonal(r[1], slopes, slice(3, 23)),
        AtPoints(("nose",), at, direction),
        Squared((summed.mT @ behind)[..., 0], summed.mT @ summed, slice(2, 6)),
    ]
    summed = torch.nn.functional.pad(summed, (2, chart.size - 6))
    diagonal = torch.diag_embed(torch.cat([torch.zeros(3), slopes]))[3:].expand(PROBLEMS, -1, -1)
    point = direction[:, 0, 0] @ chart.landmarks(("nose",))[:, 0, 0]
    jacobian = torch.cat([whole, diagonal, point, summed], 1)
    residual = torch.cat([*r, at[:, 0, 0], behind[..., 0]], 1)
    assert_normal_equations(chart, parts, jacobian, residual)


def test_a_row_alone_equals_the_row_among_others():
    scene, names = scene_of("anny"), some_landmarks("anny")
    together = Chart(scene, all_leaves(scene)).landmarks(names)
    for b in range(PROBLEMS):
        row = torch.tensor([b])
        alone = Scene(scene.model, scene.parameters.select(row), scene.camera.select(row))
        torch.testing.assert_close(
            Chart(alone, all_leaves(scene)).landmarks(names), together[row], rtol=1e-12, atol=1e-12
        )


def test_single_precision_is_as_exact_as_its_numbers():
    scene, names = scene_of("anny"), some_landmarks("anny")
    expected = Chart(scene, all_leaves(scene)).landmarks(names)
    single = Scene(model_of("anny", torch.float32), scene.parameters.map(Tensor.float), scene.camera)
    found = Chart(single, all_leaves(scene)).landmarks(names)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_a_leaf_that_the_body_lacks_is_named():
    scene = scene_of("smpl")
    other = scene.with_parameters(scene.parameters.replace({"beard": torch.zeros(PROBLEMS, 1, 3, dtype=torch.float64)}))
    with pytest.raises(Exception, match="beard"):
        Chart(other, ("beard",)).landmarks(("pelvis",))


def test_tangents_are_orthonormal_everywhere():
    units = torch.nn.functional.normalize(torch.randn(200, 3, dtype=torch.float64), dim=-1)
    units = torch.cat([units, torch.eye(3, dtype=torch.float64), -torch.eye(3, dtype=torch.float64)])
    frames = torch.cat([tangents(units), units[:, None]], dim=1)
    torch.testing.assert_close(frames @ frames.mT, torch.eye(3, dtype=torch.float64).expand(len(units), 3, 3))


def test_rows_are_grouped_where_that_saves_work():
    support = np.zeros((100, 60), dtype=bool)
    support[:50, :31] = support[50:, 29:] = True
    widths = np.full(60, 3)
    apart = cluster(support, widths, np.full(100, 50))
    assert sorted(len(points) for points in apart) == [50, 50]
    support[:50, :59] = support[50:, 1:] = True
    assert [len(points) for points in cluster(support, widths, np.full(100, 1))] == [100]


def test_points_without_rows_are_in_no_group():
    support = np.array([[True], [False], [True]])
    assert sorted(np.concatenate(cluster(support, np.array([3]), np.array([1, 1, 0]))).tolist()) == [0, 1]


def test_landmarks_that_nothing_moves_have_no_slope():
    scene = scene_of("anny")
    assert not Chart(scene, ("jaw_pose",)).landmarks(("left_knee",)).any()


# The terms.


@lru_cache
def problem_of(kind: str, bodies: int) -> Problem:
    """Return problems whose start is some way from what was seen in the picture and in space."""
    scene = scene_of(kind, focal=True, turned=True, bodies=bodies)
    random = torch.Generator().manual_seed(3)
    names = tuple(n for n in _KEYPOINTS if n in scene.model.landmark_names)
    seen = scene.projected(names) + 20 * torch.randn(
        PROBLEMS, bodies, len(names), 2, generator=random, dtype=torch.float64
    )
    world = scene.landmarks(names)
    world = world + 0.05 * torch.randn(world.shape, generator=random, dtype=torch.float64)
    confidence = torch.rand(seen.shape[:3], generator=random, dtype=torch.float64)
    scale = torch.full((PROBLEMS, bodies), 300.0, dtype=torch.float64)
    priors = {name: load_prior(name) for name in prior_names()}
    observed = Observations(names, names, seen, confidence, world)
    return Problem(scene.model, scene.camera, observed, scene.parameters, scale, priors)


_KEYPOINTS = (
    *("nose", "left_ear", "face_30", "face_57", "left_index2", "left_index_tip", "left_thumb1", "left_thumb2"),
    *(
        f"{side}_{part}"
        for side in ("left", "right")
        for part in ("hip", "shoulder", "elbow", "knee", "heel", "big_toe")
    ),
)


def observed_term(name: str, kind: str, bodies: int) -> tuple[Term, Scene]:
    """Return a term of default settings with its evidence, and a scene a little off the start of the problem."""
    problem = problem_of(kind, bodies)
    random = torch.Generator().manual_seed(11)
    moved = problem.start.map(
        lambda leaf: leaf + 0.03 * leaf.abs().mean() * torch.randn(leaf.shape, generator=random, dtype=torch.float64)
    )
    return TERMS.get(name)().observe(problem), Scene(problem.model, moved, problem.camera)


each_term = pytest.mark.parametrize("name", TERMS.names())
each_body = pytest.mark.parametrize(("kind", "bodies"), [("anny", 1), ("anny", 2), ("smplx", 1), ("smpl", 2)])


@each_term
@each_body
def test_linearised_terms_have_the_energys_gradient(name, kind, bodies):
    term, scene = observed_term(name, kind, bodies)
    free = all_leaves(scene)
    energy = Energy((WeightedTerm(name, 1.7, term),))
    value, gradient, curvature = energy.linearise(scene, Chart(scene, free))
    expected_value, expected = Chart(scene, free).gradient(energy)
    assert_equal(value, expected_value)
    assert_equal(gradient, expected)
    assert_equal(curvature, curvature.mT)
    lowest = torch.linalg.eigvalsh(curvature).min()
    assert lowest >= -1e-10 * curvature.abs().max()


@each_term
def test_residuals_of_terms_square_to_their_energy(name):
    term, scene = observed_term(name, "anny", 2)
    if isinstance(term, ResidualTerm):
        assert_equal(term.residual(scene).square().sum(-1), term(scene))


@each_term
def test_energies_of_terms_have_the_slope_of_finite_differences(name):
    term, scene = observed_term(name, "anny", 1)
    free = all_leaves(scene)
    packed = scene.parameters.pack(free)
    steps = scene.parameters.map(lambda leaf: torch.full_like(leaf, float(leaf.abs().mean().clamp_min(0.1)))).pack(free)
    direction = steps * torch.randn(packed.shape, dtype=torch.float64)

    def along(t: float) -> Tensor:
        return term(scene.with_parameters(scene.parameters.unpack(free, packed + t * direction)))

    step = 1e-5
    # The fourth-order central difference (Fornberg 1988).
    slope = (8 * (along(step) - along(-step)) - (along(2 * step) - along(-2 * step))) / (12 * step)
    expected = (Chart(scene, free).gradient(term)[1] * direction).sum(-1)
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-6)


@each_term
@pytest.mark.parametrize("free", [("transl",), ("body_pose", "betas"), ("focal_length", "expression")])
def test_terms_can_be_linearised_with_few_leaves_free(name, free):
    term, scene = observed_term(name, "anny", 1)
    energy = Energy((WeightedTerm(name, 1.0, term),))
    _, gradient, curvature = energy.linearise(scene, Chart(scene, free))
    assert curvature.shape == (PROBLEMS, gradient.shape[1], gradient.shape[1])
    assert_equal(gradient, Chart(scene, free).gradient(energy)[1])


class Operations(TorchDispatchMode):
    """Counts the operations that torch runs."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.counts[function.overloadpacket.__name__] += 1
        return function(*args, **(kwargs or {}))


@each_term
def test_no_step_waits_for_the_device(name):
    term, scene = observed_term(name, "anny", 1)
    energy, free = Energy((WeightedTerm(name, 1.0, term),)), all_leaves(scene)
    with torch.no_grad():
        for _ in range(2):
            fresh = Scene(scene.model, scene.parameters.map(torch.clone), scene.camera)
            with Operations() as operations:
                energy(fresh)
                energy.normal_equations(fresh, Chart(fresh, free))
    # What reads a device's numbers, has a size that depends on them, or brings the host's numbers to it.
    waiting = {"_local_scalar_dense", "nonzero", "masked_select", "unique"}
    sending = {"lift_fresh", "lift_fresh_copy"} if name != "pose_prior" else set()  # some priors send theirs each time
    assert not (waiting | sending) & operations.counts.keys()


def test_all_terms_together_are_the_sum_of_each():
    together, each = [], 0
    for name in TERMS.names():
        term, scene = observed_term(name, "anny", 2)
        together.append(WeightedTerm(name, 0.5, term))
        alone = Energy((together[-1],)).linearise(scene, Chart(scene, all_leaves(scene)))
        each = [a + b for a, b in zip(alone, each, strict=True)] if each else alone
    for found, expected in zip(
        Energy(tuple(together)).linearise(scene, Chart(scene, all_leaves(scene))), each, strict=True
    ):
        assert_equal(found, expected)


@dataclass(frozen=True)
class Straight(ResidualTerm):
    """A residual term that leaves its derivatives to autograd."""

    def residual(self, scene: Scene) -> Tensor:
        return scene.landmarks(("nose", "left_heel"))[..., 1].flatten(1) ** 2


@dataclass(frozen=True)
class Crooked(Term):
    """An energy that is no sum of squares, and leaves its derivatives to autograd."""

    def __call__(self, scene: Scene) -> Tensor:
        return scene.landmarks(("nose",))[..., 2].abs().sqrt().flatten(1).sum(-1)


@dataclass(frozen=True)
class Indifferent(ResidualTerm):
    """A term that depends on no parameter."""

    def residual(self, scene: Scene) -> Tensor:
        return torch.ones(scene.parameters.problems, 2, dtype=torch.float64)


@pytest.mark.parametrize("term", [Straight(), Crooked(), Indifferent()], ids=lambda term: type(term).__name__)
def test_terms_need_not_know_their_derivatives(term):
    scene = scene_of("anny")
    free = all_leaves(scene)
    energy = Energy((WeightedTerm("own", 2.0, term),))
    with torch.no_grad():
        value, gradient, curvature = energy.linearise(scene, Chart(scene, free))
    assert_equal(value, energy(scene))
    expected = Chart(scene, free).gradient(energy)[1]
    assert_equal(gradient, expected)
    if isinstance(term, Straight):
        jacobian = automatic(scene, free, term.residual)
        assert_equal(curvature, 4.0 * jacobian.mT @ jacobian)


def test_linearising_costs_no_memory_of_the_graph():
    term, scene = observed_term("reprojection", "anny", 1)
    with torch.no_grad():
        _, gradient, curvature = Energy((WeightedTerm("r", 1.0, term),)).linearise(scene, Chart(scene, ("transl",)))
    assert not gradient.requires_grad and not curvature.requires_grad


def test_parameters_are_not_written_to():
    scene = scene_of("anny")
    before = Parameters({name: leaf.clone() for name, leaf in scene.parameters.items()})
    Chart(scene, all_leaves(scene)).landmarks(some_landmarks("anny"))
    assert all(torch.equal(before[name], scene.parameters[name]) for name in before)


def test_a_stream_of_new_keypoints_does_not_fill_the_memory():
    scene = scene_of("anny", bodies=1)
    for name in scene.model.landmark_names[:40]:
        Chart(scene, ("transl",)).landmarks((name,))
    assert len(scene.model._routes) <= 32
