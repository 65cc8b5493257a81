"""The detector's arithmetic: regions, anchors, masks, scores; no network is needed."""

import numpy as np
import pytest

from fitkit.keypoints.conventions import BLAZEPOSE_33
from fitkit.keypoints.detectors.anchors import Detections, anchor_grid, box_overlap, decode, merge_overlapping
from fitkit.keypoints.detectors.faces import (
    CHIN,
    LEFT_EYE,
    RIGHT_EYE,
    Face,
    enclosing_region,
    face_confidence,
    region_from_body,
)
from fitkit.keypoints.detectors.hands import Hand, drop_doubles, fuse_hands, hand_search_region, shifted
from fitkit.keypoints.detectors.limbs import doubt_borrowed_limbs
from fitkit.keypoints.detectors.masks import carry_mask, hide, paint_mask
from fitkit.keypoints.detectors.person import Person, choose_people, inside, same_person
from fitkit.keypoints.detectors.pose import SWAP, refine
from fitkit.keypoints.detectors.regions import Picture, Region
from fitkit.keypoints.detectors.scoring import (
    facing,
    person_score,
    point_confidence,
    similarity,
    weigh_evidence,
)
from fitkit.keypoints.detectors.search import FoundFace, Seed, distinct_seeds, region_of_body, seed_of_face, tiles

REGIONS = [
    Region((50.0, 40.0), 60.0),
    Region((50.0, 40.0), 60.0, 0.7),
    Region((-20.0, 90.0), 200.0, -2.5),
    Region((30.0, 30.0), 45.0, 1.1, mirrored=True),
]


@pytest.mark.parametrize("region", REGIONS)
def test_points_go_to_the_picture_and_back(region):
    points = np.random.default_rng(0).uniform(-0.5, 1.5, (20, 2))
    np.testing.assert_allclose(region.from_picture(region.to_picture(points)), points, atol=1e-12)


def test_a_region_along_a_line_has_the_line_upright():
    start, end = np.array([30.0, 70.0]), np.array([55.0, 20.0])
    region = Region.along(start, end, 200.0)
    low, high = region.from_picture(start), region.from_picture(end)
    np.testing.assert_allclose(low, [0.5, 0.5])
    assert high[0] == pytest.approx(0.5) and high[1] < 0.5


def test_a_mirrored_region_shows_the_same_square():
    region = Region((50.0, 40.0), 60.0, 0.7)
    points = np.array([[0.2, 0.3], [0.9, 0.1]])
    np.testing.assert_allclose(region.mirror().to_picture(points), region.to_picture([1.0, 0.0] + points * [-1.0, 1.0]))


def test_vectors_turn_as_points_do():
    region = REGIONS[1]
    vectors = np.array([[0.1, 0.2, 0.3]])
    moved = (region.to_picture(vectors[:, :2]) - region.to_picture(np.zeros((1, 2)))) / region.side
    np.testing.assert_allclose(region.turn(vectors), np.concatenate([moved, [[0.3]]], axis=-1))


