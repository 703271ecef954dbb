"""The frame that stands for a video, found by decoding no more than a bounded part of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipeline.media.av_frame import is_black
from pipeline.media.av_probe import Opened, in_seconds, only, packets_of, seek

PICTURE_AT = 1.0  #: seconds
_FURTHER = (5, 10, 20, 40, 80, 160)  # seconds: where to look when it is black there
_LEAD_IN = 600  # frames decoded at most to get from a key frame to the one wanted
_WATCHED = 60  # frames decoded one after the other, looking for one that is not black
_MOST_PACKETS = 2000  # read in one search: a decoder that never answers is left
_MOST_BROKEN = 50  # packets passed over that cannot be decoded


def first_frame(opened: Opened, stream: VideoStream) -> VideoFrame | None:
    """The first frame that can be decoded; None where there is none."""
    only(opened, stream)
    return next(_decoded(opened, stream, 0.0), None)


def standing_frame(opened: Opened, stream: VideoStream, seconds: float | None) -> VideoFrame | None:
    """The frame at 1 s, or the first after it that is not black, else the brightest seen; None without any.

    ``seconds`` is the duration, if known: of a video of less than 1 s it is the frame in the middle. Looked
    at are all of the first ``_WATCHED`` frames, then one each at the times of ``_FURTHER``.
    """
    only(opened, stream)
    start = PICTURE_AT if seconds is None or seconds > PICTURE_AT else seconds / 2
    zero = in_seconds(stream, stream.start_time) or 0.0
    best: tuple[float, VideoFrame] | None = None
    for at, count in ((start, _WATCHED), *((further, 1) for further in _FURTHER)):
        if at > start and (seconds is None or at >= seconds):
            break
        seek(opened, stream, zero + at)
        for frame in islice(_from(_decoded(opened, stream, zero + at), zero + at), count):
            black, light = is_black(frame)
            if not black:
                return frame
            if best is None or light > best[0]:
                best = light, frame
    if best is None:  # nothing at 1 s, or seeking does not work: whatever there is
        seek(opened, stream, zero)
        return next(_decoded(opened, stream, zero), None)
    return best[1]


def encrypted(opened: Opened, stream: VideoStream) -> bool:
    """Whether the track says that it is encrypted: Common Encryption in MP4, a key's name in Matroska."""
    seek(opened, stream, 0.0)
    return any(_locked(stream, packet) for packet in packets_of(opened, stream, 1))


def _locked(stream: VideoStream, packet: Packet[VideoStream]) -> bool:
    return "enc_key_id" in stream.metadata or packet.has_sidedata("encryption_info")


def _from(frames: Iterator[VideoFrame], at: float) -> Iterator[VideoFrame]:
    """Those of ``frames`` from ``at`` on; where they end before, the last; after ``_LEAD_IN``, all."""
    last = None
    for number, frame in enumerate(frames):
        if number >= _LEAD_IN or frame.time is None or frame.time >= at:
            last = None
            yield frame
        else:
            last = frame
    if last is not None:
        yield last


def _decoded(opened: Opened, stream: VideoStream, at: float) -> Iterator[VideoFrame]:
    """The frames from where the file is; before ``at``, in seconds, only those that others refer to.

    They end where encryption begins.
    """
    broken = 0
    for packet in packets_of(opened, stream, _MOST_PACKETS):
        if _locked(stream, packet):  # some of it decodes by chance, to noise
            return
        said = in_seconds(stream, packet.pts)
        stream.codec_context.skip_frame = "NONREF" if said is not None and said < at else "DEFAULT"
        frames = _decode(stream, packet)
        broken += frames is None
        if broken > _MOST_BROKEN:
            return
        yield from frames or ()
    yield from _decode(stream, None) or ()  # what the decoder holds back


def _decode(stream: VideoStream, packet: Packet[VideoStream] | None) -> list[VideoFrame] | None:
    """The frames that ``packet``, or the end, brings; None where it cannot be decoded."""
    try:
        return stream.decode(packet)
    except MemoryError:
        raise
    except av.FFmpegError:
        return None
