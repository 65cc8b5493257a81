"""What is to be fitted: observations, problems, and the proposals that they start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

from fitkit.body import BodyModel
from fitkit.camera import Camera
from fitkit.parameters import Parameters
from fitkit.priors.base import LatentPosePrior, PosePrior


@dataclass(frozen=True)
class Observations:
    """What is known about B problems before the fit: the 2D (and where given 3D) keypoints, all by name."""

    names: tuple[str, ...]
    """K keypoint names of a convention."""
    landmarks: tuple[str, ...]
    """For each keypoint, the body model's landmark that it shows."""
    points: Float[Tensor, "B N K 2"]
    """Pixels."""
    confidence: Float[Tensor, "B N K"]
    """0 to 1; 0 for unseen."""
    world: Float[Tensor, "B N K 3"] | None = None
    """A detector's guess in metres, camera axes, any origin; NaN where unknown."""

    def select(self, rows: Int[Tensor, " M"]) -> Observations:
        """Return the observations of some of the problems."""
        world = None if self.world is None else self.world[rows]
        return replace(self, points=self.points[rows], confidence=self.confidence[rows], world=world)

    @property
    def places(self) -> dict[str, int]:
        """Index of each keypoint, by its own name and by its landmark's."""
        numbered = range(len(self.names))
        return dict(zip(self.landmarks, numbered, strict=True)) | dict(zip(self.names, numbered, strict=True))


@dataclass(frozen=True)
class Belief:
    """A normal density over some leaves of each problem's bodies: what an initialiser thinks, and how surely."""

    names: tuple[str, ...]
    """The leaves, in the order in which their values lie side by side."""
    sizes: tuple[int, ...]
    """How many values of each, its first ones (SMPL's body pose has two joints more than the others')."""
    mean: Float[Tensor, "B N D"]
    """The values proposed; rotations as axis-angle, radians."""
    whitening: Float[Tensor, "B N D D"]
    """W, with W^T W the inverse of the covariance. It acts on the values' differences from the mean, of the global
    orientation on the rotation vector from the proposed orientation, in the body's axes."""
    focal_deviation: Float[Tensor, "B N 1"] | None = None
    """Standard deviation of the logarithm of the focal length that was proposed; None where none was."""

    def select(self, rows: Int[Tensor, " M"]) -> Belief:
        """Return what is thought of some of the problems."""
        focal = None if self.focal_deviation is None else self.focal_deviation[rows]
        return replace(self, mean=self.mean[rows], whitening=self.whitening[rows], focal_deviation=focal)


@runtime_checkable
class Regressor(Protocol):
    """A learned map from keypoints to parameters."""

    def __call__(self, problem: Problem, hypotheses: int) -> Proposal:
        """Return the likeliest hypotheses for each problem."""
        ...


@dataclass(frozen=True)
class Problem:
    """B independent fits: whose bodies, seen by which cameras, with what evidence, from which start."""

    model: BodyModel
    """The body model."""
    camera: Camera
    """One camera per problem and body."""
    observations: Observations
    """What was seen."""
    start: Parameters
    """Where the solver begins: an initialiser's proposal, or the end of the stage before."""
    pixels_per_metre: Float[Tensor, "B N"]
    """Apparent size of each person, by which image distances become metres at the person's depth."""
    priors: Mapping[str, PosePrior] = field(default_factory=dict)
    """Pose priors by name, for the terms that ask for one."""
    decoder: LatentPosePrior | None = None
    """Decodes the pose latents of stages that free them; None where none does."""
    heights: Float[Tensor, "B N"] | None = None
    """Standing heights that the user knows, metres; NaN where unknown."""
    focal_known: Bool[Tensor, "B N"] | None = None
    """Whether the camera's focal length is known rather than guessed; None for known."""
    regressors: Mapping[str, Regressor] = field(default_factory=dict)
    """Learned initialisers by name, for the recipe that asks for one."""
    belief: Belief | None = None
    """What the initialiser thinks of its own proposal."""

    def select(self, rows: Int[Tensor, " M"]) -> Problem:
        """Return some of the problems, in the order given (rows may repeat)."""
        return replace(
            self,
            camera=self.camera.select(rows),
            observations=self.observations.select(rows),
            start=self.start.select(rows),
            pixels_per_metre=self.pixels_per_metre[rows],
            heights=None if self.heights is None else self.heights[rows],
            focal_known=None if self.focal_known is None else self.focal_known[rows],
            belief=None if self.belief is None else self.belief.select(rows),
        )


@dataclass(frozen=True)
class Proposal:
    """Where to begin: one or more hypotheses for each problem."""

    parameters: Parameters
    """Leaves (B * C, N, size): the C hypotheses of a problem follow each other."""
    hypotheses: int = 1
    """C."""
    belief: Belief | None = None
    """How sure the initialiser is of each of the B * C; None when it does not say."""
    camera: Camera | None = None
    """The B * C cameras where the initialiser knows a better focal length; None to keep the problem's."""


@runtime_checkable
class Initialiser(Protocol):
    """Proposes parameters for problems; what it returns may depend on all that the problem holds but its start."""

    def __call__(self, problem: Problem) -> Proposal:
        """Return the proposal for B problems."""
        ...
