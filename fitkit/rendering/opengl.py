"""A rasteriser on OpenGL through pyrender: for machines with a graphics driver (or Mesa), many people, large pictures.

Light is computed for each vertex by the same `Lighting` as in the software rasteriser, and OpenGL only draws the
resulting colours: the two give nearly the same picture.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from fitkit.errors import FitkitError
from fitkit.rendering.base import NEAR, Rendering, Soup, empty, gather
from fitkit.rendering.geometry import smoothed, vertex_normals
from fitkit.rendering.shading import Lighting
from fitkit.rendering.zbuffer import window

OPENGL_FROM_CAMERA = np.array([1.0, -1.0, -1.0])
"""OpenGL's camera looks along -z with y up."""


class GraphicsError(FitkitError):
    """OpenGL cannot be used on this machine."""


class OpenGLRasteriser:
    """Draws with pyrender into a context without a window."""

    def __init__(self, lighting: Lighting | None = None) -> None:
        """Open a graphics context.

        Args:
            lighting: lights and their shadows.

        Raises:
            GraphicsError: there is no pyrender or no usable driver.
        """
        self.lighting = lighting or Lighting()
        try:
            with _offscreen_platform(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import pyrender

                self._renderer = pyrender.OffscreenRenderer(16, 16)
        except Exception as error:  # whatever PyOpenGL raises, from ImportError to AttributeError of a missing library
            reason = " ".join(str(error).split()) or type(error).__name__
            raise GraphicsError(f"OpenGL cannot start ({reason[:120]}); is a driver (libegl1) installed?") from error
        self._pyrender = pyrender

    def render(
        self,
        vertices: Sequence[Float[np.ndarray, "_ 3"]] | Float[np.ndarray, "N V 3"],
        faces: Sequence[Int[np.ndarray, "_ 3"]] | Int[np.ndarray, "F 3"],
        intrinsics: Float[np.ndarray, "3 3"],
        image_size: tuple[int, int],
        colours: Sequence[np.ndarray] | np.ndarray | None = None,
    ) -> Rendering:
        """Return the picture of the bodies; see `fitkit.rendering.base.Rasteriser`."""
        soup = gather(vertices, faces, colours)
        x0, y0, x1, y1 = window(soup.vertices, intrinsics, image_size)
        whole = empty(*image_size)
        if x1 <= x0 or not len(soup.faces):
            return whole
        scene, bodies = self._scene(soup, np.array(intrinsics, np.float64), (x0, y0))
        self._renderer.viewport_width, self._renderer.viewport_height = x1 - x0, y1 - y0
        flags = self._pyrender.RenderFlags
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyOpenGL 3.1.0 calls what numpy 1.26 deprecates
            rgba, _ = self._renderer.render(scene, flags.FLAT | flags.RGBA)
            # Without multisampling: what lies at the pixel's centre.
            labels, depth = self._renderer.render(scene, flags.SEG, bodies)
        code = labels.astype(np.int64) @ np.array([1, 256, 65536])
        alpha = rgba[..., 3:].astype(np.float32) / 255
        part = np.s_[y0:y1, x0:x1]
        whole.alpha[part] = alpha[..., 0]
        whole.colour[part] = np.clip(rgba[..., :3] / 255 / np.maximum(alpha, 1 / 255), 0, 1) * (alpha > 0)
        whole.body_index[part] = code - 1
        whole.depth[part] = np.where(code > 0, depth, np.inf)
        return whole

    def _scene(
        self, soup: Soup, intrinsics: Float[np.ndarray, "3 3"], corner: tuple[int, int]
    ) -> tuple[Any, dict[Any, tuple[int, int, int]]]:
        """Return the scene of a part of the picture, and the colour code of each body's node."""
        pyrender = self._pyrender
        scene = pyrender.Scene(bg_color=[0.0, 0.0, 0.0, 0.0])
        normals = vertex_normals(soup.vertices, soup.faces)
        light = smoothed(self.lighting.vertex_light(soup.vertices, normals, soup.body_of_vertex), soup.faces)
        lit = self.lighting.shade(soup.vertices.astype(np.float32), normals.astype(np.float32), soup.colours, light)
        # pyrender's camera knows no skew: fold it into the points.
        upright = np.array([[intrinsics[0, 0], 0, 0], [0, intrinsics[1, 1], 0], [0, 0, 1]])
        upright[:2, 2] = intrinsics[:2, 2]
        points = soup.vertices @ (np.linalg.inv(upright) @ intrinsics).T
        bodies = {}
        for body in range(soup.count):
            own = soup.faces[soup.body_of_face == body]
            if len(own):
                primitive = pyrender.Primitive(
                    positions=(points * OPENGL_FROM_CAMERA).astype(np.float32),
                    color_0=np.concatenate([lit, np.ones_like(lit[:, :1])], axis=1).astype(np.float32),
                    # Both ways round: the pass for labels drops faces that are seen from behind.
                    indices=np.concatenate([own, own[:, ::-1]]).astype(np.uint32),
                    material=pyrender.MetallicRoughnessMaterial(),
                )
                code = body + 1
                bodies[scene.add(pyrender.Mesh([primitive]))] = (code & 255, (code >> 8) & 255, (code >> 16) & 255)
        z = points[:, 2]
        near = max(NEAR, 0.9 * float(z.min()))
        camera = pyrender.IntrinsicsCamera(
            upright[0, 0],
            upright[1, 1],
            upright[0, 2] - corner[0],
            upright[1, 2] - corner[1],
            znear=near,
            zfar=max(1.1 * float(z.max()), near + 1.0),
        )
        scene.add(camera, pose=np.eye(4))
        return scene, bodies


@contextmanager
def _offscreen_platform() -> Iterator[None]:
    """Make PyOpenGL choose EGL on Linux unless the user chose a platform; the environment is left as it was."""
    name = "PYOPENGL_PLATFORM"
    ours = name not in os.environ and sys.platform.startswith("linux")
    if ours:
        os.environ[name] = "egl"
    try:
        yield
    finally:
        if ours:
            os.environ.pop(name, None)
