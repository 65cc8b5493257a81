"""Cameras, shadows and backdrops of the example pictures: planes met by the rays of the pixels, and their patterns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from fitkit.rendering.occlusion import cone

CELL = 0.012
"""Metres: side of a cell of the map of shadows."""
REACH = 4.0
"""Metres: half the side of the map of shadows."""


@dataclass(frozen=True)
class View:
    """A camera in a world with y up and the floor at y = 0."""

    eye: tuple[float, float, float]
    target: tuple[float, float, float]
    focal: float
    """Pixels."""
    size: tuple[int, int]
    """Width and height, pixels."""

    @property
    def rotation(self) -> np.ndarray:
        """(3, 3) world to camera (x right, y down, z forward)."""
        forward = np.subtract(self.target, self.eye)
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 1.0, 0.0])
        right = right / np.linalg.norm(right)
        return np.stack([right, np.cross(forward, right), forward])

    @property
    def intrinsics(self) -> np.ndarray:
        """(3, 3) pixels."""
        width, height = self.size
        return np.array([[self.focal, 0, width / 2], [0, self.focal, height / 2], [0, 0, 1.0]])

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """Return world points (V, 3) in camera coordinates."""
        return (points - self.eye) @ self.rotation.T

    def rays(self) -> np.ndarray:
        """Return the direction (H, W, 3) of every pixel's ray, in the world."""
        width, height = self.size
        x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
        pixels = np.stack([(x - width / 2) / self.focal, (y - height / 2) / self.focal, np.ones_like(x)], axis=2)
        return pixels @ self.rotation

    def scaled(self, factor: int) -> View:
        """Return the same view with more pixels."""
        return View(self.eye, self.target, self.focal * factor, (self.size[0] * factor, self.size[1] * factor))


