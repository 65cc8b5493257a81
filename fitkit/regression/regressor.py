"""A trained network as an initialiser's engine: keypoints in, parameters of any body model and a density out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import roma
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fitkit.camera import Camera, focal_from_field_of_view
from fitkit.errors import InputError
from fitkit.models.jacobian import left_jacobian_transposed
from fitkit.models.smpl_family import HandSpace, SMPLFamilyModel
from fitkit.parameters import Parameters, zeros
from fitkit.problem import Belief, Problem, Proposal
from fitkit.regression.crop import GUESSED_FIELD_OF_VIEW, VOCABULARY, View, placed
from fitkit.regression.estimate import Estimate, estimate
from fitkit.regression.network import BODY_PARENTS, JOINTS, KeypointNetwork, NetworkShape, absolute

_POSE = 3 * JOINTS
_HANDS = ("left_hand_pose", "right_hand_pose")
_SIDES = ("left", "right")
_SIZES = ("width", "blocks", "alternatives", "betas", "expressions")
_SPACE = ("mean", "components", "deviation")


@dataclass(frozen=True)
class TrainedBody:
    """The body that a network was trained with."""

    file_hash: str
    """Of its file: shape coefficients mean the same for this file alone."""
    hands: tuple[HandSpace, HandSpace]
    """Its hand spaces, left and right."""


class KeypointRegressor:
    """A network with what its errors have been: proposes parameters and how sure they are."""

    def __init__(
        self, network: KeypointNetwork, correlation: Float[Tensor, "D D"], body: TrainedBody, mirrored: bool = True
    ) -> None:
        """Make a regressor.

        Args:
            network: the network, its weights set.
            correlation: mean products of the errors in units of the network's own deviations, in the order of
                `Estimate.log_deviations`.
            body: the body that it was trained with.
            mirrored: whether to average what the network says with what it says of the mirror image.
        """
        self.mirrored = mirrored
        self.network = network.eval().requires_grad_(False)
        self.correlation = correlation
        self.body = body
        self._inverse: Tensor | None = None

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Tensor], metadata: Mapping[str, str]) -> KeypointRegressor:
        """Return the regressor of a weights file.

        Raises `InputError` for a network of other keypoints, or with parts missing.
        """
        if metadata.get("vocabulary") != ",".join(VOCABULARY):
            raise InputError("The network's weights are for other keypoints than this version of fitkit knows.")
        try:
            network = KeypointNetwork(NetworkShape(**{key: int(metadata[key]) for key in _SIZES}))
            stem = "network."
            network.load_state_dict({k.removeprefix(stem): v.float() for k, v in arrays.items() if k.startswith(stem)})
            left, right = (HandSpace(*(arrays[f"{side}_{part}"].float() for part in _SPACE)) for side in _SIDES)
            return cls(network, arrays["correlation"].float(), TrainedBody(metadata["body"], (left, right)))
        except (KeyError, RuntimeError) as error:
            problem = str(error).strip().splitlines()[-1].strip()
            raise InputError(f"The network's weights do not fit together: {problem}.") from error

    def to_arrays(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the arrays and the metadata of a weights file; the network's arrays in half precision."""
        arrays = {f"network.{name}": value.half() for name, value in self.network.state_dict().items()}
        for side, hand in zip(_SIDES, self.body.hands, strict=True):
            arrays |= {f"{side}_{part}": getattr(hand, part).float().contiguous() for part in _SPACE}
        metadata = {key: str(getattr(self.network.shape, key)) for key in _SIZES}
        metadata |= {"vocabulary": ",".join(VOCABULARY), "body": self.body.file_hash}
        return arrays | {"correlation": self.correlation.float()}, metadata

    def __call__(self, problem: Problem, hypotheses: int) -> Proposal:
        """Return the mean of what the network thinks, then its likeliest further hypotheses, for each problem."""
        view = view_of(problem)
        # In the problem's own precision: a person's proposal is then the same whoever else is in the batch.
        self.network.to(view.points)
        with torch.no_grad():
            found = _ranked(estimate(self.network, view, self.mirrored), hypotheses)
        problems, bodies = problem.observations.points.shape[:2]
        count = found.rotations.shape[1]
        rows = torch.arange(problems, device=view.points.device).repeat_interleave(count)
        focal = view.intrinsics[:, :1, 0] * torch.exp(found.log_focal)
        focal = torch.where(view.focal_known[:, None], view.intrinsics[:, :1, 0], focal)
        camera = problem.camera.with_focal_length(focal.unflatten(0, (problems, bodies)).to(problem.camera.intrinsics))
        start = self._parameters(problem, found, camera)
        return Proposal(start, count, self._belief(problem, found, start, rows), camera.select(rows))

    def _parameters(self, problem: Problem, found: Estimate, camera: Camera) -> Parameters:
        """Return leaves (B * C, N, size) of the problem's own model."""
        model, like = problem.model, problem.observations.points
        problems, bodies = like.shape[:2]
        count = found.rotations.shape[1]

        def rows(values: Tensor) -> Tensor:
            """(B * N, C, X) or (B * N, X) to (B * C, N, X)."""
            each = values if values.ndim == 3 else values[:, None].expand(-1, count, -1)
            return each.to(like).unflatten(0, (problems, bodies)).transpose(1, 2).flatten(0, 1)

        start = zeros(model.layout, problems * count, bodies, like)
        vectors = roma.rotmat_to_rotvec(found.rotations.to(like)).flatten(2)
        pose = start["body_pose"].clone()
        pose[..., : _POSE - 3] = rows(vectors[..., 3:])
        leaves = {"global_orient": rows(vectors[..., :3]), "body_pose": pose}
        if self._same_shape(model):
            leaves["betas"] = _fitting(rows(found.betas), start["betas"].shape[-1]).mean(1, keepdim=True)
            if "expression" in start:
                leaves["expression"] = _fitting(rows(found.expression.clamp(0, 1)), start["expression"].shape[-1])
        if "jaw_pose" in start:
            leaves["jaw_pose"] = rows(found.jaw)
        for name, values in self._hands(model, found).items():
            leaves[name] = rows(values)
        start = start.replace(leaves)
        return start.replace({"transl": _translation(problem, start, rows(_root(found, camera)))})

    def _same_shape(self, model: object) -> bool:
        return getattr(model, "file_hash", None) == self.body.file_hash

    def _hands(self, model: object, found: Estimate) -> dict[str, Float[Tensor, "M _"]]:
        """Return each hand in the model's own space; nothing for a model without hands."""
        spaces = model.hands if isinstance(model, SMPLFamilyModel) else None
        leaves = {}
        for number, name in enumerate(_HANDS if spaces is not None else ()):
            assert spaces is not None
            own, theirs = spaces[number], self.body.hands[number]
            angles = theirs.mean.to(own.mean) + (
                found.hands[:, number].to(own.mean) * theirs.deviation.to(own.mean)
            ) @ (theirs.components.to(own.mean))
            leaves[name] = (angles - own.mean) @ own.components.T
        return leaves

    def _belief(self, problem: Problem, found: Estimate, start: Parameters, rows: Int[Tensor, " R"]) -> Belief:
        """Return the density of orientation and body pose, the same for all models of the family.

        Shape and hands are left to their priors: of those, the network's deviations are the population's.
        """
        problems, bodies = problem.observations.points.shape[:2]
        like = problem.observations.points
        deviation = torch.exp(found.log_deviations).to(like)
        whitening = (self._uncorrelating().to(like) / deviation[:, None, :_POSE]).unflatten(0, (problems, bodies))
        slopes = _turn_slopes(found.rotations.to(like), found.R_camera_crop.to(like))
        slopes = slopes.unflatten(0, (problems, bodies)).transpose(1, 2).flatten(0, 1)
        mean = torch.cat([start["global_orient"], start["body_pose"][..., : _POSE - 3]], dim=-1)
        focal = deviation[:, -1:] * self.correlation[-1, -1].to(like).sqrt()
        focal = focal.unflatten(0, (problems, bodies))[rows]
        return Belief(("global_orient", "body_pose"), (3, _POSE - 3), mean, whitening[rows] @ slopes, focal)

    def _uncorrelating(self) -> Float[Tensor, "66 66"]:
        """Return the inverse root of the joints' correlation; made once."""
        if self._inverse is None:
            # In double precision: the errors of neighbouring joints go together closely.
            root = torch.linalg.cholesky(self.correlation.double()[:_POSE, :_POSE])
            identity = torch.eye(_POSE, dtype=root.dtype)
            self._inverse = torch.linalg.solve_triangular(root, identity, upper=False)
        return self._inverse


