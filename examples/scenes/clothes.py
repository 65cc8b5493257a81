"""Clothes, hair and faces of the people in the example pictures: paint and small displacements.

Both are functions of the rest pose (a T-pose, metres, y up, x to the subject's left), in which every point of the
surface has one place whatever the pose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fitkit.rendering.shading import Lighting

RGB = tuple[float, float, float]
SPACING = 10.0
"""Metres between the rest poses of several people, by which the paint tells them apart."""


@dataclass(frozen=True)
class Outfit:
    """Colours (sRGB) and cut."""

    skin: RGB = (0.87, 0.66, 0.54)
    hair: RGB = (0.23, 0.14, 0.09)
    iris: RGB = (0.30, 0.22, 0.14)
    lips: RGB = (0.74, 0.42, 0.38)
    shirt: RGB = (0.20, 0.42, 0.62)
    stripes: RGB | None = None
    trousers: RGB = (0.16, 0.20, 0.30)
    shoes: RGB = (0.93, 0.92, 0.90)
    sleeve: float = 0.45
    """Where the sleeves end: 0 at the shoulder, 0.5 near the elbow, 1 at the wrist."""
    trouser_leg: float = 1.0
    """Where the trousers end: 0.5 at the knee, 1 at the ankle."""
    bun: bool = False
    """Hair gathered in a bun, instead of short hair."""


def step(value: np.ndarray, width: float) -> np.ndarray:
    """Return 0 below -width / 2, 1 above width / 2, smooth between."""
    share = np.clip(value / width + 0.5, 0, 1)
    return share * share * (3 - 2 * share)


def ripple(points: np.ndarray, scale: float, seed: float = 0.0) -> np.ndarray:
    """Return smooth noise in [-1, 1] of points (S, 3), with bumps of about `scale` metres (warped sines)."""
    x, y, z = (points / scale * 3.0).T
    a = np.sin(x + 1.7 * np.sin(y * 0.71 + seed) + seed)
    b = np.sin(y + 1.9 * np.sin(z * 0.83 - x * 0.57 + 2 * seed) + 1.3)
    c = np.sin(z * 1.13 + 1.5 * np.sin(x * 0.91 + y * 0.37) + 3 * seed)
    return (a + b + c) / 3


@dataclass(frozen=True)
class Cut:
    """Where the clothes and the features of a face lie on one body."""

    landmarks: dict[str, np.ndarray]
    """Of the rest pose."""
    outfit: Outfit

    def shirt(self, p: np.ndarray) -> np.ndarray:
        """Return metres to the border of the shirt, positive inside."""
        at = self.landmarks
        end = at["left_shoulder"][0] + self.outfit.sleeve * (at["left_wrist"][0] - at["left_shoulder"][0])
        collar = np.hypot(p[:, 0], 0.9 * (p[:, 2] - at["neck_base"][2] + 0.012)) - 0.083
        collar = np.where(p[:, 1] > at["neck_base"][1] - 0.15, collar, 1.0)
        below_chin = np.where(p[:, 1] < at["face_08"][1] - 0.02, 1.0, -1.0)
        hem = p[:, 1] - (at["mid_hip"][1] - 0.045)
        return np.min([end - np.abs(p[:, 0]), hem, collar, below_chin], axis=0)

    def trousers(self, p: np.ndarray) -> np.ndarray:
        """Return metres to the border of the trousers, positive inside."""
        hip, ankle = self.landmarks["mid_hip"][1], self.landmarks["left_ankle"][1]
        end = hip + self.outfit.trouser_leg * (ankle + 0.005 - hip)
        return np.minimum(hip + 0.08 - p[:, 1], p[:, 1] - end)

    def shoes(self, p: np.ndarray) -> np.ndarray:
        """Return metres to the border of the shoes, positive inside."""
        return self.landmarks["left_ankle"][1] + 0.012 - p[:, 1]

    def hair(self, p: np.ndarray) -> np.ndarray:
        """Return metres to the hairline, positive inside."""
        eye, ear = self.landmarks["left_eye"], self.landmarks["left_ear"]
        z = p[:, 2] - ear[2]
        line = np.interp(
            z, [-0.1, -0.03, -0.005, 0.012, 0.03, 0.055, 0.08], [-0.09, -0.07, -0.02, -0.01, 0.03, 0.05, 0.06]
        )
        side = np.abs(p[:, 0])
        lobe = np.hypot((p[:, 1] - ear[1] - 0.005) / 0.036, (z + 0.008) / 0.022) - 1
        of_ear = np.where(side > ear[0] - 0.014, 0.02 * lobe, 1.0)
        return np.minimum(p[:, 1] - eye[1] - line + 0.003 * ripple(p, 0.02), of_ear)

    def smoothing(self, p: np.ndarray) -> np.ndarray:
        """Return in [0, 1] how far the form of the body is hidden at rest points (V, 3)."""
        hair = 0.02 * step(self.hair(p) - 0.01, 0.02)
        return np.max([step(self.shirt(p), 0.03), 0.15 * step(self.trousers(p), 0.03), hair], axis=0)

    def thickness(self, p: np.ndarray) -> np.ndarray:
        """Return the metres that cloth and hair add at rest points (V, 3)."""
        at = self.landmarks
        folds = ripple(p * [1.0, 1.6, 1.0], 0.09, 0.4) + 0.5 * ripple(p * [1.3, 1.0, 1.0], 0.045, 2.0)
        loose = 1 + 0.7 * step(at["neck_base"][1] - 0.25 - p[:, 1], 0.3)
        shirt = step(self.shirt(p) - 0.002, 0.006) * (0.011 * loose + 0.0035 * folds)
        creases = ripple(p * [1.0, 1.4, 1.0], 0.07, 1.0)
        flare = 1 + 0.8 * step(at["left_knee"][1] - p[:, 1], 0.3)
        trousers = step(self.trousers(p) - 0.002, 0.006) * (0.008 * flare + 0.003 * creases)
        shoes = step(self.shoes(p) - 0.002, 0.008) * 0.007
        crown = step(p[:, 1] - at["left_eye"][1] - 0.02, 0.12)
        strands = 1 + 0.2 * ripple(p * [1.0, 0.4, 1.0], 0.025, 1.0)
        depth = 0.010 if self.outfit.bun else 0.012 + 0.014 * crown
        hair = step(self.hair(p) - 0.008, 0.02) * depth * strands
        return np.max([shirt, trousers, shoes, hair], axis=0)

    def paint(self, p: np.ndarray) -> np.ndarray:
        """Return the sRGB colours (S, 3) of rest points."""
        outfit = self.outfit
        colour = self._skin(p)
        weave = 1 + 0.03 * ripple(p, 0.006)[:, None]
        for inside, paint in (
            (self.hair(p), np.array(outfit.hair) * (1 + 0.25 * ripple(p * [1.0, 0.15, 1.0], 0.007))[:, None]),
            (self.shoes(p), self._shoe(p)),
            (self.trousers(p), np.array(outfit.trousers) * weave * (1 + 0.06 * ripple(p, 0.2))[:, None]),
            (self.shirt(p), self._shirt_colour(p) * weave),
        ):
            share = step(inside, 0.0025)[:, None]
            seam = 1 - 0.18 * np.exp(-(((inside - 0.012) / 0.0012) ** 2))[:, None]
            colour = colour * (1 - share) + paint * seam * share
        return np.clip(colour, 0, 1)

    def _shirt_colour(self, p: np.ndarray) -> np.ndarray:
        base = np.broadcast_to(np.array(self.outfit.shirt), p.shape)
        if self.outfit.stripes is None:
            return base
        along = np.where(np.abs(p[:, 0]) > self.landmarks["left_shoulder"][0] + 0.03, np.abs(p[:, 0]), p[:, 1])
        share = step(np.sin(along / 0.048 * 2 * np.pi) - 0.35, 0.3)[:, None]
        return base * (1 - share) + np.array(self.outfit.stripes) * share

    def _shoe(self, p: np.ndarray) -> np.ndarray:
        height = p[:, 1] - self.landmarks["left_heel"][1]
        sole = step(-0.020 - height, 0.003)[:, None]
        return np.array(self.outfit.shoes) * (1 - sole) + np.array([0.96, 0.95, 0.93]) * sole

    def _skin(self, p: np.ndarray) -> np.ndarray:
        """Return the colours of the skin, with the features of the face."""
        at, outfit = self.landmarks, self.outfit
        skin = np.array(outfit.skin)
        colour = skin * (1 + 0.02 * ripple(p, 0.05))[:, None]
        blush = np.zeros(len(p))
        for spot, size, strength in (
            (at["face_30"], 0.014, 0.5),
            (at["face_41"] + [0, -0.03, 0], 0.022, 0.6),
            (at["face_46"] + [0, -0.03, 0], 0.022, 0.6),
            (at["left_ear"], 0.03, 0.4),
            (at["right_ear"], 0.03, 0.4),
        ):
            blush += strength * np.exp(-((p - spot) ** 2).sum(1) / size**2)
        hands = step(np.abs(p[:, 0]) - at["left_wrist"][0] - 0.07, 0.1)
        colour = colour * (1 - np.minimum(blush + 0.35 * hands, 1)[:, None] * np.array([0.0, 0.13, 0.12]))
        mouth = (at["face_62"] + at["face_66"]) / 2
        wide = abs(at["face_54"][0] - at["face_48"][0]) / 2 + 0.001
        up, down = at["face_51"][1] - mouth[1] + 0.001, mouth[1] - at["face_57"][1] + 0.001
        x, y = (p[:, 0] - mouth[0]) / wide, p[:, 1] - mouth[1]
        ellipse = 1 - x**2 - (y / np.where(y > 0, up, down)) ** 2
        lips = step(ellipse - 0.1, 0.35) * (p[:, 2] > mouth[2] - 0.03)
        colour = colour * (1 - lips[:, None]) + np.array(outfit.lips) * lips[:, None]
        gap = np.exp(-((y / 0.0012) ** 2)) * step(0.95 - np.abs(x), 0.2) * (p[:, 2] > mouth[2] - 0.03)
        colour = colour * (1 - 0.6 * gap[:, None])
        brow = np.zeros(len(p))
        for run in (range(17, 22), range(22, 27)):
            points = np.array([at[f"face_{i:02d}"] for i in run])
            fine = np.stack([np.interp(np.linspace(0, 4, 25), range(5), points[:, c]) for c in range(3)], axis=1)
            near = np.full(len(p), np.inf)
            for point in fine:
                near = np.minimum(near, ((p - point) ** 2).sum(1))
            taper = np.interp(np.abs(p[:, 0]), [abs(points[:, 0]).min(), abs(points[:, 0]).max()], [0.0030, 0.0014])
            brow = np.maximum(brow, step(taper - np.sqrt(near), 0.0025))
        colour = colour * (1 - 0.8 * brow[:, None]) + 0.8 * brow[:, None] * np.array(outfit.hair) * 0.9
        for side in ("left", "right"):
            colour = self._eye(p, colour, at[f"joint/{side}_eye"])
        return colour

    def _eye(self, p: np.ndarray, colour: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """Return the colours with an eyeball painted: white, iris, pupil and the glint of a window; lashes around."""
        offset = p - centre
        distance = np.linalg.norm(offset, axis=1)
        ball = distance < self.eye_radius + 0.0007
        direction = offset / np.maximum(distance, 1e-9)[:, None]
        angle = np.arccos(np.clip(direction[:, 2], -1, 1))
        paint = np.broadcast_to(np.array([0.93, 0.92, 0.91]), p.shape)
        for radius, shade in (
            (0.50, np.array(self.outfit.iris) * 0.5),
            (0.45, np.array(self.outfit.iris)),
            (0.2, np.array([0.02, 0.02, 0.02])),
        ):
            share = step(radius - angle, 0.06)[:, None]
            paint = paint * (1 - share) + shade * share
        glint = np.linalg.norm(direction - np.array([-0.2, 0.22, 0.955]), axis=1)
        share = step(0.09 - glint, 0.05)[:, None]
        paint = paint * (1 - share) + share
        lash = (~ball) & (distance < self.eye_radius + 0.0028) & (offset[:, 1] > 0.001) & (offset[:, 2] > 0.004)
        colour = np.where(lash[:, None], colour * 0.45, colour)
        return np.where(ball[:, None], paint, colour)

    @property
    def eye_radius(self) -> float:
        """Metres."""
        return float(self.landmarks["left_pupil"][2] - self.landmarks["joint/left_eye"][2])


@dataclass(frozen=True)
class PaintedLighting(Lighting):
    """Lighting that takes rest points for colours, and paints them before it shades."""

    cuts: tuple[Cut, ...] = ()
    """Of each person; person i has their rest points moved by i * SPACING along x."""

    def shade(self, points: np.ndarray, normals: np.ndarray, colours: np.ndarray, light: np.ndarray) -> np.ndarray:
        """Return the sRGB colours (S, 3) of surface points; see `Lighting.shade`."""
        painted, shine = np.zeros_like(colours), np.ones((len(colours), 1), np.float32)
        person = np.round(colours[:, 0] / SPACING).astype(int)
        for index, cut in enumerate(self.cuts):
            own = person == index
            if own.any():
                rest = colours[own].astype(np.float64) - [index * SPACING, 0, 0]
                painted[own] = cut.paint(rest)
                cloth = np.maximum(cut.shirt(rest), cut.trousers(rest))
                shine[own, 0] = 1 - 0.85 * step(cloth, 0.005)
        glossy, matt = replace(self, gloss=2 * self.gloss), replace(self, gloss=0.0)
        share = shine / 2
        shades = [Lighting.shade(look, points, normals, painted, light) for look in (glossy, matt)]
        return share * shades[0] + (1 - share) * shades[1]
