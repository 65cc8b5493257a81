"""Make the example pictures: painted people of the embedded body in scenes drawn by this script.

Usage: python examples/make_pictures.py [FOLDER]        (default: examples/images)

The pictures show nobody who exists and belong to this project.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scenes.backdrops import Backdrop, View, cafe, cast_shadows, meadow, room, studio
from scenes.clothes import SPACING, Outfit, PaintedLighting
from scenes.people import Person, compose, make_figure

from fitkit.files import atomic_write, make_folder
from fitkit.rendering.software import SoftwareRasteriser

MAX_BYTES = 200_000
"""Of a picture file."""


@dataclass(frozen=True)
class Shot:
    """One picture."""

    people: tuple[Person, ...]
    view: View
    backdrop: Backdrop
    light: tuple[float, float, float]
    """Direction towards the key light, world."""
    key: tuple[float, float, float] = (0.95, 0.90, 0.83)
    softness: float = 0.12
    """Radians: size of the light."""
    blur: float = 0.0
    """Of the backdrop, pixels."""


ARMS_DOWN = {"left_shoulder": (0.0, 0.0, -72.0), "right_shoulder": (0.0, 0.0, 72.0)}

STANDING = Shot(
    people=(
        Person(
            gender="female",
            pose={
                "left_shoulder": compose((4.0, 0.0, 0.0), (0.0, 0.0, -66.0)),
                "right_shoulder": compose((-6.0, 0.0, 0.0), (0.0, 0.0, 70.0)),
                "left_elbow": (0.0, -18.0, 0.0),
                "right_elbow": (0.0, 24.0, 0.0),
                "left_hip": (-6.0, 12.0, 5.0),
                "left_knee": (12.0, 0.0, 0.0),
                "right_hip": (0.0, 0.0, 2.0),
                "spine2": (0.0, 4.0, 0.0),
                "head": (2.0, -6.0, 2.0),
            },
            outfit=Outfit(bun=True, stripes=(0.95, 0.93, 0.90), shirt=(0.16, 0.28, 0.48), trousers=(0.72, 0.60, 0.45)),
            turn=-14.0,
            expression={"mouthSmileLeft": 0.6, "mouthSmileRight": 0.6},
        ),
    ),
    view=View((0.3, 1.25, 4.6), (0.0, 0.87, 0.0), 2600.0, (900, 1200)),
    backdrop=studio,
    light=(-0.55, 0.85, 0.75),
)
WAVING = Shot(
    people=(
        Person(
            gender="male",
            pose={
                "right_collar": (0.0, 0.0, -12.0),
                "right_shoulder": compose((0.0, 0.0, -8.0), (0.0, 14.0, 0.0), (-82.0, 0.0, 0.0)),
                "right_elbow": (0.0, 84.0, 0.0),
                "right_wrist": (0.0, 0.0, -6.0),
                "left_shoulder": compose((-4.0, 0.0, 0.0), (0.0, 0.0, -68.0)),
                "left_elbow": (0.0, -28.0, 0.0),
                "left_hip": (-4.0, 8.0, 5.0),
                "left_knee": (8.0, 0.0, 0.0),
                "spine1": (0.0, 0.0, 3.0),
                "head": (0.0, 6.0, -5.0),
            },
            outfit=Outfit(shirt=(0.86, 0.46, 0.25), skin=(0.80, 0.58, 0.45), trousers=(0.20, 0.25, 0.36)),
            turn=10.0,
            expression={"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8},
            curl=(16.0, 2.0),
        ),
    ),
    view=View((-0.2, 1.45, 4.3), (0.16, 0.98, 0.0), 1700.0, (1200, 900)),
    backdrop=room,
    light=(-0.8, 0.9, 0.65),
)
STROLLING = Shot(
    people=(
        Person(
            gender="female",
            pose={
                "left_shoulder": compose((24.0, 0.0, 0.0), (0.0, 0.0, -74.0)),
                "right_shoulder": compose((-24.0, 0.0, 0.0), (0.0, 0.0, 74.0)),
                "left_elbow": (0.0, -16.0, 0.0),
                "right_elbow": (0.0, 26.0, 0.0),
                "left_hip": (-24.0, 0.0, 0.0),
                "left_knee": (6.0, 0.0, 0.0),
                "left_ankle": (6.0, 0.0, 0.0),
                "right_hip": (16.0, 0.0, 0.0),
                "right_knee": (22.0, 0.0, 0.0),
                "right_ankle": (12.0, 0.0, 0.0),
                "spine2": (0.0, 8.0, 0.0),
                "head": (0.0, 12.0, 0.0),
            },
            outfit=Outfit(
                bun=True, hair=(0.42, 0.26, 0.13), shirt=(0.80, 0.24, 0.27), trousers=(0.25, 0.33, 0.46), sleeve=0.25
            ),
            place=(-0.48, 0.1),
            turn=8.0,
            curl=(9.0, 9.0),
            expression={"mouthSmileLeft": 0.7, "mouthSmileRight": 0.7},
        ),
        Person(
            gender="male",
            pose={
                "left_shoulder": compose((-22.0, 0.0, 0.0), (0.0, 0.0, -72.0)),
                "right_shoulder": compose((10.0, 0.0, 0.0), (0.0, 0.0, 66.0)),
                "left_elbow": (0.0, -30.0, 0.0),
                "right_elbow": (0.0, 18.0, 0.0),
                "right_hip": (-22.0, 0.0, 0.0),
                "right_knee": (6.0, 0.0, 0.0),
                "left_hip": (15.0, 0.0, 0.0),
                "left_knee": (24.0, 0.0, 0.0),
                "left_ankle": (10.0, 0.0, 0.0),
                "spine2": (0.0, -8.0, 0.0),
                "head": (0.0, -16.0, 0.0),
            },
            outfit=Outfit(
                skin=(0.60, 0.42, 0.31),
                hair=(0.07, 0.05, 0.05),
                lips=(0.48, 0.27, 0.25),
                shirt=(0.90, 0.88, 0.80),
                trousers=(0.36, 0.42, 0.30),
                shoes=(0.30, 0.24, 0.20),
                sleeve=0.95,
            ),
            place=(0.42, -0.15),
            turn=-10.0,
            curl=(12.0, 7.0),
        ),
    ),
    view=View((0.2, 1.35, 4.9), (0.0, 0.90, 0.0), 2000.0, (1280, 853)),
    backdrop=meadow,
    light=(0.75, 0.75, 0.55),
    key=(1.05, 0.90, 0.70),
    softness=0.05,
)
CLOSE_UP = Shot(
    people=(
        Person(
            gender="male",
            pose={
                "left_shoulder": compose((-28.0, 0.0, 0.0), (0.0, 0.0, -66.0)),
                "right_shoulder": compose((-40.0, 0.0, 0.0), (0.0, 0.0, 62.0), (-40.0, 0.0, 0.0)),
                "left_elbow": (0.0, -40.0, 0.0),
                "right_elbow": (0.0, 118.0, 0.0),
                "spine1": (4.0, 0.0, 0.0),
                "head": (-2.0, 10.0, 4.0),
            },
            outfit=Outfit(
                skin=(0.90, 0.71, 0.60), hair=(0.36, 0.20, 0.10), iris=(0.25, 0.40, 0.48), shirt=(0.16, 0.42, 0.38)
            ),
            turn=-16.0,
            expression={"mouthSmileLeft": 0.7, "mouthSmileRight": 0.7},
            curl=(20.0, 10.0),
        ),
    ),
    view=View((0.1, 1.5, 1.75), (0.02, 1.36, 0.0), 1450.0, (1000, 1000)),
    backdrop=cafe,
    light=(-0.7, 0.6, 0.8),
)
SHOTS = {"standing": STANDING, "waving": WAVING, "strolling": STROLLING, "close_up": CLOSE_UP}


def draw(shot: Shot) -> np.ndarray:
    """Return a picture (H, W, 3) uint8 RGB."""
    view = shot.view.scaled(2)
    figures = [make_figure(person) for person in shot.people]
    direction = np.array(shot.light) / np.linalg.norm(shot.light)
    shadows = cast_shadows([figure.vertices for figure in figures], direction, shot.softness)
    ground = shot.backdrop(view, shadows)
    if shot.blur:
        ground = cv2.GaussianBlur(ground, (0, 0), 2 * shot.blur)
    x, y, z = (float(v) for v in view.rotation @ direction)
    lighting = PaintedLighting(
        key_direction=(x, y, z),
        key=shot.key,
        fill=(0.17, 0.20, 0.25),
        sky=(0.36, 0.38, 0.42),
        floor=(0.20, 0.17, 0.15),
        rim=0.3,
        gloss=0.1,
        sharpness=26.0,
        cuts=tuple(figure.cut for figure in figures),
        ambient_rays=60,
        shadow_rays=30,
    )
    rendering = SoftwareRasteriser(lighting).render(
        [view.to_camera(figure.vertices) for figure in figures],
        [figure.faces for figure in figures],
        view.intrinsics,
        view.size,
        [figure.rest + [index * SPACING, 0, 0] for index, figure in enumerate(figures)],
    )
    alpha = rendering.alpha[..., None]
    picture = cv2.resize(ground * (1 - alpha) + rendering.colour * alpha, shot.view.size, interpolation=cv2.INTER_AREA)
    return develop(picture)


def develop(picture: np.ndarray) -> np.ndarray:
    """Return a picture (H, W, 3) in [0, 1] as a camera would give it, uint8: darker corners and a little grain."""
    height, width = picture.shape[:2]
    v, u = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    picture = picture * (1 - 0.10 * (u * u + v * v))[..., None]
    grain = np.random.default_rng(0).normal(0, 0.006, (height, width, 1))
    return (np.clip(picture + grain, 0, 1) * 255 + 0.5).astype(np.uint8)


def encode(picture: np.ndarray) -> bytes:
    """Return the best JPEG file of a picture that is small enough."""
    for quality in range(92, 40, -3):
        done, content = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert done
        if len(content) <= MAX_BYTES:
            break
    return content.tobytes()


def main() -> None:
    """Write all pictures."""
    folder = make_folder(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "images")
    for name, shot in SHOTS.items():
        with atomic_write(folder / f"{name}.jpg") as path:
            path.write_bytes(encode(draw(shot)))
        print(folder / f"{name}.jpg")


if __name__ == "__main__":
    main()
