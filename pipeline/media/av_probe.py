"""Opening video and audio so that no file can make it read more, or elsewhere, than it should.

The format is the one of the first bytes, so a playlist under a video's name is no playlist. The bytes come
through one Python file: nothing that the input names is opened. What is read of it is bounded, so a broken
index costs no walk through the file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO, FileIO
from itertools import islice
from pathlib import Path
from typing import TypeVar

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition, Stream
from av.video.stream import VideoStream
from PIL import Image

from pipeline.errors import InfrastructureError, PermanentStageError, is_the_machines
from pipeline.media.av_ends import ends_early, id3_length
from pipeline.media.image import DECODER_ERRORS

MOST_STREAMS = 64  #: described and looked at; a few more are passed over
_TOO_MANY_STREAMS = 128
READ_AT_MOST = 512_000_000  #: bytes of one file, for one look at it
_BLOCK = 131_072  # bytes read at once
_HEAD = 64
_OPTIONS = {
    "probesize": "8000000",  # bytes
    "analyzeduration": "3000000",  # microseconds
    "protocol_whitelist": "file,pipe",
    "max_streams": "1000",
}
_S = TypeVar("_S", bound=Stream)
COVERS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")


@dataclass(frozen=True, slots=True)
class Opened:
    """An open file and what is to be known of it to read on."""

    container: InputContainer
    path: Path
    format: str  #: the demuxer's short name: mov, matroska, avi, mp3, aac, wav, flac, ogg
    size: int  #: bytes
    pixels: int  #: limit of one picture
    head: bytes  #: the first 64
    covers: tuple[bytes, ...]  #: the pictures that came with it, as files

    @property
    def streams(self) -> list[Stream]:
        """The streams that are looked at."""
        return list(islice(self.container.streams, MOST_STREAMS))

    def videos(self) -> list[VideoStream]:
        """The moving pictures: video streams that are no cover."""
        return [one for one in self._of_video() if not one.disposition & _PICTURES and one.width > 0]

    def audios(self) -> list[AudioStream]:
        """The sounds."""
        return [one for one in self.streams if isinstance(one, AudioStream)]

    def _of_video(self) -> list[VideoStream]:
        return [one for one in self.streams if isinstance(one, VideoStream) and has_decoder(one)]


_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails


@contextmanager
def open_media(path: Path, *, pixels: int, word: str) -> Iterator[Opened]:
    """Open the video or audio at ``path``; ``word`` is which, for the error's code and sentence.

    Raises:
        PermanentStageError: CORRUPT_VIDEO, TRUNCATED_VIDEO (or _AUDIO), TOO_MANY_STREAMS.
        InfrastructureError: LOCAL_FILE_UNREADABLE.
    """
    with media_trouble(word), path.open("rb", buffering=0) as file:
        head = file.read(_HEAD)
        name = format_of(head, file)
        if name is None:
            raise _corrupt(word, "its first bytes are of no format of its kind")
        if ends_early(path, name):
            raise _truncated(word)
        with av.open(
            _Bounded(file),
            mode="r",
            format=name,
            options={**_OPTIONS, "max_pixels": str(pixels)},
            metadata_errors="replace",
            buffer_size=_BLOCK,
            io_open=_open_nothing,
        ) as container:
            if len(container.streams) > _TOO_MANY_STREAMS:
                raise PermanentStageError(
                    f"The file holds {len(container.streams)} streams, and {_TOO_MANY_STREAMS} is the limit; "
                    "upload the tracks that are needed.",
                    code="TOO_MANY_STREAMS",
                )
            yield Opened(container, path, name, path.stat().st_size, pixels, head, _covers(container))


def _covers(container: InputContainer) -> tuple[bytes, ...]:
    """The attached pictures, which the demuxers give out before all else."""
    wanted = sum(bool(one.disposition & Disposition.attached_pic) for one in container.streams.video)
    covers: list[bytes] = []
    if wanted:
        first = islice(container.demux(), wanted)
        covers += [
            bytes(one) for one in first if one.size and one.stream.disposition & Disposition.attached_pic
        ]
        container.seek(0)
    return tuple(covers)


@contextmanager
def media_trouble(word: str) -> Iterator[None]:
    """Turn what the library raises into a stage error; out of memory is for the process's limits to judge."""
    try:
        yield
    except MemoryError:
        raise
    except av.FFmpegError as error:
        raise _corrupt(word, f"the decoder says {error.strerror!r}") from error
    except OSError as error:
        if not is_the_machines(error):  # a seek further than any file reaches, another file that it names
            raise _corrupt(word, f"reading it ends in {error.strerror or error}") from error
        raise InfrastructureError(
            f"The local copy cannot be read ({error.strerror}); it is fetched again.",
            code="LOCAL_FILE_UNREADABLE",
        ) from error
    except (ArithmeticError, UnicodeError) as error:  # not all that decoders raise: bugs of ours would hide
        raise _corrupt(word, f"reading it ends in {str(error) or type(error).__name__!r}") from error


