"""Fitting recipes: strict yaml in, stages out; unknown keys are errors that suggest the right one."""

from __future__ import annotations

import math
import os
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from fitkit.camera import DEFAULT_FIELD_OF_VIEW
from fitkit.energy import WeightedTerm
from fitkit.errors import InputError, UsageError
from fitkit.fitting import ALWAYS, OCCASIONS, Stage
from fitkit.initialisers import INITIALISERS, PROPOSERS
from fitkit.models.skeletons import LEAVES
from fitkit.problem import Initialiser
from fitkit.registry import Registry, did_you_mean
from fitkit.solvers import SOLVERS
from fitkit.terms import TERMS

DEFAULT_RECIPE = "default"
MEAN_START = "mean"
"""What users call a start that nothing learned proposes."""


@dataclass(frozen=True)
class CameraRecipe:
    """What to assume of a camera of which nothing is known."""

    focal_length: float | None = None
    """Pixels; None to go by the field of view."""
    field_of_view: float = round(DEFAULT_FIELD_OF_VIEW * 57.29577951308232, 6)
    """Degrees along the longer side of the picture."""


@dataclass(frozen=True)
class ModelRecipe:
    """Which of a body model's freedoms a recipe uses."""

    betas: int | None = None
    """Shape coefficients; None for the model's usual number."""
    expressions: int | None = None
    """Expression coefficients; None for the model's usual number."""
    hand_components: int | None = 12
    """Principal components of each hand; None for free joints."""
    pose_latent: str | None = None
    """Name or file of the pose prior that decodes `pose_latent`, for stages that free it instead of `body_pose`."""


@dataclass(frozen=True)
class Recipe:
    """A whole fitting procedure."""

    name: str
    """Its file's stem."""
    initialiser: Initialiser
    """Where fits begin."""
    stages: tuple[Stage, ...]
    """What is minimised, in order."""
    camera: CameraRecipe = field(default_factory=CameraRecipe)
    """The camera where nothing is known."""
    model: ModelRecipe = field(default_factory=ModelRecipe)
    """The model's freedoms."""
    resolved: Mapping[str, Any] = field(default_factory=dict)
    """All settings, defaults filled in: plain data, saved with every result."""

    @property
    def priors(self) -> tuple[str, ...]:
        """Names of the pose priors that the recipe asks for."""
        terms = [entry.term for stage in self.stages for entry in stage.terms]
        starts = [self.initialiser, *(stage.propose for stage in self.stages)]
        named = [getattr(term, "prior", None) for term in terms] + [getattr(start, "pose", None) for start in starts]
        return tuple(dict.fromkeys(name for name in named if name))

    @property
    def regressors(self) -> tuple[str, ...]:
        """Names of the trained initialisers that the recipe asks for."""
        weights = getattr(self.initialiser, "weights", None)
        return () if weights is None else (weights,)

    @property
    def refines_focal(self) -> bool:
        """Whether any stage looks for the focal length."""
        return any("focal_length" in stage.free for stage in self.stages)

    def with_known_focal(self) -> Recipe:
        """Return the recipe for photos whose focal length is known: no stage refines it."""
        stages = (replace(stage, free=tuple(n for n in stage.free if n != "focal_length")) for stage in self.stages)
        return replace(self, stages=tuple(stages))

    def starting_from(self, name: str) -> Recipe:
        """Return the recipe with another initialiser: one by its name, or "mean", the mean pose placed as it is seen.

        Raises `UsageError` for an unknown name.
        """
        known = (MEAN_START, *INITIALISERS.names())
        if name not in known:
            raise UsageError(f"Unknown initialiser {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}.")
        cls = INITIALISERS.get("geometric" if name == MEAN_START else name)
        if type(self.initialiser) is cls:
            return self
        # The pose to start from is the mean of the prior that counts in the stages.
        poses = {"pose": self.priors[0]} if self.priors and "pose" in configurable(cls) else {}
        recipe = replace(self, initialiser=build(cls, poses, "initialiser"))
        return replace(recipe, resolved=_resolved(recipe))


