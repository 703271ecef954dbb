"""From any mode and profile that a picture may have to plain sRGB."""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO

from PIL import Image, ImageChops, ImageCms

WHITE = (255, 255, 255)
_ALPHA = frozenset({"RGBA", "LA"})
_LARGEST_PROFILE = 4_000_000  # bytes; those of printing presses have up to three million
_LONGEST_NAME = 200
_NO_VISIBLE_CHANGE = 2  # of 255: what rounding in two profiles of one colour space may differ by


def resizable(image: Image.Image) -> Image.Image:
    """``image`` in a mode that can be resampled: palettes, bits and transparent colours are resolved."""
    wide = image.mode.startswith(("I", "F"))  # a transparent colour of a 16-bit picture cannot be resolved
    if image.mode == "P" or ("transparency" in image.info and not wide):
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    return image.convert("L") if image.mode == "1" else image


def to_srgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, str | None]:
    """``image`` (resizable) as RGB, or RGBA where it has alpha, in sRGB; and a warning, or None.

    A profile that cannot be used is passed over, as browsers do. CMYK without one is converted by the plain
    formula.
    """
    alpha = image.getchannel("A") if image.mode in _ALPHA else None
    base = _eight_bit(image)
    warning = None
    try:
        transform = _transform(profile, base.mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        transform, warning = None, "The colour profile cannot be used; the picture is taken for sRGB."
    base = base.convert("RGB") if transform is None else transform.apply(base)
    if alpha is not None:
        base.putalpha(alpha)
    return base, warning


def on_white(image: Image.Image) -> Image.Image:
    """``image`` (RGB or RGBA) as RGB, its alpha composed on white."""
    if image.mode != "RGBA":
        return image
    flat = Image.new("RGB", image.size, WHITE)
    flat.paste(image, mask=image.getchannel("A"))
    return flat


def profile_name(profile: bytes | None) -> str | None:
    """What an ICC profile calls itself; None where there is none or it cannot be read."""
    try:
        name = ImageCms.getProfileDescription(_read_profile(profile)) if profile else ""
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return "".join(mark for mark in name if mark.isprintable()).strip()[:_LONGEST_NAME] or None


def _eight_bit(image: Image.Image) -> Image.Image:
    """The colour channels with 8 bits each, in a mode that a profile can describe: L, RGB, CMYK or LAB."""
    if image.mode.startswith("I;16"):
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if image.mode in {"I", "F"}:
        return image.point(lambda value: value * (255 / _white_of(image))).convert("L")
    if image.mode == "LA":
        return image.getchannel("L")
    return image if image.mode in {"L", "CMYK", "LAB"} else image.convert("RGB")


def _white_of(image: Image.Image) -> float:
    """The value that stands for white in mode I or F, which do not say: one of the usual full scales."""
    top = float(image.getextrema()[1])  # type: ignore[arg-type]  # one channel: a pair of numbers
    return next((white for white in (1.0, 255.0, 65535.0) if top <= white), top)


def _transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    if mode == "LAB":
        return _lab_transform()
    return _profile_transform(profile, mode) if profile else None


@lru_cache(maxsize=1)
def _lab_transform() -> ImageCms.ImageCmsTransform:
    return ImageCms.ImageCmsTransform(_profile_of("LAB"), _profile_of("sRGB"), "LAB", "RGB")


@lru_cache(maxsize=16)
def _profile_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from ``profile`` to sRGB; None if it changes nothing that can be seen.

    Most pictures carry sRGB itself, and applying it costs more than halving the picture. Cached: the pictures
    of a camera share a profile.
    """
    source = _read_profile(profile)
    transform = ImageCms.ImageCmsTransform(source, _profile_of("sRGB"), mode, "RGB")
    if mode == "CMYK":
        return transform
    probe = _probe(mode)
    change = ImageChops.difference(transform.apply(probe), probe.convert("RGB")).getextrema()
    return None if max(high for _, high in change) <= _NO_VISIBLE_CHANGE else transform  # type: ignore[misc]


def _read_profile(profile: bytes) -> ImageCms.ImageCmsProfile:
    """Raises OSError for what is no profile, ValueError for what is too large to be one."""
    if len(profile) > _LARGEST_PROFILE:
        raise ValueError("the profile is too large")
    return ImageCms.ImageCmsProfile(BytesIO(profile))


def _profile_of(space: str) -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(space))  # type: ignore[arg-type]  # one of Pillow's names


def _probe(mode: str) -> Image.Image:
    """A strip with every 17th step of each channel: the greys, or all of the RGB cube."""
    steps = range(0, 256, 17)
    if mode == "L":
        return Image.frombytes("L", (16, 1), bytes(steps))
    cube = bytes(value for red in steps for green in steps for blue in steps for value in (red, green, blue))
    return Image.frombytes("RGB", (16**3, 1), cube)
