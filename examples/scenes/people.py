"""People for the example pictures: the embedded body, posed and dressed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import roma
import scipy.sparse
import scipy.sparse.linalg
import scipy.spatial
import torch
import trimesh

from fitkit.model_files import load_model
from fitkit.models.arrays import ModelChoice
from fitkit.models.skeletons import BODY_JOINTS
from fitkit.parameters import Parameters, zeros
from fitkit.rendering.geometry import vertex_normals
from scenes.clothes import Cut, Outfit, ripple

Rotation = tuple[float, float, float]
SPREAD = 0.045
"""Metres: size of the forms that cloth hides."""


@dataclass(frozen=True)
class Person:
    """Who, how dressed, in which pose, and where."""

    gender: str
    pose: Mapping[str, Rotation]
    """Joint -> axis-angle in degrees, in the rest pose's axes."""
    outfit: Outfit = Outfit()
    betas: tuple[float, ...] = ()
    place: tuple[float, float] = (0.0, 0.0)
    """x and z on the floor, metres."""
    turn: float = 0.0
    """Degrees about the vertical; positive turns the person's front towards +x."""
    expression: Mapping[str, float] = field(default_factory=dict)
    curl: tuple[float, float] = (15.0, 15.0)
    """Bend of every finger joint of the left and of the right hand, degrees."""


@dataclass(frozen=True)
class Figure:
    """A person as a mesh."""

    vertices: np.ndarray
    """(V, 3) world, metres, y up, feet on the floor."""
    rest: np.ndarray
    """(V, 3) the same points in the rest pose."""
    faces: np.ndarray
    """(F, 3)."""
    cut: Cut
    """The clothes."""


def make_figure(person: Person) -> Figure:
    """Return the person's mesh, with twice the resolution of the body model's."""
    choice = ModelChoice(name="anny", kind="smplx", gender=person.gender, hand_components=None, dtype=torch.float64)
    model = load_model(choice)
    blank = zeros(model.layout, 1, like=torch.zeros((), dtype=torch.float64))
    betas = torch.zeros_like(blank["betas"])
    betas[0, 0, : len(person.betas)] = torch.tensor(person.betas, dtype=torch.float64)
    rest_body = model(blank.replace({"betas": betas}))
    posed_body = model(_pose(person, blank.replace({"betas": betas}), model.expression_names))
    names = [name for name in model.landmark_names if not name.startswith("face_mesh")]
    landmarks = dict(zip(names, rest_body.landmarks(names)[0, 0].numpy(), strict=True))
    faces = model.faces.numpy()
    rest, fine = trimesh.remesh.subdivide_loop(rest_body.vertices[0, 0].numpy(), faces, 1)
    posed, _ = trimesh.remesh.subdivide_loop(posed_body.vertices[0, 0].numpy(), faces, 1)
    cut = Cut(landmarks, person.outfit)
    posed, rest = _dress(posed, rest, fine, cut)
    for side in (1, -1):
        foot = (cut.shoes(rest) > 0) & (rest[:, 0] * side > 0)
        points, origin, shoe = _shoe(posed[foot], rest[foot])
        fine = np.concatenate([fine, shoe + len(posed)])
        posed, rest = np.concatenate([posed, points]), np.concatenate([rest, origin])
    if person.outfit.bun:
        points, origin, knot = _bun(posed, rest, cut)
        fine = np.concatenate([fine, knot + len(posed)])
        posed, rest = np.concatenate([posed, points]), np.concatenate([rest, origin])
    angle = np.radians(person.turn)
    upright = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    posed = posed @ upright.T
    middle = posed_body.joints[0, 0, 0].numpy() @ upright.T
    posed += np.array([person.place[0] - middle[0], -posed[:, 1].min(), person.place[1] - middle[2]])
    return Figure(posed, rest, fine, cut)


def _dress(posed: np.ndarray, rest: np.ndarray, faces: np.ndarray, cut: Cut) -> tuple[np.ndarray, np.ndarray]:
    """Return posed and rest vertices: forms under cloth and hair smoothed, and the posed cloth given thickness."""
    stiffness, mass = _laplacian(rest, faces)
    smooth = scipy.sparse.diags(cut.smoothing(rest) * SPREAD**2)
    # One implicit step of heat flow; on both alike, so that the pattern of the cloth stays straight.
    solve = scipy.sparse.linalg.splu((scipy.sparse.diags(mass) + smooth @ stiffness).tocsc()).solve
    posed, rest = solve(mass[:, None] * posed), solve(mass[:, None] * rest)
    return posed + cut.thickness(rest)[:, None] * vertex_normals(posed, faces), rest