def recipe_names() -> tuple[str, ...]:
    """Return the names of the recipes that ship with the package."""
    folder = resources.files("fitkit.configs")
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_recipe(name_or_path: str | os.PathLike[str] = DEFAULT_RECIPE) -> Recipe:
    """Return a shipped recipe by name, or one from the user's yaml file.

    Raises:
        UsageError: no such recipe.
        InputError: the file is no recipe; names the place, what was got and what is known there.
    """
    text = os.fspath(name_or_path)
    if text in recipe_names():
        content, name = (resources.files("fitkit.configs") / f"{text}.yaml").read_text(encoding="utf-8"), text
    else:
        path = Path(text)
        if path.suffix not in (".yaml", ".yml"):
            names = recipe_names()
            raise UsageError(
                f"Unknown recipe {text!r}.{did_you_mean(text, names)} Known: {', '.join(names)}, or a .yaml."
            )
        try:
            content, name = path.read_text(encoding="utf-8"), path.stem
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"The recipe {path} cannot be read: {getattr(error, 'strerror', error)}.") from error
    try:
        return parse_recipe(content, name)
    except yaml.YAMLError as error:
        raise InputError(f"The recipe {text} is no yaml: {' '.join(str(error).split())}.") from error
    except (InputError, UsageError) as error:
        raise InputError(f"The recipe {text}: {error}") from error


def parse_recipe(content: str, name: str) -> Recipe:
    """Return the recipe that a yaml text describes.

    Keys: `initialiser`, `camera`, `model`, `solver` and `terms` (settings that all stages share), and `stages`, a list
    of mappings with `name`, `free`, `keep`, `propose`, `when`, `solver` and `terms`; settings of the last two
    override the shared ones. A term takes its class from its key, or from `term` where the key is another; `weight`
    multiplies it (0 turns it off).
    """
    data = _mapping(yaml.safe_load(content), "the file")
    _known(data, ("initialiser", "camera", "model", "solver", "terms", "stages"), "the file")
    shared = {key: _mapping(value, f"terms.{key}") for key, value in _mapping(data.get("terms", {}), "terms").items()}
    solver = _mapping(data.get("solver", {}), "solver")
    stages = data.get("stages")
    if not isinstance(stages, list) or not stages:
        raise InputError("`stages` must be a list of at least one stage.")
    parsed = tuple(_stage(entry, number, shared, solver) for number, entry in enumerate(stages))
    initialiser = _plug_in(
        INITIALISERS, _mapping(data.get("initialiser", {"name": "geometric"}), "initialiser"), "initialiser"
    )
    camera = build(CameraRecipe, _mapping(data.get("camera", {}), "camera"), "camera")
    model = build(ModelRecipe, _mapping(data.get("model", {}), "model"), "model")
    if model.pose_latent is None and any("pose_latent" in stage.free for stage in parsed):
        raise InputError(
            "A stage frees pose_latent: name the prior that decodes it, as in `model: {pose_latent: vae}`."
        )
    recipe = Recipe(name, initialiser, parsed, camera, model)
    return replace(recipe, resolved=_resolved(recipe))


def _stage(entry: Any, number: int, shared: dict[str, dict[str, Any]], solver: dict[str, Any]) -> Stage:
    where = f"stages[{number}]"
    data = _mapping(entry, where)
    _known(data, ("name", "free", "keep", "propose", "when", "solver", "terms"), where)
    own = _mapping(data.get("terms", {}), f"{where}.terms")
    terms = []
    for key in dict.fromkeys([*shared, *own]):
        settings = shared.get(key, {}) | _mapping(own.get(key, {}), f"{where}.terms.{key}")
        terms.append(_term(key, settings, f"{where}.terms.{key}"))
    chosen = {"name": "lbfgs"} | solver | _mapping(data.get("solver", {}), f"{where}.solver")
    stage = {"free": [], "keep": 0, "when": ALWAYS} | data
    if stage["when"] not in OCCASIONS:
        raise InputError(f"{where}.when must be one of {', '.join(OCCASIONS)}; got {stage['when']!r}.")
    free = _convert(tuple[str, ...], stage["free"], f"{where}.free")
    _known(dict.fromkeys(free), LEAVES, f"{where}.free")
    if {"body_pose", "pose_latent"} <= set(free):
        raise InputError(f"{where}.free names body_pose and pose_latent, which is decoded to it; free one of them.")
    keep = _convert(int, stage["keep"], f"{where}.keep")
    if keep < 0:
        raise InputError(f"{where}.keep must be a number of hypotheses, or 0 for all; got {keep}.")
    made = _plug_in(SOLVERS, chosen, f"{where}.solver")
    wider = _mapping(data.get("propose"), f"{where}.propose")
    propose = _plug_in(PROPOSERS, wider, f"{where}.propose") if wider else None
    return Stage(str(stage.get("name", number)), free, tuple(terms), made, keep, propose, stage["when"])


