"""A sheet of bodies in given poses, to look at what a prior believes in."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from fitkit.models.smpl_family import SMPLFamilyModel
from fitkit.rendering.software import SoftwareRasteriser
from fitkit.viewers.overlay import PALETTE


@dataclass(frozen=True)
class Sheet:
    """How the sheet is laid out."""

    columns: int = 8
    """Bodies side by side."""
    cell: int = 120
    """Pixels from one body to the next, across; half as much again down."""


def draw_poses(
    model: SMPLFamilyModel, body_pose: Float[Tensor, "M 63"], sheet: Sheet | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Return a picture of bodies of mean shape in poses, row by row, every other one turned by a quarter, RGB."""
    sheet = sheet or Sheet()
    count = len(body_pose)
    rows = -(-count // sheet.columns)
    width, height = sheet.columns * sheet.cell, rows * sheet.cell * 3 // 2
    turn = torch.zeros(count, 1, 3, dtype=model.dtype)
    turn[1::2, 0, 1] = np.pi / 4
    leaves = {"global_orient": turn, "body_pose": body_pose[:, None].to(turn)}
    leaves |= {"betas": torch.zeros(count, 1, model.betas, dtype=model.dtype), "transl": torch.zeros_like(turn)}
    with torch.no_grad():
        vertices = model(leaves).vertices[:, 0]
    middle = (vertices.amin(1) + vertices.amax(1)) / 2
    # From up to down and from towards us to away from us: the body's axes become a camera's.
    points = ((vertices - middle[:, None]) * torch.tensor([1.0, -1.0, -1.0]).to(vertices)).double().numpy()
    # So far away that all bodies are seen straight on.
    metre, distance = 0.72 * sheet.cell, 40.0
    focal = metre * distance
    places = np.array([[k % sheet.columns + 0.5, 1.5 * (k // sheet.columns) + 0.75] for k in range(count)]) * sheet.cell
    offsets = np.concatenate([places - [width / 2, height / 2], np.full((count, 1), focal)], axis=1) / metre
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    colours = np.array([PALETTE[k % len(PALETTE)] for k in range(count)])
    drawn = SoftwareRasteriser().render(
        points + offsets[:, None], model.faces.numpy(), intrinsics, (width, height), colours
    )
    alpha = drawn.alpha[..., None]
    return np.clip(255 * (drawn.colour * alpha + (1 - alpha)), 0, 255).astype(np.uint8)


def encode_png(picture: UInt8[np.ndarray, "H W 3"], colours: int = 200) -> bytes:
    """Return a small png of a picture: few colours, since a sheet is white for the most part."""
    stream = io.BytesIO()
    Image.fromarray(picture).quantize(colours).save(stream, "png", optimize=True)
    return stream.getvalue()
