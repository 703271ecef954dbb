from __future__ import annotations

from base64 import b64decode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from thumbhash import rgba_to_thumb_hash

from pipeline.media.placeholder import thumbhash
from tests.images import GREEN, RED, corners, detailed

# Colours vary with both sides, so that no frequency is zero but for rounding.
COLOURED = Image.merge("RGB", (detailed((64, 48)).getchannel(0), *corners((64, 48)).split()[1:]))


@pytest.mark.parametrize("size", [(32, 24), (24, 32), (32, 32), (32, 3), (5, 32), (100, 40)])
def test_opaque_hash_is_the_other_implementations(size: tuple[int, int]) -> None:
    image = COLOURED.resize(size)
    other = bytes(rgba_to_thumb_hash(*size, list(image.convert("RGBA").tobytes())))
    ours = b64decode(thumbhash(image))
    assert ours[:5] == other[:5]
    # The sums are made in another order: a value half-way between two steps may round either way.
    steps = [
        abs((one >> shift & 15) - (two >> shift & 15))
        for one, two in zip(ours, other, strict=True)
        for shift in (0, 4)
    ]
    assert max(steps) <= 1


def test_alpha_is_marked_and_its_average_kept() -> None:
    image = Image.new("RGBA", (32, 18), (*RED, 0))
    image.paste((*RED, 255), (0, 0, 16, 18))
    made = b64decode(thumbhash(image))
    assert made[2] & 0x80
    assert (made[5] & 15) / 15 == pytest.approx(0.5, abs=0.04)
    luminance, yellow_blue, red_green = (
        made[0] & 63,
        (made[1] << 8 | made[0]) >> 6 & 63,
        made[2] << 4 & 48 | made[1] >> 4,
    )
    assert (luminance, yellow_blue, red_green) == (21, 47, 63)  # red: 1/3, 1/2, 1


def test_hidden_colours_change_nothing() -> None:
    hashes = set()
    for hidden in (RED, GREEN):
        image = Image.new("RGBA", (32, 18), (*hidden, 0))
        image.paste((*RED, 255), (0, 0, 16, 18))
        hashes.add(thumbhash(image))
    assert len(hashes) == 1


def test_nothing_but_transparency_has_a_hash() -> None:
    made = b64decode(thumbhash(Image.new("RGBA", (4, 4))))
    assert made[2] & 0x80
    assert made[5] == 0


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_every_size_has_a_short_hash(width: int, height: int, alpha: bool) -> None:  # noqa: FBT001 - drawn
    image = COLOURED.resize((width, height))
    if alpha:
        image.putalpha(100)
    assert 5 <= len(b64decode(thumbhash(image))) <= 37
