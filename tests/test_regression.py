"""The learned initialiser: what it is shown, what it proposes, and how sure it says it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import roma
import torch
from safetensors.torch import save_file

from fitkit.camera import focal_from_field_of_view
from fitkit.errors import InputError, UsageError
from fitkit.initialisers.network import NetworkInitialiser
from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.conventions import COCO_17, HAND_LEFT, SMPLIFYX_118
from fitkit.model_files import load_model
from fitkit.models.arrays import ModelChoice
from fitkit.people import Person, make_problem
from fitkit.prior_files import load_prior
from fitkit.recipe import load_recipe
from fitkit.regression.crop import GUESSED_FIELD_OF_VIEW, VOCABULARY, View, crop, placed
from fitkit.regression.estimate import estimate, flipped, unflipped
from fitkit.regression.network import BODY_PARENTS, KeypointNetwork, NetworkShape, absolute
from fitkit.regression.regressor import KeypointRegressor, TrainedBody, view_of
from fitkit.regressor_files import load_regressor, save_regressor
from fitkit.scene import Scene
from fitkit.training.detections import Detector
from fitkit.training.initialiser import errors, targets_of
from fitkit.training.pose_source import PoseSource
from fitkit.training.synthetic_people import Population

COUNT = 12
RIGHT_WRIST = 21
SMALL = NetworkShape(width=16, blocks=1, alternatives=2)


@pytest.fixture(scope="module")
def model():
    return load_model(ModelChoice("anny", "anny", dtype=torch.float32))


@pytest.fixture(scope="module")
def population(model):
    random = torch.Generator().manual_seed(0)
    poses = 0.3 * torch.randn(200, 63, generator=random)
    tilts = 0.1 * torch.randn(200, 3, generator=random)
    lower, upper = load_prior("joint_limits").bounds
    return Population(model, PoseSource(poses, tilts, torch.ones(200), lower.float(), upper.float()))


@pytest.fixture
def random():
    return torch.Generator().manual_seed(1)


@pytest.fixture
def seen(population, random):
    """People, and what a perfect detector sees of them."""
    people = population.sample(COUNT, random)
    known = torch.ones(COUNT, dtype=torch.bool)
    return people, View(people.points, torch.ones(people.points.shape[:2]), people.intrinsics, people.image_size, known)


class Told(KeypointNetwork):
    """A network that answers what it was told."""

    def __init__(self, targets):
        super().__init__(replace(SMALL, alternatives=0))
        self.targets = targets

    def forward(self, inputs):
        """The targets as outputs."""
        targets = self.targets
        six = targets.rotations[..., :2].mT.flatten(1)
        names = ("betas", "hands", "jaw", "expression", "root", "log_extent", "log_focal")
        outputs = {name: getattr(targets, name) for name in names}
        sizes = {"alternatives": six[:, :0], "likelihoods": torch.zeros(len(six), 1)}
        return outputs | sizes | {"rotations": six, "log_deviations": torch.zeros(len(six), self.shape.believed)}


def _problem(model, people, view):
    """The people as a batch of problems, in the recipe's own way."""
    persons = []
    for row in range(len(view.points)):
        size = tuple(int(value) for value in view.image_size[row])
        seen = Keypoints(VOCABULARY, view.points[row, None].numpy(), view.confidence[row, None].numpy(), size)
        known = bool(view.focal_known[row])
        persons.append(Person(seen, 0, float(view.intrinsics[row, 0, 0]), "given" if known else "default"))
    return make_problem(persons, model, load_recipe("smplifyx"))


# ---------------------------------------------------------------------------------------------- what it is shown


def test_a_crop_does_not_depend_on_the_resolution(seen):
    _, view = seen
    scale = torch.tensor([3.0, 3.0, 1.0]).diag()
    larger = replace(view, points=3 * view.points, intrinsics=scale @ view.intrinsics, image_size=3 * view.image_size)
    torch.testing.assert_close(crop(larger).inputs, crop(view).inputs, atol=1e-4, rtol=1e-4)


def test_a_far_outlier_hardly_moves_the_box(seen):
    _, view = seen
    points = view.points.clone()
    points[:, VOCABULARY.index("left_wrist")] = 1e5
    assert float((crop(replace(view, points=points)).size / crop(view).size).max()) < 3


def test_unseen_points_are_no_part_of_the_inputs(seen):
    _, view = seen
    confidence = view.confidence.clone()
    confidence[:, :40] = 0
    hidden = replace(view, confidence=confidence)
    points = view.points.clone()
    points[:, :40] = -1e4
    torch.testing.assert_close(crop(replace(hidden, points=points)).inputs, crop(hidden).inputs)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_hardly_any_points_still_give_finite_inputs(seen, number):
    _, view = seen
    confidence = torch.zeros_like(view.confidence)
    confidence[:, :number] = 1
    assert bool(crop(replace(view, confidence=confidence)).inputs.isfinite().all())


