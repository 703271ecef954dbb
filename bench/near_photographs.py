"""Near duplicates of real photographs: tiles as originals, ten edits of each, hashed as the stage does."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from bench.photographs import SAMPLES
from pipeline.media.alike import HASH_BYTES, THRESHOLD, WIDEST
from pipeline.media.pdq import LONGEST_SIDE, WORTH_COMPARING, pdq

SOURCES = (
    "dandelion.jpg", "dune.jpg", "hibiscus-cutout.png", "meadow.webp", "osprey.jpg", "otters.jpg",
    "saturn.jpg", "tea-hills.jpg", "wind-tree.tif", "wren.jpg", "yellow-flower-cmyk.jpg",
    "été à la mer/baie + ville.jpg",
)  # fmt: skip
LANCZOS = Image.Resampling.LANCZOS
TILE = 400  #: the least pixels of a tile's sides
MOST_TILES = 8  #: on a side
CROPS = (1, 2, 3, 5)  #: hundredths of each side
THRESHOLDS = (THRESHOLD, WIDEST)
Edit = Callable[[Image.Image, random.Random], Image.Image]
Hashes = NDArray[np.uint8]


@dataclass(frozen=True)
class Family:
    """An original and its copies, hashed."""

    source: str
    bits: dict[str, bytes]  #: by edit; ``original`` is one
    quality: int  #: of the original


@dataclass(frozen=True)
class Recall:
    """How far the copies of one edit are from their originals."""

    edit: str
    within: dict[int, float]  #: the share of them, by threshold
    median: float
    largest: int


@dataclass(frozen=True)
class Found:
    """How far copies and strangers are."""

    pictures: int
    plain: int  #: originals with too little in them, left out
    recall: list[Recall]  #: of each edit
    strangers: int  #: pairs of pictures from different originals
    false_positives: dict[int, int]  #: of these pairs, by threshold
    nearest_stranger: int


def _jpeg(image: Image.Image, kind: str, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return Image.open(buffer).convert("RGB")


def _cropped(image: Image.Image, dice: random.Random) -> Image.Image:
    """Two to five hundredths less of the width and of the height, from whichever sides."""
    width, height = (round(side * dice.uniform(0.95, 0.98)) for side in image.size)
    left, top = dice.randint(0, image.width - width), dice.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def _by_table(image: Image.Image, change: Callable[[int, int], float]) -> Image.Image:
    table = [min(255, max(0, round(change(band, value)))) for band in range(3) for value in range(256)]
    return image.point(table)


EDITS: dict[str, Edit] = {
    "resized to 40 %": lambda image, _: image.resize((image.width * 2 // 5, image.height * 2 // 5), LANCZOS),
    "JPEG quality 30": lambda image, _: _jpeg(image, "JPEG", 30),
    "cropped by 2 to 5 %": _cropped,
    "brightness x 1.25": lambda image, _: ImageEnhance.Brightness(image).enhance(1.25),
    "colours shifted": lambda image, _: _by_table(image, lambda band, value: value * (1.15, 1.0, 0.8)[band]),
    "gamma 0.7": lambda image, _: _by_table(image, lambda _, value: 255 * (value / 255) ** 0.7),
    "grey": lambda image, _: image.convert("L").convert("RGB"),
    "blurred, radius 2": lambda image, _: image.filter(ImageFilter.GaussianBlur(2)),
    "sharpened": lambda image, _: image.filter(ImageFilter.UnsharpMask(2, 150, 2)),
    "WebP quality 50": lambda image, _: _jpeg(image, "WEBP", 50),
}


def families(processes: int = 2) -> list[Family]:
    """Every tile of every source, with its copies."""
    with ProcessPoolExecutor(processes) as pool:
        return [family for made in pool.map(_families_of, SOURCES) for family in made]


def _families_of(name: str) -> list[Family]:
    dice = random.Random(name)
    made = []
    for tile in tiles(name):
        pictures = {"original": tile} | {edit: change(tile, dice) for edit, change in EDITS.items()}
        found = {edit: pdq(_reduced(picture)) for edit, picture in pictures.items()}
        bits = {edit: one.bits for edit, one in found.items()}
        made.append(Family(name, bits, found["original"].quality))
    return made


def tiles(name: str) -> Iterator[Image.Image]:
    """Parts of a photograph that do not overlap."""
    with Image.open(SAMPLES / name) as source:
        upright = ImageOps.exif_transpose(source).convert("RGB")
    across, down = (min(MOST_TILES, side // TILE) for side in upright.size)
    width, height = upright.width // across, upright.height // down
    for row in range(down):
        for column in range(across):
            left, top = column * width, row * height
            yield upright.crop((left, top, left + width, top + height))


def _reduced(image: Image.Image) -> Image.Image:
    """As the metadata stage hashes it: never enlarged."""
    scale = min(1.0, LONGEST_SIDE / max(image.size))
    return image.resize((round(image.width * scale), round(image.height * scale)), LANCZOS, reducing_gap=2.0)


def judge(made: list[Family]) -> Found:
    """Compare every picture with every other."""
    kept = [family for family in made if family.quality >= WORTH_COMPARING]
    recall = []
    for edit in EDITS:
        apart = [_distance(family.bits["original"], family.bits[edit]) for family in kept]
        recall.append(_recall(edit, apart))
    hashes = as_array([bits for family in kept for bits in family.bits.values()])
    owner = np.repeat(np.arange(len(kept)), len(EDITS) + 1)
    strangers, false, nearest = 0, dict.fromkeys(THRESHOLDS, 0), 8 * HASH_BYTES
    for place in range(len(hashes)):
        others = distances(hashes[place + 1 :], hashes[place])[owner[place + 1 :] != owner[place]]
        strangers += len(others)
        false = {most: count + int((others <= most).sum()) for most, count in false.items()}
        nearest = min(nearest, int(others.min(initial=nearest)))
    return Found(len(hashes), len(made) - len(kept), recall, strangers, false, nearest)


def crops() -> list[Recall]:
    """How far copies are of which so many hundredths of each side were taken, evenly or from one corner."""
    apart: dict[str, list[int]] = {}
    for tile in (tile for name in SOURCES for tile in tiles(name)):
        original = pdq(_reduced(tile))
        for percent in CROPS if original.quality >= WORTH_COMPARING else ():
            width, height = (round(side * (1 - percent / 100)) for side in tile.size)
            for how, share in (("evenly", 2), ("from one corner", 1)):
                left, top = (tile.width - width) // share, (tile.height - height) // share
                copy = pdq(_reduced(tile.crop((left, top, left + width, top + height))))
                apart.setdefault(f"{percent} % {how}", []).append(_distance(original.bits, copy.bits))
    return [_recall(name, distances) for name, distances in apart.items()]


def _recall(name: str, apart: list[int]) -> Recall:
    within = {most: sum(one <= most for one in apart) / len(apart) for most in THRESHOLDS}
    return Recall(name, within, float(np.median(apart)), max(apart))


def as_array(hashes: list[bytes]) -> Hashes:
    """N x 32 bytes."""
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, HASH_BYTES)


def distances(hashes: Hashes, one: Hashes) -> NDArray[np.int64]:
    """Bits by which each of ``hashes`` differs from ``one``."""
    differing = hashes.view(np.uint64) ^ np.ascontiguousarray(one).view(np.uint64)
    return np.bitwise_count(differing).sum(axis=1, dtype=np.int64)


def _distance(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()
