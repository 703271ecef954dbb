"""What video and audio files say of themselves: tags, dates, places, tracks; bounded and cleaned."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.subtitles.stream import SubtitleStream

from pipeline.media.av_ends import movie_seconds
from pipeline.media.av_probe import Opened, cover_of, has_decoder, in_seconds
from pipeline.media.told import Gps, position, signed_degrees, text_of
from pipeline.media.when import Candidate, Captured, DateField, choose

Tags = dict[str, str]

_APPLE = "com.apple.quicktime."
#: our name of each text that people write or read, and the tags that may hold it, best first
_TEXTS = {
    "title": ("title", f"{_APPLE}title", "displayname", f"{_APPLE}displayname"),
    "artist": ("artist", f"{_APPLE}artist", "author", f"{_APPLE}author", "performer"),
    "album": ("album", f"{_APPLE}album"),
    "album_artist": ("album_artist", "albumartist", "album artist"),
    "track": ("track", "tracknumber"),
    "disc": ("disc", "discnumber"),
    "composer": ("composer",),
    "genre": ("genre",),
    "date": ("date", "year", "originaldate"),
    "show": ("show",),
    "description": ("description", f"{_APPLE}description", "synopsis", "summary"),
    "comment": ("comment", f"{_APPLE}comment"),
    "keywords": ("keywords", f"{_APPLE}keywords"),
    "lyrics": ("lyrics", "unsyncedlyrics", "lyrics-xxx", "lyrics-eng"),
    "copyright": ("copyright", f"{_APPLE}copyright"),
    "publisher": ("publisher", "label"),
    "software": (f"{_APPLE}software", "software", "encoder", "encoded_by"),
}
_SEARCHED = tuple(name for name in _TEXTS if name not in {"title", "track", "disc", "date", "software"})
_LONG = {"lyrics": 20_000, "description": 10_000}  # characters kept; of others what told.text_of keeps
_CAMERA = {
    "make": (f"{_APPLE}make", "make", "com.android.manufacturer"),
    "model": (f"{_APPLE}model", "model", "com.android.model"),
    "lens": (f"{_APPLE}camera.lens_model", "lens_model", "lens"),
}
_PLACES = (f"{_APPLE}location.iso6709", "location", "location-eng", "xyz")
_DATES = (
    (f"{_APPLE}creationdate", DateField.QUICKTIME_CREATED),
    ("creation_time", DateField.CONTAINER_CREATED),
    ("date_recorded", DateField.TAG),
    ("date", DateField.TAG),
)
_MOST_CHAPTERS = 500
_LONGEST = 1000 * 3600.0  # seconds: nothing that is said to last longer does
_TIMECODE = re.compile(r"\d\d:\d\d:\d\d[:;.]\d{2,3}", re.ASCII)
_ISO6709 = re.compile(
    r"([+-])(\d{2,6})(\.\d{1,12})?([+-])(\d{3,7})(\.\d{1,12})?([+-]\d{1,6}(?:\.\d{1,12})?)?", re.ASCII
)


def tags_of(opened: Opened, *streams: Stream) -> Tags:
    """The tags of the file and, where it lacks them, of ``streams``: names in small letters, clean texts."""
    tags: Tags = {}
    for source in (opened.container.metadata, *(one.metadata for one in streams)):
        for name, value in source.items():
            key = name.lower()
            text = text_of(value, _LONG.get(key.removeprefix(_APPLE).split("-")[0], 1000))
            if text is not None:
                tags.setdefault(key, text)
    return tags


def texts_of(tags: Tags) -> Tags:
    """What people wrote, and the program that wrote the file, under our names."""
    return _first_of(tags, _TEXTS)


def camera_of(tags: Tags) -> Tags:
    """Make, model and lens."""
    return _first_of(tags, _CAMERA)


def searched(texts: Tags, chapters: Iterable[str], limit: int) -> str:
    """``texts`` and the names of chapters as one text for the search, of ``limit`` characters at most."""
    return "\n".join([texts[name] for name in _SEARCHED if name in texts] + list(chapters))[:limit]


def captured_of(tags: Tags, *, dated: bool) -> Captured:
    """When it was recorded; ``dated`` says whether a plain date tag counts: of a song it is the release's."""
    fields = [(name, field) for name, field in _DATES if dated or field is not DateField.TAG]
    return choose(Candidate(field, tags[name]) for name, field in fields if name in tags)


def place_of(tags: Tags, notes: list[str]) -> tuple[Gps | None, float | None]:
    """Position and metres above the sea; None, and a note, for what is empty or off the globe (ISO 6709)."""
    text = next((tags[name] for name in _PLACES if name in tags), None)
    if text is None:
        return None, None
    match = _ISO6709.match(text)
    if match is None:
        return position(None, None, notes), None
    latitude = _degrees(match[1], match[2], match[3], "NS")
    longitude = _degrees(match[4], match[5], match[6], "EW")
    gps = position(latitude, longitude, notes)
    return gps, float(match[7]) if match[7] and gps else None


def _degrees(sign: str, digits: str, rest: str | None, letters: str) -> float | None:
    """DD, DDMM or DDMMSS (three digits of degrees for a longitude) with decimals on the last, as degrees."""
    whole = 2 if letters == "NS" else 3
    groups = [digits[:whole], *(digits[at : at + 2] for at in range(whole, len(digits), 2))]
    if any(len(group) < 2 for group in groups) or len(groups) > 3:  # noqa: PLR2004 - two digits, three units
        return None
    parts = [float(group) for group in groups]
    parts[-1] += float(f"0{rest or ''}")
    parts += [0.0] * (3 - len(parts))
    return signed_degrees(parts, letters[0] if sign == "+" else letters[1], letters)


