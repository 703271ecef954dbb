from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageChops

from pipeline.errors import PermanentStageError
from pipeline.media import video as reader
from pipeline.media.image import UPRIGHT
from pipeline.media.reader import Description, Limits
from tests.images import STORED, WIDE, corners
from tests.media_files import VIDEO_TYPES, audio, video

LIMITS = Limits()
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
AT_LEAST = (1280, 720)


def described(path: Path) -> Description:
    return reader.describe(path, LIMITS)


def upright(path: Path, at_least: tuple[int, int] = AT_LEAST) -> Image.Image:
    with reader.picture(path, LIMITS, at_least) as still:
        turn = UPRIGHT.get(still.to_apply)
        return still.image if turn is None else still.image.transpose(turn)


def code_of(path: Path) -> str:
    with pytest.raises(PermanentStageError) as refused:
        described(path)
    return refused.value.code


def no_picture(path: Path) -> str:
    with pytest.raises(PermanentStageError) as refused:
        upright(path)
    return refused.value.code


def looks_like(found: Image.Image, wanted: Image.Image) -> bool:
    difference = ImageChops.difference(found.convert("RGB").resize((4, 4)), wanted.resize((4, 4)))
    return max(high for _, high in difference.getextrema()) < 40  # type: ignore[misc]


def flat(colour: tuple[int, int, int], size: tuple[int, int] = WIDE) -> Image.Image:
    return Image.new("RGB", size, colour)


def patched(path: Path, name: bytes, at: int, value: bytes) -> Path:
    """``path`` with ``value`` written ``at`` bytes behind each box's ``name``."""
    data = bytearray(path.read_bytes())
    place = data.find(name)
    assert place > 0
    while place > 0:
        data[place + 4 + at : place + 4 + at + len(value)] = value
        place = data.find(name, place + 4)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", VIDEO_TYPES)
def test_every_container_is_described_and_shown(tmp_path: Path, kind: str) -> None:
    path = video(tmp_path / "clip", kind, sounds=1, tags={"title": "A take"})
    found = described(path)
    assert (found.width, found.height, found.orientation) == (320, 180, 1)
    assert found.duration_seconds == pytest.approx(2, abs=0.05)
    assert found.title == "A take"
    assert found.warnings == ()
    track: dict[str, Any] = found.details["video"]
    assert track["frame_rate"] == 25
    assert (track["pixel_format"], track["bits"]) == ("yuv420p", 8)
    assert found.details["container"] == {"mkv": "matroska"}.get(kind, kind)
    (sound,) = found.details["audio"]
    assert (sound["channels"], sound["sample_rate"]) == (2, 48_000)
    assert looks_like(upright(path), corners())


def test_codecs_and_rates_are_told(tmp_path: Path) -> None:
    found = described(video(tmp_path / "clip", "mov", sounds=2)).details
    assert found["video"]["codec"] == "h264"
    assert found["video"]["profile"] == "High"
    assert [track["codec"] for track in found["audio"]] == ["aac", "aac"]
    assert found["bit_rate"] > found["audio"][0]["bit_rate"] > 60_000


@pytest.mark.parametrize(("degrees", "orientation"), [(90, 8), (-90, 6), (180, 3)])
@pytest.mark.parametrize("kind", ["mov", "mp4"])
def test_rotation_is_applied(tmp_path: Path, kind: str, degrees: int, orientation: int) -> None:
    size = WIDE if orientation == 3 else (WIDE[1], WIDE[0])
    stored = corners(size).transpose(STORED[orientation])
    path = video(tmp_path / "clip", kind, paint=lambda _: stored, size=stored.size, rotation=degrees)
    found = described(path)
    assert (found.width, found.height, found.orientation) == (*size, orientation)
    shown = upright(path)
    assert shown.size == size
    assert looks_like(shown, corners(size))


def test_oblong_pixels_become_square(tmp_path: Path) -> None:
    path = video(tmp_path / "clip", "mp4", aspect=Fraction(4, 3))
    assert (described(path).width, described(path).height) == (427, 180)
    assert upright(path).size == (427, 180)


def test_a_large_frame_is_scaled_to_cover_what_is_asked_for(tmp_path: Path) -> None:
    path = video(tmp_path / "clip", "mp4", seconds=0.2, size=(1280, 960))
    assert upright(path, (640, 360)).size == (640, 480)


def test_the_frame_at_one_second(tmp_path: Path) -> None:
    shades = [flat((10 * number % 256, 60, 200)) for number in range(50)]
    path = video(tmp_path / "clip", "mp4", paint=lambda number: shades[number])
    assert looks_like(upright(path), shades[25])


