"""Fitting any number of people in memory that does not grow: read some, fit them in like groups, hand them out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from fitkit.fitting import CPU_PROBLEMS, free_memory
from fitkit.keypoints.conventions import part_of
from fitkit.models.smpl_family import SMPLFamilyModel
from fitkit.people import Person, fit_people
from fitkit.recipe import Recipe
from fitkit.results import FitResult
from fitkit.shared_focal import share_focals

PROBE = 64
"""People of the first batch on a GPU, whose memory says how many fit in."""
GPU_BATCH = 4096
"""People that a GPU fits at once at most."""
GPU_SHARE = 0.7
"""Share of a GPU's free memory that a batch may take: the peak of one batch is not quite that of another."""
WINDOW = 4
"""Batches whose people are read before they are sorted into groups of like evidence."""
LEAST_GROUP = 0.25
"""Share of a batch below which a group is fitted together with others: few people cost more each than many."""


@dataclass(frozen=True)
class Streamed:
    """What people of a stream are fitted with."""

    models: Callable[[str], SMPLFamilyModel]
    """The body model of a gender."""
    recipe: Recipe
    """The recipe."""
    device: str
    """Where models are."""
    gender: str | None = None
    """Gender of everybody; None for what their keypoints say, else neutral."""
    batch_size: int | None = None
    """People fitted at once; None for as many as memory allows and speed asks for."""
    meshes: bool = False
    """Whether results hold vertices and faces."""

    def fit(self, sets: Iterable[Sequence[Person]]) -> Iterator[list[FitResult]]:
        """Yield the results of each set of people, in order."""
        batch = self.batch_size or (CPU_PROBLEMS if self._free() is None else PROBE)
        probed = self.batch_size is not None or self._free() is None
        window: list[Sequence[Person]] = []
        for people in sets:
            window.append(people)
            # Before anything is known of a GPU's memory, a single batch is fitted, and no more.
            if sum(map(len, window)) < (WINDOW * batch if probed else batch):
                continue
            used = self._peak()
            yield from self._fit_window(window, batch)
            window = []
            if not probed:
                batch, probed = self._affordable(batch, used), True
        yield from self._fit_window(window, batch)

    def _fit_window(self, window: Sequence[Sequence[Person]], batch: int) -> Iterator[list[FitResult]]:
        """Yield the results of each set of a window."""
        people = [person for persons in window for person in persons]
        if self.recipe.refines_focal:
            people = share_focals(people, lambda some: self._fit_groups(some, batch, meshes=False))
        results = self._fit_groups(people, batch, self.meshes)
        results.reverse()
        for persons in window:
            # Handed out and let go of: a consumer that keeps nothing leaves nothing behind.
            yield [results.pop() for _ in persons]

    def _fit_groups(self, people: Sequence[Person], batch: int, meshes: bool) -> list[FitResult]:
        """Return the fits of people, group by group."""
        results: dict[int, FitResult] = {}
        for group in self._groups(people, batch):
            model = self.models(self._gender(people[group[0]]))
            for first in range(0, len(group), batch):
                rows = group[first : first + batch]
                fitted = self._fit_batch([people[row] for row in rows], model, meshes)
                results.update(zip(rows, fitted, strict=True))
        return [results.pop(row) for row in range(len(people))]

    def _fit_batch(self, people: Sequence[Person], model: SMPLFamilyModel, meshes: bool) -> list[FitResult]:
        """Return the fits of one batch; one that a GPU has no room for after all, in two halves."""
        try:
            return fit_people(people, model, self.recipe, None, meshes)
        except torch.cuda.OutOfMemoryError:
            if len(people) == 1:
                raise
        # Outside of the handler: while it runs, the exception holds on to all tensors of the attempt.
        torch.cuda.empty_cache()
        middle = len(people) // 2
        return self._fit_batch(people[:middle], model, meshes) + self._fit_batch(people[middle:], model, meshes)

    def _groups(self, people: Sequence[Person], batch: int) -> list[list[int]]:
        """Return rows that are fitted together: of one gender and camera, and of which the same parts are seen.

        A person of whom only the body is seen costs half as much as one with hands and face, but not beside one.
        """
        groups: dict[tuple[str, bool, frozenset[str]], list[int]] = {}
        for row, person in enumerate(people):
            key = self._gender(person), person.refine_focal, _parts(person)
            groups.setdefault(key, []).append(row)
        whole: list[list[int]] = []
        mixed: dict[tuple[str, bool], list[int]] = {}
        for (gender, refined, _), rows in groups.items():
            if len(rows) >= LEAST_GROUP * batch:
                whole.append(rows)
            else:
                mixed.setdefault((gender, refined), []).extend(rows)
        return [*whole, *mixed.values()]

    def _gender(self, person: Person) -> str:
        return self.gender or person.gender or "neutral"

    def _free(self) -> int | None:
        """Return the free bytes of the device's own memory; None for a device without any."""
        return free_memory(torch.device(self.device)) if self.device.startswith("cuda") else None

    def _peak(self) -> int:
        """Return the bytes in use, and forget the peak so far; 0 for a device without memory of its own."""
        if self._free() is None:
            return 0
        torch.cuda.reset_peak_memory_stats(self.device)
        return torch.cuda.memory_allocated(self.device)

    def _affordable(self, people: int, before: int) -> int:
        """Return how many people fit into a GPU's memory, by the peak that so many took over what was in use."""
        each = max(1, (torch.cuda.max_memory_allocated(self.device) - before) // people)
        return max(1, min(GPU_BATCH, int(GPU_SHARE * (self._free() or 0)) // each))


def _parts(person: Person) -> frozenset[str]:
    """Return the parts of which any keypoint is seen."""
    seen = person.keypoints.confidence[person.index] > 0
    return frozenset(part_of(name) for name, shown in zip(person.keypoints.names, seen, strict=True) if shown)
