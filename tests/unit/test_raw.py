"""Camera raw files. All are made here: no real one could be had."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from pipeline.errors import PermanentStageError
from pipeline.media import raw
from pipeline.media.reader import Description, Limits, Size
from pipeline.media.resize import cover
from tests.images import BLUE, GREEN, RED, YELLOW, corners
from tests.raw_files import dng, shell

LIMITS = Limits(pixels=10_000_000)
PRIMARY = (1280, 720)
BIG, SMALL = (1600, 1000), (160, 120)
UPRIGHT = {1: [RED, GREEN, BLUE, YELLOW], 3: [YELLOW, BLUE, GREEN, RED]}
UPRIGHT |= {6: [BLUE, RED, YELLOW, GREEN], 8: [GREEN, YELLOW, RED, BLUE]}
SHELLS = ["CR2", "NEF", "ARW", "RAF", "RW2"]


def written(folder: Path, data: bytes) -> Path:
    path = folder / "file"
    path.write_bytes(data)
    return path


def described(folder: Path, data: bytes) -> Description:
    return raw.describe(written(folder, data), LIMITS)


def seen(folder: Path, data: bytes, at_least: Size = PRIMARY) -> tuple[Size, list[object]]:
    """The size of the picture before reducing, and the four corners of what becomes of it."""
    with raw.picture(written(folder, data), LIMITS, at_least) as still:
        size = still.size
        image, _ = cover(still, PRIMARY)
    places = ((160, 90), (1120, 90), (160, 630), (1120, 630))
    return size, [pytest.approx(image.getpixel(place), abs=30) for place in places]


@pytest.mark.parametrize("kind", SHELLS)
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_preview_of_every_maker_is_found_and_upright(tmp_path: Path, kind: str, orientation: int) -> None:
    size, found = seen(tmp_path, shell(kind, corners(BIG), orientation))
    assert size == (BIG if orientation == 1 else BIG[::-1])
    assert found == UPRIGHT[orientation]


@pytest.mark.parametrize("kind", SHELLS)
def test_facts_are_read_from_the_maker_s_container(tmp_path: Path, kind: str) -> None:
    found = described(tmp_path, shell(kind, corners(BIG), 6))
    assert (found.width, found.height, found.orientation) == (*BIG[::-1], 6)
    assert found.details["camera"]["make"]
    assert found.details["preview"] == {"width": BIG[0], "height": BIG[1]}
    if kind != "RAF":  # its EXIF is the preview's
        assert found.captured_at == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    assert any("not known" in warning for warning in found.warnings)


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_dng_without_a_preview_is_developed_upright_at_half_size(tmp_path: Path, orientation: int) -> None:
    data = dng(corners((400, 240)), orientation=orientation)
    sideways = orientation in {6, 8}
    size, found = seen(tmp_path, data)
    assert size == ((120, 200) if sideways else (200, 120))
    assert found == UPRIGHT[orientation]
    said = described(tmp_path, data)
    assert (said.width, said.height) == ((240, 400) if sideways else (400, 240))
    assert (said.orientation, said.details["bits"], said.details["preview"]) == (orientation, 16, None)
    assert said.details["camera"] == {"make": "Maker", "model": "Model 1"}
    assert said.warnings == ()


def test_a_large_preview_goes_before_the_sensor_and_dimensions_are_the_sensor_s(tmp_path: Path) -> None:
    data = dng(corners((400, 250)), Image.new("RGB", BIG, BLUE), 8)
    assert seen(tmp_path, data) == (BIG[::-1], [BLUE] * 4)
    said = described(tmp_path, data)
    assert (said.width, said.height) == (250, 400)


def test_a_preview_too_small_is_passed_over(tmp_path: Path) -> None:
    data = dng(corners((400, 240)), Image.new("RGB", SMALL, BLUE))
    assert seen(tmp_path, data) == ((200, 120), UPRIGHT[1])
    assert seen(tmp_path, data, SMALL) == (SMALL, [BLUE] * 4)


def test_a_preview_that_stands_upright_already_is_not_turned_again(tmp_path: Path) -> None:
    assert seen(tmp_path, dng(corners((400, 240)), corners((1000, 1600)), 6)) == ((1000, 1600), UPRIGHT[1])


def test_above_the_limit_of_pixels_nothing_is_developed(tmp_path: Path) -> None:
    path = written(tmp_path, dng(corners((400, 240))))
    for work in (lambda: raw.describe(path, Limits(pixels=90_000)), lambda: pictured(path, 90_000)):
        with pytest.raises(PermanentStageError) as raised:
            work()
        assert raised.value.code == "IMAGE_TOO_LARGE"


def pictured(path: Path, pixels: int) -> None:
    with raw.picture(path, Limits(pixels=pixels), PRIMARY) as still:
        still.load()


@pytest.mark.parametrize("kind", [*SHELLS, "DNG"])
def test_cut_anywhere_it_is_an_error_of_ours_or_a_picture(tmp_path: Path, kind: str) -> None:
    whole = dng(corners((400, 240))) if kind == "DNG" else shell(kind, corners(BIG))
    for share in range(0, 100, 5):
        path = written(tmp_path, whole[: len(whole) * share // 100])
        for work in (
            lambda path=path: raw.describe(path, LIMITS),
            lambda path=path: pictured(path, 10_000_000),
        ):
            try:
                work()
            except PermanentStageError as error:
                assert error.code in {"CORRUPT_IMAGE", "TRUNCATED_IMAGE"}  # noqa: PT017 - it may also go well


def test_what_is_no_raw_at_all_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PermanentStageError, match="as DNG or JPEG") as raised:
        described(tmp_path, b"II*\0\x10\0\0\0CR\2\0" + bytes(100))
    assert raised.value.code == "CORRUPT_IMAGE"
