"""Drawing of bodies: a rasteriser in numpy that runs everywhere, and one on OpenGL."""

from __future__ import annotations

import logging

from fitkit.errors import FitkitError
from fitkit.registry import Registry
from fitkit.rendering.base import Rasteriser, Rendering

__all__ = ["RASTERISERS", "Rasteriser", "Rendering", "choose"]

RASTERISERS = Registry(
    "rasteriser",
    {
        "software": "fitkit.rendering.software:SoftwareRasteriser",
        "pyrender": "fitkit.rendering.opengl:OpenGLRasteriser",
    },
)
"""name -> class; each is made without arguments and follows `Rasteriser`."""


def choose(name: str = "auto") -> Rasteriser:
    """Return a rasteriser that works on this machine.

    "auto" is "software": it draws a body in the time that importing pyrender and opening a context alone take, needs no
    driver, and gives the same picture everywhere. One that was asked for and cannot start (no GL driver) is replaced by
    "software", with the reason in the log.

    Args:
        name: "auto" or one of `RASTERISERS`.

    Raises:
        UsageError: no rasteriser has that name.
    """
    chosen = RASTERISERS.get("software" if name == "auto" else name)
    try:
        return chosen()
    except FitkitError as error:
        logging.getLogger(__name__).warning("%s Drawing with the software rasteriser instead.", error)
        return RASTERISERS.get("software")()
