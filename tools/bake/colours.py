"""Vertex colours: skin, short hair, eyes, lips, brows; enough for a render to be taken for a face."""

import numpy as np
from numpy.typing import NDArray

from bake.contour import inside_polygon
from bake.face import Look

SKIN, WHITE, IRIS, PUPIL = (206, 160, 136), (236, 233, 228), (92, 62, 38), (22, 16, 14)
HAIR, LIP, BROW = (74, 52, 40), (178, 106, 98), (104, 72, 56)
CAVITY, TONGUE = (92, 34, 34), (184, 88, 88)
"""RGB."""

LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
BROWS = ((70, 63, 105, 66, 107, 55, 65, 52, 53, 46), (300, 293, 334, 296, 336, 285, 295, 282, 283, 276))
"""Outlines among MediaPipe's 468 points."""


def vertex_colours(look: Look, mesh: NDArray) -> NDArray:
    """RGB (V, 3) uint8 of every vertex; `mesh` (468, 3) are the face points on the template."""
    template, names = look.template, look.part_names
    colours = np.tile(np.array(SKIN, np.uint8), (len(template), 1))
    colours[scalp(look, mesh)] = HAIR
    front = (template[:, 2] > mesh[:, 2].min()) & (np.linalg.norm(template - mesh.mean(axis=0), axis=1) < 0.14)
    for outline, colour in ((LIPS, LIP), (BROWS[0], BROW), (BROWS[1], BROW)):
        near = np.linalg.norm(template - mesh[list(outline)].mean(axis=0), axis=1) < 0.045
        colours[front & near & inside_polygon(template[:, :2], mesh[list(outline), :2])] = colour
    for name, colour in (("mouth_cavity", CAVITY), ("tongue", TONGUE)):
        inner = np.setdiff1d(
            look.faces[look.part == names.index(name)], look.faces[look.part != names.index(name)], assume_unique=False
        )
        colours[inner] = colour
    for side, row in zip(("left", "right"), look.pupils, strict=True):
        eye = np.unique(look.faces[look.part == names.index(f"{side}_eye")])
        distance = np.linalg.norm(template[eye] - row[1] @ template[row[0]], axis=1)[:, None]
        colours[eye] = np.where(distance < 0.0042, PUPIL, np.where(distance < 0.0068, IRIS, WHITE))
    return colours


def scalp(look: Look, mesh: NDArray) -> NDArray:
    """(V,) bool: the head above a slanted plane from the forehead's hairline, over the ears, to the nape."""
    template = look.template
    head = np.zeros(len(template), bool)
    head[look.faces[(look.part == look.part_names.index("head")) & look.skin]] = True
    hairline, cheek = mesh[10], np.abs(mesh[:, 0]).max()
    back = hairline[2] - template[:, 2]
    plane = hairline[1] - 0.25 * back - 3.0 * np.maximum(back - 0.09, 0.0) ** 1.2
    return head & (template[:, 1] > np.maximum(plane, mesh[2, 1])) & (np.abs(template[:, 0]) < cheek + 0.012)
