from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import PermanentStageError
from pipeline.media import audio as reader
from pipeline.media.reader import Description, Limits
from tests.images import corners
from tests.media_files import AUDIO_TYPES, SOUND_RATE, audio, cover_picture, flac_with_cover, tone

LIMITS = Limits()
GROUND = (17, 22, 29)
TAGS = {"title": "Rain", "artist": "The Roof", "album": "Weather", "track": "3/9", "genre": "Field recording"}
TAGGED = sorted(AUDIO_TYPES.keys() - {"aac"})  # bare AAC has no tags


def described(path: Path) -> Description:
    return reader.describe(path, LIMITS)


def shown(path: Path) -> Image.Image:
    with reader.picture(path, LIMITS, (1280, 720)) as still:
        still.load()
        return still.image


def code_of(path: Path) -> str:
    with pytest.raises(PermanentStageError) as refused:
        described(path)
    return refused.value.code


def heights(picture: Image.Image) -> np.ndarray:
    """How many pixels of each of 10 columns' brightest line are not ground, left to right."""
    drawn = (np.abs(np.asarray(picture.convert("RGB")).astype(int) - GROUND).max(axis=2) > 60).sum(axis=0)
    return np.array([part.max() for part in np.array_split(drawn[52:1228], 10)])


@pytest.mark.parametrize("kind", AUDIO_TYPES)
def test_every_container_is_described_and_drawn(tmp_path: Path, kind: str) -> None:
    path = audio(tmp_path / "sound", kind)
    found = described(path)
    assert found.duration_seconds == pytest.approx(2, abs=0.05)
    (track,) = found.details["audio"]
    assert (track["channels"], track["sample_rate"]) == (2, SOUND_RATE)
    assert track["codec"] == {"m4a": "aac", "wav": "pcm_s16le", "ogg": "opus"}.get(kind, kind)
    assert (found.width, found.height, found.warnings) == (None, None, ())
    picture = shown(path)
    assert picture.size == (1280, 720)
    assert heights(picture).min() > 400


@pytest.mark.parametrize("kind", TAGGED)
def test_tags_are_found_wherever_the_container_keeps_them(tmp_path: Path, kind: str) -> None:
    found = described(audio(tmp_path / "sound", kind, tags=TAGS))
    assert found.title == "Rain"
    assert {"The Roof", "Weather"} <= set(found.text.splitlines())
    assert found.details["tags"]["artist"] == "The Roof"
    assert found.details["tags"]["track"].startswith("3")


def test_tags_are_cleaned_and_bounded(tmp_path: Path) -> None:
    found = described(
        audio(tmp_path / "sound", "flac", tags={"title": "a\x01b" + "c" * 5000, "comment": "\x02"})
    )
    assert found.title is not None
    assert found.title.startswith("abccc")
    assert len(found.title) == 1000
    assert "comment" not in found.details["tags"]


def test_the_bits_of_a_sample_are_those_stored(tmp_path: Path) -> None:
    path = audio(tmp_path / "sound", "wav", codec="pcm_s24le")
    assert described(path).details["audio"][0]["bits"] == 24


def test_an_embedded_cover_is_the_picture(tmp_path: Path) -> None:
    path = audio(tmp_path / "sound", "mp3", cover=cover_picture())
    assert described(path).details["cover"] == {"format": "JPEG", "width": 64, "height": 64}
    assert described(path).duration_seconds == pytest.approx(2, abs=0.05)
    picture = shown(path)
    assert picture.size == (64, 64)
    assert picture.getpixel((10, 10)) == pytest.approx(corners((64, 64)).getpixel((10, 10)), abs=20)


def test_the_cover_of_a_flac_file(tmp_path: Path) -> None:
    path = flac_with_cover(tmp_path / "sound", cover_picture())
    assert described(path).details["cover"]["format"] == "JPEG"
    assert shown(path).size == (64, 64)


@pytest.mark.parametrize(
    "cover", [b"\xff\xd8\xff\xe0 no picture", cover_picture()[:300]], ids=["text", "cut"]
)
def test_a_broken_cover_gives_way_to_the_waveform(tmp_path: Path, cover: bytes) -> None:
    path = flac_with_cover(tmp_path / "sound", cover)
    assert described(path).duration_seconds == pytest.approx(2, abs=0.05)
    assert shown(path).size == (1280, 720)


def test_a_waveform_shows_where_it_is_loud(tmp_path: Path) -> None:
    loud_late = np.concatenate([tone(1.0, 0.05), tone(1.0, 0.9)], axis=1)
    bars = heights(shown(audio(tmp_path / "sound", "flac", samples=loud_late)))
    assert bars[:4].max() < 0.5 * bars[6:].min()


