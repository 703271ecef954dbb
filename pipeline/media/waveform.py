"""The picture of a sound: how loud it is, from left to right."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.packet import Packet
from PIL import Image, ImageDraw

from pipeline.media.av_probe import Opened, in_seconds, only, packets_of, seek

SIZE = (1280, 720)
_BARS, _STEP, _BAR = 118, 10, 6  # bars, and pixels from one to the next and of one
_LEFT, _HALF = 52, 250  # pixels before the first bar, and of the loudest above the middle
_GROUND, _PEAK, _LOUDNESS, _LINE = (17, 22, 29), (45, 106, 135), (111, 211, 225), (38, 46, 58)
_FINER = 4  # drawn so much larger: round ends without steps
WHOLE = 240.0  #: seconds: a longer sound is sampled instead of decoded whole
_PIECE = 256  # samples that one measurement takes at least
_SAMPLE = 0.12  # seconds measured at each place of a long sound
_SAMPLE_PACKETS = 24
_MOST_PACKETS = 120_000  # of a sound that is decoded whole
_BY_BYTES = frozenset({"mp3", "aac"})  # the demuxers that find a time only by reading all before it

Levels = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def waveform(opened: Opened, seconds: float | None = None) -> Image.Image | None:
    """A picture of ``SIZE`` of the first track of sound; None where nothing of it can be decoded.

    ``seconds`` is the duration, if known. Peaks dark, the mean power bright, both by a scale between linear
    and decibels. The loudest peak reaches the top, so that a quiet recording shows too.
    """
    stream = next(iter(opened.audios()), None)
    if stream is None or stream.codec_context is None:
        return None
    only(opened, stream)
    if seconds is None or seconds <= WHOLE:
        levels = _whole(opened, stream)
    else:
        levels = _sampled(opened, stream, seconds)
    return _drawn(levels) if len(levels) else None


def _whole(opened: Opened, stream: AudioStream) -> Levels:
    """Peak and power of each bar, shape (_BARS, 2), from all of the sound, or its first ``WHOLE`` seconds."""
    rate = max(stream.codec_context.sample_rate, 1)
    left = round(WHOLE * rate)
    _go(opened, stream, 0.0, 0.0)
    found = []
    for frame in _frames(stream, packets_of(opened, stream, _MOST_PACKETS)):
        found.append(_measured(frame))
        left -= frame.samples
        if left < 0:
            break
    if not found:
        return np.empty((0, 2), np.float32)
    pieces = np.concatenate(found)
    edges = np.linspace(0, len(pieces), _BARS + 1).astype(int)
    return np.stack([_joined(pieces[start : max(end, start + 1)]) for start, end in pairwise(edges)])


def _sampled(opened: Opened, stream: AudioStream, seconds: float) -> Levels:
    """As ``_whole``, from a short piece at the place of each bar."""
    levels = np.zeros((_BARS, 2), np.float32)
    heard = False
    for bar in range(_BARS):
        _go(opened, stream, (bar + 0.5) / _BARS, seconds)
        # The first packet after a seek may refer to what was not read.
        frames = islice(_frames(stream, packets_of(opened, stream, _SAMPLE_PACKETS)), 1, None)
        pieces = list(_until(frames, _SAMPLE))
        if pieces:
            levels[bar], heard = _joined(np.concatenate(pieces)), True
    return levels if heard else levels[:0]


def _until(frames: Iterator[AudioFrame], seconds: float) -> Iterator[Levels]:
    for frame in frames:
        yield _measured(frame)
        seconds -= frame.samples / max(frame.sample_rate, 1)
        if seconds <= 0:
            return


def _go(opened: Opened, stream: AudioStream, share: float, seconds: float) -> None:
    """Go to ``share`` (0 to 1) of the sound."""
    if opened.format not in _BY_BYTES:
        seek(opened, stream, (in_seconds(stream, stream.start_time) or 0.0) + share * seconds)
        return
    try:
        opened.container.seek(round(share * opened.size), stream=stream, unsupported_byte_offset=True)
    except MemoryError:
        raise
    except av.FFmpegError:
        return


def _frames(stream: AudioStream, packets: Iterator[Packet[AudioStream]]) -> Iterator[AudioFrame]:
    """What ``packets`` decode to; the broken ones are passed over."""
    for packet in packets:
        try:
            yield from stream.decode(packet)
        except MemoryError:
            raise
        except av.FFmpegError:
            continue


def _measured(frame: AudioFrame) -> Levels:
    """Peak and mean square of each ``_PIECE`` samples of ``frame``, over its channels; 1 is full scale."""
    samples = frame.to_ndarray()
    if samples.dtype == np.uint8:
        values = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind == "i":
        values = samples.astype(np.float32) / 2 ** (8 * samples.itemsize - 1)
    else:
        values = np.nan_to_num(samples.astype(np.float32)).clip(-1, 1)
    if frame.format.is_planar:
        values = values.T
    values = values.reshape(frame.samples, -1)
    pieces = max(1, frame.samples // _PIECE)
    values = values[: frame.samples // pieces * pieces].reshape(pieces, -1)
    return np.stack([np.abs(values).max(axis=1), np.square(values).mean(axis=1)], axis=1)


def _joined(pieces: Levels) -> Levels:
    return np.array([pieces[:, 0].max(), pieces[:, 1].mean()], np.float32)


def _drawn(levels: Levels) -> Image.Image:
    heights = np.sqrt(np.stack([levels[:, 0], np.sqrt(levels[:, 1])], axis=1))  # between linear and decibels
    heights = heights * (_HALF / max(float(heights.max()), 0.05))  # silence stays flat
    image = Image.new("RGB", (SIZE[0] * _FINER, SIZE[1] * _FINER), _GROUND)
    draw = ImageDraw.Draw(image)
    middle = SIZE[1] * _FINER / 2
    draw.rectangle((0, middle - _FINER, image.width, middle + _FINER), _LINE)
    for bar, pair in enumerate(heights):
        left = (_LEFT + bar * _STEP) * _FINER
        for height, colour in zip(pair, (_PEAK, _LOUDNESS), strict=True):
            reach = max(float(height), _BAR / 2) * _FINER
            box = (left, middle - reach, left + _BAR * _FINER, middle + reach)
            draw.rounded_rectangle(box, _BAR * _FINER / 2, colour)
    return image.reduce(_FINER)
