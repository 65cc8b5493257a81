"""The command line: options in, photos through, one line per person out."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from fitkit.errors import FitkitError, UsageError
from fitkit.registry import did_you_mean
from fitkit.train_commands import train
from fitkit.version import __version__

if TYPE_CHECKING:
    from fitkit.photo_run import Terminal

DEBUG_VARIABLE = "FITKIT_DEBUG"
"""Environment variable that asks for tracebacks."""
INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 and the number of the signal, as shells have it."""
SAVABLE = ("npz", "glb", "obj", "ply", "overlay")
GENDERS = ("neutral", "female", "male")
KEYPOINT_FORMATS = ("openpose", "coco-wholebody", "npz")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 something failed, 2 wrong usage, 130 interrupted.

    Args:
        arguments: what follows the command's name; `sys.argv` by default.
    """
    # Before torch is imported: its threads would spin while they wait, which takes four times the processor time, and
    # on a busy machine four times as long, for batches as small as ours.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default", UserWarning)
            warnings.showwarning = _show_warning
            code = cli.main(args=list(sys.argv[1:] if arguments is None else arguments), standalone_mode=False)
            sys.stdout.flush()
            return int(code or 0)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except FitkitError as error:
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return _fail("Interrupted. What is written is whole; the same command goes on from here.", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away, as `head` does; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        return _fail("There is not enough memory; use a smaller --batch-size or smaller photos.", 1)
    except Exception as error:
        detail = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        return _fail(f"This should not happen ({detail}); {DEBUG_VARIABLE}=1 shows where it did.", 1)


def _fail(message: str, code: int) -> int:
    if _debug():
        traceback.print_exc()
    print(f"Error: {message}" if code != INTERRUPTED else f"\n{message}", file=sys.stderr, flush=True)
    return code


def _debug() -> bool:
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print our own warnings as a line; those of other libraries are not the user's business."""
    if _debug() or category is UserWarning:
        print(f"Warning: {message}", file=sys.stderr, flush=True)


