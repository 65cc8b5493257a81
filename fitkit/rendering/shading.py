"""Light: what colour a point of a surface shows to the camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from fitkit.rendering.occlusion import cone, visibility


def to_linear(colour: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Return sRGB values in [0, 1] as linear light (gamma 2.2, near enough for pictures)."""
    return np.maximum(colour, 0.0) ** 2.2


def to_srgb(light: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Return linear light as sRGB values in [0, 1]; highlights above 0.8 are rolled off instead of clipped."""
    soft = np.where(light > 0.8, 1.0 - 0.2 * np.exp(-(np.maximum(light, 0.8) - 0.8) / 0.2), np.maximum(light, 0.0))
    return soft ** (1 / 2.2)


def towards(x: float, y: float, z: float) -> tuple[float, float, float]:
    """Return the unit vector towards a light, camera coordinates (x right, y down, z forward)."""
    length = (x * x + y * y + z * z) ** 0.5
    return (x / length, y / length, z / length)


@dataclass(frozen=True)
class Lighting:
    """A photographer's studio: key, fill and rim light, and the sky and floor around; colours are linear light."""

    key_direction: tuple[float, float, float] = towards(-0.65, -0.80, -0.70)
    """Unit vector towards the key light, camera coordinates."""
    key: tuple[float, float, float] = (1.05, 0.99, 0.92)
    """Warm main light; it casts the shadows."""
    fill_direction: tuple[float, float, float] = towards(0.85, -0.15, -0.6)
    """Unit vector towards the fill light."""
    fill: tuple[float, float, float] = (0.13, 0.16, 0.22)
    """Cool light from the other side, without shadows."""
    sky: tuple[float, float, float] = (0.23, 0.25, 0.30)
    """Light from above, weakened where the surroundings hide it."""
    floor: tuple[float, float, float] = (0.12, 0.10, 0.09)
    """Light reflected from below."""
    rim: float = 0.50
    """Strength of the light from behind, seen along the silhouette."""
    gloss: float = 0.14
    """Strength of the highlights."""
    sharpness: float = 20.0
    """Exponent of the highlights (Blinn-Phong)."""
    key_size: float = 0.22
    """Radians: half the apparent size of the key light; larger is softer."""
    shadow_rays: int = 10
    """Directions over the key light."""
    ambient_rays: int = 28
    """Directions over the sphere for the ambient occlusion."""

    def vertex_light(
        self, vertices: Float[np.ndarray, "V 3"], normals: Float[np.ndarray, "V 3"], bodies: Int[np.ndarray, " V"]
    ) -> Float[np.ndarray, "V 2"]:
        """Return the shares of the key light and of the ambient light that reach each vertex, in [0, 1].

        Arguments as in `fitkit.rendering.occlusion.visibility`.
        """
        lamp = cone(np.array(self.key_direction), self.key_size, self.shadow_rays)
        around = cone(np.array([0.0, -1.0, 0.0]), np.pi, self.ambient_rays)
        shares = [visibility(vertices, normals, bodies, directions) for directions in (lamp, around)]
        return np.stack(shares, axis=1).astype(np.float32)

    def shade(
        self,
        points: Float[np.ndarray, "S 3"],
        normals: Float[np.ndarray, "S 3"],
        colours: Float[np.ndarray, "S 3"],
        light: Float[np.ndarray, "S 2"],
    ) -> Float[np.ndarray, "S 3"]:
        """Return the sRGB colour of surface points as the camera sees them.

        Args:
            points: camera coordinates, metres.
            normals: unit vectors, towards the camera's side.
            colours: the surface's own colour, sRGB in [0, 1].
            light: shares of key and ambient light, as from `vertex_light`.
        """
        view = -points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), np.float32(1e-9))
        key_direction = np.array(self.key_direction, np.float32)
        shadow = light[:, :1]
        # Half-Lambert: light wraps a little around the form, as on skin and cloth.
        wrapped = (normals @ key_direction + np.float32(0.15)) / np.float32(1.15)
        key = np.maximum(wrapped, 0)[:, None] * shadow
        fill = np.maximum(normals @ np.array(self.fill_direction, np.float32), 0)[:, None]
        up = 0.5 - 0.5 * normals[:, 1:2]
        ambient = up * np.array(self.sky, np.float32) + (1 - up) * np.array(self.floor, np.float32)
        occlusion = light[:, 1:] ** np.float32(1.3)
        diffuse = key * np.array(self.key, np.float32) + fill * np.array(self.fill, np.float32) * occlusion
        diffuse += ambient * occlusion
        half = view + key_direction
        half /= np.maximum(np.linalg.norm(half, axis=1, keepdims=True), np.float32(1e-9))
        glint = np.maximum(np.einsum("si,si->s", normals, half), 0)[:, None] ** np.float32(self.sharpness) * shadow
        grazing = 1 - np.clip(np.einsum("si,si->s", normals, view), 0, 1)[:, None]
        rim = grazing**3 * (np.float32(0.35) + np.float32(0.65) * up) * occlusion
        own = to_linear(colours)
        lit = own * diffuse + np.float32(self.gloss) * glint + np.float32(self.rim) * rim * (own * 0.7 + 0.3)
        return to_srgb(lit)
