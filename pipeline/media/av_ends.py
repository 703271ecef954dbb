"""Whether a container is longer than its file: an upload or a copy that broke off."""

from __future__ import annotations

import struct
from io import BufferedReader
from pathlib import Path

from pipeline.media import boxes

_MOST_CHUNKS = 10_000  # of a gigabyte each
_RIFF_SLACK = 8  # some writers count the chunk's own head
_UNFINISHED = 0xFFFFFF00  # of a RIFF chunk: above are the sizes of writers that could not go back
_ID3_HEAD = 10
_FIRST_FRAME = 4096  # bytes behind the tag in which an MP3 has its header
_HAS_FRAMES, _HAS_BYTES = 1, 2  # of a Xing header's flags
_OGG_TAIL = 65_536  # bytes: more than a page can have
_OGG_LAST = 4  # of a page's flags
_UNKNOWN_LENGTHS = (0xFFFFFFFF, 0xFFFFFFFF_FFFFFFFF)
_ADTS_HEAD, _ADTS_LONGEST = 7, 8191  # bytes of a frame's head, and of a frame
_ADTS_ENOUGH = 2  # frames, each where the one before ends: not by chance
_VINT_HEAD = 12  # bytes: an identifier of 4 and a length of 8
_MATROSKA_SEGMENT = 0x18538067


def ends_early(path: Path, name: str) -> bool:
    """Whether ``path``, of the demuxer ``name``, lacks bytes that its outermost boxes tell of.

    False for formats that do not tell, and for files whose writer never came to fill the size in.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if name == "mov":
            return boxes.ends_early(file, size)
        if name in {"avi", "wav"}:
            return _riff(file, size)
        if name == "mp3":
            return _mpeg(file, size)
        return name == "matroska" and _segment(file, size)


def id3_length(head: bytes) -> int:
    """Bytes of the ID3v2 tag at the start of ``head`` (ID3v2.4, section 3.1); 0 without one."""
    if not head.startswith(b"ID3") or len(head) < _ID3_HEAD:
        return 0
    length = 0
    for seven_bits in head[6:10]:
        length = length << 7 | seven_bits & 0x7F
    return length + _ID3_HEAD


def mpeg_header(file: BufferedReader) -> bytes:
    """An MP3's header of Xing or VBRI from its name on, as much as there may be of it; empty without one."""
    file.seek(0)
    file.seek(id3_length(file.read(_ID3_HEAD)))
    start = file.read(_FIRST_FRAME)
    places = [place for name in (b"Xing", b"Info", b"VBRI") if (place := start.find(name)) >= 0]
    return start[min(places) :] if places else b""


def has_last_page(path: Path) -> bool:
    """Whether the last page of an Ogg file is marked as the last of its stream (RFC 3533, section 6)."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _OGG_TAIL))
        tail = file.read()
    flags = tail[tail.rfind(b"OggS") :][5:6]
    return bool(flags and flags[0] & _OGG_LAST)


def promises_more(head: bytes, size: int) -> bool:
    """Whether the first chunks of a WAV, or its samples alone, are said to have more than ``size`` bytes."""
    lengths = (head[4:8], head.partition(b"data")[2][:4])
    return head.startswith(b"RIFF") and any(int.from_bytes(one, "little") > size for one in lengths)


def movie_seconds(path: Path) -> float:
    """What the header of an MP4 or QuickTime file says of its length (ISO/IEC 14496-12, 8.2.2); 0 without."""
    with path.open("rb") as file:
        found = boxes.find(file, boxes.whole(path), b"moov", b"mvhd")
        data = boxes.payload(file, found, 32) if found else b""
    if len(data) < 32:  # noqa: PLR2004 - up to the length, in either version
        return 0.0
    scale, length = (
        struct.unpack_from(">IQ", data, 20) if data[0] == 1 else struct.unpack_from(">II", data, 12)
    )
    return length / scale if scale and length not in _UNKNOWN_LENGTHS else 0.0


def ends_in_a_frame(path: Path) -> bool:
    """Whether the last frame of ADTS (ISO/IEC 13818-7, section 6.2) is longer than the rest of the file."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2 * _ADTS_LONGEST))
        tail = file.read()
    for start in range(min(_ADTS_LONGEST, len(tail))):
        at, frames = start, 0
        while length := _adts_length(tail[at : at + _ADTS_HEAD]):
            at, frames = at + length, frames + 1
        if frames >= _ADTS_ENOUGH:
            return at > len(tail) or 0 < len(tail) - at < _ADTS_HEAD
    return False


def _adts_length(head: bytes) -> int:
    """Bytes of the frame that ``head`` begins; 0 where none does."""
    if len(head) < _ADTS_HEAD or head[0] != 0xFF or head[1] & 0xF6 != 0xF0:  # noqa: PLR2004 - 12 ones, layer 0
        return 0
    return (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5


def _mpeg(file: BufferedReader, size: int) -> bool:
    """The Xing header: a name, flags, the number of frames and of bytes where the flags say so."""
    header = mpeg_header(file)
    if not header or header.startswith(b"VBRI") or len(header) < 16:  # noqa: PLR2004 - four numbers
        return False
    _name, flags, first, second = struct.unpack(">4sIII", header[:16])
    if not flags & _HAS_BYTES:
        return False
    file.seek(0)
    return bool(id3_length(file.read(_ID3_HEAD)) + (second if flags & _HAS_FRAMES else first) > size)


def _riff(file: BufferedReader, size: int) -> bool:
    """A chain of RIFF chunks: AVI continues beyond a gigabyte in further ones (OpenDML)."""
    start = 0
    for _ in range(_MOST_CHUNKS):
        file.seek(start)
        head = file.read(8)
        if len(head) < 8 or head[:4] not in {b"RIFF", b"RIFX"}:  # noqa: PLR2004 - RF64 has its size elsewhere
            return False
        (length,) = struct.unpack(">I" if head[:4] == b"RIFX" else "<I", head[4:])
        if length == 0 or length >= _UNFINISHED:
            return False
        start += 8 + length + (length & 1)
        if start > size + _RIFF_SLACK:
            return True
    return False


def _segment(file: BufferedReader, size: int) -> bool:
    """RFC 8794, sections 4 to 6: an identifier and a length, both of variable size; all ones: unknown."""
    start = 0
    for _ in ("EBML", "Segment"):
        file.seek(start)
        head = file.read(_VINT_HEAD)
        identifier, used, _all_ones = _vint(head, keep_marker=True)
        length, more, unknown = _vint(head[used:], keep_marker=False)
        if not used or not more or unknown:
            return False
        start += used + more + length
        if identifier == _MATROSKA_SEGMENT:
            return start > size
    return False


def _vint(data: bytes, *, keep_marker: bool) -> tuple[int, int, bool]:
    """The number of variable size at the start of ``data``, its bytes (0: none), whether it is all ones."""
    if not data or not data[0]:
        return 0, 0, False
    used = 9 - data[0].bit_length()
    if len(data) < used:
        return 0, 0, False
    whole = int.from_bytes(data[:used])
    value = whole & ((1 << 7 * used) - 1)
    return (whole if keep_marker else value), used, value == (1 << 7 * used) - 1
