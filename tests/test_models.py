"""Body models: equal to smplx, landmarks without the mesh equal those on the mesh, bodies independent of each other."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import roma
import torch
from fitting_world import KINDS, arrays_of, assert_same, model_of, random_parameters
from synthetic_models import write_model

import fitkit
from fitkit.body import Body, BodyModel
from fitkit.errors import InputError, UsageError
from fitkit.model_files import GENDERS, find_model, load_model
from fitkit.models import smpl_family
from fitkit.models.arrays import ModelChoice, model_from_arrays
from fitkit.models.lbs import rotation_matrices
from fitkit.models.smpl_family import SMPLFamilyModel
from fitkit.parameters import Parameters, zeros

_APPENDED = (
    *("nose", "right_eye", "left_eye", "right_ear", "left_ear"),
    *(f"{side}_{part}" for side in ("left", "right") for part in ("big_toe", "small_toe", "heel")),
    *(f"{side}_{f}_tip" for side in ("left", "right") for f in ("thumb", "index", "middle", "ring", "pinky")),
)
"""The vertices that smplx appends to the joints, in its order."""


def _create(path: Path, kind: str, **options):
    """Return smplx's own layer of a model file, in double precision."""
    smplx = pytest.importorskip("smplx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return smplx.create(str(path), model_type=kind, dtype=torch.float64, batch_size=2, **options)


def _as_smplx_takes_them(parameters: Parameters) -> dict[str, torch.Tensor]:
    return {name: leaf[:, 0] for name, leaf in parameters.items()}


# ---------------------------------------------------------------------------------------------- equal to smplx


@pytest.mark.parametrize(("kind", "suffix"), [("smplx", "npz"), ("smplh", "pkl"), ("smpl", "pkl")])
def test_the_layer_equals_smplx(tmp_path, kind, suffix):
    path = write_model(tmp_path, kind, suffix=suffix)
    model = load_model(ModelChoice(kind, kind, dtype=torch.float64), tmp_path)
    hands = {} if kind == "smpl" else {"use_pca": True, "num_pca_comps": 12, "flat_hand_mean": False}
    face = {"num_expression_coeffs": 10, "use_face_contour": False} if kind == "smplx" else {}
    theirs = _create(path, kind, gender="neutral", ext=suffix, num_betas=10, **hands, **face)
    parameters = random_parameters(model, 2)
    expected = theirs(**_as_smplx_takes_them(parameters))
    body = model(parameters)
    # smplx adds 1e-8 to rotation vectors before it takes their length.
    assert_same(body.vertices[:, 0], expected.vertices, 1e-6)
    assert_same(body.joints[:, 0], expected.joints[:, : len(model.joint_names)], 1e-6)
    # What smplx appends to the joints (nose, toes, finger tips, 51 face points) are landmarks of the same place.
    appended = expected.joints[:, len(model.joint_names) :]
    names = (*_APPENDED, *(f"face_{k:02d}" for k in range(17, 68))) if kind == "smplx" else _APPENDED
    assert_same(body.landmarks(names)[:, 0], appended, 1e-6)
    np.testing.assert_array_equal(model.faces.numpy(), theirs.faces.astype(np.int64))


@pytest.mark.parametrize("gender", GENDERS)
def test_the_embedded_body_loads_in_smplx_and_agrees(tmp_path, gender):
    path = tmp_path / f"SMPLX_{gender.upper()}.npz"
    shutil.copy(find_model("anny", gender), path)
    model = load_model(ModelChoice("anny", "anny", gender, dtype=torch.float64))
    sizes = {leaf.name: leaf.size for leaf in model.layout}
    theirs = _create(
        path, "smplx", gender=gender, num_betas=sizes["betas"], num_expression_coeffs=sizes["expression"],
        use_pca=True, num_pca_comps=12, flat_hand_mean=False, use_face_contour=False,
    )  # fmt: skip
    parameters = random_parameters(model, 2)
    expected = theirs(**_as_smplx_takes_them(parameters))
    body = model(parameters)
    hundredth_of_a_millimetre = 1e-5
    assert_same(body.vertices[:, 0], expected.vertices, hundredth_of_a_millimetre)
    assert_same(body.joints[:, 0], expected.joints[:, :55], hundredth_of_a_millimetre)
    face = body.landmarks(tuple(f"face_{k:02d}" for k in range(17, 68)))[:, 0]
    assert_same(face, expected.joints[:, -51:], hundredth_of_a_millimetre)


# ---------------------------------------------------------------------------------------------- all models


@pytest.fixture(params=KINDS)
def model(request) -> SMPLFamilyModel:
    return model_of(request.param)


def test_it_is_a_body_model(model):
    assert isinstance(model, BodyModel) and isinstance(model(random_parameters(model, 1)), Body)
    assert len(set(model.landmark_names)) == len(model.landmark_names)
    assert {leaf.name for leaf in model.layout} >= {"global_orient", "body_pose", "betas", "transl"}


def test_every_landmark_is_its_mixture_of_skinned_vertices(model):
    body = model(random_parameters(model, 2, bodies=2))
    found = body.landmarks(model.landmark_names)
    assert found.shape == (2, 2, len(model.landmark_names), 3)
    for k, name in enumerate(model.landmark_names):
        if name in model.surface:
            vertices, weights = model.surface[name]
            expected = (weights[:, None] * body.vertices[:, :, vertices]).sum(-2)
        else:
            expected = body.joints[:, :, model.joint_names.index(name.removeprefix("joint/"))]
        torch.testing.assert_close(found[:, :, k], expected, rtol=0, atol=1e-9, msg=f"{name} is elsewhere")


def test_landmark_weights_are_convex(model):
    for name, (vertices, weights) in model.surface.items():
        assert len(vertices) == len(weights) and bool((weights >= -1e-9).all()), name
        assert float(weights.sum()) == pytest.approx(1, abs=1e-6), name


def test_landmarks_do_not_skin_the_mesh(model):
    body = model(random_parameters(model, 1))
    body.landmarks(model.landmark_names[:5])
    assert "vertices" not in vars(body)


def test_landmarks_come_in_the_order_asked_for_and_may_repeat(model):
    body = model(random_parameters(model, 2))
    all_of_them = body.landmarks(model.landmark_names)
    chosen = [5, 0, 5, 3]
    assert_same(body.landmarks([model.landmark_names[k] for k in chosen]), all_of_them[..., chosen, :])


def test_no_landmarks_are_an_empty_tensor(model):
    assert model(random_parameters(model, 2)).landmarks(()).shape == (2, 1, 0, 3)


def test_an_unknown_landmark_is_named(model):
    with pytest.raises(UsageError, match="left_wing"):
        model(random_parameters(model, 1)).landmarks(("left_wing",))


def test_a_body_alone_is_the_body_among_others(model):
    parameters = random_parameters(model, 3, bodies=2)
    names = model.landmark_names
    together = model(parameters)
    for b in range(3):
        for n in range(2):
            single = Parameters({k: v[b : b + 1, min(n, v.shape[1] - 1), None] for k, v in parameters.items()})
            alone = model(single)
            assert_same(alone.vertices[0, 0], together.vertices[b, n])
            assert_same(alone.joints[0, 0], together.joints[b, n])
            assert_same(alone.landmarks(names)[0, 0], together.landmarks(names)[b, n])


def test_pose_leaves_that_are_missing_are_zero(model):
    parameters = random_parameters(model, 1)
    bare = Parameters({name: parameters[name] for name in ("betas", "transl")})
    rest = zeros(model.layout, 1, 1, bare["betas"]).replace(dict(bare))
    if model.hands is None:
        assert_same(model(bare).vertices, model(rest).vertices)
    # A hand without a leaf is flat, with a leaf of zeros it is the mean hand: only the hands may differ.
    body = [
        k
        for k, name in enumerate(model.joint_names)
        if not any(f in name for f in ("index", "middle", "pinky", "ring", "thumb"))
    ]
    assert_same(model(bare).joints[..., body, :], model(rest).joints[..., body, :])


def test_translation_moves_and_global_orientation_turns_about_the_root(model):
    parameters = random_parameters(model, 1)
    moved = parameters.replace({"transl": parameters["transl"] + torch.tensor([1.0, -2.0, 0.5])})
    body, elsewhere = model(parameters), model(moved)
    assert_same(
        elsewhere.vertices - body.vertices, torch.tensor([1.0, -2.0, 0.5]).to(body.vertices).expand_as(body.vertices)
    )
    turn = roma.rotvec_to_rotmat(torch.tensor([0.2, -1.0, 0.4], dtype=torch.float64))
    orient = roma.rotmat_to_rotvec(turn @ roma.rotvec_to_rotmat(parameters["global_orient"]))
    turned = model(parameters.replace({"global_orient": orient}))
    root = body.joints[:, :, :1]
    assert_same(turned.vertices - root, (body.vertices - root) @ turn.T, 1e-8)


def test_single_precision_agrees_to_a_micrometre(model):
    single = model_of(model.name, torch.float32)
    parameters = random_parameters(model, 2)
    body = single(parameters.map(lambda leaf: leaf.float()))
    assert body.vertices.dtype == torch.float32
    assert_same(body.vertices.double(), model(parameters).vertices, 2e-5)


def test_axis_angles_decode_every_pose(model):
    parameters = random_parameters(model, 2)
    poses = model.axis_angles(parameters)
    assert sum(pose.shape[-1] for pose in poses.values()) == 3 * len(model.joint_names)
    assert_same(poses["body_pose"], parameters["body_pose"])
    for side, hand in zip(("left", "right"), model.hands or (), strict=False):
        name = f"{side}_hand_pose"
        assert_same(poses[name], hand.mean + parameters[name] @ hand.components)


def test_gradients_reach_every_leaf(model):
    parameters = random_parameters(model, 1).map(lambda leaf: leaf.requires_grad_(True))
    model(parameters).landmarks(model.landmark_names).square().sum().backward()
    for name, leaf in parameters.items():
        assert leaf.grad is not None and bool(leaf.grad.isfinite().all()) and bool(leaf.grad.any()), name


def test_gradients_are_finite_at_the_rest_pose(model):
    parameters = zeros(model.layout, 1, 1, model.shape.v_template).map(lambda leaf: leaf.requires_grad_(True))
    model(parameters).landmarks(model.landmark_names).square().sum().backward()
    assert all(bool(leaf.grad.isfinite().all()) for leaf in parameters.values())


# ---------------------------------------------------------------------------------------------- the embedded body


def test_the_embedded_body_stands_upright_and_looks_forward():
    model = model_of("anny")
    body = model(zeros(model.layout, 1, 1, model.shape.v_template))

    def at(name: str) -> torch.Tensor:
        return body.landmarks((name,))[0, 0, 0]

    height = body.vertices[0, 0, :, 1].amax() - body.vertices[0, 0, :, 1].amin()
    assert 1.4 < float(height) < 2.0
    assert at("nose")[1] > at("left_hip")[1] > at("left_ankle")[1]
    for part in ("shoulder", "hip", "wrist", "ankle", "eye", "heel"):
        assert at(f"left_{part}")[0] > 0.01 > -0.01 > at(f"right_{part}")[0]
    assert at("nose")[2] > at("left_ear")[2] and at("left_big_toe")[2] > at("left_heel")[2]


@pytest.mark.parametrize("gender", GENDERS)
def test_the_embedded_bodys_pelvis_stays_at_the_origin(gender):
    model = load_model(ModelChoice("anny", "anny", gender, dtype=torch.float64))
    parameters = zeros(model.layout, 2, 1, model.shape.v_template)
    betas = torch.randn(2, 1, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_same(model(parameters.replace({"betas": betas})).joints[:, :, 0], torch.zeros(2, 1, 3).double(), 1e-4)


def test_the_embedded_body_carries_what_detectors_see():
    from fitkit.keypoints.conventions import COCO_WHOLEBODY_133, OPENPOSE_137, correspondence

    model = model_of("anny")
    assert correspondence(COCO_WHOLEBODY_133, model.landmark_names).mask.all()
    assert correspondence(OPENPOSE_137, model.landmark_names).mask.all()
    expression = next(leaf for leaf in model.layout if leaf.name == "expression")
    assert len(model.expression_names) == expression.size and (expression.lower, expression.upper) == (0.0, 1.0)
    assert model.face_parts is not None and len(model.face_parts) == len(model.faces)


# ---------------------------------------------------------------------------------------------- choices


def test_freedoms_can_be_chosen():
    arrays = arrays_of("smplx")
    model = model_from_arrays(arrays, ModelChoice("smplx", "smplx", "female", 16, 7, 20))
    sizes = {leaf.name: leaf.size for leaf in model.layout}
    assert (sizes["betas"], sizes["expression"], sizes["left_hand_pose"]) == (16, 7, 20)
    assert model.gender == "female"
    free = model_from_arrays(arrays, ModelChoice("smplx", "smplx", hand_components=None))
    assert {leaf.name: leaf.size for leaf in free.layout}["left_hand_pose"] == 45


def test_a_model_without_expressions_has_no_such_leaf():
    model = model_from_arrays(arrays_of("smplx"), ModelChoice("smplx", "smplx", num_expressions=0))
    assert "expression" not in {leaf.name for leaf in model.layout}
    assert model(random_parameters(model, 1)).vertices.isfinite().all()


def test_asking_for_more_than_the_file_has_gives_what_it_has():
    model = model_from_arrays(arrays_of("smplh"), ModelChoice("smplh", "smplh", num_betas=1000, hand_components=1000))
    sizes = {leaf.name: leaf.size for leaf in model.layout}
    assert sizes["betas"] == 16 and sizes["left_hand_pose"] == 45


@pytest.mark.parametrize(
    "choice", [{"num_betas": 0}, {"num_betas": -2}, {"num_expressions": -1}, {"hand_components": 0}]
)
def test_senseless_numbers_are_refused(choice):
    with pytest.raises(InputError, match="at least"):
        model_from_arrays(arrays_of("smplx"), ModelChoice("smplx", "smplx", **choice))


def test_genders_differ():
    models = [load_model(ModelChoice("anny", "anny", gender)) for gender in GENDERS]
    assert [model.gender for model in models] == list(GENDERS)
    assert len({model.file_hash for model in models}) == 3
    assert not torch.equal(models[1].shape.v_template, models[2].shape.v_template)


def test_the_public_loader_gives_single_precision_on_the_cpu():
    model = fitkit.load_model(gender="female")
    assert (model.name, model.gender, model.dtype, model.device.type) == ("anny", "female", torch.float32, "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_agrees_with_the_cpu(kind):
    choice = {"dtype": torch.float64, "device": "cuda"}
    if kind == "anny":
        there = load_model(ModelChoice("anny", "anny", **choice))
    else:
        there = model_from_arrays(arrays_of(kind), ModelChoice(kind, kind, **choice))
    here = model_of(kind)
    parameters = random_parameters(here, 2)
    body = there(parameters.map(lambda leaf: leaf.cuda()))
    assert_same(body.vertices.cpu(), here(parameters).vertices)
    assert_same(body.landmarks(here.landmark_names).cpu(), here(parameters).landmarks(here.landmark_names))


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-4, 1.0, 3.1, 6.0])
def test_rotation_matrices_are_romas_and_so_are_their_slopes(angle):
    vectors = torch.nn.functional.normalize(torch.randn(2, 3, 3, dtype=torch.float64), dim=-1) * angle
    assert float((rotation_matrices(vectors) - roma.rotvec_to_rotmat(vectors)).abs().max()) < 1e-14
    ours, theirs = (
        torch.autograd.functional.jacobian(rotation, vectors) for rotation in (rotation_matrices, roma.rotvec_to_rotmat)
    )
    assert float((ours - theirs).abs().max()) < 1e-10


def test_only_the_newest_plans_are_kept(monkeypatch):
    monkeypatch.setattr(smpl_family, "_PLANS", 3)
    model = model_from_arrays(arrays_of("smplx"), ModelChoice("smplx", "smplx"))
    first = model.plan(("nose",))
    assert model.plan(("nose",)) is first
    for name in ("left_eye", "right_eye", "left_ear"):
        model.plan((name,))
    assert model.plan(("nose",)) is not first
