"""Audio: MP3, AAC, M4A, WAV, FLAC and Ogg. A Reader (pipeline.media.reader)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from av.audio.stream import AudioStream

from pipeline.errors import NoPictureError, PermanentStageError
from pipeline.media.av_describe import describe_media
from pipeline.media.av_length import length_of
from pipeline.media.av_probe import Opened, loaded_cover, open_media
from pipeline.media.image import Still
from pipeline.media.reader import Description, Limits, Size
from pipeline.media.waveform import waveform

_WORD = "audio"


def describe(path: Path, limits: Limits) -> Description:
    """What the file says of itself: its tags, its tracks, how long it is, and the picture that came with it.

    Raises:
        PermanentStageError: CORRUPT_AUDIO, TRUNCATED_AUDIO, TOO_MANY_STREAMS.
        InfrastructureError: LOCAL_FILE_UNREADABLE.
    """
    notes: list[str] = []
    with open_media(path, pixels=limits.pixels, word=_WORD) as opened:
        stream = _sound(opened)
        length = length_of(opened, stream, notes)
        return describe_media(
            opened,
            stream,
            limits,
            seconds=length.seconds,
            notes=notes,
            dated=False,
            duration_estimated=length.estimated,
        )


@contextmanager
def picture(path: Path, limits: Limits, at_least: Size) -> Iterator[Still]:  # noqa: ARG001 - a Reader's
    """The picture that came with the file, else one of its waveform, 1280 x 720 whatever is asked for.

    Raises:
        NoPictureError: nothing of the sound can be decoded.
        PermanentStageError: what ``describe`` raises.
    """
    with open_media(path, pixels=limits.pixels, word=_WORD) as opened:
        stream = _sound(opened)
        image = loaded_cover(opened)
        if image is None:
            image = waveform(opened, length_of(opened, stream, []).seconds)
        if image is None:
            raise NoPictureError("Nothing of the audio can be decoded; export it again, or in another codec.")
    yield Still(image, path, 1, 1, ())


def _sound(opened: Opened) -> AudioStream:
    """The first track of sound. Raises PermanentStageError CORRUPT_AUDIO."""
    audios = opened.audios()
    if not audios:
        raise PermanentStageError(
            "There is no sound in the file; export it again, or check the upload.", code="CORRUPT_AUDIO"
        )
    return audios[0]