def test_a_video_shorter_than_a_second_shows_its_middle(tmp_path: Path) -> None:
    path = video(
        tmp_path / "clip", "mp4", seconds=0.8, paint=lambda n: flat(WHITE if 8 <= n <= 12 else BLACK)
    )
    assert looks_like(upright(path), flat(WHITE))


@pytest.mark.parametrize("black_seconds", [1.6, 7.0], ids=["a fade", "a leader"])
def test_black_frames_are_passed_over(tmp_path: Path, black_seconds: float) -> None:
    path = video(
        tmp_path / "clip",
        "mp4",
        seconds=12,
        paint=lambda number: flat(BLACK) if number < black_seconds * 25 else corners(),
    )
    assert looks_like(upright(path), corners())


def test_a_video_that_is_black_throughout_shows_its_brightest_frame(tmp_path: Path) -> None:
    path = video(tmp_path / "clip", "mp4", paint=lambda n: flat((16, 16, 16) if n == 40 else BLACK))
    assert np.asarray(upright(path)).mean() > 10


@pytest.mark.parametrize(("transfer", "code"), [(16, 0.581), (18, 0.75)], ids=["PQ", "HLG"])
def test_hdr_is_toned_down_to_what_a_screen_shows(tmp_path: Path, transfer: int, code: float) -> None:
    """A sheet of 203 nits, white by ITU-R BT.2408, is nearly white; a tenth of the code is nearly black."""
    ramp = Image.fromarray(
        np.repeat(np.linspace((0,) * 3, (255 * code,) * 3, 320)[None], 180, 0).round().astype(np.uint8)
    )
    path = video(
        tmp_path / "clip",
        "mkv",
        codec="libx265",
        paint=lambda _: ramp,
        pixel_format="yuv420p10le",
        codec_options={"x265-params": f"log-level=none:colorprim=9:transfer={transfer}:colormatrix=9"},
        colorspace=9,
    )
    track = described(path).details["video"]
    assert (track["primaries"], track["matrix"], track["bits"]) == ("bt2020", "bt2020-ncl", 10)
    assert track["hdr"] is True
    levels = np.asarray(upright(path).convert("L"))[90]
    assert 215 < levels[-1] < 250
    assert levels[20] < 40
    assert (np.diff(levels.astype(int)) >= -2).all()


def test_dates_places_and_camera_of_a_telephone(tmp_path: Path) -> None:
    tags = {
        "com.apple.quicktime.creationdate": "2024-05-01T12:00:00+0200",
        "com.apple.quicktime.location.ISO6709": "+48.2082+016.3738+171.5/",
        "com.apple.quicktime.make": "Apple",
        "com.apple.quicktime.model": "iPhone 15",
        "creation_time": "2024-05-03T10:00:00Z",
        "comment": "A\x07 note",
    }
    path = video(tmp_path / "clip", "mov", tags=tags, muxer_options={"movflags": "use_metadata_tags"})
    found = described(path)
    assert found.captured_at is not None
    assert found.captured_at.astimezone(UTC) == datetime(2024, 5, 1, 10, tzinfo=UTC)
    assert found.details["captured_at_offset"] == "+02:00"
    assert found.gps == pytest.approx((48.2082, 16.3738))
    assert found.details["altitude_m"] == 171.5
    assert found.details["camera"] == {"make": "Apple", "model": "iPhone 15"}
    assert found.text == "A note"


@pytest.mark.parametrize(
    ("place", "gps"),
    [
        ("+4812.5+01622.5/", (48.2083333, 16.375)),
        ("-481230-0162230/", (-48.2083333, -16.375)),
        ("+91.0000+016.3738/", None),
        ("+00.0000+000.0000/", None),
        ("+48.2+1/", None),
        ("somewhere", None),
    ],
)
def test_places_by_iso_6709(tmp_path: Path, place: str, gps: tuple[float, float] | None) -> None:
    found = described(video(tmp_path / "clip", "mkv", seconds=0.1, tags={"location": place}))
    assert found.gps == (None if gps is None else pytest.approx(gps))
    assert len(found.warnings) == (1 if gps is None else 0)