def test_names_find_their_places_directly_or_by_a_stand_in():
    assert [VOCABULARY[k] for k in placed(SMPLIFYX_118)[1]] == list(SMPLIFYX_118)
    theirs, ours = placed(("left_wrist", "unheard_of", "face_mesh_004"))
    assert [VOCABULARY[k] for k in ours] == ["left_wrist", "face_30"] and theirs == [0, 2]


def test_synthetic_people_stand_before_the_camera_mostly_inside_the_picture(population, random):
    people = population.sample(400, random)
    assert float(people.root[:, 2].min()) > 0.2
    inside = ((people.points >= 0) & (people.points <= people.image_size[:, None])).all(-1).float().mean(1)
    assert float((inside > 0.99).float().mean()) > 0.7
    facing = people.rotations[:, 0, 2, 2]
    assert 0.35 < float((facing < 0).float().mean()) < 0.65


def test_detections_leave_everybody_some_points_and_finite_ones(population, random):
    people = population.sample(400, random)
    view = Detector()(people, random)
    assert bool(view.points.isfinite().all()) and int((view.confidence > 0).sum(1).min()) >= 1
    assert 0.2 < float(view.focal_known.float().mean()) < 0.6


def test_confidence_tells_how_far_points_err(population, random):
    people = population.sample(600, random)
    detector = Detector(clean=0.0, habit=0.0, wrong=0.0, swaps=0.0)
    view = detector(people, random)
    box = (people.points.amax(1) - people.points.amin(1)).amax(-1)
    error = (view.points - people.points).norm(dim=-1) / box[:, None]
    unsure, sure = (view.confidence > 0) & (view.confidence < 0.5), view.confidence > 0.8
    assert float(error[unsure].median()) > 1.5 * float(error[sure].median())


# ---------------------------------------------------------------------------------------------- what it proposes


@pytest.mark.parametrize("known", [True, False])
def test_a_network_that_knew_the_truth_would_propose_it(model, population, random, known):
    people = population.sample(COUNT, random)
    view = Detector(clean=1.0)(people, random)
    shown = torch.tensor([name in SMPLIFYX_118 for name in VOCABULARY])
    intrinsics = people.intrinsics
    if not known:
        focal = focal_from_field_of_view(GUESSED_FIELD_OF_VIEW, 1000.0)
        intrinsics = intrinsics.clone()
        intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
    view = View(view.points, view.confidence * shown, intrinsics, people.image_size, torch.full((COUNT,), known))
    targets = targets_of(people, view, crop(view), model)
    problem = _problem(model, people, view)
    body = TrainedBody(model.file_hash, model.hands)
    proposal = KeypointRegressor(Told(targets), torch.eye(SMALL.believed), body, mirrored=False)(problem, 1)
    scene = Scene(model, proposal.parameters, proposal.camera)
    names = ("left_wrist", "right_big_toe", "nose", "left_index_tip")
    there = scene.projected(names)[:, 0]
    true = people.points[:, [VOCABULARY.index(name) for name in names]]
    box = crop(view).size[:, None]
    assert float(((there - true) / box).abs().max()) < 2e-3
    torch.testing.assert_close(proposal.camera.focal_length[:, 0, 0], people.intrinsics[:, 0, 0], rtol=1e-3, atol=1e-2)


@pytest.fixture
def regressor(model):
    torch.manual_seed(0)
    return KeypointRegressor(
        KeypointNetwork(SMALL), torch.eye(SMALL.believed), TrainedBody(model.file_hash, model.hands)
    )


