"""PNG and WebP by libvips: its decoders are faster than Pillow's, and reduce a large picture meanwhile.

Only the plain cases: 8 bits, RGB or RGBA, one frame. Whatever libvips refuses is left to Pillow, whose errors
are told.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from typing import Any

from PIL import Image

from pipeline.media.image import Still

_BANDS = {"RGB": 3, "RGBA": 4}
_PNG_KEEPS = 2.0  #: times the size that is needed: what is reduced by a plain mean before is not seen then
_WEBP_KEEPS = 1.5  #: libwebp's own scaling is finer


def load(still: Still, at_least: tuple[int, int]) -> Image.Image | None:
    """The pixels of ``still``, no smaller than ``at_least``; None where Pillow has to decode them."""
    image = still.image
    plain = image.mode in _BANDS and "transparency" not in image.info and getattr(image, "n_frames", 1) == 1
    if image.format not in _LOADERS or not plain:
        return None
    factor = min(image.width / at_least[0], image.height / at_least[1])
    try:
        found = _LOADERS[image.format](_vips(), str(still.path), factor)
        if found.format != "uchar" or found.bands != _BANDS[image.mode]:
            return None
        body = found.write_to_memory()
    except _vips().Error:
        return None
    made = Image.frombytes(image.mode, (found.width, found.height), body)
    made.info = dict(image.info)
    return made


@cache
def _vips() -> Any:
    """The library, loaded with the first picture that it is for: not by who only imports the stages."""
    os.environ.setdefault("VIPS_CONCURRENCY", "1")  # one process a core
    vips = import_module("pyvips")
    vips.cache_set_max(0)  # no picture comes twice
    vips.block_untrusted_set(True)  # noqa: FBT003 - only the loaders that are fuzzed
    return vips


def _png(vips: Any, path: str, factor: float) -> Any:
    image = vips.Image.pngload(path, access="sequential", fail_on="truncated")
    by = int(factor / _PNG_KEEPS)
    # Transparent pixels would lend their colour to a mean.
    return image if by <= 1 or image.hasalpha() else image.shrink(by, by)


def _webp(vips: Any, path: str, factor: float) -> Any:
    return vips.Image.webpload(path, scale=min(1.0, _WEBP_KEEPS / factor), fail_on="truncated")


_LOADERS = {"PNG": _png, "WEBP": _webp}
