"""Training of the network from keypoints to parameters, wholly on synthetic people."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from fitkit.models.smpl_family import SMPLFamilyModel
from fitkit.regression.crop import Crop, View, crop
from fitkit.regression.network import BODY_PARENTS, JOINTS, KeypointNetwork, relative, rotations_of
from fitkit.training.detections import Detector
from fitkit.training.synthetic_people import Population, SyntheticPeople, standard_hands

_IMPORTANCE = (3.0, *(1.0 for _ in range(JOINTS - 1)))
"""Weight of each joint's rotation in the loss: the pelvis turns everything."""
_LOCAL, _POSITIONS, _SHAPE, _HANDS, _FACE = 0.5, 10.0, 0.1, 0.25, 0.03
_ROOT, _FOCAL, _ALTERNATIVES, _DEVIATIONS = 0.5, 0.3, 0.3, 0.05

_DEGREES = 8.0
"""Of freedom of the density by which deviations are trained."""
_MILD = 2000
"""Steps after which a detector errs as often as it ever does."""
_STEEPEST = 10.0
"""Norm to which gradients are cut."""
_AVERAGED = 10
"""Steps from one update of the weights' running mean to the next."""


@dataclass(frozen=True)
class Targets:
    """What the network should say, in its own terms."""

    rotations: Float[Tensor, "M 22 3 3"]
    """Of pelvis and body joints, crop axes."""
    betas: Float[Tensor, "M S"]
    """Shape."""
    hands: Float[Tensor, "M H"]
    """Left, then right hand's coefficients, each in its own deviations."""
    jaw: Float[Tensor, "M 3"]
    """Axis-angle, radians."""
    expression: Float[Tensor, "M E"]
    """Coefficients."""
    root: Float[Tensor, "M 2"]
    """Pelvis joint in the picture, from the box's centre in sizes of the box."""
    log_extent: Float[Tensor, "M 1"]
    """Logarithm of the box's size at the pelvis' depth, metres."""
    log_focal: Float[Tensor, "M 1"]
    """Logarithm of the true focal length over the one in K."""

    def to(self, device: torch.device) -> Targets:
        """Return the targets on a device."""
        return Targets(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train."""

    steps: int = 20000
    """Batches."""
    batch: int = 1024
    """People in each."""
    rate: float = 1.0e-3
    """Learning rate after the warm-up."""
    warm_up: int = 300
    """Steps over which the rate rises."""
    cooling: float = 0.4
    """Share of the steps, at the end, over which the rate falls to nothing."""
    decay: float = 0.02
    """Weight decay."""

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step."""
        rising = min(1.0, (step + 1) / self.warm_up)
        falling = min(1.0, (self.steps - step) / max(1.0, self.cooling * self.steps))
        return self.rate * rising * falling


def targets_of(people: SyntheticPeople, view: View, box: Crop, model: SMPLFamilyModel) -> Targets:
    """Return what the network should say of people whose parameters are known."""
    leaves = {name: people.parameters[name][:, 0] for name in people.parameters}
    focal = people.intrinsics[:, :1, 0]
    pixel = people.root[:, :2] / people.root[:, 2:] * focal + people.intrinsics[:, :2, 2]
    return Targets(
        box.R_camera_crop.mT[:, None] @ people.joint_rotations,
        leaves["betas"],
        standard_hands(people, model),
        leaves["jaw_pose"],
        leaves["expression"],
        (pixel - box.centre) / box.size,
        torch.log(people.root[:, 2:] * box.size / focal),
        torch.log(focal / view.intrinsics[:, :1, 0]),
    )


def errors(outputs: dict[str, Tensor], targets: Targets) -> Float[Tensor, "M D"]:
    """Return truth less prediction of all values with an uncertainty, rotations as axis-angle in crop axes."""
    turns = roma.rotmat_to_rotvec(targets.rotations @ rotations_of(outputs["rotations"]).mT).flatten(1)
    others = [getattr(targets, name) - outputs[name] for name in ("betas", "hands", "log_focal")]
    return torch.cat([turns, *others], dim=1)


class Loss:
    """The training loss of a batch, and figures to watch."""

    def __init__(self, model: SMPLFamilyModel, device: torch.device | str = "cpu") -> None:
        """Take the body whose joints' positions count: its 22, and the knuckles, which show how hands are turned."""
        shape = model.shape
        knuckles = [
            model.joint_names.index(f"{side}_{finger}1") for side in ("left", "right") for finger in ("index", "pinky")
        ]
        joints = [*range(JOINTS), *knuckles]
        above = [model.tree.parents[joint] for joint in joints]
        self._template = (shape.J_template[joints[1:]] - shape.J_template[above[1:]]).to(device)
        self._directions = (shape.J_shapedirs[joints[1:]] - shape.J_shapedirs[above[1:]]).to(device)
        self._above = above[1:]
        chain = torch.zeros(len(joints), len(joints) - 1)
        for row, joint in enumerate(joints):
            while joint > 0:
                chain[row, joints.index(joint) - 1] = 1
                joint = model.tree.parents[joint]
        self._chain = chain.to(device)

    def __call__(self, outputs: dict[str, Tensor], targets: Targets) -> tuple[Tensor, dict[str, float]]:
        """Return the loss and the mean position error (mm), the mean rotation error (degrees)."""
        predicted = rotations_of(outputs["rotations"])
        apart = _distance(predicted, targets.rotations)
        importance = apart.new_tensor(_IMPORTANCE)
        rotation = (apart * importance).mean()
        local = _distance(relative(predicted, BODY_PARENTS), relative(targets.rotations, BODY_PARENTS))[:, 1:].mean()
        positions = self._joints(predicted, outputs["betas"]) - self._joints(targets.rotations, targets.betas)
        distance = (positions.square().sum(-1) + 1e-8).sqrt().mean()

        def mean_error(name: str) -> Tensor:
            return (outputs[name] - getattr(targets, name)).abs().mean()

        total = (
            rotation
            + _LOCAL * local
            + _POSITIONS * distance
            + _SHAPE * mean_error("betas")
            + _HANDS * mean_error("hands")
            + _FACE * (mean_error("jaw") + mean_error("expression"))
            + _ROOT * (mean_error("root") + mean_error("log_extent"))
            + _FOCAL * mean_error("log_focal")
            + _ALTERNATIVES * _alternatives(outputs, targets, apart, importance)
            + _DEVIATIONS * _deviations(outputs, targets)
        )
        degrees = float(torch.rad2deg(2 * torch.asin((apart.detach() / 8**0.5).clamp_max(1))).mean())
        return total, {"mm": 1000 * float(distance.detach()), "degrees": degrees}

    def _joints(self, rotations: Float[Tensor, "M 22 3 3"], betas: Float[Tensor, "M S"]) -> Float[Tensor, "M J 3"]:
        """Return joints relative to the pelvis, crop axes, metres."""
        rest = self._template + torch.einsum("jkl,ml->mjk", self._directions[..., : betas.shape[1]], betas)
        bones = (rotations[:, self._above] @ rest[..., None])[..., 0]
        return self._chain @ bones


def _distance(first: Float[Tensor, "... 3 3"], second: Float[Tensor, "... 3 3"]) -> Float[Tensor, "..."]:
    """Return the Frobenius norm of the difference of rotations, smooth where they agree."""
    return ((first - second).square().sum((-1, -2)) + 1e-6).sqrt()


def _alternatives(
    outputs: dict[str, Tensor], targets: Targets, mean: Float[Tensor, "M 22"], importance: Float[Tensor, " 22"]
) -> Tensor:
    """Return the loss of the further hypotheses: the nearest is pulled to the truth, the others hardly.

    The likelihoods learn which of all hypotheses, the mean's first, is the nearest.
    """
    count = outputs["alternatives"].shape[1] // (6 * JOINTS)
    if not count:
        return mean.new_zeros(())
    each = outputs["alternatives"].unflatten(1, (count, -1)).flatten(0, 1)
    rotations = rotations_of(each).unflatten(0, (-1, count))
    apart = (_distance(rotations, targets.rotations[:, None]) * importance).mean(-1)
    nearest = apart.argmin(1)
    pulled = 0.9 * apart.gather(1, nearest[:, None])[:, 0] + 0.1 * apart.mean(1)
    with torch.no_grad():
        best = torch.cat([(mean * importance).mean(-1)[:, None], apart], dim=1).argmin(1)
    chosen = torch.nn.functional.cross_entropy(outputs["likelihoods"].float(), best)
    return pulled.mean() + 0.05 * chosen


def _deviations(outputs: dict[str, Tensor], targets: Targets) -> Tensor:
    """Return the negative log likelihood of the errors under the predicted deviations, which alone it trains.

    The density is Student's t: gross errors of early training and of ambiguous views would hide the usual ones.
    """
    with torch.no_grad():
        wrong = errors(outputs, targets)
    log = outputs["log_deviations"].float()
    square = (wrong * torch.exp(-log)).square()
    return (log + 0.5 * (_DEGREES + 1) * torch.log1p(square / _DEGREES)).mean()


@dataclass(frozen=True)
class _Batch:
    """What a step trains on."""

    inputs: Float[Tensor, "M I"]
    """What the network reads."""
    targets: Targets
    """What it should say."""
    random: Tensor
    """State of the randomness once the batch was drawn."""


@dataclass
class Trainer:
    """A network in training."""

    network: KeypointNetwork
    """The network, trained in place."""
    population: Population
    """Whom it sees."""
    detector: Detector
    """How well it sees them."""
    schedule: Schedule
    """How long it trains."""
    random: torch.Generator
    """What everything is drawn from."""
    step: int = 0
    """Steps taken."""
    random_state: Tensor | None = None
    """State of the randomness after the people of these steps; None before the first."""

    def __post_init__(self) -> None:
        """Prepare the optimiser and the running mean of the weights."""
        self._device = next(self.network.parameters()).device
        self.loss = Loss(self.population.model, self._device)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), self.schedule.rate, betas=(0.9, 0.98), weight_decay=self.schedule.decay
        )
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}

    def run(self, report: Callable[[int, dict[str, float]], None] | None = None, every: int = 100) -> None:
        """Train to the end of the schedule; `report` is called every so many steps with the figures' means."""
        figures: dict[str, float] = {}
        # People are made while the network learns from those before them.
        with ThreadPoolExecutor(1) as maker:
            coming = maker.submit(self._batch, self.step)
            while self.step < self.schedule.steps:
                batch = coming.result()
                coming = maker.submit(self._batch, self.step + 1)
                seen = self._learn(batch)
                self.random_state = batch.random
                self.step += 1
                if self.step % _AVERAGED == 0:
                    self._update_average()
                for name, value in seen.items():
                    figures[name] = figures.get(name, 0.0) + value / every
                if self.step % every == 0:
                    if report:
                        report(self.step, figures)
                    figures = {}

    def _batch(self, step: int) -> _Batch:
        """Return what a step trains on."""
        people = self.population.sample(self.schedule.batch, self.random)
        view = self._detector(step)(people, self.random)
        box = crop(view)
        return _Batch(box.inputs, targets_of(people, view, box, self.population.model), self.random.get_state())

    def _learn(self, batch: _Batch) -> dict[str, float]:
        """Take a step, and return the figures to watch."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.rate_at(self.step)
        with torch.autocast(self._device.type, dtype=torch.bfloat16):
            outputs = self.network(batch.inputs.to(self._device))
        outputs = {name: value.float() for name, value in outputs.items()}
        loss, seen = self.loss(outputs, batch.targets.to(self._device))
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), _STEEPEST)
        self.optimiser.step()
        return seen | {"loss": float(loss.detach())}

    def _detector(self, step: int) -> Detector:
        """Return the detector of a step: it errs more and more often until a tenth of the training is over."""
        mildness = 1 - min(1.0, step / min(_MILD, 0.1 * self.schedule.steps))
        return replace(self.detector, clean=max(self.detector.clean, mildness))

    def _update_average(self) -> None:
        keep = min(0.99, self.step / (self.step + 20 * _AVERAGED))
        for name, value in self.network.state_dict().items():
            self.average[name].lerp_(value, 1 - keep)
