"""Video and audio that mean harm."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
from PIL import Image

from tests import media_files
from tests.hostile import good
from tests.hostile.blocks import MILLION, png, zeros
from tests.hostile.case import SECRET_COLOUR, SECRET_TEXT, Case
from tests.hostile.pictures import UNKNOWN

NO_VIDEO, CUT_VIDEO, NO_AUDIO, CUT_AUDIO = (
    "CORRUPT_VIDEO",
    "TRUNCATED_VIDEO",
    "CORRUPT_AUDIO",
    "TRUNCATED_AUDIO",
)
HOURS_S = 36_000
FTYP = struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 512, b"isom")
_CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl"}


def box(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(body), name) + body


def edited(data: bytes, edit: Callable[[bytes, bytes], bytes]) -> bytes:
    """An MP4 in which ``edit`` has replaced the content of every box, by name; sizes follow."""
    out, at = b"", 0
    while at < len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + size]
        out += box(name, edited(body, edit) if name in _CONTAINERS else edit(name, body))
        at += size
    return out


def mp4(edit: Callable[[bytes, bytes], bytes], extension: str = "mp4") -> Callable[[Path], bytes]:
    """The sound MP4 with some of its boxes replaced. Its index is behind the frames, whose places stay."""
    return lambda path: edited(good.made(extension, path), edit)


def long(name: bytes, body: bytes) -> bytes:
    """The movie and its tracks are said to take ten hours."""
    if name in {b"mvhd", b"mdhd"}:
        (scale,) = struct.unpack_from(">I", body, 12)
        return body[:16] + struct.pack(">I", scale * HOURS_S) + body[20:]
    if name == b"tkhd":
        return body[:20] + struct.pack(">I", 1000 * HOURS_S) + body[24:]
    return body


def timeless(name: bytes, body: bytes) -> bytes:
    """The clocks do not tick."""
    return body[:12] + bytes(4) + body[16:] if name in {b"mvhd", b"mdhd"} else body


def misplaced(name: bytes, body: bytes) -> bytes:
    """The index leads past the end, and tells of samples of 2 GB."""
    if name in {b"stco", b"co64", b"stsc"}:
        return body[:8] + b"\x7f\xff\xff\xf0" * (len(body[8:]) // 4)
    return body[:4] + b"\x7f\xff\xff\xf0" + body[8:] if name == b"stsz" else body


def countless(name: bytes, body: bytes) -> bytes:
    """There are 4,294,967,295 samples of a byte, none of which lasts."""
    if name == b"stsz":
        return struct.pack(">III", 0, 1, 0xFFFFFFFF)
    return struct.pack(">IIII", 0, 1, 0xFFFFFFFF, 0) if name == b"stts" else body


def still_standing(name: bytes, body: bytes) -> bytes:
    """No sample lasts."""
    return struct.pack(">IIII", 0, 1, 35, 0) if name == b"stts" else body


def edits(name: bytes, body: bytes) -> bytes:
    """An edit list of 400,000 entries that goes to and fro."""
    if name != b"elst":
        return body
    return struct.pack(">II", 0, 400_000) + struct.pack(">IiI", 10, 0, 65536) * 400_000


def elsewhere(path: Path) -> bytes:
    """A QuickTime reference movie: its frames are in another file, which is of the secret colour."""
    other = path.with_name("frames.mov")
    colour = Image.new("RGB", good.FILM, SECRET_COLOUR)
    media_files.video(other, "mov", seconds=1.4, size=good.FILM, paint=lambda _: colour)

    def edit(name: bytes, body: bytes) -> bytes:
        if name != b"dref":
            return body
        return struct.pack(">II", 0, 1) + box(b"url ", bytes(4) + f"{other.as_uri()}\0".encode())

    return edited(good.made("mov", path), edit)


def nested(_path: Path) -> bytes:
    """10,000 movies in one another."""
    body = b""
    for _ in range(10_000):
        body = box(b"moov", body)
    return FTYP + body


def streams(kind: str, count: int) -> Callable[[Path], object]:
    """A file of ``count`` tracks of sound, of one packet each."""

    def make(path: Path) -> None:
        with av.open(path, "w", format=kind) as container:
            tracks: list[Any] = [
                container.add_stream("pcm_s16le", rate=8000, layout="mono") for _ in range(count)
            ]
            container.start_encoding()
            for track in tracks:
                packet = av.Packet(bytes(64))
                packet.stream, packet.pts, packet.dts, packet.time_base = track, 0, 0, track.time_base
                container.mux(packet)

    return make


def ebml(identifier: bytes, body: bytes, length: bytes | None = None) -> bytes:
    """An element of Matroska; its length is that of ``body``, unless told otherwise."""
    return identifier + ((1 << 56 | len(body)).to_bytes(8) if length is None else length) + body


UNTOLD = b"\x01" + b"\xff" * 7  # a length that the end will tell
EBML_HEAD = ebml(b"\x1a\x45\xdf\xa3", b"\x42\x82\x88matroska")
SEGMENT, CLUSTER, VOID = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75", b"\xec"


def voids(_path: Path) -> bytes:
    """A Matroska of nothing but void elements, of no told length."""
    return EBML_HEAD + ebml(SEGMENT, ebml(VOID, b"") * MILLION, UNTOLD)


def clusters(_path: Path) -> bytes:
    """A Matroska of 100,000 levels of clusters that do not tell their length."""
    return EBML_HEAD + SEGMENT + UNTOLD + (CLUSTER + UNTOLD) * 100_000


def endless_packets(path: Path) -> bytes:
    """A Matroska whose track has a million empty frames, all at the same time, behind its frames."""
    data = good.made("mkv", path)
    block = ebml(b"\xa3", b"\x81\0\0\x80")
    at = data.index(SEGMENT)
    return (
        data[:at] + SEGMENT + UNTOLD + data[at + 12 :] + ebml(CLUSTER, ebml(b"\xe7", b"\0") + block * MILLION)
    )


def swollen(side: int) -> Callable[[Path], bytes]:
    """A video of 64 x 36 pixels whose first frame has ``side`` squared: VP9 says so in each key frame."""

    def make(path: Path) -> bytes:
        data = bytearray(good.made("webm", path))
        at = data.index(b"\x49\x83\x42")
        bits = int.from_bytes(data[at + 3 : at + 9]) & ~(0xFFFFFFFF << 12)
        data[at + 3 : at + 9] = (bits | (side - 1 << 16 | side - 1) << 12).to_bytes(6)
        return bytes(data)

    return make


def oversized(path: Path) -> bytes:
    """An AVI that claims 60,000 x 60,000 pixels."""
    data = good.made("avi", path)
    return data.replace(struct.pack("<II", *good.FILM), struct.pack("<II", 60_000, 60_000))


def riff(kind: bytes, body: bytes, size: int | None = None) -> bytes:
    return b"RIFF" + struct.pack("<I", len(body) + 4 if size is None else size) + kind + body


def wav(*, claimed: int, channels: int = 2, rate: int = 48_000, whole: int | None = None) -> bytes:
    """A WAV of 64 KB that claims ``claimed`` bytes of sound, and ``whole`` bytes in all."""
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * 4 & 0xFFFFFFFF, 4, 16)
    sound = b"data" + struct.pack("<I", claimed) + bytes(64_000)
    return riff(b"WAVE", b"fmt " + struct.pack("<I", 16) + form + sound, whole)


def id3(frame: bytes, size: int | None = None) -> bytes:
    """An MP3 behind a tag of ``frame``."""
    length = len(frame) if size is None else size
    sizes = bytes(length >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\4\0\0" + sizes + frame


def packed_tag(path: Path) -> bytes:
    """An MP3 with a cover that inflates to a gigabyte."""
    body = (1000 * MILLION).to_bytes(4) + zeros(1000)  # its length, which the flags announce
    sizes = bytes(len(body) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return id3(b"APIC" + sizes + b"\0\x09" + body) + good.made("mp3", path)


def large_cover(path: Path) -> bytes:
    """A FLAC with a cover of 60,000 x 60,000 pixels."""
    return media_files.flac_with_cover(path, png(size=(60_000, 60_000), bits=1)).read_bytes()


def ogg_streams(path: Path) -> bytes:
    """An Ogg of 300 streams, all of which begin."""
    first = good.made("ogg", path)
    page = first[: first.index(b"OggS", 4)]
    pages = (page[:14] + number.to_bytes(4, "little") + page[18:] for number in range(300))
    return b"".join(map(summed, pages)) + first


def summed(page: bytes) -> bytes:
    """A page of Ogg with its checksum (RFC 3533, section 6)."""
    plain, value = page[:22] + bytes(4) + page[26:], 0
    for byte in plain:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)) & 0xFFFFFFFF
    return page[:22] + value.to_bytes(4, "little") + page[26:]


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://%s\n#EXT-X-ENDLIST\n"
CONCAT, DASH = (
    "ffconcat version 1.0\nfile '%s'\n",
    "<?xml version='1.0'?><MPD><BaseURL>file://%s</BaseURL></MPD>",
)


def playlist(text: str) -> Callable[[Path], str]:
    return lambda path: text % path.with_name(SECRET_TEXT)


def far(name: bytes, body: bytes) -> bytes:
    """The index leads 2^50 bytes on, further than file systems let seek."""
    if name != b"stco":
        return body
    return body[:8] + struct.pack(">Q", 1 << 50) * (len(body[8:]) // 4)


def far_index(path: Path) -> bytes:
    data = edited(good.made("mp4", path), far)
    return data.replace(b"stco", b"co64")


def far_segment(path: Path) -> bytes:
    """A Matroska whose header claims 2^50 bytes."""
    data = good.made("mkv", path)
    length = data[4] & 0x7F
    return data[:4] + (1 << 56 | 1 << 50).to_bytes(8) + data[5 : 5 + length] + data[5 + length :]


def far_cues(path: Path) -> bytes:
    """A Matroska whose index leads 2^50 bytes on."""
    data = good.made("mkv", path)
    at = data.index(b"\x1c\x53\xbb\x6b", 200)
    place = ebml(b"\xb7", ebml(b"\xf7", b"\1") + ebml(b"\xf1", (1 << 50).to_bytes(8)))
    return data[:at] + ebml(data[at : at + 4], ebml(b"\xbb", ebml(b"\xb3", b"\0") + place))


def far_chunk(path: Path) -> bytes:
    """An AVI whose index leads 4 GB on."""
    data = good.made("avi", path)
    at = data.rindex(b"idx1") + 8
    return data[:at] + b"".join(
        data[one : one + 8] + b"\xff" * 4 + data[one + 12 : one + 16] for one in range(at, len(data) - 15, 16)
    )


VIDEOS = (
    Case("Video whose index leads 2^50 bytes on", "a.mp4", far_index, NO_VIDEO),
    Case("Video whose header claims 2^50 bytes", "a.mkv", far_segment, NO_VIDEO),
    Case("Video whose cues lead 2^50 bytes on", "a.mkv", far_cues),
    Case("Video whose index leads 4 GB on", "a.avi", far_chunk),
    Case("Video that claims 10 hours", "a.mp4", mp4(long)),
    Case("Video whose clocks stand still", "a.mp4", mp4(timeless)),
    Case("Video whose index leads past its end", "a.mp4", mp4(misplaced), NO_VIDEO),
    Case("Video of 4,294,967,295 samples", "a.mp4", mp4(countless), warning="No frame"),
    Case("Video whose frames take no time", "a.mp4", mp4(still_standing)),
    Case("Video with 400,000 edits", "a.mp4", mp4(edits)),
    Case("Video with 300 tracks, QuickTime", "a.mov", streams("mov", 300), "TOO_MANY_STREAMS"),
    Case("Video with 300 tracks, Matroska", "a.mkv", streams("matroska", 300), "TOO_MANY_STREAMS"),
    Case("Video of 36 lines whose frame has 16,384", "a.webm", swollen(16_384), warning="no moving pictures"),
    Case("Video of 36 lines whose frame has 15,000", "a.webm", swollen(15_000)),
    Case("Video that claims 60,000 x 60,000 pixels, with frames of 64 x 36", "a.avi", oversized),
    Case(
        "Video of 1,000,000 empty frames at one time: its decoder hangs",
        "a.mkv",
        endless_packets,
        warning="No frame",
    ),
    Case("Video of 1,000,000 void elements", "a.mkv", voids, NO_VIDEO),
    Case("Video of 100,000 levels of clusters", "a.mkv", clusters, NO_VIDEO),
    Case("Video of 10,000 levels of boxes", "a.mp4", nested, NO_VIDEO),
    Case(
        "Video with a box of 2^63 bytes",
        "a.mp4",
        lambda _: FTYP + b"\0\0\0\1moov" + (2**63 - 1).to_bytes(8) + bytes(99),
        CUT_VIDEO,
    ),
    Case(
        "Video with a box of 2^64 bytes",
        "a.mp4",
        lambda _: FTYP + b"\0\0\0\1mdat" + b"\xff" * 8 + bytes(99),
        CUT_VIDEO,
    ),
    Case("Video whose frames are another file", "a.mov", elsewhere),
    Case("Playlist named .mp4 (HLS)", "a.mp4", playlist(HLS), warning="The name says video/mp4"),
    Case("Playlist named .mp4 (concat)", "a.mp4", playlist(CONCAT), warning="The name says video/mp4"),
    Case("Playlist named .mp4 (DASH)", "a.mp4", playlist(DASH), UNKNOWN),
)
SOUNDS = (
    Case("WAV that promises 4 GB", "a.wav", lambda _: wav(claimed=0xFFFFFFFE, whole=0xFFFFFFFE)),
    Case("WAV that promises 2 GB", "a.wav", lambda _: wav(claimed=2**31, whole=2**31 + 36), CUT_AUDIO),
    Case("WAV whose data promise 4 GB", "a.wav", lambda _: wav(claimed=0xFFFFFFFE)),
    Case(
        "WAV of 65,535 channels and 4,294,967,295 Hz",
        "a.wav",
        lambda _: wav(claimed=64_000, channels=65_535, rate=0xFFFFFFFF),
        NO_AUDIO,
    ),
    Case("WAV of no channel and 0 Hz", "a.wav", lambda _: wav(claimed=64_000, channels=0, rate=0), NO_AUDIO),
    Case(
        "MP3 behind a tag that claims 256 MB",
        "a.mp3",
        lambda path: id3(b"", 2**28 - 1) + good.made("mp3", path),
        NO_AUDIO,
    ),
    Case("MP3 with a cover that inflates to a gigabyte", "a.mp3", packed_tag),
    Case("FLAC with a cover of 60,000 x 60,000 pixels", "a.flac", large_cover),
    Case("Ogg of 300 streams", "a.ogg", ogg_streams, "TOO_MANY_STREAMS"),
)
CASES = (*VIDEOS, *SOUNDS)
