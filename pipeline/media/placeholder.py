"""ThumbHash: some 25 bytes from which a client paints a blurred placeholder.

Evan Wallace's encoder, written out here because the package ``thumbhash`` fails on alpha. The bytes hold
averages and scales of luminance, yellow against blue, and red against green (and of alpha), then the low
frequencies of each, four bits apiece.
"""

from __future__ import annotations

import math
from base64 import b64encode
from dataclasses import dataclass

from PIL import Image

#: The hash keeps 7 x 7 frequencies at most; from 32 pixels it comes out as from 100, ten times as fast.
LONGEST_SIDE = 32


@dataclass(frozen=True, slots=True)
class _Channel:
    """The low frequencies of one channel: its average, the others as shares of ``scale`` about 0.5."""

    average: float
    scale: float
    waves: list[float]


def thumbhash(image: Image.Image) -> str:
    """The ThumbHash of ``image`` (upright sRGB, no side above 100 pixels) in base64."""
    width, height = image.size
    luminance, yellow_blue, red_green, alpha = _planes(image)
    has_alpha = min(alpha) < 1
    longest, limit = max(width, height), 5 if has_alpha else 7
    across, down = (max(1, round(limit * side / longest)) for side in (width, height))
    light = _encode(luminance, width, height, max(3, across), max(3, down))
    colours = [_encode(plane, width, height, 3, 3) for plane in (yellow_blue, red_green)]
    landscape = width > height
    head = round(63 * light.average) | round(31 * light.scale) << 18 | has_alpha << 23
    head |= sum(round(31.5 + 31.5 * colour.average) << 6 * place for place, colour in enumerate(colours, 1))
    tail = (down if landscape else across) | landscape << 15
    tail |= sum(round(63 * colour.scale) << 3 + 6 * place for place, colour in enumerate(colours))
    made = head.to_bytes(3, "little") + tail.to_bytes(2, "little")
    channels = [light, *colours]
    if has_alpha:
        opacity = _encode(alpha, width, height, 5, 5)
        made += bytes([round(15 * opacity.average) | round(15 * opacity.scale) << 4])
        channels.append(opacity)
    nibbles = [round(15 * wave) for channel in channels for wave in channel.waves]
    nibbles += [0] * (len(nibbles) % 2)
    made += bytes(low | high << 4 for low, high in zip(nibbles[::2], nibbles[1::2], strict=True))
    return b64encode(made).decode()


def _planes(image: Image.Image) -> tuple[list[float], list[float], list[float], list[float]]:
    """Luminance, yellow against blue, red against green and alpha, 0 to 1, over the average colour."""
    data = image.convert("RGBA").tobytes()
    alpha = [value / 255 for value in data[3::4]]
    seen = sum(alpha) or 1.0
    planes = []
    for offset in range(3):
        values = [value / 255 for value in data[offset::4]]
        average = sum(value * share for value, share in zip(values, alpha, strict=True)) / seen
        planes.append(
            [average + (value - average) * share for value, share in zip(values, alpha, strict=True)]
        )
    rgb = list(zip(*planes, strict=True))
    return (
        [(red + green + blue) / 3 for red, green, blue in rgb],
        [(red + green) / 2 - blue for red, green, blue in rgb],
        [red - green for red, green, _ in rgb],
        alpha,
    )


def _encode(plane: list[float], width: int, height: int, across: int, down: int) -> _Channel:
    """The triangle of the lowest ``across`` by ``down`` frequencies of ``plane`` (a cosine transform)."""
    rows = [plane[start : start + width] for start in range(0, width * height, width)]
    waves = []
    for wave_down in range(down):
        cosines = _cosines(height, wave_down)
        column = [
            sum(value * cosine for value, cosine in zip(values, cosines, strict=True))
            for values in zip(*rows, strict=True)
        ]
        for wave_across in range(math.ceil(across * (down - wave_down) / down)):
            total = sum(
                value * cosine for value, cosine in zip(column, _cosines(width, wave_across), strict=True)
            )
            waves.append(total / (width * height))
    average, *others = waves
    scale = max(map(abs, others), default=0.0)
    return _Channel(average, scale, [0.5 + 0.5 / scale * wave for wave in others] if scale else others)


def _cosines(length: int, wave: int) -> list[float]:
    return [math.cos(math.pi / length * wave * (place + 0.5)) for place in range(length)]
