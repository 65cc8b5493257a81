"""A whole training of the initialiser: from a motion-capture file to weights and a card that says how good they are."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fitkit.errors import InputError
from fitkit.files import atomic_write, make_folder
from fitkit.model_files import load_model
from fitkit.models.arrays import ModelChoice
from fitkit.prior_files import load_prior
from fitkit.regression.network import KeypointNetwork, NetworkShape
from fitkit.regression.regressor import KeypointRegressor, TrainedBody
from fitkit.regressor_files import load_regressor, save_regressor
from fitkit.training.calibration import calibrated
from fitkit.training.detections import Detector
from fitkit.training.initialiser import Schedule, Trainer
from fitkit.training.initialiser_scores import scores_of
from fitkit.training.motion_capture import Poses
from fitkit.training.pose_files import read_poses
from fitkit.training.pose_source import PoseSource, pose_source
from fitkit.training.synthetic_people import Population

WEIGHTS, CHECKPOINT, REPORT = "keypoints.safetensors", "checkpoint.pt", "keypoints.json"
_SAVED = 250
"""Steps from one checkpoint to the next."""
_EVERY = 10
"""Steps from one report to the next."""


@dataclass(frozen=True)
class InitialiserSettings:
    """What to train, and how long."""

    schedule: Schedule = Schedule()
    """Steps, people in each, and rates."""
    shape: NetworkShape = NetworkShape()
    """The network's size."""
    seed: int = 0
    """Of all randomness."""
    calibration: int = 20000
    """People on whom the errors' correlation is measured."""
    device: str = "cpu"
    """Where the network trains; people are made on the processor."""
    start: str | None = None
    """A trained network by name or file, from which to go on; None for random weights."""


def train_initialiser(
    data: Path,
    out: Path,
    settings: InitialiserSettings,
    report: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, Any]:
    """Train, calibrate, measure, and write weights and report; an interrupted training goes on from its checkpoint.

    Args:
        data: a file or folder of poses, as `fitkit.training.pose_files` reads them.
        out: folder for weights, report and checkpoint.
        settings: what and how long.
        report: called every so many steps with the step and figures.

    Raises:
        InputError: the data cannot be read, or the checkpoint is of another training.
    """
    make_folder(out)
    random = torch.Generator().manual_seed(settings.seed)
    torch.manual_seed(settings.seed)
    model = load_model(ModelChoice("anny", "anny", dtype=torch.float32))
    frames = read_poses(data, model.shape.J_template.double().numpy())
    train = Population(model, _source(frames, ~frames.held_out, random))
    network = _network(settings).to(settings.device)
    trainer = Trainer(network, train, Detector(), settings.schedule, random)
    _resume(trainer, out / CHECKPOINT, settings)

    def reached(step: int, figures: dict[str, float]) -> None:
        if step % _SAVED == 0:
            _save(trainer, out / CHECKPOINT, settings)
        if report:
            report(step, figures)

    trainer.run(reached, _EVERY)
    network.load_state_dict(trainer.average)
    network.to("cpu").eval()
    seen = settings.schedule.steps * settings.schedule.batch
    found = calibrated(network, train, Detector(), min(settings.calibration, max(1024, seen)), random)
    assert model.hands is not None
    regressor = KeypointRegressor(network, found.correlation, TrainedBody(model.file_hash, model.hands))
    held = Population(model, _source(frames, frames.held_out, random), varied=False)
    result = {
        "settings": asdict(settings),
        "frames": int((~frames.held_out).sum()),
        "held out frames": int(frames.held_out.sum()),
        "mean square deviation, 1 when calibrated": found.within,
        "held out": scores_of(regressor, held, settings.seed),
        "training": scores_of(regressor, replace(train, varied=False), settings.seed),
    }
    save_regressor(regressor, out / WEIGHTS)
    with atomic_write(out / REPORT) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result


def _network(settings: InitialiserSettings) -> KeypointNetwork:
    if settings.start is None:
        return KeypointNetwork(settings.shape)
    network = load_regressor(settings.start).network
    if network.shape != settings.shape:
        raise InputError(f"The network {settings.start} has another size ({network.shape}) than what is to be trained.")
    return copy.deepcopy(network).train().requires_grad_(True)


def _source(frames: Poses, chosen: torch.Tensor, random: torch.Generator) -> PoseSource:
    limits = load_prior("joint_limits").bounds  # type: ignore[attr-defined]
    return pose_source(frames.select(chosen.nonzero()[:, 0]), limits, random)


def _save(trainer: Trainer, path: Path, settings: InitialiserSettings) -> None:
    state = {
        "network": trainer.network.state_dict(),
        "optimiser": trainer.optimiser.state_dict(),
        "average": trainer.average,
        "random": trainer.random_state,
        "step": trainer.step,
        "shape": asdict(settings.shape),
    }
    with atomic_write(path) as temporary:
        torch.save(state, temporary)


def _resume(trainer: Trainer, path: Path, settings: InitialiserSettings) -> None:
    """Go on from a checkpoint where there is one."""
    if not path.exists():
        return
    try:
        state = torch.load(path, weights_only=True)
        if state["shape"] != asdict(settings.shape):
            raise InputError(f"{path} is of a network of another size; remove it, or train into another folder.")
        trainer.network.load_state_dict(state["network"])
        trainer.optimiser.load_state_dict(state["optimiser"])
        trainer.average = {name: value.clone() for name, value in state["average"].items()}
        trainer.random.set_state(state["random"])
        trainer.step = int(state["step"])
    except InputError:
        raise
    except Exception as error:
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"The checkpoint {path} cannot be read ({detail}); remove it to begin anew.") from error
