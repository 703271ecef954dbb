"""PDQ: 256 bits of what a picture shows, few of which change when a copy is scaled, compressed or tinted.

Meta's algorithm ("The TMK+PDQF Video-Hashing Algorithm and the PDQ Image-Hashing Algorithm", 2019):
luminance, two passes of a box filter in each direction, 64 x 64 samples, the 16 x 16 lowest frequencies of
their cosine transform, and for each of them whether it lies above the median. Written out in NumPy because
the package pdqhash has no wheel for Linux. All before the median is linear, so that filters and sampling are
weighted sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.media.colour import on_white

#: Pixels on the longest side of what is hashed. One size for all: hashes of two sizes differ by some bits.
LONGEST_SIDE = 512
#: A picture of lower quality has too little in it to be told from others: sky, black frames, a letterbox.
WORTH_COMPARING = 50

_SAMPLES, _WAVES = 64, 16
_SMALLEST_SIDE = 5
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
_Floats = NDArray[np.float32]
_Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class PdqHash:
    """One picture's hash."""

    bits: bytes  #: 32, the frequency of row r and column c is bit 16 r + c, the least significant being bit 0
    quality: int  #: 0 to 100: how much there is to tell it by

    def hex(self) -> str:
        """64 digits, as other implementations of PDQ write it."""
        return self.bits.hex()


def pdq(image: Image.Image) -> PdqHash:
    """The hash of ``image``, upright, in sRGB, no side above LONGEST_SIDE pixels; its alpha is put on white.

    A picture with a side below 5 pixels has no bits set and quality 0.
    """
    if min(image.size) < _SMALLEST_SIDE:
        return PdqHash(bytes(_WAVES * _WAVES // 8), 0)
    samples = _samples(_luminance(image))
    waves = _cosines() @ samples @ _cosines().T
    median = np.partition(waves, waves.size // 2 - 1, axis=None)[waves.size // 2 - 1]
    return PdqHash(np.packbits((waves > median).ravel()[::-1]).tobytes(), _quality(samples))


def _luminance(image: Image.Image) -> _Floats:
    if image.mode == "L":
        return np.asarray(image, dtype=np.float32)
    luminance: _Floats = np.asarray(on_white(image).convert("RGB"), dtype=np.float32) @ _LUMINANCE
    return luminance


def _samples(luminance: _Floats) -> _Floats:
    """64 x 64 values of the blurred picture, at the middles of as many tiles of it."""
    rows, columns = (_taps(side) for side in luminance.shape)
    blurred = np.einsum("rtc,rt->rc", luminance[rows.places], rows.shares)
    samples: _Floats = np.einsum("rct,ct->rc", blurred[:, columns.places], columns.shares)
    return samples


@dataclass(frozen=True, slots=True)
class _Taps:
    """What one side is blurred and sampled by: for each of 64 samples some pixels, and the share of each."""

    places: _Places
    shares: _Floats


@lru_cache(maxsize=LONGEST_SIDE)
def _taps(side: int) -> _Taps:
    """A box filter, cut off at the edges, applied twice and then taken at the middles of 64 tiles."""
    window = (side + 2 * _SAMPLES - 1) // (2 * _SAMPLES)
    after = (window + 2) // 2  # the window is [place - before, place + after)
    before = window - after
    middle = ((np.arange(_SAMPLES) + 0.5) * side / _SAMPLES).astype(np.intp)

    def share(place: _Places) -> NDArray[np.float64]:
        """Of each pixel in the window about ``place``; 0 where ``place`` is none."""
        inside = (place >= 0) & (place < side)
        pixels = np.minimum(place + after, side) - np.maximum(place - before, 0)
        return np.where(inside, 1 / np.maximum(1, pixels), 0)

    shares = np.zeros((_SAMPLES, 2 * window - 1))
    for first in range(window):
        through = middle - before + first
        for second in range(window):
            reached = through - before + second
            inside = (reached >= 0) & (reached < side)
            shares[:, first + second] += inside * share(through) * share(middle)
    places = middle[:, None] + np.arange(2 * window - 1) - 2 * before
    return _Taps(np.clip(places, 0, side - 1), shares.astype(np.float32))


@cache
def _cosines() -> _Floats:
    """The rows 1 to 16 of the 64-point cosine transform (DCT-II)."""
    wave, place = np.arange(1, _WAVES + 1)[:, None], np.arange(_SAMPLES)
    angles = np.pi / (2 * _SAMPLES) * wave * (2 * place + 1)
    return (np.sqrt(2 / _SAMPLES) * np.cos(angles)).astype(np.float32)  # type: ignore[no-any-return]


def _quality(samples: _Floats) -> int:
    """The sum of the steps between neighbours, each in whole hundredths of the range, scaled to 100."""
    steps = sum(int(np.abs(np.trunc(np.diff(samples, axis=axis) * 100 / 255)).sum()) for axis in (0, 1))
    return min(100, steps // 90)
