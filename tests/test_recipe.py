"""Recipes: the shipped ones are what they claim to be and run on every model; mistakes are said with their place."""

from __future__ import annotations

import pytest
import torch
import yaml
from fitting_world import KINDS, model_of, people_of, problem_of, quick

import fitkit
from fitkit.errors import InputError, UsageError
from fitkit.fitting import fit
from fitkit.initialisers import INITIALISERS
from fitkit.problem import Initialiser
from fitkit.recipe import Recipe, configurable, load_recipe, parse_recipe, recipe_names
from fitkit.solvers import SOLVERS
from fitkit.solvers.base import Solver, Status
from fitkit.terms import TERMS

SMALL = """
initialiser: {name: frontal, flip: false}
solver: {name: lbfgs, max_iterations: 5}
terms:
  reprojection: {deviation: 0.02}
  shape: {term: leaf_prior, leaf: betas}
stages:
  - {name: first, free: [transl], terms: {shape: {weight: 0.0}}}
  - {free: [transl, betas], keep: 1, solver: {max_iterations: 9}, terms: {reprojection: {outlier: 0.3, weight: 2}}}
"""


def _changed(**changes) -> str:
    return yaml.safe_dump(yaml.safe_load(SMALL) | changes)


# ---------------------------------------------------------------------------------------------- the shipped ones


def test_default_and_smplifyx_are_shipped():
    assert {"default", "smplifyx"} <= set(recipe_names())
    assert load_recipe().name == "default" and fitkit.load_recipe("smplifyx").name == "smplifyx"


@pytest.mark.parametrize("name", recipe_names())
def test_a_resolved_recipe_reads_back_to_the_same(name):
    recipe = load_recipe(name)
    again = parse_recipe(yaml.safe_dump(dict(recipe.resolved), sort_keys=False), name)
    assert again == recipe


@pytest.mark.parametrize("name", recipe_names())
def test_everything_that_a_recipe_names_exists(name):
    recipe = load_recipe(name)
    assert isinstance(recipe.initialiser, Initialiser)
    for stage in recipe.stages:
        assert isinstance(stage.solver, Solver) and stage.free
        assert any(entry.weight for entry in stage.terms)
    assert len({stage.name for stage in recipe.stages}) == len(recipe.stages)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_runs_on_every_model(name, kind):
    recipe = quick(name, 2)
    problem = problem_of(people_of(kind, 2).keypoints, kind)
    found = fit(problem, recipe.initialiser, recipe.stages)
    assert not bool((found.status == Status.NON_FINITE).any())
    assert all(bool(leaf.isfinite().all()) for leaf in found.parameters.values())
    assert bool(model_of(kind)(found.parameters).vertices.isfinite().all())


def test_without_a_free_focal_length_the_camera_is_kept():
    recipe = load_recipe("default").with_known_focal()
    assert all("focal_length" not in stage.free for stage in recipe.stages)
    assert [stage.name for stage in recipe.stages] == [stage.name for stage in load_recipe("default").stages]


def _weights(recipe: Recipe, term: str) -> list[float]:
    return [next(entry.weight for entry in stage.terms if entry.name == term) for stage in recipe.stages[1:]]


def test_smplifyx_has_the_published_weights():
    """The published table, its squares taken here: lp^2, lh^2, lb^2, le^2, 3.17 lp and ljaw^2."""
    recipe = load_recipe("smplifyx")
    assert [stage.name for stage in recipe.stages] == ["camera", *(f"stage {k}" for k in range(5))]
    pose, shape = [404, 404, 57.4, 4.78, 4.78], [100, 50, 10, 5, 5]
    jaw = [4040, 4040, 574, 47.8, 47.8]
    assert _weights(recipe, "pose_prior") == pytest.approx([w**2 for w in pose])
    assert _weights(recipe, "hands") == pytest.approx([w**2 for w in pose])
    assert _weights(recipe, "shape") == pytest.approx([w**2 for w in shape])
    assert _weights(recipe, "expression") == pytest.approx([w**2 for w in shape])
    assert _weights(recipe, "bending") == pytest.approx([3.17 * w for w in pose])
    assert _weights(recipe, "jaw") == pytest.approx([w**2 for w in jaw])
    for stage, hands, face in zip(recipe.stages[1:], [0, 0, 0, 0.1, 2], [0, 0, 0, 0, 2], strict=True):
        terms = {entry.name: entry.term for entry in stage.terms}
        reprojection = terms["reprojection"]
        assert (reprojection.hands, reprojection.face, reprojection.contour) == (hands, face, 0)
        assert (reprojection.image_scaled, reprojection.deviation, reprojection.outlier) == (True, 1.0, 100.0)
        assert set(reprojection.without) == {"neck", "left_hip", "right_hip"}
        assert terms["jaw"].deviation == (1.0, 0.1, 0.1) and not terms["hands"].standardised


