"""A frame of video as a picture: scaled, in square pixels, in sRGB whatever its range of light."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation
from av.video.stream import VideoStream
from PIL import Image

from pipeline.media.image import SIDEWAYS

Size = tuple[int, int]

PQ, HLG, BT2020 = 16, 18, 9  # ITU-T H.273, tables 3 and 2: transfers, primaries
#: EXIF's orientation for the signs of a, b, c, d in a display matrix (ISO/IEC 14496-12, section 6.2.2)
_ORIENTATIONS = {
    (1, 0, 0, 1): 1,
    (-1, 0, 0, 1): 2,
    (-1, 0, 0, -1): 3,
    (1, 0, 0, -1): 4,
    (0, 1, 1, 0): 5,
    (0, 1, -1, 0): 6,
    (0, -1, -1, 0): 7,
    (0, -1, 1, 0): 8,
}
_UNSPECIFIED = 2  # of H.273's matrices
_HD = 720  # lines from which a video without a word of its colours has those of BT.709
_OBLONG = 8.0  # the most that a pixel is wider or narrower than high
_WHITE = 203.0  # nits of a white sheet in HDR (ITU-R BT.2408)
_KNEE = 0.7  # of white: what is brighter is pressed together
_TO_709 = np.array(  # ITU-R BT.2087, linear light
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], dtype=np.float32
)
_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def orientation_of(frame: VideoFrame) -> int:
    """How the frame is to be turned, as EXIF counts; 1 for a matrix that is no turn or flip."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None or len(matrix := bytes(data)) < 36:  # noqa: PLR2004 - nine numbers
        return 1
    a, b, _u, c, d = struct.unpack("=5i", matrix[:20])
    largest = max(abs(a), abs(b), abs(c), abs(d), 1)
    signs = tuple(round(value / largest) for value in (a, b, c, d))
    return _ORIENTATIONS.get(signs, 1)


def pixel_aspect(stream: VideoStream) -> float:
    """How much wider than high a pixel is; 1 for what cannot be."""
    said = float(stream.sample_aspect_ratio or 1)
    return said if 1 / _OBLONG <= said <= _OBLONG else 1.0


def picture_of(frame: VideoFrame, aspect: float, at_least: Size) -> Image.Image:
    """``frame`` in square pixels and sRGB, not turned, no larger than it takes to cover ``at_least`` upright.

    RGB, or RGBA where the video has alpha.
    """
    size = _scaled(frame, aspect, at_least)
    if frame.color_trc in {PQ, HLG} or frame.color_primaries == BT2020:
        return _tone_mapped(_converted(frame, size, "rgb48le"), frame.color_trc)
    alpha = any(part.is_alpha for part in frame.format.components)
    return Image.fromarray(_converted(frame, size, "rgba" if alpha else "rgb24"))


def is_black(frame: VideoFrame) -> tuple[bool, float]:
    """Whether there is next to nothing to be seen, and the mean brightness, 0 to 255.

    The rule is that of FFmpeg's blackdetect: 98 of 100 pixels below a tenth of white.
    """
    small = frame.reformat(32, 18, "rgb24", interpolation=Interpolation.AREA, threads=1).to_ndarray()
    light = small.mean(axis=2)
    return bool((light < 25.5).mean() >= 0.98), float(light.mean())  # noqa: PLR2004 - the rule's


def _scaled(frame: VideoFrame, aspect: float, at_least: Size) -> Size:
    width, height = frame.width * aspect, float(frame.height)
    wanted = at_least[::-1] if orientation_of(frame) in SIDEWAYS else at_least
    scale = min(1.0, max(wanted[0] / width, wanted[1] / height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _converted(frame: VideoFrame, size: Size, form: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    unsaid = frame.colorspace == _UNSPECIFIED and not frame.format.is_rgb
    matrix = (Colorspace.ITU709 if frame.height >= _HD else Colorspace.ITU601) if unsaid else None
    converted = frame.reformat(*size, form, src_colorspace=matrix, interpolation=_SCALING, threads=1)
    return converted.to_ndarray()  # type: ignore[return-value]  # of the form that was asked for


def _tone_mapped(pixels: np.ndarray, transfer: int) -> Image.Image:
    """BT.2020 light as sRGB: to BT.709's primaries, the highlights pressed into what a screen shows."""
    light = _light(transfer)[pixels] @ _TO_709.T
    peak = light.max(axis=2, keepdims=True).clip(1e-6)
    above = (peak - _KNEE).clip(0) / (1 - _KNEE)
    light *= np.where(peak > _KNEE, (_KNEE + (1 - _KNEE) * (1 - np.exp(-above))) / peak, 1)
    codes = (light.clip(0, 1) * 4095).astype(np.uint16)
    return Image.fromarray(_srgb()[codes])


@lru_cache(maxsize=3)
def _light(transfer: int) -> np.ndarray:
    """Light for each 16-bit code, 1 for white (ITU-R BT.2100, tables 4 and 5)."""
    code = np.linspace(0, 1, 65536)
    if transfer == PQ:
        root = code ** (1 / 78.84375)
        nits = 10_000 * ((root - 0.8359375).clip(0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
        return (nits / _WHITE).astype(np.float32)
    if transfer == HLG:
        bright = (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12
        scene = np.where(code <= 0.5, code**2 / 3, bright)  # noqa: PLR2004 - the standard's
        return (1000 * scene**1.2 / _WHITE).astype(np.float32)  # a screen of 1,000 nits
    return (code**2.4).astype(np.float32)


@lru_cache(maxsize=1)
def _srgb() -> np.ndarray:
    """SRGB's code for each 4095th of light (IEC 61966-2-1)."""
    light = np.linspace(0, 1, 4096)
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)  # noqa: PLR2004
    return np.round(255 * code).astype(np.uint8)
