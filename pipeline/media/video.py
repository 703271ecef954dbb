"""Video: MP4, QuickTime, Matroska, WebM and AVI. A Reader (pipeline.media.reader)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from pipeline.errors import NoPictureError, PermanentStageError
from pipeline.media import av_facts as facts
from pipeline.media.av_describe import describe_media
from pipeline.media.av_frame import Size, orientation_of, picture_of, pixel_aspect
from pipeline.media.av_probe import Opened, loaded_cover, open_media
from pipeline.media.av_search import encrypted, first_frame, standing_frame
from pipeline.media.image import SIDEWAYS, Still
from pipeline.media.reader import Description, Limits
from pipeline.media.waveform import waveform

_WORD = "video"
# ITU-T H.273, tables 2 to 4
_PRIMARIES = {1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film", 9: "bt2020"}
_PRIMARIES |= {10: "smpte428", 11: "dci-p3", 12: "display-p3", 22: "ebu3213"}
_TRANSFERS = {1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear"}
_TRANSFERS |= {11: "xvycc", 13: "srgb", 14: "bt2020-10", 15: "bt2020-12", 16: "pq", 17: "smpte428", 18: "hlg"}
_MATRICES = {0: "rgb", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "ycgco"}
_MATRICES |= {9: "bt2020-ncl", 10: "bt2020-cl", 14: "ictcp"}
_RANGES = {1: "limited", 2: "full"}


_HDR = frozenset({"pq", "hlg"})


def describe(path: Path, limits: Limits) -> Description:
    """What the file says of itself and its tracks, and what one frame of it is like.

    A picture that cannot be decoded is a warning here: the rest is known all the same.

    Raises:
        PermanentStageError: CORRUPT_VIDEO, TRUNCATED_VIDEO, TOO_MANY_STREAMS, IMAGE_TOO_LARGE.
        InfrastructureError: LOCAL_FILE_UNREADABLE.
    """
    notes: list[str] = []
    with open_media(path, pixels=limits.pixels, word=_WORD) as opened:
        stream = _standing_stream(opened)
        frame = None if stream is None else first_frame(opened, stream)
        locked = frame is None and stream is not None and encrypted(opened, stream)
        if frame is None:
            notes.append(_why_none(stream, locked=locked))
        orientation = 1 if frame is None else orientation_of(frame)
        seconds = facts.duration_of(opened, stream or next(iter(opened.audios()), None), notes)
        found = describe_media(
            opened,
            stream,
            limits,
            seconds=seconds,
            notes=notes,
            dated=True,
            video=stream and _track(stream, frame, orientation),
            subtitles=facts.subtitle_tracks(opened),
            timecode=facts.timecode_of(opened),
            encrypted=locked,
        )
        width, height = _upright(stream, orientation) if stream else (None, None)
    return replace(found, width=width, height=height, orientation=orientation)


@contextmanager
def picture(path: Path, limits: Limits, at_least: Size) -> Iterator[Still]:
    """The frame at 1 s, or the first after it that is not black; of a shorter video the one in its middle.

    Scaled down to cover ``at_least``, in square pixels and sRGB. Without a frame that can be decoded, the
    cover; of a file without moving pictures, the cover or the waveform.

    Raises:
        NoPictureError: there is none of these.
        PermanentStageError: what ``describe`` raises.
    """
    with open_media(path, pixels=limits.pixels, word=_WORD) as opened:
        stream = _standing_stream(opened)
        image, orientation = None, 1
        if stream is not None:
            image, orientation = _frame_picture(opened, stream, at_least)
        image = image or loaded_cover(opened)
        if image is None and stream is None:
            image = waveform(opened)
        if image is None:
            locked = stream is not None and encrypted(opened, stream)
            raise NoPictureError(_why_none(stream, locked=locked))
    yield Still(image, path, orientation, orientation, ())


def _standing_stream(opened: Opened) -> VideoStream | None:
    """The track of moving pictures that stands for the file: the default one, else the first.

    Raises PermanentStageError IMAGE_TOO_LARGE for one too large, CORRUPT_VIDEO for a file of no tracks.
    """
    if not opened.streams:
        raise PermanentStageError(
            "There is no track in the video; export it again, or check the upload.", code="CORRUPT_VIDEO"
        )
    videos = opened.videos()
    if not videos:
        return None
    stream = next((one for one in videos if one.disposition & Disposition.default), videos[0])
    if stream.width * stream.height > opened.pixels:
        raise PermanentStageError(
            f"The video has {stream.width} x {stream.height} pixels, and the limit is "
            f"{opened.pixels / 1e6:.1f} megapixels; export it smaller.",
            code="IMAGE_TOO_LARGE",
        )
    return stream


def _frame_picture(opened: Opened, stream: VideoStream, at_least: Size) -> tuple[Image.Image | None, int]:
    frame = standing_frame(opened, stream, facts.duration_of(opened, stream, []))
    if frame is None:
        return None, 1
    return picture_of(frame, pixel_aspect(stream), at_least), orientation_of(frame)


def _upright(stream: VideoStream, orientation: int) -> Size:
    width, height = round(stream.width * pixel_aspect(stream)), stream.height
    return (height, width) if orientation in SIDEWAYS else (width, height)


def _track(stream: VideoStream, frame: VideoFrame | None, orientation: int) -> dict[str, Any]:
    context, aspect = stream.codec_context, pixel_aspect(stream)
    source = context if frame is None else frame  # the frame knows better what the codec says
    transfer = _TRANSFERS.get(source.color_trc)
    form = context.format if frame is None else frame.format
    return facts.present(
        codec=facts.codec_of(stream),
        profile=stream.profile,
        width=stream.width,
        height=stream.height,
        frame_rate=facts.rate(stream.average_rate) or facts.rate(stream.guessed_rate),
        bit_rate=context.bit_rate,
        pixel_format=form and form.name,
        bits=form and form.components[0].bits,
        primaries=_PRIMARIES.get(source.color_primaries),
        transfer=transfer,
        matrix=_MATRICES.get(source.colorspace),
        range=_RANGES.get(source.color_range),
        hdr=transfer in _HDR,
        interlaced=frame is not None and frame.interlaced_frame,
        orientation=orientation,
        pixel_aspect=round(aspect, 4) if aspect != 1 else None,
        **facts.spoken(stream),
    )


def _why_none(stream: VideoStream | None, *, locked: bool) -> str:
    if stream is None:
        return "There are no moving pictures in it that can be read."
    if locked:
        return "The video is encrypted, so no picture can be made of it; upload it without copy protection."
    return "No frame of the video can be decoded; export it again, or in another codec."
