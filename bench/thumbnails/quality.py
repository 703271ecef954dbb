"""How near a picture is to what a full decode and one Lanczos resize make of its source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pipeline.media.colour import on_white, resizable, to_srgb

Plane = NDArray[np.float64]
SIZE = (1280, 720)
_WINDOW = 8  #: pixels, the side of SSIM's windows


def reference(path: Path) -> Image.Image:
    """The cover crop of all of the source's pixels, upright, in sRGB, alpha on white."""
    with Image.open(path) as source:
        profile = source.info.get("icc_profile")
        upright = ImageOps.exif_transpose(resizable(source))
    small = ImageOps.fit(upright, SIZE, Image.Resampling.LANCZOS)
    return on_white(to_srgb(small, profile)[0])


def psnr(made: Image.Image, wanted: Image.Image) -> float:
    """Peak signal to noise over the three channels, in decibels."""
    error = np.asarray(made.convert("RGB"), float) - np.asarray(wanted, float)
    return float(10 * np.log10(255**2 / max(np.mean(error**2), 1e-9)))


def ssim(made: Image.Image, wanted: Image.Image) -> float:
    """Structural similarity of the luminance (Wang et al. 2004), in even windows of 8 x 8 pixels."""
    ours, theirs = (_windows(np.asarray(one.convert("L"), float)) for one in (made, wanted))
    mean_a, mean_b = ours.mean(-1), theirs.mean(-1)
    spread_a, spread_b = ours.var(-1), theirs.var(-1)
    both = (ours * theirs).mean(-1) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return float((top / ((mean_a**2 + mean_b**2 + c1) * (spread_a + spread_b + c2))).mean())


def _windows(plane: Plane) -> Plane:
    height, width = (side // _WINDOW * _WINDOW for side in plane.shape)
    tiles = plane[:height, :width].reshape(height // _WINDOW, _WINDOW, width // _WINDOW, _WINDOW)
    return tiles.transpose(0, 2, 1, 3).reshape(-1, _WINDOW**2)