def test_smplifyx_frees_what_was_published_and_solves_as_published():
    recipe = load_recipe("smplifyx")
    camera, *body = recipe.stages
    assert set(camera.free) == {"transl", "global_orient"}
    for stage in body:
        assert {"global_orient", "body_pose", "betas", "jaw_pose", "leye_pose", "reye_pose", "expression"} <= set(
            stage.free
        )
    assert recipe.camera.focal_length == 5000
    assert (recipe.model.betas, recipe.model.expressions, recipe.model.hand_components) == (10, 10, 12)
    active = {entry.name: entry.weight for entry in camera.terms if entry.weight}
    assert set(active) == {"reprojection", "depth"} and active["depth"] == 1e4
    solver = body[0].solver
    assert (solver.history, solver.c1, solver.c2, solver.max_line_search) == (100, 1e-4, 0.9, 25)


# ---------------------------------------------------------------------------------------------- reading


def test_stages_inherit_what_is_shared_and_override_it():
    recipe = parse_recipe(SMALL, "small")
    first, second = recipe.stages
    assert (first.name, second.name) == ("first", "1") and (first.keep, second.keep) == (0, 1)
    assert (first.solver.max_iterations, second.solver.max_iterations) == (5, 9)
    one, two = ({entry.name: entry for entry in stage.terms} for stage in recipe.stages)
    assert (one["shape"].weight, two["shape"].weight, two["reprojection"].weight) == (0.0, 1.0, 2.0)
    assert (one["reprojection"].term.deviation, two["reprojection"].term.deviation) == (0.02, 0.02)
    assert one["reprojection"].term.outlier != 0.3 and two["reprojection"].term.outlier == 0.3


def test_all_defaults_are_written_down():
    resolved = parse_recipe(SMALL, "small").resolved
    for stage in resolved["stages"]:
        for settings in stage["terms"].values():
            assert set(settings) == {"term", "weight", *configurable(TERMS.get(settings["term"]))}
        assert set(stage["solver"]) == {"name", *configurable(SOLVERS.get(stage["solver"]["name"]))}
    assert set(resolved["initialiser"]) == {"name", *configurable(INITIALISERS.get("frontal"))}


def test_a_recipe_is_read_from_a_users_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(SMALL, encoding="utf-8")
    recipe = load_recipe(path)
    assert recipe.name == "mine" and len(recipe.stages) == 2
    assert load_recipe(str(path)) == recipe


def test_priors_are_listed_once_in_order():
    recipe = load_recipe("default")
    assert len(set(recipe.priors)) == len(recipe.priors) > 1
    assert recipe.starting_from("mean").initialiser.pose in recipe.priors


@pytest.mark.parametrize("text", ["1e-9", "1.0e-9", "0.000000001"])
def test_numbers_may_be_written_as_people_write_them(text):
    """yaml 1.1 takes 1e-9, without a point, for a text."""
    recipe = parse_recipe(SMALL.replace("max_iterations: 5", f"max_iterations: 5, change_tolerance: {text}"), "x")
    assert recipe.stages[0].solver.change_tolerance == 1e-9


def test_one_value_stands_for_a_list_of_one():
    recipe = parse_recipe(SMALL.replace("leaf: betas", "leaf: betas, deviation: 2"), "x")
    assert recipe.stages[0].terms[1].term.deviation == (2.0,)


# ---------------------------------------------------------------------------------------------- mistakes

