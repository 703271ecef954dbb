"""Small, upright sRGB pictures out of large ones: one decode, scaled by the decoder where it can."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from pipeline.media import lanczos, streamed
from pipeline.media.colour import resizable, to_srgb
from pipeline.media.image import SIDEWAYS, UPRIGHT, Still

Size = tuple[int, int]
Small = tuple[Image.Image, str | None]  #: and a warning about its colours, or None
_GAP = 2.0  #: what is brought by plain means to no less than twice the size is as good as resampled whole


def cover(still: Still, size: Size, *, from_top: bool = False) -> Small:
    """The middle of the picture, or with ``from_top`` its upper part, filling ``size`` (width, height).

    A smaller picture is enlarged. RGB or RGBA, in sRGB, upright. Raises what ``Still.load`` raises.
    """
    return _cover(_decode(still, size), size, from_top=from_top)


def cover_and_whole(still: Still, size: Size, longest: int, *, from_top: bool = False) -> tuple[Small, Small]:
    """As ``cover``, and of the same decode the whole picture, no side above ``longest``, never enlarged."""
    decoded = _decode(still, size)
    return _cover(decoded, size, from_top=from_top), _whole(decoded, longest)


@dataclass(frozen=True, slots=True)
class _Decoded:
    still: Still
    image: Image.Image  #: in a mode that can be resampled
    extent: tuple[
        float, float
    ]  #: of the picture in it: a JPEG scaled to an eighth is rounded up to whole pixels


def _decode(still: Still, at_least: Size) -> _Decoded:
    """Decode, no smaller than ``at_least`` where the format allows."""
    target = _as_stored(still, at_least)
    image = streamed.load(still, target)
    if image is not None:
        return _Decoded(still, image, image.size)
    drafted = still.image.draft(None, target)
    still.load()
    extent = still.image.size if drafted is None else drafted[1][2:]
    return _Decoded(still, resizable(still.image), extent)


def _cover(decoded: _Decoded, size: Size, *, from_top: bool) -> Small:
    target = _as_stored(decoded.still, size)
    box = _cover_box(decoded.extent, target, from_top=from_top)
    return _finish(decoded.still, lanczos.resize(decoded.image, target, box))


def _whole(decoded: _Decoded, longest: int) -> Small:
    width, height = decoded.extent
    scale = min(1.0, longest / max(width, height))
    image, by = decoded.image, max(1, int(1 / (scale * _GAP)))
    if by > 1:
        image = image.reduce(by)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return _finish(decoded.still, lanczos.resize(image, size, (0, 0, width / by, height / by)))


def _as_stored(still: Still, size: Size) -> Size:
    """``size`` as it lies in the stored pixels, which may be turned by 90 degrees."""
    return (size[1], size[0]) if still.to_apply in SIDEWAYS else size


def _cover_box(extent: tuple[float, float], size: Size, *, from_top: bool) -> lanczos.Box:
    """The largest box of the shape of ``size`` in the middle, or at the top, of ``extent``."""
    scale = min(extent[0] / size[0], extent[1] / size[1])
    width, height = min(size[0] * scale, extent[0]), min(size[1] * scale, extent[1])
    left, top = (extent[0] - width) / 2, 0.0 if from_top else (extent[1] - height) / 2
    return left, top, left + width, top + height


def _finish(still: Still, small: Image.Image) -> Small:
    """Colours and orientation come after the resize: they cost by the pixel."""
    small, warning = to_srgb(small, still.image.info.get("icc_profile"))
    turn = UPRIGHT.get(still.to_apply)
    return (small if turn is None else small.transpose(turn)), warning