def only(opened: Opened, stream: Stream) -> None:
    """Let ``stream`` alone be read, by one thread, within the limit of pixels."""
    for one in opened.container.streams:
        one.discard = Discard.default if one.index == stream.index else Discard.all
    context = stream.codec_context
    if not context.is_open:
        context.thread_count = 1  # each thread holds frames of its own
        context.options = {"max_pixels": str(opened.pixels)}


def packets_of(opened: Opened, stream: _S, most: int) -> Iterator[Packet[_S]]:
    """At most ``most`` packets of ``stream`` from where the file is, until a broken or an empty one."""
    try:
        for number, packet in enumerate(opened.container.demux(stream)):
            if number >= most or packet.size == 0:
                return
            yield packet  # type: ignore[misc]  # of that stream
    except MemoryError:
        raise
    except av.FFmpegError:
        return


def seek(opened: Opened, stream: Stream, at: float) -> None:
    """Go to the key frame before ``at``, in seconds of its clock; where that fails, stay."""
    if not stream.time_base:
        return
    try:
        opened.container.seek(round(at / stream.time_base), stream=stream)
    except MemoryError:
        raise
    except av.FFmpegError:
        return


def in_seconds(stream: Stream | None, ticks: int | None) -> float | None:
    """``ticks`` of the clock of ``stream`` in seconds."""
    if stream is None or ticks is None or stream.time_base is None:
        return None
    return float(ticks * stream.time_base)


def has_decoder(stream: Stream) -> bool:
    """Whether the library knows the stream's codec at all."""
    return stream.codec_context is not None


def cover_of(opened: Opened) -> Image.Image | None:
    """The first picture that came with the file, open and not decoded; None where none can be opened."""
    for data in opened.covers:
        try:
            image = Image.open(BytesIO(data), formats=COVERS)
        except MemoryError:
            raise
        except DECODER_ERRORS:
            continue
        if image.width * image.height <= opened.pixels:
            return image
    return None


def loaded_cover(opened: Opened) -> Image.Image | None:
    """The picture that came with the file, decoded; None where there is none that can be."""
    image = cover_of(opened)
    try:
        if image is not None:
            image.load()
    except MemoryError:
        raise
    except DECODER_ERRORS:
        return None
    return image


def format_of(head: bytes, file: FileIO) -> str | None:
    """The demuxer for ``file`` that starts with ``head``, a tag aside; None for anything else. Goes to 0."""
    tag = id3_length(head)
    file.seek(tag)
    behind = _plain_format(file.read(_HEAD) if tag else head)
    file.seek(0)
    return (behind if behind in {"flac", "aac"} else "mp3") if tag else behind


def _plain_format(head: bytes) -> str | None:
    if head[4:8] in {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}:
        return "mov"
    if head[:4] in {b"RIFF", b"RIFX", b"RF64", b"BW64"}:
        return {b"AVI ": "avi", b"WAVE": "wav"}.get(head[8:12])
    for magic, name in ((b"\x1a\x45\xdf\xa3", "matroska"), (b"fLaC", "flac"), (b"OggS", "ogg")):
        if head.startswith(magic):
            return name
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:  # noqa: PLR2004 - the sync of MPEG audio
        return "aac" if head[1] & 0xF6 == 0xF0 else "mp3"  # noqa: PLR2004 - layer 0 is ADTS
    return None


class _Bounded:
    """A file that is at its end when READ_AT_MOST bytes have been read of it."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._left = READ_AT_MOST

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes."""
        data = self._file.read(min(size, self._left)) or b""
        self._left -= len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to ``offset``; where now."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Where."""
        return self._file.tell()


def _open_nothing(url: str, _flags: int, _options: dict[str, str]) -> None:
    raise PermissionError(f"the file names another one, which is never opened: {url[:100]!r}")


def _corrupt(word: str, why: str) -> PermanentStageError:
    return PermanentStageError(
        f"The {word} cannot be read: {why}. Export it again, or check the upload.",
        code=f"CORRUPT_{word.upper()}",
    )


def _truncated(word: str) -> PermanentStageError:
    return PermanentStageError(
        f"The {word} ends too early: its header tells of more bytes than there are; upload it again, whole.",
        code=f"TRUNCATED_{word.upper()}",
    )