def view_of(problem: Problem) -> View:
    """Return the problems' keypoints as the network takes them, one row per body."""
    observed, camera = problem.observations, problem.camera
    theirs, ours = placed(observed.names)
    rows = observed.points.shape[0] * observed.points.shape[1]
    points = observed.points.new_zeros(rows, len(VOCABULARY), 2)
    confidence = observed.confidence.new_zeros(rows, len(VOCABULARY))
    points[:, ours] = observed.points.flatten(0, 1)[:, theirs]
    confidence[:, ours] = observed.confidence.flatten(0, 1)[:, theirs]
    finite = torch.isfinite(points).all(-1)
    points = torch.where(finite[..., None], points, 0.0)
    size = camera.image_size.flatten(0, 1)
    known = problem.focal_known
    told = torch.ones(rows, dtype=torch.bool, device=points.device) if known is None else known.flatten()
    return View(points, confidence * finite, _guessed(camera.intrinsics.flatten(0, 1), size, told), size, told)


def _guessed(
    intrinsics: Float[Tensor, "M 3 3"], size: Float[Tensor, "M 2"], known: Bool[Tensor, " M"]
) -> Float[Tensor, "M 3 3"]:
    """Return K with the focal length that the network expects where the true one is not known."""
    guess = focal_from_field_of_view(GUESSED_FIELD_OF_VIEW, 1.0) * size.amax(-1)
    ratio = torch.where(known, 1.0, guess / intrinsics[:, 0, 0])
    scale = torch.ones_like(intrinsics)
    scale[:, :2, :2] = ratio[:, None, None]
    return intrinsics * scale


