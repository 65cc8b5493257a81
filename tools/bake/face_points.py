"""The face landmarks from start to end: portraits, marks, the 468 points, dlib's 68 and the contour table."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bake import contour, face
from bake.population import portrait_phenotypes, sample_phenotypes
from bake.rig import JOINTS
from bake.shape import TPosed
from bake.source import Source
from bake.surface import SurfacePoints

YAWS = tuple(np.radians([-36.0, -20.0, 0.0, 20.0, 36.0]))
"""Head yaws of the portraits."""


@dataclass(frozen=True)
class FacePoints:
    """Face landmarks on the template."""

    mesh: SurfacePoints
    """MediaPipe's 468 points."""
    dlib: SurfacePoints
    """dlib's 68 points; the first 17 are a static jaw line."""
    outline: SurfacePoints
    """79 x 17 contour points, row by row; row 0 is the frontal contour."""
    table: dict[str, str]
    """What was measured, for the quality table."""


def locate_face(source: Source, posed: TPosed, look: face.Look, jaw: NDArray, network: Path, quick: bool) -> FacePoints:
    """Find the face landmarks; `jaw` (V,) is the jaw's skinning weight, `network` the file of the face network."""
    net = face.FaceMesh(network)
    coefficients = source.coefficients(portrait_phenotypes(source.labels))[:: 3 if quick else 1]
    bodies, opened = _bodies(posed, coefficients, jaw)
    closed_marks, scores = face.mark_faces(bodies, look, net, YAWS)
    open_marks, open_scores = face.mark_faces(opened, look, net, YAWS[1:-1])
    mesh, table = face.settle(face.merge(closed_marks[scores > 0.8], open_marks[open_scores > 0.8]), look)
    scores = np.r_[scores, open_scores]
    chosen = list(face.DLIB_FROM_MESH)
    dlib = SurfacePoints(mesh.face[chosen], mesh.bary[chosen])
    patch = contour.face_patch(
        look.template, look.faces, look.skin, mesh.on(look.template, look.faces)[list(contour.OVAL)]
    )
    jaw_line = SurfacePoints(dlib.face[:17], dlib.bary[:17])
    outline = contour.dynamic_contour(look.template, look.faces, patch, jaw_line)
    strangers = source.coefficients(sample_phenotypes("neutral", 2 if quick else 8, source.labels, seed=91))
    distance = face.disagreement(_bodies(posed, strangers, jaw)[0], look, net, mesh)
    return FacePoints(
        mesh,
        dlib,
        outline,
        {"portraits in which the network saw a face": f"{int((scores > 0.8).sum())} of {len(scores)}"}
        | {name: f"{value:.2f}" for name, value in table.items()}
        | {"network against landmarks on 8 other people, median mm": f"{np.median(distance):.2f}"}
        | {"network against landmarks on 8 other people, 95th percentile mm": f"{np.percentile(distance, 95):.2f}"},
    )


def _bodies(posed: TPosed, coefficients: NDArray, jaw: NDArray) -> tuple[list[NDArray], list[NDArray]]:
    """Bodies (V, 3) of target coefficients (S, C), with the mouth closed and open."""
    index = JOINTS.index("jaw")
    bodies = [posed.template + np.einsum("c,cvd->vd", c, posed.shapes) for c in coefficients]
    joints = posed.joints[index] + coefficients @ posed.joint_shapes[:, index]
    return bodies, [face.open_mouth(body, joint, jaw) for body, joint in zip(bodies, joints, strict=True)]
