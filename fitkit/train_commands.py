"""`fitkit train`: learning what ships learned from one's own data."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def train() -> None:
    """Train priors and networks on your own data."""


@train.command()
@click.argument("data", metavar="DATA", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("pose_prior"),
    show_default=True,
    help="Folder for the weights, their page and a sheet of samples.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Steps of the optimiser; 8000 take eight minutes of a core.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of all random draws.")
@click.option("--quiet", is_flag=True, help="Print problems only.")
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