MISTAKES = {
    "an unknown key at the top": ({"stagse": []}, "the file: unknown key 'stagse'.*Did you mean 'stages'"),
    "no stages": ({"stages": []}, "at least one stage"),
    "stages that are no list": ({"stages": {"a": 1}}, "`stages` must be a list"),
    "a stage that is no mapping": ({"stages": ["transl"]}, r"stages\[0\] must be a mapping.*got str"),
    "an unknown key of a stage": ({"stages": [{"fre": ["transl"]}]}, r"stages\[0\]: unknown key 'fre'.*'free'"),
    "an unknown leaf": ({"stages": [{"free": ["body_poze"]}]}, r"stages\[0\].free.*'body_poze'.*'body_pose'"),
    "a leaf that is no text": ({"stages": [{"free": [3]}]}, r"stages\[0\].free must be str; got 3"),
    "a keep that is no number": ({"stages": [{"free": [], "keep": "all"}]}, r"stages\[0\].keep must be int; got 'all'"),
    "a negative keep": ({"stages": [{"free": [], "keep": -1}]}, r"stages\[0\].keep.*got -1"),
    "an unknown occasion": ({"stages": [{"free": [], "when": "never"}]}, r"stages\[0\].when must be.*got 'never'"),
    "a setting that is a flag": ({"solver": {"max_iterations": True}}, "max_iterations must be int; got True"),
    "an unknown term": ({"terms": {"reprojektion": {}}}, "Unknown term 'reprojektion'.*'reprojection'"),
    "an unknown setting of a term": ({"terms": {"reprojection": {"deviaton": 1}}}, "'deviaton'.*'deviation'"),
    "a setting of the wrong type": (
        {"terms": {"reprojection": {"deviation": "big"}}},
        "deviation must be float; got 'big'",
    ),
    "evidence in a recipe": ({"terms": {"reprojection": {"points": [1]}}}, "unknown key 'points'"),
    "terms that are no mapping": ({"terms": ["reprojection"]}, "terms must be a mapping"),
    "settings that are no mapping": ({"terms": {"reprojection": 3}}, "terms.reprojection must be a mapping.*got int"),
    "a weight that is no number": ({"terms": {"reprojection": {"weight": "much"}}}, "weight must be float; got 'much'"),
    "a negative weight": ({"terms": {"reprojection": {"weight": -1}}}, "weight must be 0 or positive; got -1"),
    "a weight that is not finite": (
        {"terms": {"reprojection": {"weight": float("nan")}}},
        "weight must be 0 or positive",
    ),
    "a prior on no leaf": ({"terms": {"leaf_prior": {"leaf": "beta"}}}, "'beta'.*Did you mean 'betas'"),
    "a deviation of zero": ({"terms": {"leaf_prior": {"deviation": 0}}}, "must be positive"),
    "an unknown solver": ({"solver": {"name": "lbfg"}}, "Unknown solver 'lbfg'.*'lbfgs'"),
    "an unknown setting of a solver": ({"solver": {"max_iter": 3}}, "'max_iter'.*'max_iterations'"),
    "an unknown initialiser": ({"initialiser": {"name": "geometrik"}}, "Unknown initialiser 'geometrik'.*'geometric'"),
    "an initialiser without a name": ({"initialiser": {"flip": True}}, "initialiser: `name` is missing.*geometric"),
    "hypotheses that there are not": ({"initialiser": {"name": "geometric", "hypotheses": 7}}, "initialiser: .*got 7"),
    "an unknown key of the camera": ({"camera": {"fov": 45}}, "camera: unknown key 'fov'.*field_of_view"),
    "an unknown key of the model": ({"model": {"beta": 10}}, "model: unknown key 'beta'.*'betas'"),
    "a fraction of a beta": ({"model": {"betas": 10.5}}, "model.betas must be int; got 10.5"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_said_with_its_place(tmp_path, mistake):
    changes, message = MISTAKES[mistake]
    path = tmp_path / "mine.yaml"
    path.write_text(_changed(**changes), encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    ["stages: [", "a: b: c", "\tstages: 1", "- just\n- a list", "just text", "", "!!python/object:os.system x", "1: 2"],
)
def test_what_is_no_recipe_is_refused(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=str(path)) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


def test_a_binary_file_is_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="cannot be read"):
        load_recipe(path)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_recipe(tmp_path / "mine.yaml")


def test_a_folder_is_no_recipe(tmp_path):
    (tmp_path / "mine.yaml").mkdir()
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        load_recipe(tmp_path / "mine.yaml")


@pytest.mark.parametrize(("name", "meant"), [("defalt", "default"), ("SMPLifyX", "smplifyx")])
def test_an_unknown_recipe_gets_a_suggestion(name, meant):
    with pytest.raises(UsageError, match=f"Did you mean '{meant}'"):
        load_recipe(name)


def test_an_unknown_prior_gets_a_suggestion():
    recipe = parse_recipe(SMALL.replace("flip: false", "flip: false, pose: relaxt"), "x")
    with pytest.raises(UsageError, match="Did you mean 'relaxed'"):
        fitkit.fit(people_of("anny", 1).keypoints, model=model_of("anny", torch.float64), recipe=recipe)
