"""One decode for all who want a picture, and the faster ways to it beside the plain ones."""

from __future__ import annotations

import hashlib
import math
from functools import cache
from pathlib import Path
from uuid import uuid4

import pytest
from PIL import Image, ImageChops, ImageStat

from pipeline.media import lanczos, pictures, streamed
from pipeline.media.colour import on_white
from pipeline.media.image import open_still
from pipeline.media.kinds import Kind
from pipeline.media.pdq import pdq
from pipeline.media.reader import Limits
from pipeline.stages import STAGES
from pipeline.stages.base import Asset, Context, LocalFile
from pipeline.stages.metadata import MetadataValue
from pipeline.workflows import StageName
from tests.images import detailed, encoded
from tests.kinds import SAMPLES

LIMITS = Limits()


def context(folder: Path, data: bytes, primary: Path | None) -> Context:
    path = folder / "file"
    path.write_bytes(data)
    return Context(LocalFile(path, len(data), hashlib.sha256(data).hexdigest()), folder, primary)


def asset(mime_type: str = "image/jpeg", kind: Kind = Kind.IMAGE) -> Asset:
    return Asset(media_item_id=uuid4(), key="uploads/a", kind=kind, mime_type=mime_type)


def likeness(one: Image.Image, other: Image.Image) -> float:
    """The peak signal to noise of two pictures, in decibels."""
    assert (one.mode, one.size) == (other.mode, other.size)
    squares = ImageStat.Stat(ImageChops.difference(one, other)).sum2
    count = one.width * one.height * len(squares)
    return 10 * math.log10(255**2 / max(sum(squares) / count, 1e-9))


@cache
def photograph() -> Image.Image:
    with Image.open(SAMPLES / "wren.jpg") as image:
        return image.convert("RGB").resize((800, 450))


@pytest.mark.skipif(lanczos.cykooz_resizer is None, reason="no SIMD resampler on this machine")
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "CMYK"])
@pytest.mark.parametrize("box", [None, (0.0, 31.5, 800.0, 426.5), (103.25, 0.0, 696.0, 450.0)])
@pytest.mark.parametrize("size", [(128, 72), (90, 160), (640, 360)])
def test_simd_resampler_and_pillow_make_the_same_picture(
    mode: str, box: lanczos.Box | None, size: tuple[int, int]
) -> None:
    """They round at other moments: between the two passes, and where a sharp edge swings over white."""
    image = photograph().convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.radial_gradient("L").resize(image.size))
    fast, plain = lanczos.by_simd(image, size, box), lanczos.by_pillow(image, size, box)
    # What is all but transparent has hardly a colour to compare.
    assert likeness(on_white(fast), on_white(plain)) > 48


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_libvips_reads_what_pillow_reads(tmp_path: Path, kind: str, mode: str) -> None:
    image = detailed((400, 300)).convert(mode)
    path = tmp_path / "file"
    path.write_bytes(encoded(image, kind, lossless=True))
    with open_still(path, pixel_limit=LIMITS.pixels) as still:
        found = streamed.load(still, (400, 300))
        assert found is not None
        still.load()
        assert found.tobytes() == still.image.tobytes()


def test_large_png_is_reduced_while_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(encoded(Image.new("RGB", (4000, 3000), "teal"), "PNG"))
    with open_still(path, pixel_limit=LIMITS.pixels) as still:
        found = streamed.load(still, (320, 180))
    assert found is not None
    assert 640 <= found.width < 1000


@pytest.mark.parametrize(
    "image", [Image.new("P", (9, 9)), Image.new("I;16", (9, 9)), Image.new("LA", (9, 9))]
)
def test_what_is_not_plain_is_left_to_pillow(tmp_path: Path, image: Image.Image) -> None:
    path = tmp_path / "file"
    path.write_bytes(encoded(image, "PNG"))
    with open_still(path, pixel_limit=LIMITS.pixels) as still:
        assert streamed.load(still, (9, 9)) is None


def test_cut_file_is_left_to_pillow_which_says_so(tmp_path: Path) -> None:
    path = tmp_path / "file"
    data = encoded(detailed((400, 300)), "PNG")
    path.write_bytes(data[: len(data) // 2])
    with open_still(path, pixel_limit=LIMITS.pixels) as still:
        assert streamed.load(still, (400, 300)) is None


def test_thumbnails_are_made_of_the_picture_that_metadata_has_left(tmp_path: Path) -> None:
    ctx = context(tmp_path, encoded(detailed((1600, 900))), tmp_path / "primary")
    STAGES[StageName.METADATA].run(asset(), ctx)
    left = STAGES[StageName.THUMBNAILS].run(asset(), ctx).renditions
    bodies = [one.path.read_bytes() for one in left]
    assert not (tmp_path / "primary").exists()
    alone = STAGES[StageName.THUMBNAILS].run(asset(), context(tmp_path, encoded(detailed((1600, 900))), None))
    assert bodies == [one.path.read_bytes() for one in alone.renditions]
    Image.new("RGB", pictures.PRIMARY, "red").save(tmp_path / "primary", "PPM")
    STAGES[StageName.THUMBNAILS].run(asset(), ctx)
    with Image.open(tmp_path / "small.jpg") as small:
        assert small.getpixel((9, 9)) == pytest.approx((254, 0, 0), abs=2)


@pytest.mark.parametrize(
    "left", [b"", b"P6\n9 9\n255\n" + bytes(9 * 9 * 3), b"P6\n1280 720\n255\n" + bytes(99)]
)
def test_picture_that_was_not_left_whole_is_made_again(tmp_path: Path, left: bytes) -> None:
    ctx = context(tmp_path, encoded(Image.new("RGB", (1280, 720), "lime")), tmp_path / "primary")
    (tmp_path / "primary").write_bytes(left)
    STAGES[StageName.THUMBNAILS].run(asset(), ctx)
    with Image.open(tmp_path / "small.jpg") as small:
        assert small.getpixel((9, 9)) == pytest.approx((0, 255, 0), abs=2)


def test_only_what_shows_something_has_a_perceptual_hash(tmp_path: Path) -> None:
    data = (SAMPLES / "wren.jpg").read_bytes()
    value = STAGES[StageName.METADATA].run(asset(), context(tmp_path, data, None)).value
    assert isinstance(value, MetadataValue)
    assert value.phash is not None
    assert value.phash_quality is not None
    with Image.open(SAMPLES / "wren.jpg") as image:
        image.thumbnail((512, 512))
        there = pdq(image.convert("RGB")).bits
    apart = int.from_bytes(bytes.fromhex(value.phash)) ^ int.from_bytes(there)
    assert apart.bit_count() <= 12
    text = context(tmp_path, b"Slate 41, take 3.\n", None)
    value = STAGES[StageName.METADATA].run(asset("text/plain", Kind.DOCUMENT), text).value
    assert isinstance(value, MetadataValue)
    assert (value.phash, value.text.strip()) == (None, "Slate 41, take 3.")
