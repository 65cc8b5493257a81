"""Mesh files: .glb, .obj and .ply.

Axes in the files: x right, y up, z towards the viewer, metres; glTF's own convention, and what .obj and .ply viewers
expect. It follows from the camera's axes (x right, y down, z forward) by a half turn about x, (x, y, z) -> (x, -y, -z):
who stands in the photo stands upright in the file, and faces the viewer as in the photo. Blender's importers turn y up
into its own z up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from fitkit.errors import UsageError
from fitkit.files import atomic_write
from fitkit.registry import did_you_mean
from fitkit.rendering.geometry import vertex_normals

if TYPE_CHECKING:
    import trimesh

BLUE = (0.56, 0.69, 0.95)
"""sRGB of a body that is given no colour."""
HALF_TURN = np.array([1.0, -1.0, -1.0])
"""Camera axes to the files' axes, and back."""


@dataclass(frozen=True)
class NamedMesh:
    """One body of a mesh file."""

    vertices_camera: Float[np.ndarray, "V 3"]
    """Camera coordinates (x right, y down, z forward), metres."""
    faces: Int[np.ndarray, "F 3"]
    """Vertex indices of the triangles, counter-clockwise from outside."""
    name: str = "person"
    """Name of the node (.glb) or object (.obj)."""
    colour: tuple[float, float, float] = BLUE
    """sRGB of the material in [0, 1]."""


def write_mesh(
    path: str | os.PathLike[str],
    vertices: Float[np.ndarray, "V 3"],
    faces: Int[np.ndarray, "F 3"],
    name: str = "person",
    colour: tuple[float, float, float] = BLUE,
) -> None:
    """Write one body as .glb, .obj or .ply; the file appears whole or not at all.

    Args:
        path: its suffix chooses the format.
        vertices: camera coordinates (x right, y down, z forward), metres; see the module for the file's axes.
        faces: vertex indices of the triangles.
        name: of the node or object.
        colour: sRGB of the material in [0, 1].

    Raises:
        UsageError: the suffix is not one of `FORMATS`.
        OutputError: the file cannot be written.
    """
    write_meshes(path, [NamedMesh(vertices, faces, name, colour)])


def write_meshes(path: str | os.PathLike[str], meshes: Sequence[NamedMesh]) -> None:
    """Write several bodies into one file: named nodes of a .glb scene, objects of an .obj, one mesh in a .ply.

    Arguments and errors as `write_mesh`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise UsageError(f"Cannot write a mesh as '{suffix}': choose one of {known}.{did_you_mean(suffix, FORMATS)}")
    content = _EXPORTERS[suffix](meshes)
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def _scene(meshes: Sequence[NamedMesh]) -> trimesh.Scene:
    """Return the bodies in the files' axes, with normals and a soft material, as named parts of a scene."""
    import trimesh  # takes half a second, and is needed only when a mesh is written
    from trimesh.visual.material import PBRMaterial

    scene = trimesh.Scene()
    for mesh in meshes:
        vertices = np.asarray(mesh.vertices_camera, np.float64) * HALF_TURN
        faces = np.asarray(mesh.faces, np.int64)
        linear = [*(np.array(mesh.colour) ** 2.2), 1.0]  # glTF's factors are linear light
        material = PBRMaterial(f"{mesh.name}-skin", baseColorFactor=linear, metallicFactor=0.0, roughnessFactor=0.55)
        shape = trimesh.Trimesh(
            vertices=vertices,
            faces=faces,
            vertex_normals=vertex_normals(vertices, faces),
            visual=trimesh.visual.TextureVisuals(material=material),
            metadata={"name": mesh.name},
            process=False,  # keeps the body's own order of vertices
        )
        scene.add_geometry(shape, node_name=mesh.name, geom_name=mesh.name)
    return scene


def _glb(meshes: Sequence[NamedMesh]) -> bytes:
    """Return a binary glTF scene."""
    from trimesh.exchange.gltf import export_glb

    return export_glb(_scene(meshes), include_normals=True)


def _obj(meshes: Sequence[NamedMesh]) -> bytes:
    """Return a Wavefront file, without materials: they would need a second file."""
    from trimesh.exchange.obj import export_obj

    return export_obj(_scene(meshes), include_normals=True, include_texture=False, header=None).encode()


def _ply(meshes: Sequence[NamedMesh]) -> bytes:
    """Return a binary PLY file, in which all bodies are one mesh with coloured vertices."""
    import trimesh
    from trimesh.exchange.ply import export_ply

    shapes = []
    for mesh, shape in zip(meshes, _scene(meshes).geometry.values(), strict=True):
        colours = np.tile(np.round(255 * np.array([*mesh.colour, 1.0])).astype(np.uint8), (len(shape.vertices), 1))
        shape.visual = trimesh.visual.ColorVisuals(shape, vertex_colors=colours)
        shapes.append(shape)
    whole = shapes[0] if len(shapes) == 1 else trimesh.util.concatenate(shapes)
    return export_ply(whole, encoding="binary", vertex_normal=True)


_EXPORTERS: dict[str, Callable[[Sequence[NamedMesh]], bytes]] = {".glb": _glb, ".obj": _obj, ".ply": _ply}
FORMATS = tuple(_EXPORTERS)
"""Suffixes that can be written."""