def test_a_mirrored_person_is_seen_as_the_mirror_image(seen, regressor):
    _, view = seen
    there = estimate(regressor.network, view)
    back = unflipped(estimate(regressor.network, flipped(view)), view.image_size)
    torch.testing.assert_close(back.rotations[:, 0], there.rotations[:, 0], atol=1e-4, rtol=1e-4)
    for name in ("betas", "hands", "root", "log_focal", "log_deviations"):
        torch.testing.assert_close(getattr(back, name), getattr(there, name), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("hypotheses", [1, 2, 3, 9])
def test_as_many_hypotheses_as_asked_for_and_known(model, seen, regressor, hypotheses):
    people, view = seen
    problem = replace(_problem(model, people, view), regressors={"keypoints": regressor})
    proposal = NetworkInitialiser(hypotheses=hypotheses)(problem)
    count = min(hypotheses, 1 + SMALL.alternatives)
    assert proposal.hypotheses == count and proposal.parameters.problems == count * COUNT
    assert len(proposal.belief.mean) == count * COUNT == len(proposal.camera.intrinsics)


@pytest.mark.parametrize("names", [COCO_17, HAND_LEFT, ("nose",)])
def test_any_convention_gives_a_finite_proposal(model, seen, regressor, names):
    people, view = seen
    confidence = view.confidence * torch.tensor([name in names for name in VOCABULARY])
    problem = replace(
        _problem(model, people, replace(view, confidence=confidence)), regressors={"keypoints": regressor}
    )
    proposal = NetworkInitialiser()(problem)
    assert all(bool(leaf.isfinite().all()) for leaf in proposal.parameters.values())
    assert bool(proposal.belief.whitening.isfinite().all())


def test_a_known_focal_length_is_left_alone(model, seen, regressor):
    people, view = seen
    problem = replace(_problem(model, people, view), regressors={"keypoints": regressor})
    torch.testing.assert_close(NetworkInitialiser()(problem).camera.focal_length, problem.camera.focal_length)


def test_another_body_gets_no_shape(model, seen, regressor):
    people, view = seen
    other = replace(model, file_hash="another")
    problem = replace(_problem(other, people, view), regressors={"keypoints": regressor})
    proposal = NetworkInitialiser()(problem)
    assert not bool(proposal.parameters["betas"].any())


def test_whitening_undoes_the_covariance(model, seen):
    people, view = seen
    random = torch.Generator().manual_seed(3)
    mixing = torch.randn(SMALL.believed, SMALL.believed, generator=random) / SMALL.believed**0.5
    correlation = torch.eye(SMALL.believed) + mixing @ mixing.T
    torch.manual_seed(0)
    regressor = KeypointRegressor(KeypointNetwork(SMALL), correlation, TrainedBody(model.file_hash, model.hands))
    problem = _problem(model, people, view)
    belief = regressor(problem, 1).belief
    found = estimate(regressor.network, view_of(problem))
    deviation = torch.exp(found.log_deviations[:, :66]).double()
    covariance = deviation[:, :, None] * correlation[:66, :66].double() * deviation[:, None]
    # A small change of orientation (in the body's axes) and pose, and how all joints turn by it in crop axes.
    change = 1e-4 * torch.randn(COUNT, 66, generator=random, dtype=torch.float64)
    every = roma.rotmat_to_rotvec(found.rotations[:, 0].double())
    rotations, vectors = roma.rotvec_to_rotmat(every), every[:, 1:].flatten(1)
    moved = torch.cat(
        [
            rotations[:, :1] @ roma.rotvec_to_rotmat(change[:, None, :3]),
            roma.rotvec_to_rotmat((vectors + change[:, 3:]).unflatten(1, (-1, 3))),
        ],
        dim=1,
    )
    before, after = (
        found.R_camera_crop.double().mT[:, None] @ absolute(one, BODY_PARENTS) for one in (rotations, moved)
    )
    turns = roma.rotmat_to_rotvec(after @ before.mT).flatten(1)
    expected = (turns * torch.linalg.solve(covariance, turns)).sum(-1)
    distance = (belief.whitening[:, 0].double() @ change[..., None]).square().sum((1, 2))
    torch.testing.assert_close(distance, expected, rtol=1e-3, atol=0)


def test_training_errors_are_those_of_the_outputs(model, seen):
    people, view = seen
    targets = targets_of(people, view, crop(view), model)
    wrong = errors(Told(targets)(None), targets)
    assert wrong.shape == (COUNT, SMALL.believed) and float(wrong.abs().max()) < 1e-3
    turn = torch.tensor([0.0, 0.2, 0.0])
    turned = targets.rotations.clone()
    turned[:, RIGHT_WRIST] = roma.rotvec_to_rotmat(turn) @ turned[:, RIGHT_WRIST]
    moved = errors(Told(targets)(None), replace(targets, rotations=turned))[:, :66].unflatten(1, (22, 3))
    torch.testing.assert_close(moved[:, RIGHT_WRIST], turn.expand(COUNT, 3), atol=1e-3, rtol=1e-3)
    moved[:, RIGHT_WRIST] = 0
    assert float(moved.abs().max()) < 1e-3


# ---------------------------------------------------------------------------------------------- files


def test_weights_come_back_as_they_were_saved(tmp_path, seen, regressor):
    _, view = seen
    save_regressor(regressor, tmp_path / "mine.safetensors")
    again = load_regressor(tmp_path / "mine.safetensors")
    before, after = estimate(regressor.network, view), estimate(again.network, view)
    for name in ("betas", "log_focal", "log_deviations"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name), atol=1e-2, rtol=1e-3)
    assert again.body.file_hash == regressor.body.file_hash


def test_a_damaged_or_missing_file_is_named(tmp_path):
    (tmp_path / "bad.safetensors").write_text("no weights")
    for name in ("bad", "absent"):
        with pytest.raises(InputError, match=name):
            load_regressor(tmp_path / f"{name}.safetensors")


def test_weights_for_other_keypoints_are_refused(tmp_path, regressor):
    arrays, metadata = regressor.to_arrays()
    save_file(arrays, tmp_path / "old.safetensors", metadata | {"vocabulary": "nose"})
    with pytest.raises(InputError, match="other keypoints"):
        load_regressor(tmp_path / "old.safetensors")


def test_an_unknown_name_suggests_the_right_one():
    with pytest.raises(UsageError, match="keypoints"):
        load_regressor("keypoint")
