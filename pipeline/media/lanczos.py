"""Lanczos resampling of Pillow's pictures: by AVX2 where ``cykooz_resizer`` has a wheel, else by Pillow.

Both take the same filter of radius 3, scaled to the reduction; they differ by rounding, as a test sees to.
"""

from __future__ import annotations

from PIL import Image

try:
    import cykooz_resizer
except ImportError:  # no wheel for this machine
    cykooz_resizer = None

IS_SIMD = cykooz_resizer is not None
Box = tuple[float, float, float, float]
_MODES = frozenset({"RGB", "RGBA", "L", "CMYK"})


def resize(image: Image.Image, size: tuple[int, int], box: Box | None = None) -> Image.Image:
    """``box`` of ``image`` (left, top, right, bottom; fractions count), or all of it, at ``size``."""
    if cykooz_resizer is None or image.mode not in _MODES:
        return by_pillow(image, size, box)
    return by_simd(image, size, box)


def by_pillow(image: Image.Image, size: tuple[int, int], box: Box | None = None) -> Image.Image:
    """As ``resize``, for every mode that can be resampled."""
    return image.resize(size, Image.Resampling.LANCZOS, box=box)


def by_simd(image: Image.Image, size: tuple[int, int], box: Box | None = None) -> Image.Image:
    """As ``resize``, for RGB, RGBA, L and CMYK."""
    options = cykooz_resizer.ResizeOptions(_ALGORITHM)
    if box is not None:
        left, top, right, bottom = box
        options.crop_box = cykooz_resizer.CropBox(left, top, right - left, bottom - top)
    made = Image.new(image.mode, size)
    _RESIZER.resize_pil(image, made, options)
    made.info = dict(image.info)
    return made


if cykooz_resizer is not None:
    _ALGORITHM = cykooz_resizer.ResizeAlg.convolution(cykooz_resizer.FilterType.lanczos3)
    _RESIZER = cykooz_resizer.Resizer()