def test_an_encrypted_video_says_so_and_keeps_its_metadata(tmp_path: Path) -> None:
    key = "00112233445566778899aabbccddeeff"
    cipher = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": key}
    path = video(tmp_path / "clip", "mp4", muxer_options=cipher)
    found = described(path)
    assert found.details["encrypted"] is True
    assert found.width == 320
    with (
        pytest.raises(PermanentStageError, match="encrypted") as refused,
        reader.picture(path, LIMITS, AT_LEAST),
    ):
        pass
    assert refused.value.code == "NO_PICTURE"


@pytest.mark.parametrize("kind", VIDEO_TYPES)
def test_a_video_cut_anywhere_is_refused(tmp_path: Path, kind: str) -> None:
    path = video(tmp_path / "clip", kind, seconds=1)
    data = path.read_bytes()
    for twentieth in range(1, 20):
        path.write_bytes(data[: len(data) * twentieth // 20])
        assert code_of(path) == "TRUNCATED_VIDEO", twentieth


@pytest.mark.parametrize("tail", [b"\0\0\0\0", b"\n", b"a camera's own data, as some append it" * 9])
@pytest.mark.parametrize("kind", ["mp4", "mov"])
def test_what_is_appended_to_a_whole_film_takes_nothing_from_it(
    tmp_path: Path, kind: str, tail: bytes
) -> None:
    path = video(tmp_path / "clip", kind, seconds=1)
    whole = described(path)
    path.write_bytes(path.read_bytes() + tail)
    assert described(path).duration_seconds == whole.duration_seconds
    assert looks_like(upright(path), corners())


def test_a_claim_of_ten_hours_is_not_believed(tmp_path: Path) -> None:
    path = video(tmp_path / "clip", "mp4", muxer_options={"movflags": "faststart"})
    for box in (b"mvhd", b"mdhd"):
        scale = int.from_bytes(path.read_bytes().partition(box)[2][12:16])
        patched(path, box, 16, (36_000 * scale).to_bytes(4))
    found = described(path)
    assert found.duration_seconds == pytest.approx(2, abs=0.1)
    assert found.warnings == ("The header tells of 36000 seconds, the tracks of 2; the tracks count.",)
    assert looks_like(upright(path), corners())


def test_an_index_that_points_nowhere_leaves_the_metadata(tmp_path: Path) -> None:
    path = patched(video(tmp_path / "clip", "mp4"), b"stco", 8, b"\x7f\xff\xff\xff")
    found = described(path)
    assert found.width == 320
    assert any("No frame" in warning for warning in found.warnings)
    assert no_picture(path) == "NO_PICTURE"


def test_too_many_streams(tmp_path: Path) -> None:
    assert code_of(video(tmp_path / "clip", "mp4", seconds=0.1, sounds=300)) == "TOO_MANY_STREAMS"


def test_of_many_streams_the_first_are_read(tmp_path: Path) -> None:
    found = described(video(tmp_path / "clip", "mp4", seconds=0.1, sounds=70))
    assert len(found.details["audio"]) == 63
    assert found.warnings == ("Of 71 tracks only the first 64 were read.",)


@pytest.mark.parametrize(
    "text",
    ["#EXTM3U\n#EXTINF:1,\n{0}\n", "ffconcat version 1.0\nfile {0}\n", "<MPD><BaseURL>{0}</BaseURL></MPD>"],
)
def test_a_playlist_is_not_followed(tmp_path: Path, text: str) -> None:
    other = video(tmp_path / "other.mp4", "mp4", seconds=0.2)
    path = tmp_path / "clip.mp4"
    path.write_text(text.format(other))
    assert code_of(path) == "CORRUPT_VIDEO"


def test_more_pixels_than_the_limit_are_refused_by_the_header(tmp_path: Path) -> None:
    path = video(tmp_path / "clip", "mp4", seconds=0.1)
    with pytest.raises(PermanentStageError) as refused:
        reader.describe(path, Limits(pixels=10_000))
    assert refused.value.code == "IMAGE_TOO_LARGE"


NO_VIDEOS = [b"", b"\0", b"\0\0\0\x18ftypisom" + bytes(12), b"RIFF\0\0\0\0AVI " + bytes(99)]


@pytest.mark.parametrize("data", NO_VIDEOS)
def test_bytes_that_are_no_video(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "clip"
    path.write_bytes(data)
    assert code_of(path) == "CORRUPT_VIDEO"


def test_an_mp4_of_sound_alone_shows_its_waveform(tmp_path: Path) -> None:
    path = audio(tmp_path / "clip", "m4a")
    found = described(path)
    assert found.width is None
    assert found.details["audio"][0]["codec"] == "aac"
    assert upright(path).size == (1280, 720)
