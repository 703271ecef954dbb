"""How long a sound is, where its header does not say or cannot be believed."""

from __future__ import annotations

from dataclasses import dataclass

import av
from av.audio.stream import AudioStream

from pipeline.media import av_facts as facts
from pipeline.media.av_ends import ends_in_a_frame, has_last_page, mpeg_header, promises_more
from pipeline.media.av_probe import Opened, in_seconds, only, packets_of, seek

_WALKED = 2_000_000  # bytes: a smaller file without a header is read through
_PLACES, _EACH = 16, 24  # places of a larger one that are looked at, and packets at each
_MOST_PACKETS = 100_000
_BREAKS_OFF = "The sound breaks off before its end."
_TAIL = 1.0  # seconds: a last block of FLAC may take so long


@dataclass(frozen=True, slots=True)
class Length:
    """A duration, and whether it is only an estimate."""

    seconds: float | None
    estimated: bool = False


def length_of(opened: Opened, stream: AudioStream, notes: list[str]) -> Length:
    """The duration of ``stream``; what is not believed of the header goes to ``notes``.

    An MP3 with a Xing or VBRI header, and every other format but bare AAC, says how long it is. Else packets
    at some places give a mean bit rate.
    """
    if opened.format == "aac" or (opened.format == "mp3" and not _has_header(opened)):
        if opened.format == "aac" and ends_in_a_frame(opened.path):
            notes.append(_BREAKS_OFF)
        only(opened, stream)
        if opened.size <= _WALKED:
            return Length(_measured(opened, stream, _MOST_PACKETS)[1] or None)
        return _estimated(opened, stream)
    seconds = facts.duration_of(opened, stream, notes)
    rate = stream.codec_context.bit_rate if stream.codec_context is not None else None
    if opened.format == "wav" and seconds and rate and seconds > 1 + (there := opened.size * 8 / rate):
        notes.append(f"The header tells of {seconds:.0f} seconds, the file holds {there:.0f}.")
        return Length(there)
    if opened.format == "wav" and promises_more(opened.head, opened.size):
        notes.append("Its writer never filled in how long it is; what is there was read.")
    cut = opened.format == "ogg" and not has_last_page(opened.path)
    cut = cut or (opened.format == "flac" and bool(seconds) and not _reaches(opened, stream, seconds or 0.0))
    if cut:
        notes.append(_BREAKS_OFF)
    return Length(seconds)


def _has_header(opened: Opened) -> bool:
    with opened.path.open("rb") as file:
        return bool(mpeg_header(file))


def _reaches(opened: Opened, stream: AudioStream, seconds: float) -> bool:
    """Whether there is sound near the end of ``seconds``."""
    only(opened, stream)
    seek(opened, stream, max(0.0, seconds - _TAIL))
    ends = [in_seconds(stream, one.pts) or 0.0 for one in packets_of(opened, stream, _MOST_PACKETS)]
    return bool(ends) and ends[-1] > seconds - _TAIL


def _estimated(opened: Opened, stream: AudioStream) -> Length:
    size = seconds = 0.0
    sizes: set[int] = set()
    for place in range(_PLACES):
        try:
            at = round((place + 0.5) / _PLACES * opened.size)
            opened.container.seek(at, stream=stream, unsupported_byte_offset=True)
        except MemoryError:
            raise
        except av.FFmpegError:
            continue
        more, longer, seen = _measured(opened, stream, _EACH)
        size, seconds, sizes = size + more, seconds + longer, sizes | seen
    if not seconds or not size:
        return Length(None)
    # One size, or two that differ by the padding: a constant bit rate, and so no estimate.
    return Length(opened.size * seconds / size, estimated=max(sizes) - min(sizes) > 1)


def _measured(opened: Opened, stream: AudioStream, most: int) -> tuple[int, float, set[int]]:
    """Bytes, seconds and the different sizes of at most ``most`` packets from where the file is."""
    size, seconds, sizes = 0, 0.0, set()
    for packet in packets_of(opened, stream, most):
        size += packet.size
        seconds += in_seconds(stream, packet.duration) or 0.0
        sizes.add(packet.size)
    return size, seconds, sizes
