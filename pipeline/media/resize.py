"""Small, upright sRGB pictures out of large ones: one decode, scaled by the decoder where it can."""

from __future__ import annotations

from PIL import Image

from pipeline.media.colour import resizable, to_srgb
from pipeline.media.image import SIDEWAYS, UPRIGHT, Still

Size = tuple[int, int]
Box = tuple[float, float, float, float]
LANCZOS = Image.Resampling.LANCZOS


def cover(still: Still, size: Size) -> tuple[Image.Image, str | None]:
    """The middle of the picture, filling ``size`` (width, height) exactly; a smaller one is enlarged.

    Returns an RGB or RGBA picture in sRGB, upright, and a warning about its colours, or None.
    Raises what ``Still.load`` raises.
    """
    extent = _decode(still, _as_stored(still, size))
    target = _as_stored(still, size)
    return _finish(still, target, _cover_box(extent, target), reducing_gap=None)


def inside(still: Still, longest: int) -> tuple[Image.Image, str | None]:
    """The whole picture with no side above ``longest`` pixels, else as ``cover``; never enlarged."""
    width, height = still.image.size
    scale = min(1.0, longest / max(width, height))
    target = max(1, round(width * scale)), max(1, round(height * scale))
    extent = _decode(still, target)
    return _finish(still, target, (0, 0, *extent), reducing_gap=2.0)


def _as_stored(still: Still, size: Size) -> Size:
    """``size`` as it lies in the stored pixels, which may be turned by 90 degrees."""
    return (size[1], size[0]) if still.to_apply in SIDEWAYS else size


def _decode(still: Still, at_least: Size) -> tuple[float, float]:
    """Decode, no smaller than ``at_least`` where the format allows; the picture's extent in decoded pixels.

    The extent is fractional: a JPEG scaled to an eighth is rounded up to whole pixels.
    """
    drafted = still.image.draft(None, at_least)
    still.load()
    width, height = still.image.size
    return (width, height) if drafted is None else drafted[1][2:]


def _cover_box(extent: tuple[float, float], size: Size) -> Box:
    """The largest box of the shape of ``size`` in the middle of ``extent``."""
    scale = min(extent[0] / size[0], extent[1] / size[1])
    width, height = min(size[0] * scale, extent[0]), min(size[1] * scale, extent[1])
    left, top = (extent[0] - width) / 2, (extent[1] - height) / 2
    return left, top, left + width, top + height


def _finish(
    still: Still, size: Size, box: Box, *, reducing_gap: float | None
) -> tuple[Image.Image, str | None]:
    profile = still.image.info.get("icc_profile")
    # Colours and orientation come after the resize: they cost by the pixel.
    small = resizable(still.image).resize(size, LANCZOS, box=box, reducing_gap=reducing_gap)
    small, warning = to_srgb(small, profile)
    turn = UPRIGHT.get(still.to_apply)
    return (small if turn is None else small.transpose(turn)), warning
