"""Pixels: what goes in with every mode, profile and orientation comes out upright, in sRGB, on white."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageCms

from pipeline.media import pictures
from pipeline.media.image import open_still
from pipeline.media.reader import Limits
from pipeline.media.resize import cover_and_whole
from pipeline.media.sniff import sniff
from pipeline.media.variants import VARIANTS, Variant, fingerprint, make_variants
from tests.images import (
    BLUE,
    GREEN,
    RED,
    YELLOW,
    corners,
    cyan_is_grey,
    detailed,
    display_p3,
    encoded,
    linear_grey,
    oriented,
)

WHITE, BLACK, GREY = (255, 255, 255), (0, 0, 0), (128, 128, 128)
Colour = tuple[int, int, int]


def variants_of(folder: Path, data: bytes, quality: int = 95) -> tuple[list[Variant], tuple[str, ...]]:
    source = folder / "source"
    source.write_bytes(data)
    primary, warnings = pictures.primary_of(source, sniff(source).mime_type, Limits(pixels=12_000_000))
    return make_variants(primary, folder, sha256="ab", quality=quality), warnings


def pixel(path: Path, across: float, down: float) -> Colour:
    """The colour at a place given as shares of width and height."""
    with Image.open(path) as image:
        assert image.mode == "RGB"
        found = image.getpixel((int(image.width * across), int(image.height * down)))
    assert isinstance(found, tuple)
    return (int(found[0]), int(found[1]), int(found[2]))


def near(colour: Colour, tolerance: int = 4) -> object:
    return pytest.approx(colour, abs=tolerance)


def middle(folder: Path, data: bytes) -> Colour:
    """The middle of every variant, which must agree."""
    variants, _ = variants_of(folder, data)
    found = [pixel(variant.path, 0.5, 0.5) for variant in variants]
    assert all(colour == near(found[0]) for colour in found)
    return found[0]


def filled(colour: object, mode: str = "RGB", size: tuple[int, int] = (64, 36)) -> Image.Image:
    return Image.new(mode, size, colour)  # type: ignore[arg-type]  # whatever suits the mode


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_out_upright(tmp_path: Path, kind: str, orientation: int) -> None:
    variants, warning = variants_of(tmp_path, oriented(orientation, kind))
    assert warning == ()
    for variant in variants:
        found = [pixel(variant.path, x, y) for x, y in ((0.2, 0.2), (0.8, 0.2), (0.2, 0.8), (0.8, 0.8))]
        assert found == [near(RED, 8), near(GREEN, 8), near(BLUE, 8), near(YELLOW, 8)]
        with Image.open(variant.path) as image:
            assert image.size == VARIANTS[variant.name] == (variant.width, variant.height)
            assert not image.getexif()


@pytest.mark.parametrize("size", [(1, 1), (3, 4000), (4000, 3), (1280, 720), (3001, 1999), (720, 1280)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_every_shape_is_covered_from_its_middle(
    tmp_path: Path, size: tuple[int, int], orientation: int
) -> None:
    variants, _ = variants_of(tmp_path, oriented(orientation, size=size))
    for variant in variants:
        with Image.open(variant.path) as image:
            assert (image.format, image.size) == ("JPEG", VARIANTS[variant.name])


@pytest.mark.parametrize(
    ("size", "kept"), [((900, 300), "the middle third"), ((300, 900), "the middle third")]
)
def test_cover_crops_both_ends_alike(tmp_path: Path, size: tuple[int, int], kept: str) -> None:
    image = filled(RED, size=size)
    thirds = (size[0] // 3, size[1]) if size[0] > size[1] else (size[0], size[1] // 3)
    image.paste(GREEN, (0, 0, *thirds))
    image.paste(BLUE, (size[0] - thirds[0], size[1] - thirds[1], *size))
    variants, _ = variants_of(tmp_path, encoded(image, "PNG"))
    with Image.open(variants[0].path) as small:
        mirrored = small.transpose(Image.Transpose.ROTATE_180)
        assert small.getpixel((640, 360)) == near(RED)
        # What shows of both ends is equally wide.
        greens = sum(green > 100 for _, green, _ in small.get_flattened_data())  # type: ignore[misc]
        blues = sum(blue > 200 for _, _, blue in mirrored.get_flattened_data())  # type: ignore[misc]
    assert greens == pytest.approx(blues, rel=0.02)


def palette(transparent: int | None) -> bytes:
    image = filled(0, "P")
    image.putpalette([10, 200, 30, 255, 0, 0])
    return encoded(image, "PNG", **({} if transparent is None else {"transparency": transparent}))


def premultiplied_edge() -> bytes:
    image = filled((0, 255, 0, 0), "RGBA")  # green that nobody sees must not bleed into the red
    image.paste((255, 0, 0, 255), (0, 0, 64, 18))
    return encoded(image, "PNG")


CASES: dict[str, tuple[bytes, Colour]] = {
    "RGB": (encoded(filled((10, 120, 230))), (10, 120, 230)),
    "grey": (encoded(filled(77, "L")), (77, 77, 77)),
    "one bit": (encoded(filled(1, "1"), "PNG"), WHITE),
    "palette": (palette(None), (10, 200, 30)),
    "palette, transparent": (palette(0), WHITE),
    "palette, other transparent": (palette(1), (10, 200, 30)),
    "grey with a transparent value": (encoded(filled(77, "L"), "PNG", transparency=77), WHITE),
    "RGB with a transparent colour": (encoded(filled(RED), "PNG", transparency=RED), WHITE),
    "alpha, nothing seen": (encoded(filled((255, 0, 0, 0), "RGBA"), "PNG"), WHITE),
    "alpha, half": (encoded(filled((255, 0, 0, 128), "RGBA"), "PNG"), (255, 127, 127)),
    "alpha, WebP": (encoded(filled((0, 0, 0, 0), "RGBA"), "WEBP", lossless=True), WHITE),
    "grey and alpha": (encoded(filled((0, 128), "LA"), "PNG"), (127, 127, 127)),
    "16 bits": (encoded(filled(32896, "I;16"), "PNG"), GREY),
    "16 bits, TIFF": (encoded(filled(32896, "I;16"), "TIFF"), GREY),
    "32 bits": (encoded(filled(32896, "I"), "TIFF"), GREY),
    "floats": (encoded(filled(0.502, "F"), "TIFF"), GREY),
    "floats beyond one": (encoded(filled(128.0, "F"), "TIFF"), GREY),
    "black floats": (encoded(filled(0.0, "F"), "TIFF"), BLACK),
    "CMYK red": (encoded(filled((0, 255, 255, 0), "CMYK")), RED),
    "CMYK white": (encoded(filled((0, 0, 0, 0), "CMYK")), WHITE),
    "CMYK, TIFF": (encoded(filled((0, 0, 0, 255), "CMYK"), "TIFF"), BLACK),
    "CMYK with a profile": (
        encoded(filled((255, 0, 0, 0), "CMYK"), icc_profile=cyan_is_grey()),
        (119, 119, 119),
    ),
    "grey with a profile": (encoded(filled(55, "L"), icc_profile=linear_grey()), (128, 128, 128)),
    "Lab": (encoded(filled((128, 128, 128), "LAB"), "TIFF"), (119, 119, 119)),
    "animation": (
        encoded(filled(BLUE), "GIF", save_all=True, append_images=[filled(RED)], duration=100),
        BLUE,
    ),
    "animated PNG": (encoded(filled(BLUE), "PNG", save_all=True, append_images=[filled(RED)]), BLUE),
    "pages": (encoded(filled(BLUE), "TIFF", save_all=True, append_images=[filled(RED)]), BLUE),
    "GIF, transparent": (encoded(filled(0, "P"), "GIF", transparency=0), WHITE),
}


@pytest.mark.parametrize("case", CASES)
def test_every_mode_comes_out_as_it_is_seen(tmp_path: Path, case: str) -> None:
    data, expected = CASES[case]
    assert middle(tmp_path, data) == near(expected)


def test_hidden_colours_do_not_bleed_through_alpha(tmp_path: Path) -> None:
    variants, _ = variants_of(tmp_path, premultiplied_edge())
    with Image.open(variants[0].path) as image:
        edge = [image.getpixel((640, y)) for y in range(image.height)]
    assert all(green <= red + 12 for red, green, _ in edge)  # type: ignore[misc]


def display_p3_in_srgb(colour: Colour) -> Colour:
    """The conversion by its definition: gamma 2.2, D50 primaries, sRGB's curve."""
    light = [(value / 255) ** 2.2 for value in colour]
    to_xyz = ((0.5151, 0.2919, 0.1572), (0.2412, 0.6922, 0.0666), (-0.0011, 0.0419, 0.7841))
    to_rgb = ((3.1339, -1.6169, -0.4906), (-0.9788, 1.9161, 0.0335), (0.0719, -0.2290, 1.4052))
    for matrix in (to_xyz, to_rgb):
        light = [sum(factor * value for factor, value in zip(row, light, strict=True)) for row in matrix]
    red, green, blue = (
        round(255 * (12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055))
        for value in light
    )
    return red, green, blue