def ramp(height: int = 80, width: int = 100) -> np.ndarray:
    """Return a picture whose red is x and whose green is y, in pixels (the first pixel's centre at 0.5)."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    return np.stack([x, y, np.zeros_like(x)], axis=-1).round().astype(np.uint8)


@pytest.mark.parametrize("region", [Region((50.0, 40.0), 32.0), Region((50.0, 40.0), 40.0, 0.4, True)])
@pytest.mark.parametrize("size", [64, 32, 8])
def test_cuts_show_what_lies_there(region, size):
    cut = Picture(ramp()).cut(region, size).astype(float)
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size
    expected = region.to_picture(np.stack([x, y], axis=-1))
    assert np.abs(cut[..., :2] - expected).max() < 1.6


def test_outside_of_the_picture_is_black_or_the_border():
    picture = Picture(np.full((40, 40, 3), 200, np.uint8))
    corner = Region((0.0, 0.0), 40.0)
    assert picture.cut(corner, 16)[0, 0].tolist() == [0, 0, 0]
    assert picture.cut(corner, 16, replicate=True)[0, 0].tolist() == [200, 200, 200]
    assert picture.cut(Region((500.0, 500.0), 40.0), 16).max() == 0


def test_tiles_cover_the_picture():
    picture = Picture(np.zeros((300, 400, 3), np.uint8))
    squares = tiles(picture, 0.5)
    points = np.random.default_rng(0).uniform(0.0, 1.0, (200, 2)) * [400.0, 300.0]
    seen = [((square.from_picture(points) >= 0.0) & (square.from_picture(points) <= 1.0)).all(-1) for square in squares]
    assert np.any(seen, axis=0).all()
    assert len(tiles(picture, 1.5)) == 1


def test_anchor_grids_have_the_networks_sizes():
    assert anchor_grid(224, (8, 16, 32), (2, 2, 6)).shape == (2254, 2)
    assert anchor_grid(192, (4,), (1,)).shape == (2304, 2)
    np.testing.assert_allclose(anchor_grid(4, (2,), (1,)), [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])


def test_decoding_keeps_what_is_above_the_threshold_best_first():
    anchors = anchor_grid(4, (2,), (1,))
    raw = np.zeros((4, 6))
    raw[2] = [0.4, 0.0, 2.0, 1.0, 0.4, -0.4]
    found = decode(raw, np.array([[-9.0], [0.0], [3.0], [-9.0]]), anchors, 4, 0.4)
    np.testing.assert_allclose(found.scores, [1.0 / (1.0 + np.exp(-3.0)), 0.5])
    np.testing.assert_allclose(found.boxes[0], [0.1, 0.625, 0.6, 0.875])
    np.testing.assert_allclose(found.points[0], [[0.35, 0.65]])
    empty = decode(raw, np.full((4, 1), -9.0), anchors, 4, 0.4)
    assert merge_overlapping(empty).points.shape == (0, 1, 2)


def test_overlap():
    boxes = np.array([[0.0, 0.0, 2.0, 2.0]])
    np.testing.assert_allclose(box_overlap(boxes, np.array([[1.0, 0.0, 3.0, 2.0], [5, 5, 6, 6]])), [[1 / 3, 0.0]])


def test_overlapping_candidates_are_blended():
    boxes = np.array([[0.0, 0.0, 1.0, 1.0], [0.1, 0.0, 1.1, 1.0], [3.0, 3.0, 4.0, 4.0]])
    found = merge_overlapping(Detections(np.array([0.8, 0.4, 0.3]), boxes, boxes.reshape(3, 2, 2)))
    np.testing.assert_allclose(found.scores, [0.8, 0.3])
    np.testing.assert_allclose(found.boxes[0], [0.1 / 3, 0.0, 1.0 + 0.1 / 3, 1.0])


def test_heatmaps_refine_points_that_they_are_sure_of():
    heatmap = np.zeros((64, 64, 2))
    heatmap[20, 30, 0] = 0.9
    heatmap[20, 31, 1] = 0.3
    points, peak = refine(np.array([[31.5, 21.2], [31.5, 21.2]]) / 64, heatmap)
    np.testing.assert_allclose(points, np.array([[30.0, 20.0], [31.5, 21.2]]) / 64)
    np.testing.assert_allclose(peak, [0.9, 0.3])


def test_heatmaps_of_points_outside():
    points, peak = refine(np.array([[-3.0, 0.5], [0.0, 5.0]]), np.full((64, 64, 2), 0.9))
    np.testing.assert_allclose(points, [[-3.0, 0.5], [0.0, 5.0]])
    np.testing.assert_allclose(peak, 0.0)


def test_sides_are_swapped_by_name():
    for index, name in enumerate(BLAZEPOSE_33):
        other = name.replace("left", "RIGHT").replace("right", "left").replace("RIGHT", "right")
        assert BLAZEPOSE_33[SWAP[index]] == other


def test_masks_are_carried_from_region_to_region():
    logits = np.full((64, 64), -8.0, np.float32)
    logits[:, 32:] = 8.0
    here, there = Region((50.0, 50.0), 100.0), Region((75.0, 50.0), 50.0, np.pi / 2)
    assert carry_mask(logits, here, there, 32)[4:-4, 4:-4].min() > 7.0
    mirrored = carry_mask(logits, here, here.mirror(), 64)
    assert mirrored[:, :30].min() > 7.0 and mirrored[:, 34:].max() < -7.0


def test_masks_are_painted_where_they_lie():
    mask = np.zeros((40, 60), bool)
    paint_mask(mask, np.full((16, 16), 5.0, np.float32), Region((50.0, 30.0), 20.0))
    y, x = np.nonzero(mask)
    assert (x.min(), x.max(), y.min(), y.max()) == (40, 59, 20, 39)
    paint_mask(mask, np.full((16, 16), 5.0, np.float32), Region((500.0, 500.0), 20.0))
    assert mask.sum() == 400


def test_others_are_hidden_but_not_oneself():
    crop = np.full((64, 64, 3), 100, np.uint8)
    crop[:, 40:] = 250
    others, own = np.full((64, 64), -8.0), np.full((64, 64), -8.0)
    others[:, 40:] = 4.0
    own[:, 50:] = 6.0
    hidden = hide(crop, others, own)
    assert (hidden[:, :40] == 100).all() and (hidden[:, 50:] == 250).all()
    assert (hidden[:, 41] < 200).all()
    assert hide(crop, np.full((64, 64), -8.0), None) is crop


def stick_figure(x: float = 0.0, scale: float = 1.0, seed: int = 0) -> np.ndarray:
    """Return the points (33, 2) of somebody standing about 200 pixels tall."""
    shape = np.random.default_rng(seed).normal(0.0, 6.0, (33, 2))
    heights = np.concatenate([np.full(11, -90.0), np.linspace(-60.0, 90.0, 22)])
    sides = np.array([12.0 if "left" in name else -12.0 if "right" in name else 0.0 for name in BLAZEPOSE_33])
    return np.array([200.0 + x, 200.0]) + scale * (np.stack([sides, heights], axis=-1) + shape)


def person(points: np.ndarray, score: float = 0.9, side: float = 250.0, mask: float = -8.0) -> Person:
    ones = np.ones(33)
    centre = points.mean(0)
    region = Region((float(centre[0]), float(centre[1])), side)
    logits = np.full((256, 256), mask, np.float32)
    return Person(points, 0.9 * ones, ones, np.zeros((33, 3)), score, region, logits)


def test_similarity_is_one_for_oneself_and_falls_with_distance():
    figure = stick_figure()
    others = np.stack([figure, figure + 5.0, figure + 100.0])
    values = similarity(figure, others, np.ones((3, 33)), 80.0)
    assert values[0] == pytest.approx(1.0) and 1.0 > values[1] > 0.5 and values[2] < 0.01
    np.testing.assert_allclose(similarity(figure, others, np.zeros((3, 33)), 80.0), 0.0)


def test_the_better_of_two_skeletons_of_one_person_stays():
    figure = stick_figure()
    people = [person(figure + 2.0, 0.7), person(figure, 0.95), person(stick_figure(x=150.0), 0.8)]
    assert [one.score for one in choose_people(people, 0.5)] == [0.95, 0.8]
    assert [one.score for one in choose_people(people, 0.9)] == [0.95]


def test_exchanged_sides_do_not_make_another_person():
    figure = stick_figure()
    assert same_person(person(figure), person(figure[SWAP])) == pytest.approx(1.0)


def test_people_in_hands_are_none():
    large = person(stick_figure(scale=3.0), side=900.0, mask=5.0)
    assert inside(person(stick_figure(scale=0.3), side=90.0), large)
    assert not inside(person(stick_figure(x=2000.0, scale=0.3), side=90.0), large)
    assert not inside(person(stick_figure(), side=800.0), large)


def test_scores_rise_with_every_cue():
    peaks = np.linspace(0.3, 0.8, 33)
    base = person_score(peaks, 0.6, 0.5)
    assert (
        0.0
        < base
        < min(person_score(peaks + 0.1, 0.6, 0.5), person_score(peaks, 0.9, 0.5), person_score(peaks, 0.6, 0.9))
    )
    assert weigh_evidence(0.7, 0.0, 0.0) < 0.7 < weigh_evidence(0.7, 1.0, 0.9)


def test_no_point_is_certain_and_guesses_are_doubtful():
    value = lambda *cues: float(point_confidence(*(np.array([cue]) for cue in cues))[0])  # noqa: E731
    assert value(1.0, 0.0, 1.0, 8.0) < 1.0
    assert value(0.9, 0.002, 0.99, 5.0) > 0.9
    assert value(0.1, 0.1, 0.2, -5.0) < 0.1


def test_noses_are_not_seen_from_behind():
    world = np.zeros((33, 3))
    world[7], world[8] = [0.08, 0.0, 0.0], [-0.08, 0.0, 0.0]
    world[:7, 2] = -0.1
    front = facing(world)
    back = facing(world * [1.0, 1.0, -1.0])
    assert front[0] > 0.95 and back[0] < 0.05
    assert front[7] > 0.7 and back[7] > 0.7


def test_body_regions_hold_the_circle():
    region = region_of_body(np.array([[100.0, 200.0], [100.0, 100.0], [0.0, 0.0], [0.0, 0.0]]))
    assert region.centre == (100.0, 200.0) and region.side == pytest.approx(250.0) and region.rotation == 0.0


def face_at(x: float, y: float, width: float, tilt: float = 0.0) -> FoundFace:
    points = np.array([[-0.2, -0.2], [0.2, -0.2], [0.0, 0.0], [0.0, 0.2], [-0.4, -0.1], [0.4, -0.1]]) * width
    c, s = np.cos(tilt), np.sin(tilt)
    box = np.array([x - width / 2, y - width / 2, x + width / 2, y + width / 2])
    return FoundFace(box, points @ np.array([[c, s], [-s, c]]) + [x, y], 0.9)


def test_a_body_hangs_below_its_face():
    upright = seed_of_face(face_at(300.0, 100.0, 40.0)).region
    assert upright.centre[0] == pytest.approx(300.0) and upright.centre[1] > 200.0 and upright.rotation == 0.0
    lying = seed_of_face(face_at(300.0, 100.0, 40.0, tilt=np.pi / 2)).region
    assert lying.centre[0] < 200.0 and lying.centre[1] == pytest.approx(100.0)


def test_seeds_at_one_place_are_one():
    head = np.zeros(2)
    seeds = [Seed(Region((x, 0.0), 100.0), head, score) for x, score in ((0.0, 0.5), (5.0, 0.9), (80.0, 0.4))]
    assert [seed.score for seed in distinct_seeds(seeds)] == [0.9, 0.4]


def test_hands_are_looked_for_beyond_the_wrist():
    region = hand_search_region(np.array([100.0, 100.0]), np.array([100.0, 80.0]), np.array([100.0, 80.0]))
    assert region.rotation == pytest.approx(0.0) and region.centre[1] < 80.0
    assert shifted(Region((0.0, 0.0), 10.0, np.pi / 2), 0.5).centre == pytest.approx((5.0, 0.0))


def hand(x: float = 0.0, right: float = 0.95, flag: float = 0.9) -> Hand:
    points = np.random.default_rng(1).normal(0.0, 10.0, (21, 2)) + [100.0 + x, 100.0]
    points[0], points[9] = [100.0 + x, 130.0], [100.0 + x, 90.0]
    return Hand(points, np.zeros((21, 3)), flag, right, Region((100.0, 100.0), 100.0), np.full(21, flag))


def test_hands_need_the_right_side_and_the_right_wrist():
    wrist = np.array([100.0, 130.0])
    fused = fuse_hands(hand(), hand(), wrist, "right")
    assert fused is not None and (fused.confidence > 0.8).all()
    assert fuse_hands(hand(), hand(), wrist, "left") is None
    assert fuse_hands(hand(), hand(), wrist + 80.0, "right") is None
    assert fuse_hands(hand(), hand(flag=0.2), wrist, "right") is None


def test_points_on_which_two_looks_differ_are_doubtful():
    one, other = hand(), hand()
    other.points[4] += 30.0
    fused = fuse_hands(one, other, np.array([100.0, 130.0]), "right")
    assert fused is not None and fused.confidence[4] < 0.2 < fused.confidence[5]


def test_one_hand_belongs_to_one_wrist():
    kept = drop_doubles([hand(flag=0.6), None, hand(2.0, flag=0.9), hand(300.0, flag=0.5)])
    assert [one is not None for one in kept] == [False, False, True, True]


def ball(turn: float) -> Face:
    """Return a face of 468 points on the front half of a ball, turned about the vertical."""
    rng = np.random.default_rng(0)
    mesh = rng.normal(size=(468, 3))
    mesh[:, 2] = -np.abs(mesh[:, 2])
    mesh /= np.linalg.norm(mesh, axis=-1, keepdims=True)
    mesh[RIGHT_EYE], mesh[LEFT_EYE], mesh[CHIN] = [-0.5, -0.3, -0.81], [0.5, -0.3, -0.81], [0.0, 0.7, -0.71]
    c, s = np.cos(turn), np.sin(turn)
    mesh = mesh @ np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]]).T
    return Face(100.0 + 50.0 * mesh[:, :2], 50.0 * mesh[:, 2], 0.95, Region((100.0, 100.0), 200.0))


def test_the_far_side_of_a_turned_face_is_doubtful():
    head = np.ones(11)
    doubtful = [(face_confidence(ball(turn), head) < 0.5).mean() for turn in (0.0, 0.8, 1.4)]
    assert doubtful[0] < 0.05 < doubtful[1] < doubtful[2]


def test_no_face_where_the_network_or_the_head_denies_it():
    face = ball(0.0)
    assert face_confidence(face, np.ones(11)).max() < 1.0
    assert face_confidence(face, np.full(11, 0.02)).max() < 0.05
    no_face = Face(face.points, face.depth, 0.3, face.region)
    assert face_confidence(no_face, np.ones(11)).max() == 0.0


def test_face_regions_follow_the_eyes():
    points = np.array([[90.0, 90.0], [110.0, 110.0], [90.0, 110.0], [110.0, 90.0]])
    region = enclosing_region(points, np.array([90.0, 90.0]), np.array([110.0, 110.0]), 1.5)
    assert region.rotation == pytest.approx(np.pi / 4) and region.centre == pytest.approx((100.0, 100.0))
    body = np.zeros((33, 2))
    body[2], body[5], body[9], body[10] = [110, 90], [90, 90], [105, 115], [95, 115]
    assert region_from_body(body).rotation == pytest.approx(0.0)
    assert region_from_body(body).centre == pytest.approx((100.0, 102.5))


def test_limbs_put_on_another_person_are_doubted():
    names = {name: index for index, name in enumerate(BLAZEPOSE_33)}
    owner, guest = person(stick_figure(), mask=5.0), person(stick_figure(x=60.0, seed=1), mask=-2.0)
    elbow, wrist = owner.points[[names["left_elbow"], names["left_wrist"]]]
    guest.points[names["right_knee"]] = (elbow + wrist) / 2.0
    guest.points[names["right_hip"]] = (elbow + wrist) / 2.0
    guest.confidence[:] = 0.6
    seen_owner, seen_guest = doubt_borrowed_limbs([owner, guest])
    np.testing.assert_array_equal(seen_owner.confidence, owner.confidence)
    assert seen_guest.confidence[names["right_knee"]] < 0.3
    assert seen_guest.confidence[names["right_hip"]] == 0.6
    assert guest.confidence[names["right_knee"]] == 0.6
