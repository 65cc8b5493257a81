"""`fitkit train`: learning what ships learned from one's own data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

takes_data = click.argument("data", metavar="DATA", type=click.Path(path_type=Path))
takes_seed = click.option("--seed", type=int, default=0, show_default=True, help="Of all random draws.")
may_be_quiet = click.option("--quiet", is_flag=True, help="Print problems only.")


@click.group()
def train() -> None:
    """Train priors and networks on your own data."""


@train.command()
@takes_data
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("pose_prior"),
    show_default=True,
    help="Folder for the weights, their page and a sheet of samples.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Steps of the optimiser; 5000 take five minutes of a core.")
@takes_seed
@may_be_quiet
def prior(data: Path, out: Path, steps: int | None, seed: int, quiet: bool) -> None:
    """Train a pose prior with a latent space on body poses.

    DATA: an npz file with `poses` (N, 66 or more) or (N, 22 or more, 3), axis-angle, pelvis first, as AMASS has it, or
    a folder of such files. A tenth of the clips is held out and measured on.

    Use it in a recipe by the path of its weights: `prior: pose_prior/pose_prior.safetensors`.
    """
    from fitkit.training.pose_prior import Settings
    from fitkit.training.pose_prior_run import train_to_folder

    settings = Settings(seed=seed) if steps is None else Settings(seed=seed, steps=steps)
    done = train_to_folder(data, out, settings, quiet)
    if not quiet:
        held = done.report.held_out
        print(f"{done.weights}: {held.degrees:.2f} degrees and {held.millimetres:.1f} mm on clips held out.")


@train.command()
@takes_data
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("initialiser"),
    show_default=True,
    help="Folder for the weights, the measured errors and the checkpoint that a next run goes on from.",
)
@click.option("--steps", type=click.IntRange(min=1), default=20000, show_default=True, help="Batches to train on.")
@click.option("--batch-size", type=click.IntRange(min=2), default=1024, show_default=True, help="People in a batch.")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), default=1e-3, show_default=True, help="Learning rate."
)
@click.option("--start", metavar="WEIGHTS", help="Go on from trained weights: a name or a file.")
@takes_seed
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda: where the network trains.")
@may_be_quiet
def initialiser(data: Path, out: Path, quiet: bool, device: str, **options: Any) -> None:
    """Train the network that proposes parameters from keypoints, on synthetic people in your poses.

    DATA: body poses, as for `fitkit train prior`. A thousand steps take five minutes of two cores.

    Use it in a recipe by the path of its weights:
    `initialiser: {name: network, weights: initialiser/keypoints.safetensors}`.
    """
    from fitkit.api import choose_device
    from fitkit.progress import ProgressBar
    from fitkit.training.initialiser import Schedule
    from fitkit.training.initialiser_run import WEIGHTS, InitialiserSettings, train_initialiser

    schedule = Schedule(options["steps"], options["batch_size"], options["rate"])
    settings = InitialiserSettings(schedule, seed=options["seed"], device=choose_device(device), start=options["start"])
    with ProgressBar("Training the initialiser", schedule.steps, quiet) as bar:

        def report(step: int, figures: dict[str, float]) -> None:
            bar.describe(f"Training the initialiser ({figures['mm']:.0f} mm, {figures['degrees']:.1f} degrees)")
            bar.advance(step - bar.done)

        result = train_initialiser(data, out, settings, report)
    if not quiet:
        held = result["held out"]["118 points"]
        errors = f"{held['MPJPE mm']:.1f} mm, {held['PA-MPJPE mm']:.1f} mm when aligned"
        print(f"{out / WEIGHTS}: joints of held-out clips are off by {errors}.")