def _ranked(found: Estimate, hypotheses: int) -> Estimate:
    """Return the estimate with the mean and the likeliest of its further hypotheses alone."""
    further = 1 + found.likelihood[:, 1:].argsort(dim=1, descending=True)
    order = torch.cat([torch.zeros_like(found.likelihood[:, :1]).long(), further], dim=1)[:, : max(1, hypotheses)]
    index = order[:, :, None, None, None].expand(-1, -1, *found.rotations.shape[2:])
    return Estimate(
        **{
            **vars(found),
            "rotations": found.rotations.gather(1, index),
            "likelihood": found.likelihood.gather(1, order),
        }
    )


def _fitting(values: Float[Tensor, "... S"], size: int) -> Float[Tensor, "... T"]:
    """Return coefficients cut, or filled with zeros, to a number."""
    return torch.nn.functional.pad(values, (0, max(0, size - values.shape[-1])))[..., :size]


def _turn_slopes(
    rotations: Float[Tensor, "M C 22 3 3"], R_camera_crop: Float[Tensor, "M 3 3"]
) -> Float[Tensor, "M C 66 66"]:
    """Return how all joints turn, crop axes, as the orientation (body axes) and the pose (rotation vectors) change.

    A joint turns by what each joint from the pelvis down to it turns by: R_p J_l(v) dv in the axes of its parent's
    rotation R_p, with J_l the left Jacobian (Sola et al. 2018, equation 145).
    """
    common = R_camera_crop.mT[:, None, None] @ absolute(rotations, BODY_PARENTS)
    vectors = roma.rotmat_to_rotvec(rotations[:, :, 1:])
    each = common[:, :, list(BODY_PARENTS[1:])] @ left_jacobian_transposed(vectors.flatten(0, 1)).mT.unflatten(
        0, vectors.shape[:2]
    )
    each = torch.cat([common[:, :, :1], each], dim=2)
    return (_ABOVE.to(each)[:, :, None, None] * each[:, :, None]).transpose(-3, -2).flatten(-4, -3).flatten(-2)


def _ancestors() -> Float[Tensor, "22 22"]:
    """Return for each joint which joints it hangs from, itself among them."""
    above = torch.eye(JOINTS)
    for joint in range(1, JOINTS):
        above[joint] += above[BODY_PARENTS[joint]]
    return above


_ABOVE = _ancestors()


def _root(found: Estimate, camera: Camera) -> Float[Tensor, "M 3"]:
    """Return the pelvis joint in camera axes, metres."""
    intrinsics = camera.intrinsics.flatten(0, 1)
    depth = torch.exp(found.log_metres_per_pixel).to(intrinsics) * intrinsics[:, :1, 0]
    ray = (found.root.to(intrinsics) - intrinsics[:, :2, 2]) / intrinsics.diagonal(dim1=-2, dim2=-1)[:, :2]
    return torch.cat([ray * depth, depth], dim=-1)


def _translation(problem: Problem, start: Parameters, root: Float[Tensor, "R N 3"]) -> Float[Tensor, "R N 3"]:
    """Return the translation that puts the first joint at a point; problems are seen along the camera's axes."""
    return root - problem.model(start).joints[:, :, 0]