@pytest.mark.parametrize("colour", [(200, 120, 100), (90, 160, 110), (128, 128, 128)])
def test_display_p3_is_converted_to_srgb(tmp_path: Path, colour: Colour) -> None:
    expected = display_p3_in_srgb(colour)
    assert middle(tmp_path, encoded(filled(colour), "PNG", icc_profile=display_p3())) == near(expected)
    assert (expected == near(colour)) == (len(set(colour)) == 1)  # only greys are alike in both


def test_alpha_survives_the_conversion_of_its_colours(tmp_path: Path) -> None:
    half = encoded(filled((200, 120, 100, 0), "RGBA"), "PNG", icc_profile=display_p3())
    assert middle(tmp_path, half) == WHITE


def test_srgb_with_its_profile_comes_out_as_without(tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = detailed((640, 360))
    found = []
    for profile in (srgb, None):
        variants, _ = variants_of(tmp_path, encoded(image, icc_profile=profile))
        found.append(variants[0].path.read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("profile", [b"garbage", cyan_is_grey(), display_p3()[:200]])
def test_profile_that_does_not_fit_is_passed_over_and_said(tmp_path: Path, profile: bytes) -> None:
    _, warning = variants_of(tmp_path, encoded(filled((10, 120, 230)), icc_profile=profile))
    assert warning is not None
    assert pixel(tmp_path / "primary.jpg", 0.5, 0.5) == near((10, 120, 230))


@pytest.mark.parametrize("profile", [None, display_p3()])
def test_variant_carries_nothing_of_its_source_but_pixels(tmp_path: Path, profile: bytes | None) -> None:
    data = encoded(corners(), comment=b"secret", dpi=(300, 300), icc_profile=profile)
    variants, _ = variants_of(tmp_path, data)
    for variant in variants:
        with Image.open(variant.path) as image:
            assert not {"comment", "dpi", "icc_profile", "exif"} & image.info.keys()
            assert "progressive" not in image.info
        assert variant.size == variant.path.stat().st_size


def test_quality_decides_the_size(tmp_path: Path) -> None:
    data = encoded(detailed((1280, 720)))
    fine, coarse = (variants_of(tmp_path, data, quality)[0][0].size for quality in (95, 30))
    assert coarse < fine / 2


def test_fingerprint_changes_with_whatever_makes_the_picture() -> None:
    marks = {
        fingerprint(source, name, quality)
        for source in ("aa", "bb")
        for name in VARIANTS
        for quality in (85, 86)
    }
    assert len(marks) == 2 * len(VARIANTS) * 2
    assert all(len(mark) == 16 for mark in marks)
    assert fingerprint("aa", "small", 85) == fingerprint("aa", "small", 85)


def test_scaled_decoding_is_as_good_as_whole(tmp_path: Path) -> None:
    image = detailed((4000, 3000))
    variants, _ = variants_of(tmp_path, encoded(image, quality=95))
    reference = image.resize((1280, 720), Image.Resampling.LANCZOS, box=(0, 375, 4000, 2625))
    with Image.open(variants[0].path) as small:
        pairs = zip(small.tobytes(), reference.tobytes(), strict=True)
        error = sum((one - other) ** 2 for one, other in pairs) / (1280 * 720 * 3)
    assert error < 255**2 / 10**3.2  # better than 32 dB


@pytest.mark.parametrize(
    ("size", "expected"), [((4000, 1000), (32, 8)), ((10, 5), (10, 5)), ((1, 5000), (1, 32))]
)
def test_whole_keeps_the_shape_and_never_enlarges(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    path = tmp_path / "source"
    path.write_bytes(encoded(corners(size)))
    with open_still(path, pixel_limit=12_000_000) as still:
        _, (whole, _) = cover_and_whole(still, (16, 9), 32)
        assert whole.size == expected