def _ask_for_tracebacks(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        os.environ[DEBUG_VARIABLE] = "1"


shows_traceback = click.option(
    "--traceback",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_ask_for_tracebacks,
    help="Show where an error comes from, as FITKIT_DEBUG=1 does.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="fitkit", message="%(prog)s %(version)s")
def cli() -> None:
    """Fit a parametric human body to the people in photos."""


cli.add_command(train)


@cli.command()
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    default=Path("fits"),
    show_default=True,
    help="Folder for the results; each photo gets a folder in it.",
)
@click.option("--model", default="anny", show_default=True, help="Body model; `fitkit models` lists them.")
@click.option(
    "--gender",
    type=click.Choice(GENDERS),
    help="Gender of the body model; by default what the keypoint file says, else neutral.",
)
@click.option("--config", default="default", show_default=True, metavar="NAME|FILE", help="Fitting recipe.")
@click.option("--detector", default="mediapipe", show_default=True, help="Keypoint detector.")
@click.option(
    "--keypoints",
    type=click.Path(path_type=Path),
    metavar="FILE|DIR",
    help="Use these keypoints (OpenPose, COCO, MMPose, AlphaPose JSON or npz) instead of detecting.",
)
@click.option("--model-dir", type=click.Path(path_type=Path), help="Folder of your SMPL, SMPL-H and SMPL-X files.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="People fitted at once.")
@click.option("--focal", "--focal-length", type=click.FloatRange(min=0, min_open=True), help="Focal length in pixels.")
@click.option(
    "--fov",
    type=click.FloatRange(min=0, max=180, min_open=True, max_open=True),
    help="Field of view in degrees, along the longer side.",
)
@click.option("--intrinsics", metavar="FX,FY,CX,CY", help="The whole camera, in pixels, instead of --focal.")
@click.option(
    "--height",
    metavar="METRES",
    help="Standing height; where photos show several people one for each, such as 1.78,-,1.65 (- where unknown).",
)
@click.option(
    "--init",
    metavar="NAME",
    help="Where fits begin: mean (the mean pose, placed as seen), frontal, ...; by default as the recipe says.",
)
@click.option(
    "--save",
    default="npz,glb,overlay",
    show_default=True,
    metavar="LIST",
    help=f"What to save, separated by commas: {', '.join(SAVABLE)}.",
)
@click.option("--side-view", is_flag=True, help="Show the bodies from the side in the overlay picture, too.")
@click.option("--draw-keypoints", is_flag=True, help="Draw the keypoints in the overlay picture.")
@click.option("--overwrite", is_flag=True, help="Make anew what is there already.")
@click.option("--quiet", is_flag=True, help="Print problems only.")
@shows_traceback
def fit(inputs: tuple[str, ...], out: Path, save: str, quiet: bool, **options: Any) -> int:
    """Fit a body to everybody in photos.

    INPUT: photos, folders of photos, patterns such as "photos/*.jpg".

    Each photo gets a folder OUTPUT/<photo> with person_00/params.npz and mesh.glb, person_01/..., and overlay.jpg. Run
    the same command again to go on where it was stopped.
    """
    formats = _split_save(save)
    cameras = [f"--{name}" for name in ("focal", "fov", "intrinsics") if options[name] is not None]
    if len(cameras) > 1:
        raise UsageError(f"{' and '.join(cameras)} say the same thing in different ways; give one of them.")
    from fitkit.fit_options import FitOptions, Outputs, parse_heights, parse_intrinsics
    from fitkit.fit_photos import PhotoFits
    from fitkit.keypoints.images import find_images

    picture = {name: options.pop(name) for name in ("side_view", "draw_keypoints", "overwrite")}
    outputs = Outputs(tuple(name for name in formats if name != "overlay"), "overlay" in formats, **picture)
    height, intrinsics = options.pop("height"), options.pop("intrinsics")
    options["heights"] = None if height is None else parse_heights(height)
    options["intrinsics"] = None if intrinsics is None else parse_intrinsics(intrinsics)
    photos = find_images(inputs)
    run = PhotoFits(FitOptions(recipe=options.pop("config"), **options), outputs, _terminal(quiet))
    tally = run.run(photos, out)
    if len(photos) > 1:
        run.terminal.line(tally.describe("fitted", out))
    return tally.exit_code(_is_lone(inputs))


@cli.command()
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    default=Path("detections"),
    show_default=True,
    help="Folder for the keypoint files.",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(KEYPOINT_FORMATS),
    default="openpose",
    show_default=True,
    help="Format of the keypoint files.",
)
@click.option("--detector", default="mediapipe", show_default=True, help="Keypoint detector.")
@click.option("--save-picture", is_flag=True, help="Save the photo with the keypoints drawn over it, too.")
@click.option("--quiet", is_flag=True, help="Print problems only.")
@shows_traceback
def detect(inputs: tuple[str, ...], out: Path, file_format: str, detector: str, save_picture: bool, quiet: bool) -> int:
    """Detect everybody's body, hands and face in photos, and write the keypoints.

    INPUT: photos, folders of photos, patterns such as "photos/*.jpg".
    """
    from fitkit.detect_photos import DetectOptions, detect_photos
    from fitkit.keypoints.images import find_images

    photos, terminal = find_images(inputs), _terminal(quiet)
    tally = detect_photos(photos, out, DetectOptions(detector, file_format, save_picture), terminal)
    if len(photos) > 1:
        terminal.line(tally.describe("with keypoints", out))
    return tally.exit_code(_is_lone(inputs))


@cli.command()
@click.option("--model-dir", type=click.Path(path_type=Path), help="Folder of your SMPL, SMPL-H and SMPL-X files.")
@shows_traceback
def models(model_dir: Path | None) -> None:
    """List the body models and networks: installed or not, where, under which licence."""
    from fitkit.installed import describe_installed

    for line in describe_installed(model_dir):
        print(line)


def _split_save(save: str) -> tuple[str, ...]:
    """Return what is to be saved, each once."""
    names = tuple(dict.fromkeys(name.strip().lower() for name in save.split(",") if name.strip()))
    for name in names:
        if name not in SAVABLE:
            hint = did_you_mean(name, SAVABLE)
            raise UsageError(f"--save does not know '{name}'.{hint} Known: {', '.join(SAVABLE)}.")
    if not names:
        raise UsageError(f"--save names nothing to save. Known: {', '.join(SAVABLE)}.")
    return names


def _is_lone(inputs: tuple[str, ...]) -> bool:
    """Return whether one photo was named, and no folder or pattern."""
    return len(inputs) == 1 and Path(inputs[0]).expanduser().is_file()


def _terminal(quiet: bool) -> Terminal:
    from fitkit.photo_run import Terminal

    return Terminal(quiet, _debug())
