"""Photographs as a camera makes them: real ones, cropped, scaled, with a sensor's noise."""

from __future__ import annotations

import io
import random
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

from PIL import Image, ImageChops

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
#: Photographs of the samples with enough detail; two of them are stored sideways and say so in their EXIF.
SOURCES = ("dandelion.jpg", "dune.jpg", "osprey.jpg", "otters.jpg", "tea-hills.jpg", "wren.jpg")
Size = tuple[int, int]
SIZE: Size = (4000, 3000)  #: 12 megapixels
BITS_A_PIXEL = 2.0
NOISE = 5.0  #: standard deviation in the luminance, of 255; scaling up has smoothed away the sensor's own
QUALITIES = range(84, 97)


def make(folder: Path, count: int, *, size: Size = SIZE, processes: int = 2) -> list[Path]:
    """Write ``count`` JPEGs of ``size`` into ``folder``, each different, the same each time."""
    folder.mkdir(parents=True)
    with ProcessPoolExecutor(processes) as pool:
        return list(pool.map(partial(_make_one, folder, size), range(count)))


def _make_one(folder: Path, size: Size, number: int) -> Path:
    dice = random.Random(number)
    with Image.open(SAMPLES / SOURCES[number % len(SOURCES)]) as source:
        kept: dict[str, bytes] = {
            name: source.info[name] for name in ("exif", "icc_profile") if name in source.info
        }
        picture = source.convert("RGB").resize(
            size, Image.Resampling.BICUBIC, box=_crop(source.size, size, dice)
        )
    if dice.random() < 0.5:  # noqa: PLR2004 - a coin
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    noise = ImageChops.offset(_noise(size), dice.randrange(size[0]), dice.randrange(size[1]))
    picture = ImageChops.add(picture, Image.merge("RGB", (noise, noise, noise)), offset=-128)
    path = folder / f"photograph-{number:04}.jpg"
    path.write_bytes(_encode(picture, kept))
    return path


def _crop(of: Size, shape: Size, dice: random.Random) -> tuple[float, float, float, float]:
    """A box of ``shape`` somewhere in a picture of the size ``of``, at least four fifths of what fits."""
    scale = min(of[0] / shape[0], of[1] / shape[1]) * dice.uniform(0.8, 1.0)
    width, height = shape[0] * scale, shape[1] * scale
    left, top = dice.uniform(0, of[0] - width), dice.uniform(0, of[1] - height)
    return left, top, left + width, top + height


@cache
def _noise(size: Size) -> Image.Image:
    return Image.effect_noise(size, NOISE)


def _encode(picture: Image.Image, kept: dict[str, bytes]) -> bytes:
    """The best quality whose file stays within BITS_A_PIXEL, by bisection."""
    low, high = QUALITIES.start, QUALITIES.stop
    best = _jpeg(picture, low, kept)
    while high - low > 1:
        middle = (low + high) // 2
        data = _jpeg(picture, middle, kept)
        if len(data) * 8 <= BITS_A_PIXEL * picture.width * picture.height:
            low, best = middle, data
        else:
            high = middle
    return best


def _jpeg(picture: Image.Image, quality: int, kept: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, **kept)
    return buffer.getvalue()
