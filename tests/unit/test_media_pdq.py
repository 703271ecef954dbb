"""PDQ hashes of pictures, against values that Meta's own implementation gave."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from pipeline.media.alike import THRESHOLD
from pipeline.media.pdq import LONGEST_SIDE, pdq

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
#: Of the package pdqhash 0.2.8, built from its source: pictures whose every pixel arithmetic makes.
REFERENCE = [
    ((512, 384), False, "a5a54b6d964d6cd9999b733386f31de2f3821f0ef80e01fe7ffcf0001900f700", 100),
    ((341, 512), False, "96a56d2d9a4decdf99f92331ce7371e3c7873c0ec07e3ffcfc000080fde02180", 100),
    ((512, 288), True, "2a2a542aad547a95e5a50b6d36c9f999e7330ce3f3c7fe0e007e0ffcf0000fc0", 100),
    ((64, 64), False, "00f74be1135137114ba017957e837d05ce97e017c80394d7000785df82fff7ff", 0),
    ((90, 41), False, "287085392b4285f93ba1bd4307f87f89d123df2faa8500bfaa24a85d44757777", 0),
    ((512, 7), False, "4a552d71b42ad08e9daad5342baea352e38c55ad1c735cadd6552acb62552d71", 100),
]


def waves(size: tuple[int, int], *, grey: bool = False) -> Image.Image:
    """A picture with something everywhere, the same with every version of every library."""
    width, height = size
    pixels = bytes(
        value
        for y in range(height)
        for x in range(width)
        for value in ((x * x // 60 + y * 3) % 256, (x * y // 90 + y) % 256, (y * y // 40 + x * 2) % 256)
    )
    picture = Image.frombytes("RGB", size, pixels)
    return picture.getchannel("G") if grey else picture


def distance(one: Image.Image, other: Image.Image) -> int:
    return (int.from_bytes(pdq(one).bits) ^ int.from_bytes(pdq(other).bits)).bit_count()


def photograph(name: str = "otters.jpg") -> Image.Image:
    with Image.open(SAMPLES / name) as image:
        image.draft("RGB", (1024, 1024))
        return reduced(image.convert("RGB"))


def reduced(image: Image.Image) -> Image.Image:
    return ImageOps.contain(image, (LONGEST_SIDE, LONGEST_SIDE))


def compressed(image: Image.Image, kind: str, quality: int) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, kind, quality=quality)
    return Image.open(buffer).convert("RGB")


@pytest.mark.parametrize(("size", "grey", "expected", "quality"), REFERENCE)
def test_hash_is_that_of_the_reference(
    size: tuple[int, int],
    grey: bool,  # noqa: FBT001 - a parameter of the test
    expected: str,
    quality: int,
) -> None:
    found = pdq(waves(size, grey=grey))
    assert (int(found.hex(), 16) ^ int(expected, 16)).bit_count() <= 2
    assert found.quality == quality


def test_half_of_the_bits_are_set() -> None:
    found = pdq(photograph())
    assert int.from_bytes(found.bits).bit_count() == 128
    assert (len(found.hex()), found.quality) == (64, 100)


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "smaller": lambda image: image.resize((image.width // 3, image.height // 3)),
    "jpeg": lambda image: compressed(image, "JPEG", 30),
    "webp": lambda image: compressed(image, "WEBP", 40),
    "grey": lambda image: image.convert("L"),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "cropped": lambda image: reduced(image.crop((4, 4, image.width - 4, image.height - 4))),
}


@pytest.mark.parametrize("edit", EDITS)
def test_copy_is_within_the_threshold(edit: str) -> None:
    image = photograph()
    assert distance(image, EDITS[edit](image)) <= THRESHOLD


def test_other_pictures_are_far_away() -> None:
    names = ("otters.jpg", "dune.jpg", "dandelion.jpg", "saturn.jpg")
    pictures = [photograph(name) for name in names]
    for number, one in enumerate(pictures):
        assert all(distance(one, other) > 60 for other in pictures[number + 1 :])


def test_transparent_parts_are_as_on_white() -> None:
    picture = photograph().convert("RGBA")
    hole = Image.new("L", picture.size, 255)
    hole.paste(0, (100, 50, 300, 200))
    picture.putalpha(hole)
    flat = Image.new("RGB", picture.size, "white")
    flat.paste(picture, mask=hole)
    assert distance(picture, flat) == 0


def test_plain_picture_has_no_quality() -> None:
    assert pdq(Image.new("RGB", (400, 300), "navy")).quality == 0
    assert 0 < pdq(Image.linear_gradient("L")).quality < 50


@pytest.mark.parametrize("size", [(4, 300), (300, 4), (1, 1)])
def test_sliver_has_no_bits_and_no_quality(size: tuple[int, int]) -> None:
    found = pdq(Image.new("RGB", size, "red"))
    assert (found.bits, found.quality) == (bytes(32), 0)


@pytest.mark.parametrize("size", [(5, 512), (512, 5), (64, 64), (63, 65), (700, 20)])
def test_every_shape_has_a_hash(size: tuple[int, int]) -> None:
    assert int.from_bytes(pdq(waves(size)).bits).bit_count() == 128