@dataclass(frozen=True)
class Shadows:
    """How much light reaches the floor."""

    key: np.ndarray
    """(G, G) share of the key light."""
    ambient: np.ndarray
    """(G, G) share of the light from all around."""

    def at(self, x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the shares of key and ambient light at points of the floor, metres."""
        u, v = ((value + REACH) / CELL - 0.5 for value in (x, z))
        u, v = u.astype(np.float32), v.astype(np.float32)
        key, ambient = (
            cv2.remap(grid, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for grid in (self.key, self.ambient)
        )
        return key, ambient


def cast_shadows(figures: Sequence[np.ndarray], direction: np.ndarray, softness: float) -> Shadows:
    """Return the shadows of some figures on the floor.

    Args:
        figures: (V, 3) vertices of each, world.
        direction: unit vector towards the light, world.
        softness: radians between the middle of the light and its rim.
    """
    points = np.concatenate(figures)
    key = [_lit(points, ray) for ray in cone(direction, softness, 90)]
    around = cone(np.array([0.0, 1.0, 0.0]), 1.25, 120)
    weights = around[:, 1]
    ambient = sum(w * _lit(points, ray) for w, ray in zip(weights, around, strict=True)) / weights.sum()
    return Shadows(cv2.GaussianBlur(np.mean(key, axis=0), (0, 0), 1.5), cv2.GaussianBlur(ambient, (0, 0), 2))


def _lit(points: np.ndarray, ray: np.ndarray) -> np.ndarray:
    """Return the map of the floor, 0 where points stand in the way of light from a direction and 1 elsewhere."""
    side = int(2 * REACH / CELL)
    cells = ((points[:, [0, 2]] - points[:, 1:2] * ray[[0, 2]] / ray[1] + REACH) / CELL).astype(int)
    cells = cells[((cells >= 0) & (cells < side)).all(1)]
    grid = np.ones((side, side), np.float32)
    grid[cells[:, 1], cells[:, 0]] = 0
    return cv2.erode(grid, np.ones((3, 3), np.uint8))


class Noise:
    """Smooth noise of several scales over a plane."""

    def __init__(self, seed: int) -> None:
        """Draw a tile of random numbers."""
        self._tile = np.random.default_rng(seed).random((256, 256)).astype(np.float32)

    def __call__(self, x: np.ndarray, y: np.ndarray, octaves: int = 5) -> np.ndarray:
        """Return noise in about [0, 1]; its largest features have size 1."""
        total, weight = np.zeros(np.shape(x), np.float32), 0.0
        for octave in range(octaves):
            u, v = ((value * 2**octave + 37 * octave).astype(np.float64) % 250 for value in (x, y))
            total += 0.5**octave * self._smooth(u, v)
            weight += 0.5**octave
        return total / weight

    def _smooth(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        i, j = np.floor(u).astype(int), np.floor(v).astype(int)
        a, b = ((f * f * (3 - 2 * f)) for f in (u - i, v - j))
        tile = self._tile
        top = tile[j, i] * (1 - a) + tile[j, i + 1] * a
        return top * (1 - b) + (tile[j + 1, i] * (1 - a) + tile[j + 1, i + 1] * a) * b


Backdrop = Callable[[View, Shadows], np.ndarray]
"""Draws (H, W, 3) sRGB in [0, 1]."""


def blend(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Return a mixture of two pictures: the first where the share is 0."""
    return first * (1 - share[..., None]) + second * share[..., None]


def smoothstep(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return 0 below low, 1 above high, smooth between."""
    share = np.clip((value - low) / (high - low), 0, 1)
    return share * share * (3 - 2 * share)


def floor_points(view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x and z where each pixel's ray meets the floor, and the distance there (inf above the horizon)."""
    rays = view.rays()
    with np.errstate(divide="ignore"):
        distance = np.where(rays[..., 1] < -1e-4, -view.eye[1] / np.minimum(rays[..., 1], -1e-4), np.inf)
    far = np.minimum(distance, 1e4)
    return view.eye[0] + far * rays[..., 0], view.eye[2] + far * rays[..., 2], distance


def studio(view: View, shadows: Shadows) -> np.ndarray:
    """Draw a seamless paper backdrop with a pool of light."""
    x, z, distance = floor_points(view)
    rays = view.rays()
    width, height = view.size
    v, u = np.mgrid[0:height, 0:width] / [[[height]], [[width]]]
    glow = np.exp(-(((u - 0.5) / 0.55) ** 2 + ((v - 0.38) / 0.5) ** 2))
    wall = np.array([0.36, 0.50, 0.54]) + glow[..., None] * np.array([0.38, 0.34, 0.30])
    key, ambient = shadows.at(x, z)
    pool = np.exp(-(((x / 2.4) ** 2) + (((z - 0.2) / 2.0) ** 2)))
    light = (0.62 * key + 0.38) * (0.35 + 0.65 * ambient)
    floor = (np.array([0.46, 0.58, 0.61]) + pool[..., None] * np.array([0.34, 0.29, 0.26])) * light[..., None]
    del rays
    return blend(floor, wall, np.where(np.isinf(distance), 1.0, smoothstep(-z, 1.0, 3.2)))


def room(view: View, shadows: Shadows) -> np.ndarray:
    """Draw a room: planks, a painted wall with a skirting board, a picture, a rug, and light from a window."""
    noise = Noise(5)
    back = -2.0
    rays = view.rays()
    reach = (back - view.eye[2]) / np.minimum(rays[..., 2], -1e-4)
    wall_x, wall_y = view.eye[0] + reach * rays[..., 0], view.eye[1] + reach * rays[..., 1]
    x, z, distance = floor_points(view)
    on_floor = distance < reach

    plank = np.floor(x / 0.16)
    shift = (plank * 0.618 % 1) * 1.9
    board = np.floor((z + shift) / 1.9)
    tone = (np.sin(plank * 12.9898 + board * 78.233) * 43758.5453) % 1
    grain = noise(x * 28, z * 1.4 + plank * 7)
    wood = np.array([0.66, 0.49, 0.34]) * (0.80 + 0.22 * tone + 0.26 * (grain - 0.5))[..., None]
    gap = np.minimum(
        np.abs(x / 0.16 - np.round(x / 0.16)) * 0.16, np.abs((z + shift) / 1.9 - np.round((z + shift) / 1.9)) * 1.9
    )
    wood *= (0.55 + 0.45 * smoothstep(gap, 0.0, 0.004))[..., None]
    radius = np.hypot(x / 1.15, (z - 0.05) / 0.8)
    ring = 0.5 + 0.5 * np.sign(np.sin(radius * 26))
    rug = blend(
        np.broadcast_to([0.80, 0.76, 0.69], wood.shape),
        np.broadcast_to([0.70, 0.42, 0.33], wood.shape),
        ring * (radius > 0.62),
    )
    rug = rug * (0.92 + 0.16 * noise(x * 160, z * 160, 2))[..., None]
    floor = blend(rug, wood, smoothstep(radius, 0.995, 1.005))
    key, ambient = shadows.at(x, z)
    away = 0.72 + 0.28 * np.exp(-((x + 0.6) ** 2 + (z - 0.4) ** 2) / 5)
    floor = floor * ((0.55 * key + 0.45) * (0.35 + 0.65 * ambient) * away)[..., None]

    paint = (
        np.array([0.62, 0.72, 0.66])
        * (0.80 + 0.22 * np.exp(-((wall_x + 1.2) ** 2 + (wall_y - 1.9) ** 2) / 4))[..., None]
    )
    paint = paint * (0.985 + 0.03 * noise(wall_x * 60, wall_y * 60, 3))[..., None]
    board_share = smoothstep(0.11 - wall_y, 0.0, 0.004)
    paint = blend(
        paint,
        np.broadcast_to([0.90, 0.89, 0.86], paint.shape) * (0.86 + 0.14 * smoothstep(wall_y, 0.0, 0.05))[..., None],
        board_share,
    )
    paint *= (1 - 0.35 * np.exp(-(((wall_y - 0.108) / 0.006) ** 2)) * (wall_y > 0.108))[..., None]
    paint = _framed(paint, wall_x - 1.05, wall_y - 1.75, noise)
    return blend(paint, floor, on_floor.astype(float))


def _framed(wall: np.ndarray, x: np.ndarray, y: np.ndarray, noise: Noise) -> np.ndarray:
    """Return a wall with a framed landscape around (0, 0), metres, and its shadow."""
    half = (0.36, 0.48)
    shade = smoothstep(0.03 - np.maximum(np.abs(x - 0.02) - half[0], np.abs(y + 0.025) - half[1]), 0.0, 0.05)
    wall = wall * (1 - 0.3 * shade)[..., None]
    border = np.maximum(np.abs(x) - half[0], np.abs(y) - half[1])
    sky = np.array([0.95, 0.80, 0.62]) + (y / half[1])[..., None] * np.array([-0.25, -0.1, 0.12])
    for level, colour in ((0.08, (0.63, 0.66, 0.70)), (-0.08, (0.40, 0.52, 0.55)), (-0.26, (0.22, 0.36, 0.38))):
        ridge = level + 0.16 * (noise(x * 4 + 9 * level, np.full_like(x, 3.0 + level), 4) - 0.4)
        sky = blend(sky, np.broadcast_to(colour, sky.shape), smoothstep(ridge - y, 0.0, 0.006))
    mat = blend(sky, np.broadcast_to([0.93, 0.92, 0.89], sky.shape), (border > -0.085).astype(float))
    framed = blend(mat, np.broadcast_to([0.20, 0.15, 0.11], mat.shape), (border > -0.028).astype(float))
    return blend(framed, wall, smoothstep(border, -0.002, 0.002))


def meadow(view: View, shadows: Shadows) -> np.ndarray:
    """Draw an evening meadow: sky with clouds, hills, grass and a path."""
    noise = Noise(11)
    rays = view.rays()
    rays = rays / np.linalg.norm(rays, axis=2, keepdims=True)
    height = rays[..., 1]
    sky = blend(
        np.broadcast_to([0.98, 0.90, 0.78], rays.shape),
        np.broadcast_to([0.33, 0.56, 0.83], rays.shape),
        smoothstep(height, -0.02, 0.17),
    )
    lift = 1 / np.maximum(height + 0.07, 0.03)
    cloud = smoothstep(noise(rays[..., 0] * lift * 1.1 + 5, lift * 0.9, 6), 0.5, 0.72) * smoothstep(height, 0.0, 0.15)
    sky = blend(sky, np.broadcast_to([1.0, 0.97, 0.93], sky.shape), 0.85 * cloud)
    azimuth = np.arctan2(rays[..., 0], -rays[..., 2])
    for level, scale, colour in (
        (0.050, 3, (0.60, 0.69, 0.76)),
        (0.028, 6, (0.44, 0.57, 0.55)),
        (0.012, 26, (0.28, 0.41, 0.28)),
    ):
        ridge = level * (
            0.4 + 1.2 * noise(azimuth * scale + 40 * level + 7, np.full_like(azimuth, 2.0 + 99 * level), 5)
        )
        sky = blend(sky, np.broadcast_to(colour, sky.shape), smoothstep(ridge - height, 0.0, 0.002))
    x, z, distance = floor_points(view)
    near = np.clip(1 / np.maximum(distance, 1e-3) * 4, 0, 1)
    tufts = noise(x * 9, z * 9, 5) * near + 0.5 * (1 - near)
    broad = noise(x * 0.5, z * 0.5, 3)
    grass = np.array([0.36, 0.50, 0.20]) * (0.55 + 0.75 * tufts)[..., None] + (broad - 0.5)[..., None] * np.array(
        [0.22, 0.10, 0.04]
    )
    flowers = smoothstep(noise(x * 14 + 3, z * 14, 2), 0.80, 0.84) * near
    grass = blend(grass, np.broadcast_to([0.97, 0.94, 0.80], grass.shape), flowers)
    edge = 0.95 + 0.12 * noise(z * 2, x * 0 + 1.5, 4)
    path = (
        np.array([0.74, 0.66, 0.53])
        * (0.75 + 0.5 * noise(x * 22, z * 22, 4) * near[:, :] + 0.25 * (1 - near))[..., None]
    )
    ground = blend(path, grass, smoothstep(np.abs(x - 0.12 * np.sin(z * 0.4)) - edge, -0.06, 0.10))
    key, ambient = shadows.at(x, z)
    ground = ground * ((0.55 * key + 0.45) * (0.4 + 0.6 * ambient))[..., None]
    haze = np.where(np.isinf(distance), 1.0, 1 - np.exp(-distance / 60))
    ground = blend(ground, np.broadcast_to([0.55, 0.62, 0.50], ground.shape), np.minimum(haze, 0.8))
    return blend(sky, ground, smoothstep(-height, 0.0, 0.003))


def cafe(view: View, shadows: Shadows) -> np.ndarray:
    """Draw the lights of an evening, far out of focus."""
    width, height = view.size
    rng = np.random.default_rng(2)
    v, u = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    base = blend(
        np.broadcast_to([0.30, 0.22, 0.21], (height, width, 3)),
        np.broadcast_to([0.13, 0.15, 0.22], (height, width, 3)),
        v,
    )
    picture = base + 0.2 * np.exp(-(((u - 0.8) / 0.4) ** 2 + ((v - 0.3) / 0.5) ** 2))[..., None] * np.array(
        [1.0, 0.75, 0.45]
    )
    colours = np.array([[1.0, 0.72, 0.35], [1.0, 0.55, 0.35], [0.55, 0.75, 1.0], [1.0, 0.88, 0.66], [0.95, 0.45, 0.5]])
    for _ in range(46):
        centre, radius = rng.random(2) * [1.1, 0.8] - [0.05, 0.05], 0.018 + 0.045 * rng.random()
        away = np.hypot((u - centre[0]) * width / height, v - centre[1])
        disc = smoothstep(-away, -radius, -radius + 0.006) * (0.75 + 0.25 * smoothstep(away, radius * 0.6, radius))
        picture = picture + (disc * (0.12 + 0.33 * rng.random()))[..., None] * colours[rng.integers(len(colours))]
    return 1 - np.exp(-1.3 * picture)
