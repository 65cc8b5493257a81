"""Mesh files stand upright, keep the order of vertices, and appear whole or not at all."""

import numpy as np
import pytest
import trimesh

from fitkit.errors import OutputError, UsageError
from fitkit.meshes import FORMATS, NamedMesh, write_mesh, write_meshes


def standing_person():
    """A crude person in camera axes (y down), 3 m away: a capsule with a small head above and a nose to the camera."""
    body = trimesh.creation.capsule(height=1.2, radius=0.2, count=[8, 8])
    vertices = np.array(body.vertices) @ np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0.0]]) * [1, -1, 1]
    head = trimesh.creation.icosphere(subdivisions=1, radius=0.1)
    nose = np.array(head.vertices) * [0.2, 0.2, 0.4] + [0, 0, -0.12]
    parts = [vertices, np.array(head.vertices) + [0, -0.9, 0], nose + [0, -0.9, 0]]
    faces = [np.array(body.faces)[:, ::-1], np.array(head.faces), np.array(head.faces)]
    starts = np.cumsum([0, len(parts[0]), len(parts[1])])
    indices = {
        "head": slice(starts[1], starts[2]),
        "feet": parts[0][:, 1].argmax(),
        "nose": starts[2] + nose[:, 2].argmin(),
    }
    points = np.concatenate(parts) + [0.1, 0.2, 3.0]
    return points, np.concatenate([f + s for f, s in zip(faces, starts, strict=True)]), indices


def load(path):
    return trimesh.load(path, process=False, maintain_order=True, force="mesh")


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_standing_person_stands_upright_in_the_file(tmp_path, suffix):
    vertices, faces, index = standing_person()
    write_mesh(tmp_path / f"mesh{suffix}", vertices, faces)
    read = np.asarray(load(tmp_path / f"mesh{suffix}").vertices)
    assert read.shape == vertices.shape
    assert read[index["head"], 1].min() > read[index["feet"], 1] + 1.0  # up is +y
    assert read[index["nose"], 2] > read[index["head"], 2].mean() + 0.05  # and the front is +z, towards the viewer
    np.testing.assert_allclose(read, vertices * [1, -1, -1], atol=1e-5)


@pytest.mark.parametrize("suffix", FORMATS)
def test_faces_and_their_outside_survive(tmp_path, suffix):
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    write_mesh(tmp_path / f"ball{suffix}", np.array(ball.vertices) + [0, 0, 3], np.array(ball.faces))
    read = load(tmp_path / f"ball{suffix}")
    np.testing.assert_array_equal(read.faces, ball.faces)
    assert read.volume == pytest.approx(ball.volume, rel=1e-5)  # negative if the half turn were a reflection
    outward = (np.asarray(read.vertices) - [0, 0, -3]) / 0.5
    assert np.einsum("vi,vi->v", outward, np.asarray(read.vertex_normals)).min() > 0.98


def test_a_scene_keeps_names_places_and_colours(tmp_path):
    vertices, faces, _ = standing_person()
    meshes = [
        NamedMesh(vertices, faces, "person-0", (1.0, 0.5, 0.25)),
        NamedMesh(vertices + [1.0, 0.0, 0.5], faces, "person-1"),
    ]
    write_meshes(tmp_path / "all.glb", meshes)
    scene = trimesh.load(tmp_path / "all.glb", process=False)
    assert set(scene.geometry) == {"person-0", "person-1"}
    assert {"person-0", "person-1"} <= set(scene.graph.nodes)
    difference = scene.geometry["person-1"].vertices - scene.geometry["person-0"].vertices
    np.testing.assert_allclose(difference, np.tile([1.0, 0.0, -0.5], (len(vertices), 1)), atol=1e-5)
    factor = scene.geometry["person-0"].visual.material.baseColorFactor / 255
    np.testing.assert_allclose(factor[:3], np.array([1.0, 0.5, 0.25]) ** 2.2, atol=0.01)
    for suffix in (".obj", ".ply"):
        write_meshes(tmp_path / f"all{suffix}", meshes)
        assert load(tmp_path / f"all{suffix}").vertices.shape == (2 * len(vertices), 3)


def test_an_unknown_suffix_is_refused_with_a_suggestion(tmp_path):
    vertices, faces, _ = standing_person()
    with pytest.raises(UsageError, match="'.glb'"):
        write_mesh(tmp_path / "mesh.gltb", vertices, faces)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_one_sentence(tmp_path):
    vertices, faces, _ = standing_person()
    with pytest.raises(OutputError, match="folder does not exist"):
        write_mesh(tmp_path / "nowhere" / "mesh.glb", vertices, faces)
