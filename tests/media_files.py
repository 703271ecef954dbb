"""Small video and audio files of every sort, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from tests.images import corners, encoded

RATE = 25  # frames a second
SOUND_RATE = 48_000
#: the muxer and codecs of each type that tests make
VIDEO_TYPES = {
    "mp4": ("mp4", "libx264", "aac"),
    "mov": ("mov", "libx264", "aac"),
    "mkv": ("matroska", "libx264", "libopus"),
    "webm": ("webm", "libvpx-vp9", "libopus"),
    "avi": ("avi", "mpeg4", "libmp3lame"),
}
AUDIO_TYPES = {
    "mp3": ("mp3", "libmp3lame"),
    "m4a": ("ipod", "aac"),
    "aac": ("adts", "aac"),
    "wav": ("wav", "pcm_s16le"),
    "flac": ("flac", "flac"),
    "ogg": ("ogg", "libopus"),
}
_QUIET = {"libx265": {"x265-params": "log-level=none"}}
Painter = Callable[[int], Image.Image]  # the frame of a number


def video(
    path: Path,
    kind: str = "mp4",
    *,
    seconds: float = 2.0,
    paint: Painter | None = None,
    size: tuple[int, int] = (320, 180),
    codec: str | None = None,
    pixel_format: str = "yuv420p",
    codec_options: dict[str, str] | None = None,
    muxer_options: dict[str, str] | None = None,
    tags: dict[str, str] | None = None,
    rotation: int | None = None,
    aspect: Fraction | None = None,
    sounds: int = 0,
    **colours: int,
) -> Path:
    """Write a video whose frames ``paint`` draws (of ``size``; the corners of tests.images by default)."""
    muxer, usual, sound_codec = VIDEO_TYPES[kind]
    name = codec or usual
    with av.open(path, "w", format=muxer, options=muxer_options or {}) as container:
        container.metadata.update(tags or {})
        stream: Any = container.add_stream(
            name, rate=RATE, options={**_QUIET.get(name, {}), **(codec_options or {})}
        )
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for word, value in colours.items():  # color_primaries, color_trc, colorspace
            setattr(stream.codec_context, word, value)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        tracks: list[Any] = [
            container.add_stream(sound_codec, rate=SOUND_RATE, layout="stereo") for _ in range(sounds)
        ]
        _draw(container, stream, round(seconds * RATE), paint or (lambda _: corners(size)), colours)
        for track in tracks:
            _sing(container, track, tone(seconds))
    return path


def audio(
    path: Path,
    kind: str,
    *,
    samples: np.ndarray | None = None,
    tags: dict[str, str] | None = None,
    cover: bytes | None = None,
    codec: str | None = None,
    codec_options: dict[str, str] | None = None,
    muxer_options: dict[str, str] | None = None,
) -> Path:
    """Write a sound: ``samples`` are floats of shape (2, n), two seconds of a tone by default."""
    muxer, usual = AUDIO_TYPES[kind]
    with av.open(path, "w", format=muxer, options=muxer_options or {}) as container:
        container.metadata.update(tags or {})
        track = container.add_stream(
            codec or usual, rate=SOUND_RATE, layout="stereo", options=codec_options or {}
        )
        if cover is not None:
            _attach(container, cover)
        _sing(container, track, tone(2.0) if samples is None else samples)
    return path


def tone(seconds: float, loudness: float = 0.5) -> np.ndarray:
    """A tone of 440 Hz in two channels, floats of shape (2, n)."""
    time = np.arange(round(seconds * SOUND_RATE), dtype=np.float32) / SOUND_RATE
    return np.tile(loudness * np.sin(2 * np.pi * 440 * time), (2, 1)).astype(np.float32)


def flac_with_cover(path: Path, picture: bytes) -> Path:
    """Write two seconds of FLAC with the JPEG ``picture`` as its front cover (RFC 9639, section 8.8)."""
    data = audio(path, "flac").read_bytes()
    kind = b"image/jpeg"
    sizes = b"".join(value.to_bytes(4) for value in (0, 64, 64, 24, 0, len(picture)))  # no description first
    block = (3).to_bytes(4) + len(kind).to_bytes(4) + kind + sizes + picture
    end = 4 + 4 + int.from_bytes(data[5:8])  # the mark, and the first block with its head
    path.write_bytes(data[:end] + b"\x06" + len(block).to_bytes(3) + block + data[end:])
    return path


def cover_picture() -> bytes:
    """A JPEG of 64 x 64 pixels."""
    return encoded(corners((64, 64)))


def _attach(container: Any, jpeg: bytes) -> None:
    image = Image.open(BytesIO(jpeg))
    stream = container.add_stream("mjpeg")
    stream.width, stream.height, stream.pix_fmt = *image.size, "yuvj420p"
    stream.disposition = av.stream.Disposition.attached_pic
    stream.codec_context.time_base = Fraction(1, RATE)
    packet = av.Packet(jpeg)
    packet.stream, packet.pts, packet.dts = stream, 0, 0
    packet.time_base = Fraction(1, RATE)
    container.start_encoding()
    container.mux(packet)


def _draw(container: Any, stream: Any, count: int, paint: Painter, colours: dict[str, int]) -> None:
    for number in range(count):
        frame = av.VideoFrame.from_ndarray(np.asarray(paint(number)))
        frame = frame.reformat(format=stream.pix_fmt, dst_colorspace=colours.get("colorspace", 5))
        frame.pts, frame.time_base = number, Fraction(1, RATE)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def _sing(container: Any, track: Any, samples: np.ndarray) -> None:
    resampler = av.AudioResampler(track.format, track.layout, track.rate, track.frame_size or 1024)
    for start in range(0, samples.shape[1], 4096):
        block = np.ascontiguousarray(samples[:, start : start + 4096])
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, start, Fraction(1, SOUND_RATE)
        for piece in resampler.resample(frame):
            container.mux(track.encode(piece))
    for piece in resampler.resample(None):
        container.mux(track.encode(piece))
    container.mux(track.encode())
