"""Streams of people: the answers of a batch, in order, in memory that does not grow."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from fitting_world import keep_only, model_of, people_of, quick

import fitkit
from fitkit.errors import InputError, UsageError
from fitkit.keypoints.containers import Keypoints
from fitkit.people import fit_people
from fitkit.results import FitResult

BRIEF = replace(quick("default", 1), stages=quick("default", 1).stages[-1:])
"""A recipe of one step: who is fitted with whom does not depend on how well."""
BODY = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle", "nose", "eye", "ear")


def _varied(count: int) -> list[Keypoints]:
    """Pictures in three kinds of evidence, in turn: everything, the body alone, body and one hand."""
    pictures = []
    for number in range(count):
        one = people_of("anny", 8).keypoints[number % 8]
        if number % 3 == 1:
            one = keep_only(one, lambda name: any(part in name for part in BODY))
        if number % 3 == 2:
            one = keep_only(one, lambda name: not name.startswith(("face", "right_index", "right_thumb")))
        pictures.append(replace(one, source=f"{number}.jpg"))
    return pictures


def _crowd(count: int) -> Keypoints:
    alone = people_of("anny", 8).keypoints[:count]
    points, confidence = (np.concatenate([getattr(one, name) for one in alone]) for name in ("points", "confidence"))
    return replace(alone[0], points=points, confidence=confidence)


def _stream(pictures, **options) -> Iterator[list[FitResult]]:
    return fitkit.fit_stream(pictures, model=model_of("anny"), recipe=BRIEF, **options)


@pytest.mark.parametrize("batch", [1, 3, None])
def test_a_stream_gives_what_a_batch_gives_in_order(batch):
    pictures = _varied(11)
    together = fitkit.fit(pictures, model=model_of("anny"), recipe=BRIEF)
    streamed = [one for results in _stream(iter(pictures), batch_size=batch, meshes=True) for one in results]
    assert [one.image for one in streamed] == [one.source for one in pictures]
    for first, second in zip(streamed, together, strict=True):
        for name in first.params:
            np.testing.assert_allclose(first.params[name], second.params[name], rtol=0, atol=1e-6)
        np.testing.assert_allclose(first.vertices, second.vertices, rtol=0, atol=1e-5)
        assert (first.status, first.names, first.seen) == (second.status, second.names, second.seen)


def test_a_large_batch_is_fitted_in_parts(monkeypatch):
    pictures = _varied(7)
    whole = fitkit.fit(pictures, model=model_of("anny"), recipe=BRIEF)
    monkeypatch.setattr("fitkit.people.CPU_PROBLEMS", 3)
    parts = fitkit.fit(pictures, model=model_of("anny"), recipe=BRIEF)
    for first, second in zip(parts, whole, strict=True):
        assert first.image == second.image
        for name in first.params:
            np.testing.assert_allclose(first.params[name], second.params[name], rtol=0, atol=1e-6)


def test_every_set_has_its_list():
    good = people_of("anny", 1).keypoints[0]
    nobody = Keypoints(good.names, np.zeros((0, len(good.names), 2)), np.zeros((0, len(good.names))), (1000, 1000))
    unseen = replace(good, confidence=np.zeros_like(good.confidence))
    crowd = _crowd(3)
    crowd = replace(crowd, confidence=crowd.confidence * np.array([[1.0], [0.0], [1.0]]))
    streamed = list(_stream([nobody, good, unseen, crowd, good], batch_size=2))
    assert [[one.person for one in results] for results in streamed] == [[], [0], [], [0, 2], [0]]


def test_people_of_one_picture_agree_on_its_focal_length_as_in_a_batch():
    pictures = [replace(_crowd(3), focal_length=None), replace(people_of("anny", 1).keypoints[0], focal_length=None)]
    together = fitkit.fit(pictures, model=model_of("anny"), recipe=BRIEF)
    streamed = [one for results in _stream(pictures) for one in results]
    for first, second in zip(streamed, together, strict=True):
        np.testing.assert_allclose(first.camera.intrinsics, second.camera.intrinsics, rtol=1e-6)
        assert first.camera.focal_source == second.camera.focal_source
        np.testing.assert_allclose(first.joints, second.joints, rtol=0, atol=1e-5)


def test_light_results_hold_no_mesh_and_say_so(tmp_path):
    ((light,),) = _stream([people_of("anny", 1).keypoints[0]])
    assert light.vertices.shape == (0, 3) and light.faces.shape == (0, 3)
    light.save(tmp_path, ("npz",))
    assert fitkit.load_result(tmp_path).vertices.shape == (0, 3)
    with pytest.raises(UsageError, match="no mesh.*meshes=True"):
        light.save(tmp_path, ("glb",))
    own = [*light.params.values(), light.joints, light.points, light.confidence, light.joint_deviation]
    assert all(array.base is None for array in own), "a result that is kept holds on to nobody else's memory"
    assert sum(array.nbytes for array in own) < 16_000


def test_a_stream_reads_no_more_than_it_needs():
    read = 0

    def pictures() -> Iterator[Keypoints]:
        nonlocal read
        for one in _varied(64):
            read += 1
            yield one

    stream = _stream(pictures(), batch_size=2)
    assert read == 0
    next(stream)
    assert read == 8, "four batches of two"


def test_what_was_handed_out_is_let_go_of():
    """Over many windows no more results and keypoints live than a window holds; nor does torch hold more tensors."""
    sets: list[weakref.ref] = []
    results: list[weakref.ref] = []
    alive: list[tuple[int, int, int]] = []

    def pictures() -> Iterator[Keypoints]:
        for number in range(24):
            one = _varied(3)[number % 3]
            sets.append(weakref.ref(one))
            yield one

    for number, found in enumerate(_stream(pictures(), batch_size=2)):
        results.append(weakref.ref(found[0]))
        del found
        if number % 4 == 3:
            gc.collect()
            tensors = sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())
            alive.append((_living(sets), _living(results), tensors))
    assert len(alive) == 6
    assert all(kept <= 9 and handed <= 8 for kept, handed, _ in alive), alive
    assert alive[-1][2] <= alive[1][2] + 5, alive


def _living(references: list[weakref.ref]) -> int:
    return sum(reference() is not None for reference in references)


def test_new_sets_of_keypoints_do_not_fill_the_memory():
    """What a model prepares for a set of landmarks is kept for the newest only."""
    model = replace(model_of("anny"), _plans={}, _routes={})
    names = model.landmark_names
    for number in range(200):
        model.plan(names[number % 60 : number % 60 + 2 + number // 60])
    assert len(model._plans) <= 64


def test_a_batch_for_which_there_is_no_room_is_fitted_in_halves(monkeypatch):
    pictures, sizes = _varied(5), []
    expected = [one for results in _stream(pictures) for one in results]

    def cramped(people, *others):
        sizes.append(len(people))
        if len(people) > 2:
            raise torch.cuda.OutOfMemoryError("no room")
        return fit_people(people, *others)

    monkeypatch.setattr("fitkit.streaming.fit_people", cramped)
    found = [one for results in _stream(pictures) for one in results]
    assert max(sizes) > 2 and [one.image for one in found] == [one.image for one in expected]
    for first, second in zip(found, expected, strict=True):
        np.testing.assert_allclose(first.joints, second.joints, rtol=0, atol=1e-5)


def test_a_start_that_is_wrong_is_said_at_once():
    with pytest.raises(UsageError, match="batch_size must be at least 1; got 0"):
        fitkit.fit_stream([], batch_size=0)
    with pytest.raises(UsageError, match="focal"):
        fitkit.fit_stream([], focal=1000.0, fov=50.0)
    with pytest.raises(UsageError, match="nonsense"):
        fitkit.fit_stream([], device="nonsense")
    assert list(fitkit.fit_stream([], recipe=BRIEF)) == []


def test_keypoints_without_their_pictures_size_are_refused_when_reached():
    good = people_of("anny", 1).keypoints[0]
    stream = _stream([good, replace(good, image_size=None)], batch_size=1)
    with pytest.raises(InputError, match="image_size"):
        list(stream)


@pytest.mark.gpu
def test_a_gpu_takes_as_many_as_its_memory_allows():
    from fitkit.model_files import load_model
    from fitkit.models.arrays import ModelChoice

    model = load_model(ModelChoice("anny", "anny", dtype=torch.float32, device="cuda"))
    streamed = list(fitkit.fit_stream(_varied(130), model=model, recipe=BRIEF))
    assert len(streamed) == 130 and all(np.isfinite(one.joints).all() for results in streamed for one in results)