def _laplacian(vertices: np.ndarray, faces: np.ndarray) -> tuple[scipy.sparse.csr_matrix, np.ndarray]:
    """Return the cotangent Laplacian (V, V) of a mesh, positive, and the area (V,) of each vertex."""
    count = len(vertices)
    matrix = scipy.sparse.csr_matrix((count, count))
    area = np.zeros(count)
    for a, b, c in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        i, j, k = faces[:, a], faces[:, b], faces[:, c]
        first, second = vertices[i] - vertices[k], vertices[j] - vertices[k]
        twice = np.linalg.norm(np.cross(first, second), axis=1) + 1e-12
        weight = np.maximum((first * second).sum(1) / twice, 1e-3) / 2
        ones = np.concatenate([weight, weight])
        matrix += scipy.sparse.csr_matrix(
            (ones, (np.concatenate([i, j]), np.concatenate([j, i]))), shape=(count, count)
        )
        area += np.bincount(k, twice / 6, minlength=count)
    return scipy.sparse.diags(np.asarray(matrix.sum(1)).ravel()) - matrix, area


def _shoe(posed: np.ndarray, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a shoe as vertices, rest points and faces: the smoothed convex hull of a foot.

    Args:
        posed: (V, 3) points of the foot.
        rest: (V, 3) the same in the rest pose.
    """
    hull = scipy.spatial.ConvexHull(posed)
    used, faces = np.unique(hull.simplices, return_inverse=True)
    faces = faces.reshape(-1, 3)
    corners = posed[used][faces]
    outward = np.einsum(
        "fi,fi->f", np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), hull.equations[:, :3]
    )
    faces[outward < 0] = faces[outward < 0][:, ::-1]
    points, origin = posed[used], rest[used]
    for _ in range(3):
        points, finer = trimesh.remesh.subdivide_loop(points, faces, 1)
        origin, faces = trimesh.remesh.subdivide_loop(origin, faces, 1)
        assert np.array_equal(finer, faces)
    return points, origin, faces


def _bun(posed: np.ndarray, rest: np.ndarray, cut: Cut) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a bun of hair as vertices, rest points and faces: a lumpy ball that moves with the head."""
    head = rest[:, 1] > cut.landmarks["left_eye"][1]
    turn, shift = roma.rigid_points_registration(torch.tensor(rest[head]), torch.tensor(posed[head]))
    ball = trimesh.creation.icosphere(subdivisions=4)
    points = np.array(ball.vertices)
    size = 0.050 * (1 + 0.05 * ripple(points * [1.0, 2.5, 1.0], 0.6))[:, None]
    crown = cut.landmarks["head_top"] + np.array([0.0, 0.012, -0.062])
    placed = (points * size * [1.05, 0.9, 1.0] + crown) @ turn.numpy().T + shift.numpy()
    # All of it is hair to the paint: rest points above the crown.
    return placed, points * 0.04 + cut.landmarks["head_top"] + [0, 0.05, 0], np.array(ball.faces)


def _pose(person: Person, blank: Parameters, expressions: tuple[str, ...]) -> Parameters:
    """Return the person's pose and expression as parameters."""
    body = torch.zeros(len(BODY_JOINTS) - 1, 3, dtype=torch.float64)
    leaves = {}
    for joint, degrees in person.pose.items():
        turn = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
        if joint == "pelvis":
            leaves["global_orient"] = turn.reshape(1, 1, 3)
        elif joint == "jaw":
            leaves["jaw_pose"] = turn.reshape(1, 1, 3)
        else:
            body[BODY_JOINTS.index(joint) - 1] = turn
    leaves["body_pose"] = body.reshape(1, 1, -1)
    for side, sign, bend in (("left", -1.0, person.curl[0]), ("right", 1.0, person.curl[1])):
        hand = torch.zeros(15, 3, dtype=torch.float64)
        hand[:12, 2] = sign * np.radians(bend)
        # The thumb bends across the palm, and less.
        hand[12:, 1] = sign * np.radians(bend) * -0.3
        leaves[f"{side}_hand_pose"] = hand.reshape(1, 1, -1)
    face = torch.zeros_like(blank["expression"])
    for name, value in person.expression.items():
        face[0, 0, expressions.index(name)] = value
    leaves["expression"] = face
    return blank.replace(leaves)


def compose(*degrees: Rotation) -> Rotation:
    """Return one axis-angle for several, the first one applied last (degrees)."""
    turns = [roma.rotvec_to_rotmat(torch.deg2rad(torch.tensor(d, dtype=torch.float64))) for d in degrees]
    product = turns[0]
    for turn in turns[1:]:
        product = product @ turn
    x, y, z = torch.rad2deg(roma.rotmat_to_rotvec(product)).tolist()
    return (x, y, z)
