"""Which module reads which type of file. Each is imported when the first file of its type comes."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from pipeline.errors import PermanentStageError
from pipeline.media.kinds import BY_MIME_TYPE, FOUNTAIN, PDF, RAW, TEXT, XMP, Kind
from pipeline.media.reader import Reader

_OF_KIND = {Kind.IMAGE: "stills", Kind.VECTOR: "vector", Kind.VIDEO: "video", Kind.AUDIO: "audio"}
_OF_TYPE = {**dict.fromkeys(RAW, "raw"), PDF: "pdf", TEXT: "text", FOUNTAIN: "fountain", XMP: "sidecar"}


def reader_of(mime_type: str | None) -> Reader:
    """The reader of files of ``mime_type``, as sniffing has said it.

    Raises:
        PermanentStageError: UNSUPPORTED_TYPE.
    """
    file_type = BY_MIME_TYPE.get(mime_type or "")
    if file_type is None:
        raise PermanentStageError(
            f"Files of type {mime_type or 'unknown'} are not read here.", code="UNSUPPORTED_TYPE"
        )
    name = _OF_TYPE.get(file_type) or _OF_KIND[file_type.kind]
    return cast("Reader", import_module(f"pipeline.media.{name}"))