def _term(key: str, settings: dict[str, Any], where: str) -> WeightedTerm:
    settings = dict(settings)
    kind = settings.pop("term", key)
    weight = _convert(float, settings.pop("weight", 1.0), f"{where}.weight")
    if not 0 <= weight < math.inf:
        raise InputError(f"{where}.weight must be 0 or positive; got {weight:g}.")
    return WeightedTerm(key, weight, _plug_in(TERMS, {"name": kind, **settings}, where))


def _plug_in(table: Registry, settings: dict[str, Any], where: str) -> Any:
    settings = dict(settings)
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise InputError(f"{where}: `name` is missing; known: {', '.join(table.names())}.")
    try:
        cls = table.get(name)
    except UsageError as error:
        raise InputError(f"{where}: {error}") from error
    return build(cls, settings, where)


def build(cls: type, settings: Mapping[str, Any], where: str) -> Any:
    """Return a dataclass made from plain settings, its fields being the schema (evidence fields excepted).

    Raises `InputError` that names the place, for an unknown key or a value of the wrong type.
    """
    schema = configurable(cls)
    _known(settings, schema, where)
    types_of = typing.get_type_hints(cls)
    values = {key: _convert(types_of[key], value, f"{where}.{key}") for key, value in settings.items()}
    try:
        return cls(**values)
    except UsageError as error:
        raise InputError(f"{where}: {error}") from error


def configurable(cls: type) -> dict[str, Field[Any]]:
    """Return the fields of a plug-in that a recipe may set."""
    return {entry.name: entry for entry in fields(cls) if entry.init and not entry.metadata.get("evidence")}


def _known(data: Mapping[str, Any], choices: Iterable[str], where: str) -> None:
    choices = tuple(choices)
    for key in data:
        if key not in choices:
            hint = did_you_mean(str(key), choices)
            raise InputError(f"{where}: unknown key {key!r}.{hint} Known: {', '.join(choices) or 'none'}.")


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{where} must be a mapping of names to values; got {type(value).__name__}.")
    return {str(name): entry for name, entry in value.items()}


def _convert(kind: Any, value: Any, where: str) -> Any:
    """Return a yaml value as the field's type: numbers, texts, optional ones, and tuples of them."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        options = [option for option in arguments if option is not type(None)]
        return None if value is None else _convert(options[0], value, where)
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_convert(arguments[0], item, where) for item in items)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str):
        # yaml 1.1 reads 1e-9 as a text.
        try:
            return float(value)
        except ValueError:
            pass
    if kind in (int, bool, str) and type(value) is kind:
        return value
    raise InputError(f"{where} must be {getattr(kind, '__name__', kind)}; got {value!r}.")


def _resolved(recipe: Recipe) -> dict[str, Any]:
    """Return all settings as plain data that `parse_recipe` reads back to the same recipe."""
    stages = []
    for stage in recipe.stages:
        terms = {
            entry.name: {"term": _name_of(TERMS, entry.term), "weight": entry.weight} | _settings(entry.term)
            for entry in stage.terms
        }
        solver = {"name": _name_of(SOLVERS, stage.solver)} | _settings(stage.solver)
        propose = {}
        if stage.propose is not None:
            propose = {"propose": {"name": _name_of(PROPOSERS, stage.propose)} | _settings(stage.propose)}
        stages.append(
            {"name": stage.name, "free": list(stage.free), "keep": stage.keep, "solver": solver, "terms": terms}
            | ({"when": stage.when} if stage.when != ALWAYS else {})
            | propose
        )
    return {
        "initialiser": {"name": _name_of(INITIALISERS, recipe.initialiser)} | _settings(recipe.initialiser),
        "camera": _settings(recipe.camera),
        "model": _settings(recipe.model),
        "stages": stages,
    }


def _settings(plug_in: Any) -> dict[str, Any]:
    values = {name: getattr(plug_in, name) for name in configurable(type(plug_in))}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _name_of(table: Registry, plug_in: Any) -> str:
    return next(name for name in table.names() if table.get(name) is type(plug_in))