def test_silence_is_flat(tmp_path: Path) -> None:
    assert heights(shown(audio(tmp_path / "sound", "wav", samples=tone(1.0, 0.0)))).max() < 10


@pytest.mark.parametrize("kind", ["mp3", "flac", "m4a"])
def test_a_long_sound_is_sampled_all_along(tmp_path: Path, kind: str) -> None:
    rate = SOUND_RATE
    parts = [tone(25.0, loudness) for loudness in (0.9, 0.05) for _ in range(5)]
    assert sum(part.shape[1] for part in parts) == 250 * rate  # longer than what is decoded whole
    path = audio(tmp_path / "sound", kind, samples=np.concatenate(parts, axis=1))
    assert described(path).duration_seconds == pytest.approx(250, rel=0.05)
    bars = heights(shown(path))
    assert bars[:4].min() > 2 * bars[6:].max() > 0


def test_a_variable_mp3_without_its_header_is_measured(tmp_path: Path) -> None:
    noise = np.random.default_rng(4).uniform(-0.9, 0.9, (2, 100 * SOUND_RATE)).astype(np.float32)
    samples = np.concatenate([tone(100.0, 0.1), noise], axis=1)
    path = audio(
        tmp_path / "sound",
        "mp3",
        samples=samples,
        codec_options={"flags": "+qscale", "global_quality": "118"},
        muxer_options={"write_xing": "0"},
    )
    found = described(path)
    assert found.details["duration_estimated"] is True
    assert found.duration_seconds == pytest.approx(200, rel=0.3)


def test_a_short_mp3_without_its_header_is_read_through(tmp_path: Path) -> None:
    found = described(audio(tmp_path / "sound", "mp3", muxer_options={"write_xing": "0"}))
    assert found.duration_seconds == pytest.approx(2, abs=0.1)
    assert "duration_estimated" not in found.details


def wav(path: Path, riff: int, data: int, samples: bytes) -> Path:
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 16_000, 2, 16)
    path.write_bytes(
        struct.pack("<4sI4s", b"RIFF", riff, b"WAVE") + form + struct.pack("<4sI", b"data", data) + samples
    )
    return path


def test_a_wav_that_was_never_finished_lasts_as_long_as_it_holds(tmp_path: Path) -> None:
    path = wav(tmp_path / "sound", 0xFFFFFFFF, 0xFFFFFFFF, bytes(16_000))
    assert any("never filled in" in warning for warning in described(path).warnings)
    assert described(path).duration_seconds == pytest.approx(1, abs=0.01)
    assert shown(path).size == (1280, 720)


def test_a_wav_that_promises_four_gigabytes_is_refused(tmp_path: Path) -> None:
    assert code_of(wav(tmp_path / "sound", 0xFFFF0000, 0xFFFEFF00, bytes(1000))) == "TRUNCATED_AUDIO"


NO_SOUNDS = [b"", b"\xff", b"fLaC", b"OggS" + bytes(60), b"ID3\4\0\0\x7f\x7f\x7f\x7f" + bytes(60)]


@pytest.mark.parametrize("data", NO_SOUNDS)
def test_bytes_that_are_no_sound(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "sound"
    path.write_bytes(data)
    assert code_of(path) == "CORRUPT_AUDIO"


@pytest.mark.parametrize("kind", ["wav", "m4a", "mp3"])
def test_a_sound_cut_anywhere_is_refused(tmp_path: Path, kind: str) -> None:
    path = audio(tmp_path / "sound", kind)
    data = path.read_bytes()
    for twentieth in range(1, 20):
        path.write_bytes(data[: len(data) * twentieth // 20])
        assert code_of(path) == "TRUNCATED_AUDIO", twentieth


@pytest.mark.parametrize("kind", ["flac", "ogg", "aac"])
def test_a_sound_whose_header_does_not_tell_its_bytes_is_said_to_break_off(tmp_path: Path, kind: str) -> None:
    samples = np.random.default_rng(5).uniform(-0.5, 0.5, (2, 20 * SOUND_RATE)).astype(np.float32)
    path = audio(tmp_path / "sound", kind, samples=samples)
    data = path.read_bytes()
    assert described(path).warnings == ()
    for tenth in range(2, 10):
        path.write_bytes(data[: len(data) * tenth // 10])
        assert described(path).warnings == ("The sound breaks off before its end.",), tenth


def test_bare_aac_that_is_cut_is_a_shorter_sound(tmp_path: Path) -> None:
    path = audio(tmp_path / "sound", "aac")
    path.write_bytes(path.read_bytes()[:-10_000])
    found = described(path).duration_seconds
    assert found is not None
    assert 1 < found < 1.7
