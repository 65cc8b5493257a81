"""Fitting many photos: in groups that fit into memory, going on where it was stopped, whatever one photo does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fitkit.errors import InputError
from fitkit.files import make_folder
from fitkit.fit_options import FitOptions, Outputs, match_heights
from fitkit.keypoints.containers import Keypoints
from fitkit.keypoints.images import Image, read_image
from fitkit.output_folders import Record, assign_folders, digest, read_record, replacing
from fitkit.photo_run import FATAL, Tally, Terminal, attempt
from fitkit.progress import ProgressBar
from fitkit.version import __version__

if TYPE_CHECKING:
    from fitkit.recipe import Recipe
    from fitkit.results import FitResult

GROUP_PIXELS = 100_000_000
"""Pixels of photos kept in memory until their people are fitted together."""


@dataclass(frozen=True)
class _Job:
    """A photo that is to be fitted."""

    photo: Path
    folder: Path
    evidence: str
    outputs: tuple[str, ...]
    given: Keypoints | None


@dataclass(frozen=True)
class _Seen:
    """A photo whose people are known."""

    job: _Job
    image: Image
    keypoints: Keypoints


class PhotoFits:
    """A run over photos: detect, fit in groups, save."""

    def __init__(self, options: FitOptions, outputs: Outputs, terminal: Terminal) -> None:
        """Prepare a run; nothing is read before `run`."""
        self.options = options
        self.outputs = outputs
        self.terminal = terminal
        self.tally = Tally(0)
        self._settings = options.settings()

    def run(self, photos: Sequence[Path], out: Path) -> Tally:
        """Fit the people of all photos, save each group's results as soon as they are there, and return how it went.

        Args:
            photos: picture files, each once.
            out: the folder in which each photo gets a folder; made where it does not exist.

        Raises:
            UsageError: an unknown model, recipe or detector.
            ModelNotFoundError: a model's file or a network is not installed.
            OutputError: the results cannot be written.
        """
        self.tally = Tally(len(photos))
        make_folder(out)
        jobs = self._jobs(photos, assign_folders(photos, out))
        with ProgressBar("Detecting", len(photos), self.terminal.quiet) as bar:
            for group in self._groups(jobs, bar):
                self._finish(group, bar)
                bar.advance(len(group))
                bar.describe("Detecting")
        return self.tally

    @cached_property
    def _recipe(self) -> Recipe:
        """The recipe. What is wrong with it, the model or the device is said before the first photo is looked at."""
        # Late: torch takes a second or more to import, and a run that finds everything done needs none of it.
        from fitkit.api import choose_device
        from fitkit.model_files import check_names, find_model, installed_models
        from fitkit.recipe import load_recipe

        options = self.options
        choose_device(options.device)
        check_names(options.model, options.gender or "neutral")
        installed = [entry for entry in installed_models(options.model_dir) if entry.name == options.model]
        if options.gender or not any(entry.path for entry in installed):
            find_model(options.model, options.gender or "neutral", options.model_dir)
        recipe = load_recipe(options.recipe)
        return recipe if options.init is None else recipe.starting_from(options.init)

    @cached_property
    def _detector(self) -> Any:
        from fitkit.keypoints.detectors import DETECTORS

        return DETECTORS.get(self.options.detector)()

    def _jobs(self, photos: Sequence[Path], folders: Sequence[Path]) -> Iterator[_Job | None]:
        """Yield what is to be done for each photo; None where nothing is."""
        given = self._given(photos)
        for photo, folder in zip(photos, folders, strict=True):
            yield attempt(photo, partial(self._job, photo, folder, given), self.tally, self.terminal)

    def _given(self, photos: Sequence[Path]) -> Any:
        """Return the keypoint files in which photos are looked up, or None."""
        if self.options.keypoints is None:
            return None
        from fitkit.keypoints.formats import KeypointFolder

        folder = KeypointFolder(self.options.keypoints)
        if not folder.path.is_dir():
            folder.find_all(photos)
        return folder

    def _job(self, photo: Path, folder: Path, given: Any) -> _Job | None:
        evidence = digest(photo)
        keypoints = None
        if given is not None:
            keypoints = given.find(photo)
            if keypoints is None:
                raise InputError(f"{photo}: {self.options.keypoints} holds no keypoints of this photo.")
            evidence = hashlib.sha256(
                evidence.encode() + keypoints.points.tobytes() + keypoints.confidence.tobytes()
            ).hexdigest()
        wanted = self.outputs.names()
        record = None if self.outputs.overwrite else read_record(folder)
        if record is not None and self._stands(photo, folder, record, evidence, wanted):
            return None
        wanted |= set(record.outputs) if record else set()
        return _Job(photo, folder, evidence, tuple(sorted(wanted)), keypoints)

    def _stands(self, photo: Path, folder: Path, record: Record, evidence: str, wanted: set[str]) -> bool:
        """Return whether the results that are there are to stay, and say why."""
        if record.evidence != evidence:
            self.terminal.line(f"{photo}: it has changed since it was fitted; fitting it anew")
            return False
        differing = [
            f"{name} {_said(record.settings.get(name))} instead of {_said(value)}"
            for name, value in self._settings.items()
            if record.settings.get(name) != value
        ]
        if differing:
            self.tally.differing += 1
            self.terminal.problem(
                f"{photo}: kept the results in {folder}, which were made with {', '.join(differing)}; "
                "--overwrite replaces them."
            )
            return True
        complete = all((folder / name).is_file() for name in record.files)
        if not complete or not wanted <= set(record.outputs):
            return False
        self.tally.kept += 1
        if self.tally.total == 1:
            self.terminal.line(f"{photo}: done before, in {folder}; --overwrite makes it anew")
        return True

    def _groups(self, jobs: Iterable[_Job | None], bar: ProgressBar) -> Iterator[list[_Seen]]:
        """Yield photos with people, as many at a time as are fitted at once."""
        group: list[_Seen] = []
        for job in jobs:
            seen = None
            if job and self._recipe:
                seen = attempt(job.photo, partial(self._see, job), self.tally, self.terminal)
            if seen is None:
                bar.advance()
                continue
            group.append(seen)
            people = sum(len(entry.keypoints) for entry in group)
            pixels = sum(entry.image.pixels.size // 3 for entry in group)
            if people >= self.options.batch_size or pixels >= GROUP_PIXELS:
                yield group
                group = []
        if group:
            yield group

    def _see(self, job: _Job) -> _Seen | None:
        """Return a photo with its people, or None when there are none."""
        image = read_image(job.photo)
        found = job.given or self._detector.detect(image.pixels)
        if found.image_size is not None and tuple(found.image_size) != image.size:
            raise InputError(
                f"{job.photo} has {image.size[0]} x {image.size[1]} pixels, but its keypoints were made for "
                f"{found.image_size[0]} x {found.image_size[1]}; detect them on this very photo."
            )
        if not len(found):
            self.tally.empty += 1
            self.terminal.line(f"{job.photo}: nobody was found")
            return None
        from fitkit.api import usable_people

        found = replace(found, image_size=image.size, focal_length=image.focal_px, source=str(job.photo))
        if self.options.intrinsics is not None:
            fx, fy, cx, cy = self.options.intrinsics
            found = replace(found, intrinsics=np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]))
        found = found.select(usable_people(found))
        if self.options.heights is not None:
            match_heights(self.options.heights, len(found), str(job.photo))
        return _Seen(job, image, found)

    def _finish(self, group: list[_Seen], bar: ProgressBar) -> None:
        """Fit the people of some photos together and save them; photos among which one breaks the fit, one by one."""
        fitted: list[list[FitResult]] | None
        if len(group) == 1:
            fitted = attempt(group[0].job.photo, partial(self._fit, group, bar), self.tally, self.terminal)
        else:
            try:
                fitted = self._fit(group, bar)
            except FATAL:
                raise
            except Exception:
                for seen in group:
                    self._finish([seen], bar)
                return
        for seen, results in zip(group, fitted or [], strict=False):
            attempt(seen.job.photo, partial(self._save, seen, results), self.tally, self.terminal)

    def _fit(self, group: list[_Seen], bar: ProgressBar) -> list[list[FitResult]]:
        """Return the results of each photo's people."""
        from fitkit import api

        options = self.options
        people = f"{sum(len(seen.keypoints) for seen in group)} people"
        results = api.fit(
            [seen.keypoints for seen in group],
            model=options.model,
            gender=options.gender,
            recipe=self._recipe,
            device=options.device,
            batch_size=options.batch_size,
            focal=options.focal,
            fov=options.fov,
            height=None if options.heights is None else list(options.heights) * len(group),
            model_dir=options.model_dir,
            progress=lambda stage, stages, _: bar.describe(f"Fitting {people}, stage {stage + 1} of {stages}"),
        )
        ends = np.cumsum([len(seen.keypoints) for seen in group])
        assert ends[-1] == len(results), "one result per person"
        return [results[end - len(seen.keypoints) : end] for seen, end in zip(group, ends, strict=True)]

    def _save(self, seen: _Seen, results: list[FitResult]) -> None:
        job = seen.job
        people = [
            {
                "folder": f"person_{index:02d}",
                "status": result.status,
                "reprojection_px": round(float(result.reprojection_px), 3),
                "reprojection_relative": round(float(result.reprojection_relative), 5),
            }
            for index, result in enumerate(results)
        ]
        source = str(job.photo.resolve())
        record = Record(source, job.evidence, self._settings, people, list(job.outputs), version=__version__)
        with replacing(job.folder, record) as staging:
            formats = tuple(name for name in job.outputs if name in ("npz", "glb", "obj", "ply"))
            for person, result in zip(people, results, strict=True):
                result.save(staging / str(person["folder"]), formats)
            if "overlay" in job.outputs:
                self._draw(staging, seen, results)
        self.tally.done += 1
        self.tally.people += len(results)
        for person, result in zip(people, results, strict=True):
            self.terminal.line(f"{job.photo}: {result.summary} -> {job.folder / str(person['folder'])}")

    def _draw(self, folder: Path, seen: _Seen, results: list[FitResult]) -> None:
        from fitkit.pictures import write_picture
        from fitkit.viewers.overlay import DrawnBody
        from fitkit.viewers.side_view import picture
        from fitkit.viewers.unseen import unseen_share

        people = [
            DrawnBody(
                result.vertices,
                result.faces,
                result.camera.intrinsics,
                seen.keypoints.select([index]),
                unseen=unseen_share(result.vertices, result.joints, result.joint_names, result.seen),
            )
            for index, result in enumerate(results)
        ]
        drawn = picture(seen.image.pixels, people, "side view" in seen.job.outputs, "keypoints" in seen.job.outputs)
        write_picture(folder / "overlay.jpg", drawn)


def _said(setting: Any) -> str:
    """Return a setting as a sentence names it."""
    if isinstance(setting, list):
        return ",".join("-" if value is None else f"{value:g}" for value in setting)
    return "not given" if setting is None else str(setting)