def duration_of(opened: Opened, stream: Stream | None, notes: list[str]) -> float | None:
    """Seconds, by the header; None, and a note, for what cannot be.

    Where the file has a whole index, as MP4 and AVI do, a header that tells of twice as much is not believed.
    """
    said = opened.container.duration
    seconds = (
        said / 1e6
        if said is not None and said > 0
        else in_seconds(stream, stream.duration if stream else None)
    )
    if seconds is None or seconds <= 0:
        return None
    indexed = _indexed(stream) if stream is not None and opened.format in {"mov", "avi"} else None
    if indexed is not None and seconds > 2 * indexed + 1:
        notes.append(
            f"The header tells of {seconds:.0f} seconds, the index of {indexed:.0f}; the index counts."
        )
        return indexed
    if opened.format == "mov" and (told := movie_seconds(opened.path)) > 2 * seconds + 1:
        notes.append(
            f"The header tells of {told:.0f} seconds, the tracks of {seconds:.0f}; the tracks count."
        )
    if seconds > _LONGEST:
        notes.append(f"The header tells of {seconds / 3600:.0f} hours, which was not believed.")
        return None
    return seconds


def _indexed(stream: Stream) -> float | None:
    """Where the last frame of the index ends, from the first one; None without an index."""
    entries = stream.index_entries
    count = len(entries)
    if count < 2:  # noqa: PLR2004 - one is no distance
        return None
    first, last = entries[0].timestamp, entries[count - 1].timestamp
    return in_seconds(stream, round((last - first) * count / (count - 1)))


def audio_track(stream: AudioStream) -> dict[str, Any]:
    """A track of sound, as JSON."""
    track: dict[str, Any] = {"codec": codec_of(stream), **spoken(stream)}
    if not has_decoder(stream):
        return track
    context = stream.codec_context
    lossless = track["codec"].startswith("pcm") or track["codec"] in {"flac", "alac"}
    return track | present(
        profile=stream.profile,
        channels=stream.channels,
        layout=stream.layout.name,
        sample_rate=context.sample_rate,
        bits=_bits(stream) if lossless else None,
        bit_rate=context.bit_rate,
    )


def subtitle_tracks(opened: Opened) -> list[dict[str, Any]]:
    """The tracks of text, as JSON."""
    return [
        {
            "codec": codec_of(one),
            **spoken(one),
            **({"forced": True} if one.disposition & Disposition.forced else {}),
        }
        for one in opened.streams
        if isinstance(one, SubtitleStream)
    ]


def codec_of(stream: Stream) -> str:
    """The codec's name, whichever decoder would be used; "unknown" where there is none for it."""
    return stream.codec_context.codec.canonical_name if has_decoder(stream) else "unknown"


def spoken(stream: Stream) -> Tags:
    """Language and title of a track."""
    language = text_of(stream.metadata.get("language"), 35)
    return present(
        language=None if language == "und" else language, title=text_of(stream.metadata.get("title"))
    )


def timecode_of(opened: Opened) -> str | None:
    """The start's timecode, as SMPTE writes it."""
    for source in (opened.container.metadata, *(one.metadata for one in opened.streams)):
        match = _TIMECODE.fullmatch(source.get("timecode", ""))
        if match:
            return match[0]
    return None


def chapters_of(container: InputContainer) -> list[str]:
    """The names of the chapters, clean; empty where they have none."""
    chapters = container.chapters()[:_MOST_CHAPTERS]
    return [text_of(chapter["metadata"].get("title"), 200) or "" for chapter in chapters]


def cover_details(opened: Opened) -> dict[str, Any] | None:
    """What the picture that came with the file is; None where there is none that can be opened."""
    image = cover_of(opened)
    if image is None:
        return None
    return {"format": image.format, "width": image.width, "height": image.height}


def container_of(opened: Opened) -> str:
    """The name of the container: mp4 and mov, matroska and webm are told apart by what they say."""
    if opened.format == "mov":
        return "mov" if opened.container.metadata.get("major_brand", "qt  ") == "qt  " else "mp4"
    if opened.format == "matroska":
        return "webm" if opened.head.find(b"webm") > 0 else "matroska"
    return opened.format


def passed_over(opened: Opened) -> list[str]:
    """A warning of the streams that were not looked at."""
    there, read = len(opened.container.streams), len(opened.streams)
    return [f"Of {there} tracks only the first {read} were read."] if there > read else []


def rate(frames: Fraction | None) -> float | None:
    """Frames a second as a number; None for what no camera does."""
    return round(float(frames), 3) if frames and 0 < frames <= 10_000 else None  # noqa: PLR2004


def present(**values: Any) -> dict[str, Any]:
    """The values that are there: not None, not empty, not 0."""
    return {
        name: value
        for name, value in values.items()
        if value and not (isinstance(value, float) and math.isnan(value))
    }


def _bits(stream: AudioStream) -> int | None:
    """Bits of a sample as stored: PCM's codec says so in its name; others by what they decode to."""
    match = re.match(r"pcm_[a-z](\d+)", codec_of(stream))
    if match:
        return int(match[1])
    form: Any = stream.format  # None before the codec is known
    return int(form.bits) if form else None


def _first_of(tags: Tags, names: Mapping[str, tuple[str, ...]]) -> Tags:
    found = {}
    for name, keys in names.items():
        text = next((tags[key] for key in keys if key in tags), None)
        if text is not None:
            found[name] = text
    return found
