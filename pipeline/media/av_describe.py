"""What video and audio files have in common to say of themselves."""

from __future__ import annotations

from typing import Any

from av.stream import Stream

from pipeline.media import av_facts as facts
from pipeline.media.av_probe import Opened
from pipeline.media.reader import Description, Limits


def describe_media(
    opened: Opened,
    stream: Stream | None,
    limits: Limits,
    *,
    seconds: float | None,
    notes: list[str],
    dated: bool,
    **own: Any,
) -> Description:
    """The file, by its tags and those of ``stream``, without a picture's size.

    ``seconds`` is the duration, ``notes`` the warnings so far, ``dated`` as in ``av_facts.captured_of``, and
    ``own`` the details of its kind.
    """
    tags = facts.tags_of(opened, *([stream] if stream else []))
    texts, chapters = facts.texts_of(tags), facts.chapters_of(opened.container)
    captured = facts.captured_of(tags, dated=dated)
    gps, altitude = facts.place_of(tags, notes)
    details = facts.present(
        container=facts.container_of(opened),
        bit_rate=round(opened.size * 8 / seconds) if seconds else None,
        **own,
        audio=[facts.audio_track(one) for one in opened.audios()],
        chapters=len(chapters),
        camera=facts.camera_of(tags),
        tags=texts,
        altitude_m=altitude,
        cover=facts.cover_details(opened),
        **captured.details(),
    )
    return Description(
        captured_at=captured.at,
        gps=gps,
        duration_seconds=seconds,
        title=texts.get("title"),
        text=facts.searched(texts, chapters, limits.text),
        details=details,
        warnings=(*notes, *captured.warnings, *facts.passed_over(opened)),
    )
